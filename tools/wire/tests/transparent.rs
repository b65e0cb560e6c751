//! Without faults a relay cannot be told from the direct way: same bytes, same endings.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;
use wire::event::{Connection, Direction, Kind, Recorder};
use wire::relay::{self, Faults};

/// Longer than anything here takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(30);

/// What a side does after it has sent everything.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leave {
    /// Sends a FIN, reads to the end, closes.
    HalfClose,
    /// Reads to the end, closes.
    Wait,
    /// Sends an RST once it has read all that the other side sends.
    Reset,
}

/// A side: what it sends, in pieces, and how it leaves.
#[derive(Clone, Debug)]
struct Side {
    pieces: Vec<Vec<u8>>,
    leave: Leave,
}

impl Side {
    fn total(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }
}

/// What a side has seen: all bytes, and how they ended.
#[derive(Debug, PartialEq)]
struct Seen {
    bytes: Vec<u8>,
    end: Result<(), ErrorKind>,
}

fn play(sock: TcpStream, me: &Side, other: &Side) -> Seen {
    sock.set_read_timeout(Some(LIMIT)).unwrap();
    sock.set_write_timeout(Some(LIMIT)).unwrap();
    sock.set_nodelay(true).unwrap();
    thread::scope(|scope| {
        let (sock, wanted) = (&sock, other.total());
        let reader = scope.spawn(move || {
            let mut bytes = Vec::new();
            let mut buffer = [0; 5000];
            let end = loop {
                if me.leave == Leave::Reset && bytes.len() >= wanted {
                    break Ok(());
                }
                match (&*sock).read(&mut buffer) {
                    Ok(0) => break Ok(()),
                    Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                    Err(error) => break Err(error.kind()),
                }
            };
            Seen { bytes, end }
        });
        for piece in &me.pieces {
            let mut sock = sock;
            if sock.write_all(piece).is_err() {
                break; // the other side has left: the reader tells how
            }
        }
        if me.leave == Leave::HalfClose {
            let _ = sock.shutdown(Shutdown::Write);
        }
        let seen = reader.join().unwrap();
        if me.leave == Leave::Reset {
            socket2::SockRef::from(sock).set_linger(Some(Duration::ZERO)).unwrap();
        }
        seen
    })
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// Lets both sides play, directly or through a relay; returns what client and server have seen.
fn run(client: &Side, server: &Side, through: Option<&Connection>) -> [Seen; 2] {
    let target = listen();
    let to = target.local_addr().unwrap();
    thread::scope(|scope| {
        let door = through.map(|connection| {
            let door = listen();
            let addr = door.local_addr().unwrap();
            scope.spawn(move || {
                let (conn, _) = door.accept().unwrap();
                let onward = TcpStream::connect(to).unwrap();
                relay::tcp(conn, onward, &Faults::default(), connection, None).unwrap();
            });
            addr
        });
        let served = scope.spawn(move || play(target.accept().unwrap().0, server, client));
        let seen = play(TcpStream::connect(door.unwrap_or(to)).unwrap(), client, server);
        [seen, served.join().unwrap()]
    })
}

fn side(longest: usize) -> impl Strategy<Value = Side> {
    let pieces =
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..longest), 0..8);
    let leave = prop_oneof![Just(Leave::HalfClose), Just(Leave::Wait), Just(Leave::Reset)];
    (pieces, leave).prop_map(|(pieces, leave)| Side { pieces, leave })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn same_bytes_and_same_ending(mut client in side(6000), mut server in side(6000)) {
        // Two who wait for each other wait for ever; of two RSTs the first one wins, directly too.
        if server.leave == client.leave && server.leave != Leave::HalfClose {
            (client.leave, server.leave) = (Leave::HalfClose, Leave::Wait);
        }
        let direct = run(&client, &server, None);
        let recorder = Recorder::new();
        let relayed = run(&client, &server, Some(&recorder.connection()));
        prop_assert!(direct == relayed, "{:?}", (direct[0].end, direct[1].end, relayed[0].end, relayed[1].end));
        let events = recorder.events();
        for (direction, side) in Direction::BOTH.into_iter().zip([&client, &server]) {
            let bytes: u64 = events.iter().map(|e| e.kind.bytes(e.direction)[direction.index()]).sum();
            prop_assert_eq!(bytes, side.total() as u64);
            let resets = events.iter().any(|e| e.direction == direction && e.kind == Kind::Reset);
            prop_assert_eq!(resets, side.leave == Leave::Reset);
        }
    }
}

