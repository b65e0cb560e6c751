//! What the events of one connection mean: who closed first, how, and what it cost.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::{Direction, Event, Kind};
use crate::text;

/// The story of one connection, told by its events in their order. Its size is bounded.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// When its first event happened, and its latest.
    pub span: Option<(Duration, Duration)>,
    /// Bytes that arrived: at the server, at the client.
    pub bytes: [u64; 2],
    /// Pieces, or datagrams, that arrived: at the server, at the client.
    pub pieces: [u64; 2],
    /// Bytes that never arrived: at the server, at the client.
    pub lost: [u64; 2],
    /// Pieces of which they are told.
    pub losses: u64,
    /// How the directions ended, in order: at most the first four.
    pub ends: Vec<End>,
    connected: bool,
    over: bool,
    stalled: Option<Direction>,
    bytes_at_first_end: [u64; 2],
    last_fault: Option<String>,
}

/// The end of a direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Which direction; the one who ended it is [`Direction::sender`].
    pub direction: Direction,
    /// A FIN, an RST, a refusal, a time-out.
    pub kind: Kind,
    /// The fault, if the network made it and not the sender.
    pub made: Option<String>,
}

/// The events of each connection, in order.
pub fn by_connection(events: &[Event]) -> BTreeMap<u32, Vec<&Event>> {
    let mut connections = BTreeMap::<u32, Vec<&Event>>::new();
    for event in events {
        connections.entry(event.connection).or_default().push(event);
    }
    connections
}

impl Story {
    /// The story that these events of one connection tell.
    pub fn of<'e>(events: impl IntoIterator<Item = &'e Event>) -> Self {
        let mut story = Story::default();
        events.into_iter().for_each(|event| story.add(event));
        story
    }

    /// Goes on with the next event.
    pub fn add(&mut self, event: &Event) {
        let start = self.span.map_or(event.at, |(start, _)| start);
        self.span = Some((start, event.at));
        let way = event.direction.index();
        for (total, bytes) in self.bytes.iter_mut().zip(event.kind.bytes(event.direction)) {
            *total = total.saturating_add(bytes);
        }
        match &event.kind {
            Kind::Connect => self.connected = true,
            Kind::Data { .. } => self.pieces[way] += 1,
            Kind::Lost { length } => {
                self.lost[way] = self.lost[way].saturating_add(*length);
                self.losses += 1;
            }
            Kind::Stall => self.stalled = Some(event.direction),
            Kind::Over => self.over = true,
            Kind::Fin | Kind::Reset | Kind::Refused | Kind::Timeout => {
                if self.ends.is_empty() {
                    self.bytes_at_first_end = self.bytes;
                }
                if self.ends.len() < 4 {
                    let (direction, kind) = (event.direction, event.kind.clone());
                    self.ends.push(End { direction, kind, made: self.last_fault.clone() });
                }
            }
            _ => {}
        }
        // A cut is recorded right before the FIN or the RSTs that it makes.
        self.last_fault = match &event.kind {
            Kind::Fault { text } if text.contains("-after=") => Some(text.clone()),
            Kind::Reset => self.last_fault.take(),
            _ => None,
        };
    }

    /// Who closed first, and whether the network is to blame rather than the sender.
    pub fn first(&self) -> Option<&End> {
        self.ends.first()
    }

    /// The direction of the peer who closed first of its own will.
    pub fn closer(&self) -> Option<Direction> {
        let of_its_own = |end: &&End| matches!(end.kind, Kind::Fin | Kind::Reset);
        self.first().filter(of_its_own).filter(|end| end.made.is_none()).map(|end| end.direction)
    }

    /// Time since the first event of the connection.
    pub fn since_start(&self, at: Duration) -> Duration {
        at.saturating_sub(self.span.map_or(at, |(start, _)| start))
    }

    /// One short sentence: who closed first, and how it went on.
    pub fn headline(&self) -> String {
        let Some(first) = self.first() else {
            return match self.stalled {
                _ if !self.connected => self.datagrams(),
                Some(way) if !self.over => format!("Stalled: the {} waits", way.receiver()),
                _ if self.over => "The connection was broken off".to_owned(),
                _ => "The connection is still open".to_owned(),
            };
        };
        let (one, other) = (first.direction.sender(), first.direction.receiver());
        if let Some(made) = &first.made {
            let word = made.split(':').next().unwrap_or_default();
            return format!("The network closed first, not the {one} ({word})");
        }
        match first.kind {
            Kind::Refused if self.connected => format!("The {one} refused the connection"),
            Kind::Refused => "Nobody listens at the server's port".to_owned(),
            Kind::Timeout => format!("The {one} did not answer in time"),
            Kind::Reset => format!("The {one} closed first, abruptly: with a reset (RST)"),
            _ if self.has_reset(first.direction) => {
                format!("The {one} closed first, too early: the {other} was still sending")
            }
            _ => match self.ends.get(1) {
                None if self.over => format!("The {one} closed first, then all was broken off"),
                None => format!("The {one} closed first; the {other} is still open"),
                Some(End { kind: Kind::Fin, .. }) if self.after_first(first.direction) > 0 => {
                    format!("The {one} closed first, but only half: the {other} could still answer")
                }
                Some(End { kind: Kind::Fin, .. }) => {
                    format!("The {one} closed first, then the {other}: all in order")
                }
                Some(_) => {
                    format!("The {one} closed first; the {other} answered with a reset (RST)")
                }
            },
        }
    }

    /// What to know besides: the bytes each way, what was lost, how long it took.
    pub fn detail(&self) -> String {
        let mut parts = Vec::new();
        for direction in Direction::BOTH {
            let late = self.late(direction);
            let receiver = direction.receiver();
            let bytes = text::bytes(self.bytes[direction.index()] - late);
            parts.push(format!("{bytes} to the {receiver}"));
            if late > 0 {
                parts.push(format!("{late} more came too late"));
            }
        }
        for (lost, receiver) in self.lost.iter().zip(["server", "client"]) {
            if *lost > 0 {
                parts.push(format!("{} for the {receiver} lost", text::bytes(*lost)));
            }
        }
        if let Some((start, end)) = self.span {
            parts.push(text::time(end.saturating_sub(start)));
        }
        parts.join(", ")
    }

    fn datagrams(&self) -> String {
        let sent = |n: u64, to: &str| format!("{} to the {to}", text::counted(n, "datagram"));
        let mut parts = vec![sent(self.pieces[0], "server"), sent(self.pieces[1], "client")];
        if self.losses > 0 {
            parts.push(format!("{} lost", self.losses));
        }
        parts.join(", ")
    }

    /// Bytes for a receiver who had closed already, and answered them with an RST.
    fn late(&self, direction: Direction) -> u64 {
        let back = direction.back();
        let half = |first: &End| first.direction == back && first.kind == Kind::Fin;
        let is_late = self.first().is_some_and(half) && self.has_reset(back);
        if is_late { self.after_first(back) } else { 0 }
    }

    fn has_reset(&self, direction: Direction) -> bool {
        let reset = |end: &End| end.kind == Kind::Reset && end.made.is_none();
        self.ends.iter().any(|end| end.direction == direction && reset(end))
    }

    fn has_finished(&self, direction: Direction) -> bool {
        self.ends.iter().any(|end| end.direction == direction && end.kind == Kind::Fin)
    }

    /// Bytes that came towards the one who closed first, afterwards.
    fn after_first(&self, direction: Direction) -> u64 {
        let back = direction.back().index();
        self.bytes[back] - self.bytes_at_first_end[back]
    }
}

