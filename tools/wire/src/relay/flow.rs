//! One direction of a relayed stream: what was read and not yet written, and when it is due.
//! No sockets here, only bytes and times.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::bulk;
use crate::event::Direction;
use crate::fault::{GAP, HOLD, How, Plan, dice};

/// Bytes that a flow reads ahead. More of them is not faster, and fewer cost system calls.
const ROOM: usize = 128 * 1024;
/// Reads that may wait to be passed on.
const ARRIVALS: usize = 1024;
/// A piece that is later than this, because its receiver did not read, moves all that follow:
/// `rate` does not catch up by a burst.
const LATE: Duration = Duration::from_millis(100);

/// What becomes of the bytes that the source sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// They are passed on.
    Open,
    /// They are read and thrown away: the receiver has had its FIN, or is gone.
    Discarding,
    /// They are not even read.
    Stalled,
    /// There are none: the source has ended, and the receiver knows.
    Done,
}

/// How the source ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Fin,
    Reset,
}

/// The bytes that are written next, in one call, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) length: usize,
    pub(super) due: Instant,
    /// When the line was free again after it, for `rate`.
    line_free: Instant,
}

struct Arrival {
    length: usize,
    at: Instant,
}

pub(super) struct Flow {
    pub(super) direction: Direction,
    pub(super) state: State,
    /// Whether the last write found no room.
    pub(super) blocked: bool,
    /// Bytes that were read and will never be passed on.
    pub(super) lost: u64,
    /// Bytes passed on.
    pub(super) sent: u64,
    /// Bytes in the pipe of bulk data, which do not go through this buffer.
    pub(super) in_pipe: usize,
    plan: Plan,
    seed: u64,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    arrivals: VecDeque<Arrival>,
    next: Option<Piece>,
    last_due: Instant,
    last_arrival: Instant,
    line_free: Instant,
    ended: Option<(End, Instant)>,
}

impl Flow {
    pub(super) fn new(direction: Direction, plan: &Plan, seed: u64) -> Self {
        let now = Instant::now();
        Flow {
            direction,
            state: State::Open,
            blocked: false,
            lost: 0,
            sent: 0,
            in_pipe: 0,
            plan: plan.clone(),
            seed,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            arrivals: VecDeque::new(),
            next: None,
            last_due: now,
            last_arrival: now,
            line_free: now,
            ended: None,
        }
    }

