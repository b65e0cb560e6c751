//! Datagrams: one association per client address, one thread for all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::{Faults, Stop, poll};
use crate::event::{Connection, Direction, Kind, Recorder};
use crate::fault::{OVERTAKE, Plan, dice};

/// Clients at a time; the one silent for the longest makes room for a new one.
const ASSOCIATIONS: usize = 256;
/// A client that is silent for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// Datagrams on their way, in number and in bytes; what comes on top is lost, as in a router.
const ON_THEIR_WAY: usize = 4096;
const BYTES_ON_THEIR_WAY: usize = 8 << 20;
/// Datagrams taken from one socket before the others have their turn.
const TURNS: usize = 64;
/// The longest datagram there can be, and one byte.
const LONGEST: usize = 65_536;

/// Relays datagrams between the clients that send to `sock` and the server at `target`, until it
/// is stopped. Each client address is a connection of `recorder`: `tell` is called with its number
/// and the client when that is heard for the first time, and with its number when it is forgotten.
///
/// # Errors
/// A socket cannot be prepared, or waited for. That nobody listens at `target` is recorded.
pub fn udp(
    sock: &UdpSocket,
    target: SocketAddr,
    faults: &Faults,
    recorder: &Recorder,
    stop: Option<&Stop>,
    tell: &dyn Fn(u32, Option<SocketAddr>),
) -> io::Result<()> {
    sock.set_nonblocking(true)?;
    let mut relay = Relay {
        sock,
        target,
        faults,
        recorder,
        tell,
        by_address: HashMap::new(),
        associations: BTreeMap::new(),
        on_their_way: BinaryHeap::new(),
        bytes_on_their_way: 0,
        turn: 0,
        buffer: vec![0; LONGEST],
    };
    while !stop.is_some_and(Stop::is_made) {
        let due = relay.next_due();
        let ready = relay.wait(due, stop)?;
        for number in ready {
            relay.receive(number);
        }
        relay.send_due();
        relay.forget_idle();
    }
    Ok(())
}

/// A client, and the socket by which the server knows it.
struct Association {
    client: SocketAddr,
    sock: UdpSocket,
    connection: Connection,
    used: Instant,
    lanes: [Lane; 2],
}

/// One direction of an association.
#[derive(Default)]
struct Lane {
    datagrams: u64,
    bytes: u64,
    line_free: Option<Instant>,
    /// A datagram that waits to be overtaken, and until when.
    held: Option<(Vec<u8>, Instant)>,
}

/// A datagram on its way. Ordered by the time it is due, then by its number.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct OnItsWay {
    due: Instant,
    turn: u64,
    association: u32,
    to_client: bool,
    bytes: Vec<u8>,
}

struct Relay<'r> {
    sock: &'r UdpSocket,
    target: SocketAddr,
    faults: &'r Faults,
    recorder: &'r Recorder,
    tell: &'r dyn Fn(u32, Option<SocketAddr>),
    by_address: HashMap<SocketAddr, u32>,
    associations: BTreeMap<u32, Association>,
    on_their_way: BinaryHeap<Reverse<OnItsWay>>,
    bytes_on_their_way: usize,
    turn: u64,
    buffer: Vec<u8>,
}

