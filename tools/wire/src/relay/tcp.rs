//! One TCP connection: two flows, one thread, two non-blocking sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use socket2::{SockRef, TcpKeepalive};

use super::bulk::Pipe;
use super::flow::{End, Flow, State};
use super::{Faults, Stop, poll};
use crate::event::{Connection, Direction, Kind, PREVIEW};
use crate::fault::{How, dice};

/// Turns that one flow may take before the other has its turn.
const TURNS: usize = 16;
/// A peer that has vanished without a FIN is noticed after this, and four unanswered probes.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bytes that are looked for in a dead connection, to tell how many were lost.
const LOOK_FOR: u64 = 4 << 20;

/// Relays between `client` and `server` until both directions have ended, and records into
/// `connection` what is passed on, and how it ended. Needs no other thread.
///
/// The relay owns both sockets: an RST is sent by closing one, so there must be no clone of it.
///
/// # Errors
/// A socket cannot be prepared, or waited for. How a connection ends is never an error: it is
/// recorded.
pub fn tcp(
    client: TcpStream,
    server: TcpStream,
    faults: &Faults,
    connection: &Connection,
    stop: Option<&Stop>,
) -> io::Result<()> {
    for sock in [&client, &server] {
        sock.set_nonblocking(true)?;
        let _ = sock.set_nodelay(true); // fails on macOS if the peer is already gone
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
        let _ = SockRef::from(sock).set_tcp_keepalive(&keepalive);
    }
    let flow = |direction: Direction, plan| {
        let salt = u64::from(connection.number()) << 1 | direction.index() as u64;
        Flow::new(direction, plan, dice(faults.seed, 2, salt))
    };
    let plans = [&faults.to_server, &faults.to_client];
    let mut relay = Relay {
        words: plans.map(|plan| plan.words()),
        flows: [flow(Direction::ToServer, plans[0]), flow(Direction::ToClient, plans[1])],
        socks: [client, server],
        readable: [true; 2],
        dead: [None; 2],
        pipes: [None, None],
        closed: [false; 2],
        connection,
    };
    let ended = relay.run(stop);
    connection.record(Direction::ToServer, Kind::Over);
    ended
}

/// Closes `sock` so that its peer gets an RST: without lingering, and whatever was not sent yet is
/// thrown away (`SO_LINGER` with 0 seconds, socket(7)).
pub fn reset(sock: TcpStream) {
    let _ = SockRef::from(&sock).set_linger(Some(Duration::ZERO));
}

/// Flow 0 reads from socket 0, the client's, and writes to socket 1; flow 1 the other way round.
struct Relay<'c> {
    socks: [TcpStream; 2],
    flows: [Flow; 2],
    words: [Vec<String>; 2],
    /// Whether a read may find something.
    readable: [bool; 2],
    /// Why a socket is of no use any more: its peer has reset it, or has vanished.
    dead: [Option<ErrorKind>; 2],
    /// Whether both ends of the socket have sent their FIN: it would be ready for ever.
    closed: [bool; 2],
    /// For much data to which nothing is to be done.
    pipes: [Option<Pipe>; 2],
    connection: &'c Connection,
}

/// Whether the connection is over.
#[derive(PartialEq)]
enum Turn {
    Over,
    Idle,
    Again,
}

