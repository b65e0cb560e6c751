//! What happened, when, on which connection, in which direction; and a recorder for it.
//!
//! A [`Recorder`] is shared by all threads that see something happen. It has one monotonic clock
//! and bounded memory: of a payload it keeps a preview, of a long connection the first and the last
//! events, and of very many connections the latest.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Bytes of each payload that are kept.
pub const PREVIEW: usize = 256;
/// Events kept from the beginning of each connection, and as many from its end.
pub const HEAD: usize = 1000;
/// Events kept of the end of a connection even when the recorder is full: how it ended.
const ENDING: usize = 8;
/// Events kept in all; past that only [`ENDING`] of each connection.
const EVENTS: usize = 50_000;
/// Connections kept; past that the oldest is forgotten.
const CONNECTIONS: usize = 2000;

/// Which way something went, and so who did it: what goes to the server was done by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

impl Direction {
    /// Both, for loops.
    pub const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

    /// The opposite direction.
    pub fn back(self) -> Direction {
        match self {
            Direction::ToServer => Direction::ToClient,
            Direction::ToClient => Direction::ToServer,
        }
    }

    /// Who sends in this direction: `client` or `server`.
    pub fn sender(self) -> &'static str {
        match self {
            Direction::ToServer => "client",
            Direction::ToClient => "server",
        }
    }

    /// Who receives in this direction: `client` or `server`.
    pub fn receiver(self) -> &'static str {
        self.back().sender()
    }

    /// 0 to the server, 1 to the client: an index for arrays of two.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Time since the recorder was made, in whole microseconds.
    #[serde(rename = "at_us", with = "micros")]
    pub at: Duration,
    /// Number of the connection (of a UDP association), from 1.
    pub connection: u32,
    /// Which way it went; who did it is [`Direction::sender`].
    pub direction: Direction,
    /// What happened.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Kind {
    /// The client connected (sent its SYN, or the first datagram).
    Connect,
    /// The server accepted.
    Accept,
    /// Bytes that were handed on to their receiver in one piece.
    Data {
        /// Bytes that went before in this direction.
        offset: u64,
        /// Bytes in this piece.
        length: u64,
        /// The first of them, at most [`PREVIEW`]. In JSON a string, one character per byte
        /// (Latin-1).
        #[serde(with = "latin1")]
        preview: Vec<u8>,
    },
    /// A FIN: the sender has sent its last byte; the other direction may go on (half-close).
    Fin,
    /// An RST: the connection is gone, with whatever was on its way.
    Reset,
    /// The server refused the connection; for UDP: nobody listens there.
    Refused,
    /// The sender has not answered in time.
    Timeout,
    /// From here on nothing gets through in this direction (fault `stall-after`).
    Stall,
    /// Bytes, or one datagram, that the sender sent and the receiver never got.
    Lost {
        /// Number of bytes.
        length: u64,
    },
    /// What the network did on purpose, or what a peer did that the others cannot know.
    Fault {
        /// The word of the plan, and what it did.
        text: String,
    },
    /// The sender's process ended.
    Exit {
        /// Its exit status, in words.
        status: String,
    },
    /// A remark.
    Note {
        /// The remark.
        text: String,
    },
    /// Nothing more comes: who records this connection is done with it.
    Over,
    /// Events that the recorder did not keep.
    LeftOut {
        /// Number of events.
        events: u64,
        /// Bytes of data in them, to the server.
        to_server: u64,
        /// Bytes of data in them, to the client.
        to_client: u64,
    },
}

impl Kind {
    /// The bytes in this event, of which `direction` says which way they went: `[to the server,
    /// to the client]`.
    pub fn bytes(&self, direction: Direction) -> [u64; 2] {
        let mut bytes = [0; 2];
        match self {
            Kind::Data { length, .. } => bytes[direction.index()] = *length,
            Kind::LeftOut { to_server, to_client, .. } => bytes = [*to_server, *to_client],
            _ => {}
        }
        bytes
    }
}

/// Collects events from many threads. Clones share one collection and one clock.
#[derive(Clone)]
pub struct Recorder {
    start: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    last: u32,
    total: u64,
    kept: usize,
    logs: BTreeMap<u32, Log>,
    observer: Option<Observer>,
}

/// The events of one connection: its first and its last ones.
#[derive(Default)]
struct Log {
    offsets: [u64; 2],
    head: Vec<Event>,
    tail: VecDeque<Event>,
    left_out: u64,
    bytes_left_out: [u64; 2],
}

struct Observer {
    events: SyncSender<Event>,
    missed: Arc<AtomicU64>,
}

impl Recorder {
    /// A recorder without events, whose clock starts now.
    pub fn new() -> Self {
        Recorder { start: Instant::now(), state: Arc::default() }
    }

    /// A handle that records events of a new connection; connections are numbered from 1.
    pub fn connection(&self) -> Connection {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.logs.insert(number, Log::default());
        if state.logs.len() > CONNECTIONS
            && let Some((_, oldest)) = state.logs.pop_first()
        {
            state.kept -= oldest.head.len() + oldest.tail.len();
        }
        Connection { recorder: self.clone(), number }
    }

