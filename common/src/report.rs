//! What was sent, what came back, and whether it is the same.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::process::ExitCode;

use serde_json::json;

use crate::addr::HostPort;
use crate::args::ClientArgs;
use crate::{exit, output};

/// Rows kept from the start, and as many from the end, of each column of a long run.
pub const KEPT_ROWS: usize = 1000;

/// Rows shown from the start, and as many from the end, of a long list for a person.
const SHOWN_ROWS: usize = 10;

/// A report on one connection to an echo server.
///
/// It compares bytes, not counts, and holds only messages that are still outstanding. Tell it of
/// bytes before they are written: a thread that reads may see their echo at once.
#[derive(Clone, Debug)]
pub struct Report {
    server: String,
    sent: Column,
    received: Column,
    outstanding: Outstanding,
    difference: Option<Difference>,
}

/// The rows of one direction: how many bytes went in each call.
#[derive(Clone, Debug, Default)]
struct Column {
    first: Vec<usize>,
    last: VecDeque<usize>,
    rows: usize,
    bytes: u64,
}

/// The messages that have not come back, and how much of the first of them has.
#[derive(Clone, Debug, Default)]
struct Outstanding {
    messages: VecDeque<Message>,
    taken: usize,
}

/// What tells a message from others: buffers hold many thousands that are outstanding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(Kept);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    /// A message like the lecture's: a head, the last byte of which is repeated up to a last byte.
    Run { head: [u8; HEAD], last: u8, length: usize },
    /// Any other, as it is.
    Bytes(Box<[u8]>),
}

/// Bytes at the start of a message that may be anything: a number, say, and a frame's header.
const HEAD: usize = 16;
/// Bytes of the longest message that is kept as it is even if it is a run.
const LONG: usize = 2 * HEAD + 1;

/// The first byte that came back other than it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its offset, counted from 0 over the whole connection.
    pub offset: u64,
    /// The byte that was sent there; `None` if no more had been sent.
    pub sent: Option<u8>,
    /// The byte that was received there.
    pub received: u8,
}

/// Whether every byte came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every byte came back, and no other.
    AllBack,
    /// What came back is right, but so many bytes are missing at the end.
    Missing(u64),
    /// Something else came back.
    Different(Difference),
}

impl Report {
    /// An empty report on a connection to `server`.
    pub fn new(server: &HostPort) -> Self {
        Report {
            server: server.to_string(),
            sent: Column::default(),
            received: Column::default(),
            outstanding: Outstanding::default(),
            difference: None,
        }
    }

    /// One row more of bytes sent. No bytes are no row.
    pub fn sent(&mut self, data: &[u8]) {
        if !data.is_empty() {
            self.sent_messages([Message::new(data)]);
        }
    }