/// Much more than all buffers hold, both ways at once.
#[test]
fn megabytes_both_ways() {
    let bytes = |seed: u32| {
        (0..64u32)
            .map(|n| (0..300_000u32).map(|i| (i * 7 + n * 13 + seed) as u8).collect())
            .collect()
    };
    let client = Side { pieces: bytes(1), leave: Leave::HalfClose };
    let server = Side { pieces: bytes(2), leave: Leave::HalfClose };
    let recorder = Recorder::new();
    let [at_client, at_server] = run(&client, &server, Some(&recorder.connection()));
    assert!(at_client.bytes == server.pieces.concat() && at_client.end == Ok(()));
    assert!(at_server.bytes == client.pieces.concat() && at_server.end == Ok(()));
}

/// A connection through a relay, each side with its own socket.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    recorder: Recorder,
    relay: thread::JoinHandle<()>,
}

fn pair() -> Pair {
    let (door, target) = (listen(), listen());
    let client = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    let onward = TcpStream::connect(target.local_addr().unwrap()).unwrap();
    let (conn, server) = (door.accept().unwrap().0, target.accept().unwrap().0);
    let recorder = Recorder::new();
    let connection = recorder.connection();
    let run = move || relay::tcp(conn, onward, &Faults::default(), &connection, None).unwrap();
    for sock in [&client, &server] {
        sock.set_read_timeout(Some(LIMIT)).unwrap();
    }
    Pair { client, server, recorder, relay: thread::spawn(run) }
}

#[test]
fn a_receiver_who_does_not_read_stalls_the_sender() {
    let mut it = pair();
    it.client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut total = 0;
    let error = loop {
        match it.client.write(&[7; 65536]) {
            Ok(length) => total += length,
            Err(error) => break error,
        }
        assert!(total < 128 << 20, "somebody buffers without bound");
    };
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    it.client.shutdown(Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    it.server.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), total);
}

#[test]
fn an_rst_reaches_a_server_who_does_not_read() {
    let mut it = pair();
    it.client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while it.client.write(&[7; 65536]).is_ok() {}
    relay::reset(it.client);
    it.relay.join().unwrap(); // notices although it is not reading
    while it.server.read(&mut [0; 65536]).is_ok_and(|length| length > 0) {}
    let events = it.recorder.events();
    let resets = events.iter().filter(|e| e.kind == Kind::Reset);
    assert!(resets.map(|e| e.direction).eq([Direction::ToServer]));
    let lost = |e: &&wire::event::Event| matches!(e.kind, Kind::Lost { length } if length > 0);
    assert_eq!(events.iter().filter(lost).count(), 1, "the loss is told");
}

#[test]
fn closing_with_unread_data_is_an_rst_for_the_other_side_too() {
    let mut it = pair();
    it.server.write_all(b"never read").unwrap();
    it.client.peek(&mut [0; 1]).unwrap(); // it is there
    drop(it.client);
    assert_eq!(it.server.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    it.relay.join().unwrap();
    let events = it.recorder.events();
    assert_eq!(events[events.len() - 2].kind, Kind::Reset);
    assert_eq!(events[events.len() - 1].kind, Kind::Over);
}

#[test]
fn an_rst_that_answers_the_last_bytes_is_recorded() {
    let mut it = pair();
    drop(it.client);
    assert_eq!(it.server.read(&mut [0; 1]).unwrap(), 0);
    it.server.write_all(b"too late").unwrap();
    drop(it.server);
    it.relay.join().unwrap();
    let events = it.recorder.events();
    let to_server = events.iter().filter(|e| e.direction == Direction::ToServer);
    assert!(to_server.map(|e| &e.kind).eq([&Kind::Fin, &Kind::Reset, &Kind::Over]), "{events:?}");
}

#[test]
fn a_stopped_relay_ends() {
    let stop = relay::Stop::new();
    let (door, target) = (listen(), listen());
    let mut client = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    let onward = TcpStream::connect(target.local_addr().unwrap()).unwrap();
    let conn = door.accept().unwrap().0;
    let connection = Recorder::new().connection();
    let relay = thread::spawn({
        let stop = stop.clone();
        move || relay::tcp(conn, onward, &Faults::default(), &connection, Some(&stop)).unwrap()
    });
    stop.stop();
    relay.join().unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}