    /// Whether all that was read is passed on.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end && self.in_pipe == 0
    }

    /// Whether this is much data to which nothing is to be done.
    pub(super) fn is_bulk(&self) -> bool {
        let is_open = self.state == State::Open && self.ended.is_none();
        is_open && self.start == self.end && self.sent >= bulk::FROM && self.plan.is_none()
    }

    /// Whether the source is to be read: it has not ended, and there is room for what it sends.
    pub(super) fn wants_more(&self) -> bool {
        if self.in_pipe > 0 {
            return false;
        }
        let room = self.buffer.len() - (self.end - self.start);
        let enough = self.is_empty() || room * 2 > self.buffer.len();
        match self.state {
            State::Open => self.ended.is_none() && enough && self.arrivals.len() < ARRIVALS,
            State::Discarding => self.ended.is_none(),
            State::Stalled | State::Done => false,
        }
    }

    /// Where to read to.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            let held = self.plan.hold_tail.unwrap_or(0) as usize;
            self.buffer = vec![0; ROOM + 2 * held]; // zero pages, which cost nothing until used
        }
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were read into [`Flow::space`].
    pub(super) fn arrived(&mut self, length: usize) {
        if self.state == State::Discarding {
            self.lost += length as u64;
            return;
        }
        let before = self.sent + (self.end - self.start) as u64;
        if let Some(at) = self.plan.corrupt_at
            && let Some(index) = at.checked_sub(before)
            && index < length as u64
        {
            self.buffer[self.end + index as usize] ^= 1;
        }
        self.end += length;
        self.last_arrival = Instant::now();
        self.arrivals.push_back(Arrival { length, at: self.last_arrival });
        if self.plan.hold_tail.is_some() {
            self.next = None; // what was the tail is the tail no more
        }
    }

    /// The source has ended.
    pub(super) fn ended(&mut self, end: End) {
        let at = Instant::now();
        let due = at + self.plan.delay + self.jitter(u64::MAX);
        self.ended = Some((end, due.max(self.last_due)));
    }

    /// How the source ended, if it did.
    pub(super) fn end(&self) -> Option<End> {
        self.ended.map(|(end, _)| end)
    }

    /// When the end is passed on, if it comes next.
    pub(super) fn end_due(&self) -> Option<Instant> {
        self.ended.filter(|_| self.is_empty()).map(|(_, due)| due)
    }

    /// Where the stream is cut, if it has come so far.
    pub(super) fn cut(&self) -> Option<How> {
        self.plan.cut.filter(|cut| self.sent >= cut.after).map(|cut| cut.how)
    }

    /// The piece that is written next; its bytes are [`Flow::bytes`].
    pub(super) fn piece(&mut self) -> Option<Piece> {
        if self.next.is_none() {
            self.next = self.make_piece();
        }
        self.next
    }

    /// The bytes of a piece.
    pub(super) fn bytes(&self, piece: Piece) -> &[u8] {
        &self.buffer[self.start..self.start + piece.length]
    }

    fn make_piece(&self) -> Option<Piece> {
        let arrival = self.arrivals.front()?;
        let mut length = arrival.length as u64;
        let mut due = arrival.at;
        let mut line_free = due;
        if let Some(chunk) = self.plan.chunk {
            length = length.min(chunk);
        }
        if let Some(cut) = self.plan.cut {
            length = length.min(cut.after.saturating_sub(self.sent));
        }
        if let Some(held) = self.plan.hold_tail {
            match ((self.end - self.start) as u64).saturating_sub(held) {
                0 => due = due.max(self.last_arrival + HOLD),
                before_the_tail => length = length.min(before_the_tail),
            }
        }
        if let Some(rate) = self.plan.rate {
            length = length.min((rate / 50).max(1)); // what the line takes 20 ms for
            let takes = Duration::from_secs_f64(length as f64 / rate as f64);
            line_free = self.line_free.max(due) + takes;
            due = line_free;
        }
        due += self.plan.delay + self.jitter(self.sent);
        let gap = match self.plan.chunk {
            Some(_) if self.plan.delay.is_zero() => GAP,
            Some(_) => self.plan.delay,
            None => Duration::ZERO,
        };
        let due = if self.sent == 0 { due } else { due.max(self.last_due + gap) };
        Some(Piece { length: length as usize, due, line_free })
    }

    /// A random part of the jitter, the same for the same byte whatever went before.
    fn jitter(&self, offset: u64) -> Duration {
        match self.plan.jitter.as_micros() as u64 {
            0 => Duration::ZERO,
            most => Duration::from_micros(dice(self.seed, 1, offset) % (most + 1)),
        }
    }

    /// So many bytes of the piece were written. Returns the changed byte, if it was among them:
    /// its offset, what it was, what it is.
    pub(super) fn wrote(&mut self, mut piece: Piece, length: usize) -> Option<(u64, u8, u8)> {
        let first = self.sent;
        self.sent += length as u64;
        let changed = self.plan.corrupt_at.filter(|at| (first..self.sent).contains(at)).map(|at| {
            let byte = self.buffer[self.start + (at - first) as usize];
            (at, byte ^ 1, byte)
        });
        self.start += length;
        if let Some(arrival) = self.arrivals.front_mut() {
            arrival.length -= length;
            if arrival.length == 0 {
                self.arrivals.pop_front();
            }
        }
        self.last_due = Instant::now();
        let late = self.last_due - piece.due;
        self.line_free = piece.line_free + if late > LATE { late } else { Duration::ZERO };
        piece.length -= length;
        self.next = (piece.length > 0).then_some(piece);
        changed
    }

    /// Throws away what was not passed on.
    pub(super) fn discard(&mut self) {
        self.lost += (self.end - self.start + self.in_pipe) as u64;
        self.in_pipe = 0;
        self.start = self.end;
        self.arrivals.clear();
        self.next = None;
        self.blocked = false;
    }
}