/// A line of a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row<'e> {
    /// An event.
    Event(&'e Event),
    /// Nothing happened for so long.
    Silence(Duration),
    /// Events that are not drawn: their number, and the bytes in them to the server and to the
    /// client.
    LeftOut(u64, [u64; 2]),
}

/// A pause from this on is marked in a drawing.
pub const SILENCE: Duration = Duration::from_millis(100);

/// The lines of a drawing of one connection: at most about `most` events, the first ones and the
/// last ones, and the pauses between them.
pub fn rows<'e>(events: &[&'e Event], most: usize) -> Vec<Row<'e>> {
    let events: Vec<_> = events.iter().copied().filter(|e| e.kind != Kind::Over).collect();
    let (head, tail) = match events.len() {
        length if length <= most => (length, length),
        length => (most / 3, length - (most - most / 3)),
    };
    let mut rows = Vec::new();
    let mut before: Option<&Event> = None;
    for (index, &event) in events.iter().enumerate() {
        if index == head && head < tail {
            let mut bytes = [0; 2];
            let mut number = 0;
            for hidden in &events[head..tail] {
                let more = hidden.kind.bytes(hidden.direction);
                bytes = [0, 1].map(|way| u64::saturating_add(bytes[way], more[way]));
                let events = match hidden.kind {
                    Kind::LeftOut { events, .. } => events,
                    _ => 1,
                };
                number = u64::saturating_add(number, events);
            }
            rows.push(Row::LeftOut(number, bytes));
        }
        if (head..tail).contains(&index) {
            before = None;
            continue;
        }
        let pause = before.map_or(Duration::ZERO, |before| event.at.saturating_sub(before.at));
        if pause >= SILENCE {
            rows.push(Row::Silence(pause));
        }
        rows.push(match event.kind {
            Kind::LeftOut { events, to_server, to_client } => {
                Row::LeftOut(events, [to_server, to_client])
            }
            _ => Row::Event(event),
        });
        before = Some(event);
    }
    rows
}

/// What a drawing says about events that it leaves out.
pub fn left_out(events: u64, [to_server, to_client]: [u64; 2]) -> String {
    let mut text = text::counted(events, "more event");
    if to_server > 0 || to_client > 0 {
        text += &format!(": {to_server} bytes to the server, {to_client} to the client");
    }
    text
}

/// What a drawing writes on the arrow of an event of `story`: the main words, and the rest in
/// about so many columns at most.
pub fn label(event: &Event, story: &Story, columns: usize) -> (String, String) {
    let one = event.direction.sender();
    let is_gone = story.has_finished(event.direction);
    let (main, rest) = match &event.kind {
        Kind::Connect => ("connect", String::new()),
        Kind::Accept => ("accept", String::new()),
        Kind::Data { length, preview, .. } => {
            let main = text::bytes(*length);
            let room = columns.saturating_sub(main.len() + 2);
            return match *length {
                0 => (main, String::new()),
                length => (main, text::quoted(preview, length, room)),
            };
        }
        Kind::Fin => ("FIN", format!("the {one} sends no more")),
        Kind::Reset if is_gone => ("RST", format!("the {one} is gone: this came too late")),
        Kind::Reset => ("RST", format!("the {one} breaks off")),
        Kind::Refused => ("refused", String::new()),
        Kind::Timeout => ("no answer", format!("the {one} is silent")),
        Kind::Stall => ("stall", "nothing gets through from here on".to_owned()),
        Kind::Lost { length } => return (format!("{} lost", text::bytes(*length)), String::new()),
        Kind::Fault { text } => ("fault", text::line(text)),
        Kind::Exit { status } => ("exit", format!("the {one}: {}", text::line(status))),
        Kind::Note { text } => ("", text::line(text)),
        Kind::LeftOut { events, to_server, to_client } => {
            ("", left_out(*events, [*to_server, *to_client]))
        }
        Kind::Over => ("over", String::new()),
    };
    (main.to_owned(), rest)
}