    /// The number of events so far, also of those that were not kept.
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    /// Everything kept so far, in the order of time. Where events were left out, there is a
    /// [`Kind::LeftOut`] in their place.
    pub fn events(&self) -> Vec<Event> {
        let state = self.lock();
        let mut events = Vec::with_capacity(state.kept + state.logs.len());
        for (&connection, log) in &state.logs {
            events.extend(log.head.iter().cloned());
            if log.left_out > 0 {
                let after = log.tail.front().or(log.head.last());
                events.push(Event {
                    at: after.map_or(Duration::ZERO, |event| event.at),
                    connection,
                    direction: Direction::ToServer,
                    kind: Kind::LeftOut {
                        events: log.left_out,
                        to_server: log.bytes_left_out[0],
                        to_client: log.bytes_left_out[1],
                    },
                });
            }
            events.extend(log.tail.iter().cloned());
        }
        events.sort_by_key(|event| event.at); // stable: within a connection nothing moves
        events
    }

    /// The events from now on, as they happen. At most `waiting` of them wait to be looked at;
    /// those that found no room are counted in a [`Kind::LeftOut`], since a slow observer must
    /// neither hold up the connections nor fill the memory. A new observer replaces the old one.
    pub fn observe(&self, waiting: usize) -> Observed {
        let (sender, events) = sync_channel(waiting);
        let missed = Arc::<AtomicU64>::default();
        self.lock().observer = Some(Observer { events: sender, missed: missed.clone() });
        Observed { events, missed, next: None }
    }

    /// Lets the observer see what has happened so far, and then end.
    pub fn dismiss_observer(&self) {
        self.lock().observer = None;
    }

    fn record(&self, connection: u32, what: impl IntoIterator<Item = (Direction, Kind)>) {
        let mut state = self.lock();
        let at = self.now();
        for (direction, kind) in what {
            state.add(Event { at, connection, direction, kind });
        }
    }

    /// To be asked under the lock, so that the order of the events is the order of their times.
    fn now(&self) -> Duration {
        Duration::from_micros(self.start.elapsed().as_micros() as u64)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder::new()
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("kept", &self.lock().kept).finish_non_exhaustive()
    }
}

impl State {
    fn offset(&self, connection: u32, direction: Direction) -> u64 {
        self.logs.get(&connection).map_or(0, |log| log.offsets[direction.index()])
    }

    fn add(&mut self, event: Event) {
        self.total += 1;
        if let Some(observer) = &self.observer {
            match observer.events.try_send(event.clone()) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    observer.missed.fetch_add(1, Ordering::Relaxed);
                }
                Err(TrySendError::Disconnected(_)) => self.observer = None,
            }
        }
        let Some(log) = self.logs.get_mut(&event.connection) else {
            return; // forgotten
        };
        if let Kind::Data { offset, length, .. } = &event.kind {
            log.offsets[event.direction.index()] = offset + length;
        }
        self.kept += 1;
        if log.tail.is_empty() && log.head.len() < HEAD && self.kept <= EVENTS {
            log.head.push(event);
            return;
        }
        log.tail.push_back(event);
        while log.tail.len() > HEAD || (self.kept > EVENTS && log.tail.len() > ENDING) {
            let Some(gone) = log.tail.pop_front() else { break };
            self.kept -= 1;
            log.left_out += 1;
            let bytes = gone.kind.bytes(gone.direction);
            log.bytes_left_out[0] += bytes[0];
            log.bytes_left_out[1] += bytes[1];
        }
    }
}

/// Records the events of one connection. Clones record into the same connection.
#[derive(Clone, Debug)]
pub struct Connection {
    recorder: Recorder,
    number: u32,
}

impl Connection {
    /// The number of the connection, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Records that `kind` happened now.
    pub fn record(&self, direction: Direction, kind: Kind) {
        self.recorder.record(self.number, [(direction, kind)]);
    }

    /// Records several things that belong together, with nothing between them.
    pub fn record_all(&self, what: impl IntoIterator<Item = (Direction, Kind)>) {
        self.recorder.record(self.number, what);
    }

    /// Records that `bytes` went in `direction`, after all that went that way before.
    pub fn data(&self, direction: Direction, bytes: &[u8]) {
        self.data_of(direction, bytes.len() as u64, bytes);
    }

    /// The same for bytes of which only the first are at hand.
    pub(crate) fn data_of(&self, direction: Direction, length: u64, first: &[u8]) {
        let preview = first[..first.len().min(PREVIEW)].to_vec();
        let mut state = self.recorder.lock();
        let offset = state.offset(self.number, direction);
        let kind = Kind::Data { offset, length, preview };
        let at = self.recorder.now();
        state.add(Event { at, connection: self.number, direction, kind });
    }