    /// As [`Report::sent`], of messages that are known: their bytes need not be looked at again.
    pub fn sent_messages(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            self.sent.add(message.length());
            if self.difference.is_none() {
                self.outstanding.messages.push_back(message);
            }
        }
    }

    /// One row more of bytes received, compared with those outstanding. No bytes, the end of the
    /// stream, are no row.
    ///
    /// # Errors
    /// More has come than was sent, status 1: who sends on and on must not keep a client for ever.
    pub fn received(&mut self, data: &[u8]) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let offset = self.received.bytes;
        self.received.add(data.len());
        if self.difference.is_none()
            && let Err((index, sent)) = self.outstanding.take(data)
        {
            let offset = offset + index as u64;
            self.difference = Some(Difference { offset, sent, received: data[index] });
            self.outstanding = Outstanding::default(); // there is nothing more to compare with
        }
        if self.received.bytes > self.sent.bytes { self.judge() } else { Ok(()) }
    }

    /// Bytes sent and received.
    pub fn totals(&self) -> (u64, u64) {
        (self.sent.bytes, self.received.bytes)
    }

    /// Whether every byte came back.
    pub fn verdict(&self) -> Verdict {
        match self.difference {
            Some(difference) => Verdict::Different(difference),
            None => match self.sent.bytes - self.received.bytes {
                0 => Verdict::AllBack,
                missing => Verdict::Missing(missing),
            },
        }
    }

    /// The verdict as a result.
    ///
    /// # Errors
    /// Not every byte came back; status 1.
    pub fn judge(&self) -> io::Result<()> {
        match self.verdict() {
            Verdict::AllBack => Ok(()),
            verdict => Err(exit::not_so(verdict)),
        }
    }

    /// Ends a client: prints this report as `args` ask, then the error, if `result` is one or not
    /// every byte came back. The status is the error's. If the run is void, there is nothing to
    /// report but the error.
    pub fn finish(self, args: &ClientArgs, result: io::Result<()>) -> ExitCode {
        let result = result.and_then(|()| self.judge());
        let printed = match (args.json, args.quiet) {
            (true, _) => output::print(format!("{}\n", self.json(result.as_ref().err()))),
            _ if self.is_void(result.as_ref().err()) => Ok(()),
            (false, true) => output::print(self.summary()),
            (false, false) => output::print(self.to_string()),
        };
        exit::finish(result.and(printed))
    }

    /// Whether the run failed before it came to anything that could be judged.
    pub fn is_void(&self, error: Option<&io::Error>) -> bool {
        error.is_some() && self.totals() == (0, 0)
    }

    /// The totals and the verdict, a line each.
    pub fn summary(&self) -> String {
        format!("total {:?}\nverdict: {}\n", self.totals(), self.verdict())
    }

    /// The report as one JSON object, with the `error` that ended the run, if one did. The rows in
    /// the middle of a long run are left out, and `…_left_out` says how many. The verdict is null
    /// if the run failed before any byte went out.
    pub fn json(&self, error: Option<&io::Error>) -> serde_json::Value {
        let verdict = (!self.is_void(error)).then(|| self.verdict().word());
        json!({
            "program": program(),
            "server": self.server,
            "sent": self.sent.kept(),
            "sent_left_out": self.sent.left_out(),
            "received": self.received.kept(),
            "received_left_out": self.received.left_out(),
            "totals": { "sent": self.sent.bytes, "received": self.received.bytes },
            "verdict": verdict,
            "first_difference": self.first_difference(),
            "error": error.map(exit::text),
        })
    }

    /// The offset of the first byte that is missing, different or too many.
    fn first_difference(&self) -> Option<u64> {
        match self.verdict() {
            Verdict::AllBack => None,
            Verdict::Missing(_) => Some(self.received.bytes),
            Verdict::Different(difference) => Some(difference.offset),
        }
    }
}

/// The rows of the lecture's `report()`: index, bytes sent, bytes received, the shorter column
/// padded with 0, a long list shortened in the middle; then [`Report::summary`].
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.sent.rows.max(self.received.rows);
        let left_out = rows.saturating_sub(2 * SHOWN_ROWS);
        let head = if left_out > 0 { SHOWN_ROWS } else { rows };
        writeln!(f, " n   sent  rcvd\n---------------")?;
        for n in (0..head).chain(head + left_out..rows) {
            if left_out > 0 && n == head + left_out {
                writeln!(f, "... {left_out} rows left out ...")?;
            }
            writeln!(f, "({n}, ({}, {}))", self.sent.row(n), self.received.row(n))?;
        }
        f.write_str(&self.summary())
    }
}

impl Outstanding {
    /// Takes `data` off, if it comes next; otherwise tells the index of the first byte that is not
    /// what was sent, and what was.
    fn take(&mut self, data: &[u8]) -> Result<(), (usize, Option<u8>)> {
        let mut index = 0;
        while index < data.len() {
            let Some(message) = self.messages.front() else { return Err((index, None)) };
            let length = (message.length() - self.taken).min(data.len() - index);
            if let Err(n) = message.compare(self.taken, &data[index..index + length]) {
                return Err((index + n, message.byte(self.taken + n)));
            }
            index += length;
            self.taken += length;
            if self.taken == message.length() {
                self.messages.pop_front();
                self.taken = 0;
            }
        }
        Ok(())
    }
}

impl Message {
    /// A message of `length` bytes that is known: `start`, then `fill` up to the `last` byte. `None`
    /// if such a message is kept as it is.
    pub(crate) fn run(start: &[u8], fill: u8, last: u8, length: usize) -> Option<Self> {
        let mut head = [fill; HEAD];
        head[..HEAD - 1].get_mut(..start.len())?.copy_from_slice(start);
        (length > LONG).then_some(Message(Kept::Run { head, last, length }))
    }

    pub(crate) fn new(data: &[u8]) -> Self {
        // The bytes of a run are all equal if it equals itself, one byte further on.
        let is_run = |rest: &[u8]| rest[HEAD - 1..rest.len() - 1] == rest[HEAD..];
        Message(match (data.first_chunk(), data.split_last()) {
            (Some(&head), Some((&last, rest))) if data.len() > LONG && is_run(rest) => {
                Kept::Run { head, last, length: data.len() }
            }
            _ => Kept::Bytes(data.into()),
        })
    }