impl Relay<'_> {
    /// Waits; returns the associations whose server has answered, and 0 if a client has sent.
    fn wait(&self, due: Option<Instant>, stop: Option<&Stop>) -> io::Result<Vec<u32>> {
        let numbers = [0].into_iter().chain(self.associations.keys().copied());
        let socks = self.associations.values().map(|association| &association.sock);
        let socks = [self.sock].into_iter().chain(socks);
        let mut fds: Vec<_> = socks.map(|sock| PollFd::new(sock, PollFlags::IN)).collect();
        poll(&mut fds, due, stop)?;
        let ready = numbers.zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(number, _)| number).collect())
    }

    fn next_due(&self) -> Option<Instant> {
        let sent = self.on_their_way.peek().map(|Reverse(first)| first.due);
        let each = self.associations.values();
        let idle = each.clone().map(|association| association.used + IDLE);
        let held = each.flat_map(|association| &association.lanes);
        let held = held.filter_map(|lane| lane.held.as_ref().map(|(_, until)| *until));
        sent.into_iter().chain(idle).chain(held).min()
    }

    fn receive(&mut self, number: u32) {
        for _ in 0..TURNS {
            let mut buffer = std::mem::take(&mut self.buffer);
            let received = match self.associations.get(&number) {
                None => self.sock.recv_from(&mut buffer),
                Some(it) => it.sock.recv(&mut buffer).map(|length| (length, it.client)),
            };
            match received {
                Ok((length, _)) if number > 0 => {
                    self.spoil(number, Direction::ToClient, buffer[..length].to_vec());
                }
                Ok((length, client)) => match self.association(client) {
                    Ok(number) => {
                        self.spoil(number, Direction::ToServer, buffer[..length].to_vec());
                    }
                    Err(error) => {
                        let connection = self.recorder.connection();
                        let text = format!("{}: no socket for it: {error}", canonical(client));
                        connection.note(Direction::ToServer, text);
                    }
                },
                Err(error) => {
                    self.buffer = buffer;
                    if !self.failed(number, &error) {
                        return;
                    }
                    continue;
                }
            }
            self.buffer = buffer;
        }
    }

    /// Records what an error means. Returns whether another attempt may find something else.
    fn failed(&self, number: u32, error: &io::Error) -> bool {
        let Some(association) = self.associations.get(&number) else {
            return error.kind() == ErrorKind::Interrupted;
        };
        match error.kind() {
            ErrorKind::WouldBlock => false,
            ErrorKind::Interrupted => true,
            // The answer to an earlier datagram (ICMP port unreachable); Windows says reset.
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => {
                association.connection.record(Direction::ToClient, Kind::Refused);
                true
            }
            _ => {
                association.connection.note(Direction::ToClient, error.to_string());
                false
            }
        }
    }

    /// The association of a client, made if there is none.
    fn association(&mut self, client: SocketAddr) -> io::Result<u32> {
        if let Some(&number) = self.by_address.get(&client) {
            return Ok(number);
        }
        if self.associations.len() >= ASSOCIATIONS {
            let each = self.associations.iter();
            let oldest = each.min_by_key(|(_, it)| it.used).map(|(&number, _)| number);
            oldest.into_iter().for_each(|number| self.forget(number, "too many clients"));
        }
        let any: SocketAddr = match self.target {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let sock = UdpSocket::bind(any)?;
        sock.connect(self.target)?;
        sock.set_nonblocking(true)?;
        let connection = self.recorder.connection();
        let shown = canonical(client);
        let text = format!("{shown} -> {}", self.target);
        connection.note(Direction::ToServer, text);
        let number = connection.number();
        (self.tell)(number, Some(shown));
        let used = Instant::now();
        let lanes = Default::default();
        let association = Association { client, sock, connection, used, lanes };
        self.associations.insert(number, association);
        self.by_address.insert(client, number);
        Ok(number)
    }

    fn forget(&mut self, number: u32, why: &str) {
        if let Some(association) = self.associations.remove(&number) {
            self.by_address.remove(&association.client);
            association.connection.note(Direction::ToServer, format!("forgotten: {why}"));
            association.connection.record(Direction::ToServer, Kind::Over);
            (self.tell)(number, None);
        }
    }

    fn forget_idle(&mut self) {
        let each = self.associations.iter();
        let idle = each.filter(|(_, it)| it.used.elapsed() >= IDLE).map(|(&number, _)| number);
        for number in idle.collect::<Vec<_>>() {
            self.forget(number, "silent for 60 s");
        }
    }

    /// Decides what becomes of a datagram that has just come.
    fn spoil(&mut self, number: u32, direction: Direction, mut bytes: Vec<u8>) {
        let plan = match direction {
            Direction::ToServer => &self.faults.to_server,
            Direction::ToClient => &self.faults.to_client,
        };
        let Some(association) = self.associations.get_mut(&number) else {
            return;
        };
        association.used = Instant::now();
        let connection = association.connection.clone();
        let lane = &mut association.lanes[direction.index()];
        let nth = lane.datagrams;
        let before = lane.bytes;
        lane.datagrams += 1;
        lane.bytes += bytes.len() as u64;
        let salt = u64::from(number) << 8 | direction.index() as u64;
        let dice = |what: u64| dice(self.faults.seed, salt | what << 1, nth);
        let fault = |text: String| connection.record(direction, Kind::Fault { text });

        let length = bytes.len() as u64;
        if plan.drop.strikes(dice(1)) {
            connection.record(direction, Kind::Lost { length });
            return;
        }
        if let Some(at) = plan.corrupt_at
            && let Some(byte) = at.checked_sub(before).and_then(|at| bytes.get_mut(at as usize))
        {
            *byte ^= 1;
            fault(format!("corrupt-at={at}: byte {:#04x} became {:#04x}", *byte ^ 1, *byte));
        }
        if let Some(most) = plan.truncate.filter(|&most| most < length) {
            bytes.truncate(most as usize);
            fault(format!("truncate={most}: {} bytes cut off", length - most));
        }
        if plan.reorder.strikes(dice(2)) && lane.held.is_none() {
            fault("reorder: the next datagram overtakes this one".to_owned());
            lane.held = Some((bytes, Instant::now() + OVERTAKE));
            return;
        }
        let due = Self::due(plan, lane, bytes.len(), dice(3));
        let twice = plan.dup.strikes(dice(4)).then(|| bytes.clone());
        if twice.is_some() {
            fault("dup: this datagram is sent twice".to_owned());
        }
        let overtaken = lane.held.take().map(|(bytes, _)| bytes);
        for bytes in [Some(bytes), twice, overtaken].into_iter().flatten() {
            self.on_its_way(number, direction, due, bytes);
        }
    }

    fn due(plan: &Plan, lane: &mut Lane, length: usize, dice: u64) -> Instant {
        let mut due = Instant::now();
        if let Some(rate) = plan.rate {
            due = lane.line_free.map_or(due, |free| free.max(due));
            due += Duration::from_secs_f64(length as f64 / rate as f64);
            lane.line_free = Some(due);
        }
        let jitter = dice % (plan.jitter.as_micros() as u64 + 1);
        due + plan.delay + Duration::from_micros(jitter)
    }

    fn on_its_way(&mut self, association: u32, direction: Direction, due: Instant, bytes: Vec<u8>) {
        let full = self.on_their_way.len() >= ON_THEIR_WAY
            || self.bytes_on_their_way + bytes.len() > BYTES_ON_THEIR_WAY;
        if full {
            if let Some(it) = self.associations.get(&association) {
                it.connection.record(direction, Kind::Lost { length: bytes.len() as u64 });
            }
            return;
        }
        self.bytes_on_their_way += bytes.len();
        self.turn += 1;
        let turn = self.turn;
        let to_client = direction == Direction::ToClient;
        self.on_their_way.push(Reverse(OnItsWay { due, turn, association, to_client, bytes }));
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for (&number, association) in &mut self.associations {
            for direction in Direction::BOTH {
                let held = &mut association.lanes[direction.index()].held;
                if let Some((bytes, _)) = held.take_if(|(_, until)| *until <= now) {
                    late.push((number, direction, bytes));
                }
            }
        }
        for (number, direction, bytes) in late {
            self.on_its_way(number, direction, now, bytes);
        }
        while self.on_their_way.peek().is_some_and(|Reverse(first)| first.due <= now) {
            let Some(Reverse(datagram)) = self.on_their_way.pop() else { break };
            self.bytes_on_their_way -= datagram.bytes.len();
            self.send(&datagram);
        }
    }

    fn send(&self, datagram: &OnItsWay) {
        let Some(association) = self.associations.get(&datagram.association) else {
            return;
        };
        let (direction, bytes) = match datagram.to_client {
            true => (Direction::ToClient, &datagram.bytes),
            false => (Direction::ToServer, &datagram.bytes),
        };
        let send = || match direction {
            Direction::ToServer => association.sock.send(bytes),
            Direction::ToClient => self.sock.send_to(bytes, association.client),
        };
        // The first attempt may only report what became of an earlier datagram.
        for _ in 0..2 {
            match send() {
                Ok(_) => return association.connection.data(direction, bytes),
                Err(error) if self.failed(datagram.association, &error) => {}
                Err(_) => break,
            }
        }
        association.connection.record(direction, Kind::Lost { length: bytes.len() as u64 });
    }
}

/// Of a socket for both families, ::ffff:127.0.0.1 is for people 127.0.0.1.
fn canonical(client: SocketAddr) -> SocketAddr {
    SocketAddr::new(client.ip().to_canonical(), client.port())
}