    /// Records a remark.
    pub fn note(&self, direction: Direction, text: impl Into<String>) {
        self.record(direction, Kind::Note { text: text.into() });
    }

    /// Bytes recorded so far in `direction`.
    pub fn offset(&self, direction: Direction) -> u64 {
        self.recorder.lock().offset(self.number, direction)
    }
}

/// The events as they happen: an iterator that waits for the next one, and ends with the last
/// clone of the recorder.
#[derive(Debug)]
pub struct Observed {
    events: Receiver<Event>,
    missed: Arc<AtomicU64>,
    next: Option<Event>,
}

impl Iterator for Observed {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.next.take() {
            return Some(event);
        }
        let event = self.events.recv().ok()?;
        let events = self.missed.swap(0, Ordering::Relaxed);
        if events == 0 {
            return Some(event);
        }
        let kind = Kind::LeftOut { events, to_server: 0, to_client: 0 };
        let gap = Event { kind, ..event.clone() };
        self.next = Some(event);
        Some(gap)
    }
}

mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(at.as_micros() as u64)
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}

mod latin1 {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&bytes.iter().map(|&byte| char::from(byte)).collect::<String>())
    }

    pub fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let byte = |c| u8::try_from(c).map_err(|_| D::Error::custom(format!("'{c}' is no byte")));
        text.chars().map(byte).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn data_keeps_its_offset_and_only_a_preview() {
        let recorder = Recorder::new();
        let connection = recorder.connection();
        connection.data(Direction::ToServer, &[b'a'; 1000]);
        connection.data(Direction::ToClient, b"x");
        connection.data(Direction::ToServer, b"bc");
        let events = recorder.events();
        let Kind::Data { offset: 0, length: 1000, preview } = &events[0].kind else {
            panic!("{:?}", events[0]);
        };
        assert_eq!(preview.len(), PREVIEW);
        let last = Kind::Data { offset: 1000, length: 2, preview: b"bc".to_vec() };
        assert_eq!(events[2].kind, last);
        assert_eq!(connection.offset(Direction::ToServer), 1002);
    }

    #[test]
    fn a_long_connection_keeps_its_beginning_and_its_end() {
        let recorder = Recorder::new();
        let connection = recorder.connection();
        connection.record(Direction::ToServer, Kind::Connect);
        for _ in 0..10 * HEAD {
            connection.data(Direction::ToServer, b"abc");
        }
        connection.record(Direction::ToServer, Kind::Fin);
        let events = recorder.events();
        assert_eq!(events.len(), 2 * HEAD + 1);
        assert_eq!(events[0].kind, Kind::Connect);
        assert_eq!(events[2 * HEAD].kind, Kind::Fin);
        let left_out = 8 * HEAD as u64 + 2;
        let gap = Kind::LeftOut { events: left_out, to_server: 3 * left_out, to_client: 0 };
        assert_eq!(events[HEAD].kind, gap);
    }

    #[test]
    fn a_full_recorder_still_keeps_how_each_connection_ended() {
        let recorder = Recorder::new();
        for _ in 0..CONNECTIONS + 10 {
            let connection = recorder.connection();
            for _ in 0..100 {
                connection.data(Direction::ToServer, b"abc");
            }
            connection.record(Direction::ToClient, Kind::Reset);
        }
        let events = recorder.events();
        assert!(events.len() <= EVENTS + CONNECTIONS * (ENDING + 2), "{}", events.len());
        let ends = events.iter().filter(|event| event.kind == Kind::Reset).count();
        assert_eq!(ends, CONNECTIONS);
        assert!(events.iter().all(|event| event.connection > 10), "the oldest are forgotten");
    }

    #[test]
    fn many_threads_record_in_the_order_of_time() {
        let recorder = Recorder::new();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let connection = recorder.connection();
                    (0..200).for_each(|_| connection.data(Direction::ToClient, b"x"));
                });
            }
        });
        let events = recorder.events();
        assert_eq!(events.len(), 8 * 200);
        assert!(events.is_sorted_by_key(|event| event.at));
    }

    #[test]
    fn an_observer_sees_events_and_how_many_it_missed() {
        let recorder = Recorder::new();
        let mut observed = recorder.observe(2);
        let connection = recorder.connection();
        for _ in 0..5 {
            connection.data(Direction::ToServer, b"x");
        }
        let gap = Kind::LeftOut { events: 3, to_server: 0, to_client: 0 };
        assert_eq!(observed.next().map(|event| event.kind), Some(gap));
        assert!(matches!(observed.next().unwrap().kind, Kind::Data { offset: 0, .. }));
        drop(connection);
        drop(recorder);
        assert_eq!(observed.count(), 1);
    }

    #[test]
    fn things_that_belong_together_stay_together() {
        let recorder = Recorder::new();
        let connection = recorder.connection();
        connection.record_all(Direction::BOTH.map(|direction| (direction, Kind::Reset)));
        let events = recorder.events();
        assert_eq!(events[0].at, events[1].at);
    }
}