    fn length(&self) -> usize {
        match &self.0 {
            Kept::Run { length, .. } => *length,
            Kept::Bytes(bytes) => bytes.len(),
        }
    }

    fn byte(&self, index: usize) -> Option<u8> {
        match &self.0 {
            Kept::Run { last, length, .. } if index == length - 1 => Some(*last),
            Kept::Run { head, .. } => Some(head[index.min(HEAD - 1)]),
            Kept::Bytes(bytes) => bytes.get(index).copied(),
        }
    }

    /// Compares `data` with the bytes from `start` on; an error is the index of the first that differs.
    fn compare(&self, start: usize, data: &[u8]) -> Result<(), usize> {
        let end = start + data.len();
        let same = match &self.0 {
            Kept::Bytes(bytes) => bytes[start..end] == *data,
            Kept::Run { head, last, length } => {
                let known = &head[start.min(HEAD)..end.min(HEAD)];
                let (first, rest) = data.split_at(known.len());
                let (run, tail) = rest.split_at(rest.len() - usize::from(end == *length));
                first == known
                    && run.first().is_none_or(|byte| *byte == head[HEAD - 1])
                    && (run.is_empty() || run[1..] == run[..run.len() - 1])
                    && tail.first().is_none_or(|byte| byte == last)
            }
        };
        let differs = |n: &usize| self.byte(start + n) != Some(data[*n]);
        if same { Ok(()) } else { Err((0..data.len()).find(differs).unwrap_or(0)) }
    }
}

impl Column {
    fn add(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes as u64;
        if self.first.len() < KEPT_ROWS {
            self.first.push(bytes);
            return;
        }
        if self.last.len() == KEPT_ROWS {
            self.last.pop_front();
        }
        self.last.push_back(bytes);
    }

    fn kept(&self) -> Vec<usize> {
        self.first.iter().chain(&self.last).copied().collect()
    }

    fn left_out(&self) -> usize {
        self.rows - self.first.len() - self.last.len()
    }

    /// Bytes in row `n`; 0 where there is no such row, or it was left out.
    fn row(&self, n: usize) -> usize {
        let in_last = || self.last.get(n.checked_sub(self.first.len() + self.left_out())?);
        self.first.get(n).or_else(in_last).copied().unwrap_or(0)
    }
}

impl Verdict {
    /// One word for scripts.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::AllBack => "all-back",
            Verdict::Missing(_) => "missing",
            Verdict::Different(_) => "different",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::AllBack => write!(f, "every byte came back"),
            Verdict::Missing(1) => write!(f, "1 byte is missing"),
            Verdict::Missing(bytes) => write!(f, "{bytes} bytes are missing"),
            Verdict::Different(Difference { offset, sent: Some(sent), received }) => {
                write!(f, "byte {offset} differs: sent {sent:#04x}, received {received:#04x}")
            }
            Verdict::Different(Difference { offset, sent: None, received }) => {
                write!(f, "byte {offset} was never sent: received {received:#04x}")
            }
        }
    }
}