impl Relay<'_> {
    fn run(&mut self, stop: Option<&Stop>) -> io::Result<()> {
        loop {
            if stop.is_some_and(Stop::is_made) {
                self.reset_both();
                return Ok(());
            }
            let mut again = false;
            for source in 0..2 {
                for turn in 1..=TURNS {
                    match self.turn(source) {
                        Turn::Over => return Ok(()),
                        Turn::Idle => break,
                        Turn::Again => again |= turn == TURNS,
                    }
                }
            }
            if self.is_over() {
                return Ok(());
            }
            self.wait(again, stop)?;
        }
    }

    /// Reads once, writes once, and passes on an end that is due.
    fn turn(&mut self, source: usize) -> Turn {
        let mut wrote = self.splice(source);
        let read = self.fill(source);
        loop {
            if self.cut(source) {
                return Turn::Over;
            }
            if !self.drain(source) {
                break;
            }
            wrote = true;
        }
        if self.notice_deaths() || self.pass_on_end(source) {
            return Turn::Over;
        }
        if read || wrote { Turn::Again } else { Turn::Idle }
    }

    /// Moves bulk data by way of a pipe. What is left over, and the end, go the ordinary way.
    fn splice(&mut self, source: usize) -> bool {
        let flow = &mut self.flows[source];
        let (from, to) = (&self.socks[source], &self.socks[1 - source]);
        if !flow.is_bulk() || flow.blocked || self.dead[1 - source].is_some() {
            return false;
        }
        if self.pipes[source].is_none() {
            self.pipes[source] = Pipe::new();
        }
        let Some(pipe) = &self.pipes[source] else {
            return false;
        };
        let mut first = [0; PREVIEW];
        let mut at_hand = 0;
        if flow.in_pipe == 0 && self.readable[source] && self.dead[source].is_none() {
            let filled = from.peek(&mut first).and_then(|length| match length {
                PREVIEW => pipe.fill(from),
                _ => Ok(0), // not worth it
            });
            match filled {
                Ok(length) => (flow.in_pipe, at_hand) = (length, PREVIEW),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.dead[source] = Some(error.kind()); // an error is told only once
                    flow.ended(End::Reset);
                }
            }
        }
        if flow.in_pipe == 0 {
            return false;
        }
        match pipe.drain(to, flow.in_pipe) {
            Ok(length) => {
                flow.in_pipe -= length;
                flow.sent += length as u64;
                self.connection.data_of(flow.direction, length as u64, &first[..at_hand]);
                self.was_answered(1 - source);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                flow.blocked = true;
                false
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => {
                self.dead[1 - source].get_or_insert(error.kind());
                false
            }
        }
    }

    fn fill(&mut self, source: usize) -> bool {
        let flow = &mut self.flows[source];
        if !self.readable[source] || !flow.wants_more() {
            return false;
        }
        match (&self.socks[source]).read(flow.space()) {
            // After an error has been reported by a write, the end looks like an ordinary one.
            Ok(0) if self.dead[source].is_some() => flow.ended(End::Reset),
            Ok(0) => flow.ended(End::Fin),
            Ok(length) => flow.arrived(length),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable[source] = false;
                return false;
            }
            Err(error) => {
                self.dead[source].get_or_insert(error.kind());
                flow.ended(End::Reset);
            }
        }
        true
    }

    /// Writes the next piece, if it is due and there is room.
    fn drain(&mut self, source: usize) -> bool {
        let flow = &mut self.flows[source];
        if flow.state != State::Open || flow.blocked || self.dead[1 - source].is_some() {
            return false;
        }
        let Some(piece) = flow.piece().filter(|piece| piece.due <= Instant::now()) else {
            return false;
        };
        match (&self.socks[1 - source]).write(flow.bytes(piece)) {
            Ok(length) => {
                self.connection.data(flow.direction, &flow.bytes(piece)[..length]);
                if let Some((at, was, is)) = flow.wrote(piece, length) {
                    let text = format!("corrupt-at={at}: byte {was:#04x} became {is:#04x}");
                    self.connection.record(flow.direction, Kind::Fault { text });
                }
                self.was_answered(1 - source);
                true
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                flow.blocked = true;
                false
            }
            Err(error) => {
                self.dead[1 - source].get_or_insert(error.kind());
                false
            }
        }
    }

    /// Looks whether bytes for one who has sent its FIN were answered with an RST: it had not only
    /// sent its last byte but closed. Poll would tell too, but perhaps after the next FIN.
    fn was_answered(&mut self, to: usize) {
        if self.flows[to].end().is_some()
            && let Ok(Some(error)) = self.socks[to].take_error()
        {
            self.dead[to].get_or_insert(error.kind());
        }
    }

    /// Carries out `fin-after`, `reset-after` and `stall-after`. Returns whether it is all over.
    fn cut(&mut self, source: usize) -> bool {
        let flow = &mut self.flows[source];
        let (State::Open, Some(how)) = (flow.state, flow.cut()) else {
            return false;
        };
        let (direction, connection) = (flow.direction, self.connection);
        let word = self.words[source].iter().find(|word| word.contains("-after=")).cloned();
        let fault = |what: &str| {
            let text = format!("{}: {what}", word.unwrap_or_default());
            (direction, Kind::Fault { text })
        };
        match how {
            How::Stall => {
                flow.state = State::Stalled;
                flow.discard();
                let text = fault("from here on nothing gets through");
                connection.record_all([text, (direction, Kind::Stall)]);
                false
            }
            How::Fin => {
                flow.state = State::Discarding;
                flow.discard();
                connection.record_all([fault("a FIN made by tap"), (direction, Kind::Fin)]);
                self.finish(1 - source);
                false
            }
            How::Reset => {
                flow.discard();
                let resets = [direction, direction.back()].map(|way| (way, Kind::Reset));
                connection.record_all([fault("an RST to both, made by tap")]);
                connection.record_all(resets);
                self.account();
                self.reset_both();
                true
            }
        }
    }

    /// Sends our FIN on a socket.
    fn finish(&mut self, to: usize) {
        if let Err(error) = self.socks[to].shutdown(Shutdown::Write) {
            self.dead[to].get_or_insert(error.kind());
        }
    }

    /// What a dead socket means for both flows. Returns whether it is all over.
    fn notice_deaths(&mut self) -> bool {
        for gone in 0..2 {
            if self.dead[gone].is_none() {
                continue;
            }
            let to_it = &mut self.flows[1 - gone];
            if matches!(to_it.state, State::Open | State::Stalled) {
                to_it.discard();
                to_it.state = match to_it.end() {
                    Some(_) => State::Done,
                    None => State::Discarding,
                };
            }
            // All it sent was passed on, or cannot be: an RST does not wait, as on the wire, for a
            // receiver who does not read.
            let from_it = &self.flows[gone];
            let now = match from_it.state {
                State::Open => from_it.blocked,
                State::Discarding | State::Done => self.dead[1 - gone].is_none(),
                State::Stalled => false,
            };
            if now {
                self.pass_on_reset(gone);
                return true;
            }
        }
        false
    }

    /// Passes on the end of a source when all before it is passed on. Returns whether it is all
    /// over.
    fn pass_on_end(&mut self, source: usize) -> bool {
        let flow = &mut self.flows[source];
        let Some(end) = flow.end() else {
            return false;
        };
        if flow.state == State::Discarding {
            flow.state = State::Done;
        }
        if flow.state != State::Open {
            return false;
        }
        let due = flow.end_due().is_some_and(|due| due <= Instant::now());
        match end {
            End::Fin if due => {
                flow.state = State::Done;
                self.connection.record(flow.direction, Kind::Fin);
                self.finish(1 - source);
                self.notice_deaths()
            }
            End::Reset if due => {
                self.pass_on_reset(source);
                true
            }
            _ => false,
        }
    }

    /// Ends everything because `gone` has: with an RST, as it did.
    fn pass_on_reset(&mut self, gone: usize) {
        let direction = self.flows[gone].direction;
        let kind = match self.dead[gone] {
            Some(ErrorKind::TimedOut) => Kind::Timeout,
            _ => Kind::Reset,
        };
        self.connection.record(direction, kind);
        self.account();
        self.reset_both();
    }

    /// Records what was sent and never arrived, also what is still waiting to be read.
    fn account(&mut self) {
        for (sock, flow) in self.socks.iter().zip(&mut self.flows) {
            flow.discard();
            let limit = flow.lost + LOOK_FOR;
            let mut sink = [0; 16 * 1024];
            while flow.state != State::Done && flow.lost < limit {
                match (&mut &*sock).read(&mut sink) {
                    Ok(length) if length > 0 => flow.lost += length as u64,
                    _ => break,
                }
            }
            if flow.lost > 0 {
                self.connection.record(flow.direction, Kind::Lost { length: flow.lost });
                flow.lost = 0;
            }
        }
    }

    /// Makes the kernel send an RST to both when the sockets are dropped.
    fn reset_both(&self) {
        for sock in &self.socks {
            let _ = SockRef::from(sock).set_linger(Some(Duration::ZERO));
        }
    }

    /// Whether both directions have ended.
    fn is_over(&mut self) -> bool {
        let is_over = |side: usize| match self.flows[side].state {
            State::Done => true,
            State::Stalled => self.dead[side].is_some(),
            State::Open | State::Discarding => false,
        };
        if !(0..2).all(is_over) {
            return false;
        }
        (0..2).for_each(|side| self.was_answered(side)); // the very last bytes, that is
        match self.dead.iter().position(Option::is_some) {
            Some(gone) => self.pass_on_reset(gone),
            None => self.account(),
        }
        true
    }

    /// Waits until something can be done.
    fn wait(&mut self, again: bool, stop: Option<&Stop>) -> io::Result<()> {
        let mut due = again.then(Instant::now);
        let mut wanted = [PollFlags::empty(); 2];
        for source in 0..2 {
            let flow = &mut self.flows[source];
            if flow.wants_more() {
                wanted[source] |= PollFlags::IN;
                if self.readable[source] || self.dead[source].is_some() {
                    self.readable[source] = true;
                    due = Some(Instant::now());
                }
            }
            if flow.state == State::Open && flow.blocked {
                wanted[1 - source] |= PollFlags::OUT;
            } else if flow.state == State::Open {
                let next = flow.piece().map(|piece| piece.due).or(flow.end_due());
                due = due.into_iter().chain(next).min();
            }
        }
        let is_open = |&side: &usize| self.dead[side].is_none() && !self.closed[side];
        let sides: Vec<usize> = (0..2).filter(is_open).collect();
        let fd = |&side: &usize| PollFd::new(&self.socks[side], wanted[side]);
        let mut fds: Vec<_> = sides.iter().map(fd).collect();
        poll(&mut fds, due, stop)?;
        let seen: Vec<_> = fds.iter().map(PollFd::revents).collect();
        for (&side, seen) in sides.iter().zip(seen) {
            if seen.contains(PollFlags::OUT) {
                self.flows[1 - side].blocked = false;
            }
            if seen.contains(PollFlags::IN) {
                self.readable[side] = true;
            }
            if seen.intersects(PollFlags::ERR | PollFlags::HUP) {
                self.readable[side] = true;
                match self.socks[side].take_error()? {
                    Some(error) => self.dead[side] = Some(error.kind()),
                    None => self.closed[side] = true,
                }
            }
        }
        Ok(())
    }
}