/// The name this program was started by, without its folder.
fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&path).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn report() -> Report {
        Report::new(&"localhost:7".parse().unwrap())
    }

    /// A report on `sent` and `received`, in pieces that end where `cuts` say, a piece received as
    /// early as it can be.
    fn exchange(sent: &[u8], received: &[u8], cuts: &[Index]) -> Report {
        let mut report = report();
        let pieces = |data: &[u8]| -> Vec<Vec<u8>> {
            let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(data.len() + 1)).collect();
            ends.extend([0, data.len()]);
            ends.sort_unstable();
            ends.windows(2).map(|ends| data[ends[0]..ends[1]].to_vec()).collect()
        };
        let mut back = pieces(received).into_iter().peekable();
        for piece in pieces(sent) {
            report.sent(&piece);
            let known = report.sent.bytes;
            while let Some(piece) =
                back.next_if(|piece| report.received.bytes + piece.len() as u64 <= known)
            {
                let _ = report.received(&piece);
            }
        }
        back.for_each(|piece| drop(report.received(&piece)));
        report
    }

    /// The offset of the first byte that is not the same in both.
    fn first_difference(sent: &[u8], received: &[u8]) -> Option<u64> {
        let same = sent.iter().zip(received).take_while(|(a, b)| a == b).count();
        (same < sent.len().max(received.len())).then_some(same as u64)
    }

    /// Few different bytes, so that a missing or doubled one is not always followed by another; or
    /// a message as the lecture makes them, which is held in another way.
    fn data() -> impl Strategy<Value = Vec<u8>> {
        let made = (prop::collection::vec(0u8..3, 0..20), 0u8..3, 0usize..400, 0u8..3);
        prop_oneof![
            prop::collection::vec(0u8..3, 1..400),
            made.prop_map(
                |(head, byte, length, last)| [head, vec![byte; length], vec![last]].concat()
            ),
        ]
    }

    fn cuts() -> impl Strategy<Value = Vec<Index>> {
        prop::collection::vec(any::<Index>(), 0..20)
    }

    proptest! {
        #[test]
        fn any_split_of_the_echo_is_all_back(sent in data(), cuts in cuts()) {
            let report = exchange(&sent, &sent, &cuts);
            prop_assert_eq!(report.verdict(), Verdict::AllBack);
            prop_assert_eq!(report.outstanding.messages.len(), 0);
            prop_assert_eq!(report.received.bytes, sent.len() as u64);
        }

        #[test]
        fn a_flipped_byte_is_found(sent in data(), cuts in cuts(), at in any::<Index>()) {
            let (at, mut received) = (at.index(sent.len()), sent.clone());
            received[at] ^= 0x80;
            let difference =
                Difference { offset: at as u64, sent: Some(sent[at]), received: received[at] };
            let verdict = exchange(&sent, &received, &cuts).verdict();
            prop_assert_eq!(verdict, Verdict::Different(difference));
        }

        #[test]
        fn a_missing_byte_is_found(sent in data(), cuts in cuts(), at in any::<Index>()) {
            let mut received = sent.clone();
            received.remove(at.index(sent.len()));
            let found = exchange(&sent, &received, &cuts).first_difference();
            prop_assert_eq!(found, first_difference(&sent, &received));
        }

        #[test]
        fn an_extra_byte_is_found(
            sent in data(), cuts in cuts(), at in any::<Index>(), extra in 0u8..4,
        ) {
            let mut received = sent.clone();
            received.insert(at.index(sent.len() + 1), extra);
            let found = exchange(&sent, &received, &cuts).first_difference();
            prop_assert_eq!(found, first_difference(&sent, &received));
        }
    }

    #[test]
    fn the_text_is_the_lectures() {
        let mut report = report();
        report.sent(&[b'a'; 1400]);
        report.received(&[b'a'; 1024]).unwrap();
        report.received(&[b'a'; 375]).unwrap();
        assert_eq!(
            report.to_string(),
            " n   sent  rcvd\n---------------\n(0, (1400, 1024))\n(1, (0, 375))\n\
             total (1400, 1399)\nverdict: 1 byte is missing\n"
        );
    }

    #[test]
    fn a_long_run_keeps_its_first_and_last_thousand_rows() {
        let mut report = report();
        for n in 0..1_000_000_usize {
            report.sent(&b"xy"[..1 + n % 2]);
            report.received(&b"xy"[..1 + n % 2]).unwrap();
        }
        let json = report.json(None);
        assert_eq!(json["sent"].as_array().unwrap().len(), 2000);
        assert_eq!(json["sent"][1], 2);
        assert_eq!(json["sent_left_out"], 998_000);
        assert_eq!(json["totals"]["received"], 1_500_000);
        let text = report.to_string();
        assert!(text.contains("(9, (2, 2))\n... 999980 rows left out ...\n(999990, (1, 1))\n"));
    }

    #[test]
    fn more_than_was_sent_is_an_error_at_once() {
        let mut report = report();
        report.sent(b"abc");
        report.received(b"abx").unwrap(); // the rest may be of use to see what went wrong
        assert_eq!(exit::status(&report.received(b"yz").unwrap_err()), exit::NOT_SO);
    }

    #[test]
    fn memory_is_bounded_by_what_is_outstanding() {
        let mut report = report();
        let mut piece = vec![b'a'; 64 * 1024];
        for n in 0..2000 {
            piece[0] = n as u8; // a run
            piece[1000] = n as u8; // no run, but for n = 'a'
            report.sent(&piece);
            report.received(&piece).unwrap();
        }
        assert!(report.outstanding.messages.is_empty());
        assert!(report.outstanding.messages.capacity() < 10);
    }

    #[test]
    fn a_lecture_message_is_held_in_a_few_bytes() {
        let mut report = report();
        for message in crate::message::Messages::new(2, 1 << 20) {
            report.sent(&message.unwrap());
        }
        let runs = |message: &Message| matches!(message.0, Kept::Run { .. });
        assert!(report.outstanding.messages.iter().all(runs));
        assert_eq!(report.verdict(), Verdict::Missing(2 << 20));
    }
}
