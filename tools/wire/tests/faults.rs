//! Each fault, seen from a raw socket.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use wire::event::{Direction, Event, Kind, Recorder};
use wire::relay::{self, Faults, Stop};

/// Longer than anything here takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A connection whose way to the client is spoiled.
struct Spoiled {
    client: TcpStream,
    server: TcpStream,
    recorder: Recorder,
    relay: JoinHandle<()>,
    stop: Stop,
}

fn spoiled(to_client: &str) -> Spoiled {
    let faults = Faults { to_client: to_client.parse().unwrap(), seed: 7, ..Faults::default() };
    let (door, target) = ["127.0.0.1:0"; 2].map(|addr| TcpListener::bind(addr).unwrap()).into();
    let client = TcpStream::connect(door.local_addr().unwrap()).unwrap();
    let onward = TcpStream::connect(target.local_addr().unwrap()).unwrap();
    let (conn, server) = (door.accept().unwrap().0, target.accept().unwrap().0);
    for sock in [&client, &server] {
        sock.set_read_timeout(Some(LIMIT)).unwrap();
        sock.set_nodelay(true).unwrap();
    }
    let recorder = Recorder::new();
    let (connection, stop) = (recorder.connection(), Stop::new());
    let relay = thread::spawn({
        let stop = stop.clone();
        move || relay::tcp(conn, onward, &faults, &connection, Some(&stop)).unwrap()
    });
    Spoiled { client, server, recorder, relay, stop }
}

impl Spoiled {
    /// What the client reads until the end, read by read, each with its time; and the end.
    fn reads(&mut self) -> (Vec<(Vec<u8>, Duration)>, io::Result<()>) {
        let start = Instant::now();
        let (mut reads, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            match self.client.read(&mut buffer) {
                Ok(0) => return (reads, Ok(())),
                Ok(length) => reads.push((buffer[..length].to_vec(), start.elapsed())),
                Err(error) => return (reads, Err(error)),
            }
        }
    }

    /// Sends all bytes and a FIN from the server.
    fn serve(&mut self, bytes: &[u8]) {
        self.server.write_all(bytes).unwrap();
        self.server.shutdown(Shutdown::Write).unwrap();
    }

    fn events(self) -> Vec<Event> {
        drop((self.client, self.server));
        self.relay.join().unwrap();
        self.recorder.events()
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + i / 256) as u8).collect()
}

fn flat(reads: &[(Vec<u8>, Duration)]) -> Vec<u8> {
    reads.iter().flat_map(|(bytes, _)| bytes.clone()).collect()
}

#[test]
fn chunk_is_the_size_of_each_read() {
    let mut it = spoiled("chunk=100,delay=20ms");
    it.serve(&bytes(1050));
    let (reads, end) = it.reads();
    end.unwrap();
    assert_eq!(flat(&reads), bytes(1050));
    let sizes: Vec<_> = reads.iter().map(|(bytes, _)| bytes.len()).collect();
    assert_eq!(sizes, [100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 50]);
    let last = reads[10].1;
    assert!(
        last >= Duration::from_millis(11 * 20 - 5) && last < Duration::from_secs(2),
        "{last:?}"
    );
    let data = it.events().into_iter().filter(|e| matches!(e.kind, Kind::Data { .. }));
    assert!(data.map(|e| e.kind.bytes(e.direction)[1] as usize).eq(sizes));
}

#[test]
fn chunks_without_delay_are_kept_apart_as_well() {
    let mut it = spoiled("chunk=1");
    it.serve(&bytes(500));
    let (reads, end) = it.reads();
    end.unwrap();
    assert_eq!(flat(&reads), bytes(500));
    assert!(reads.len() > 250, "{} reads", reads.len()); // a busy machine merges some
}

#[test]
fn delay_is_late_but_not_slow() {
    let mut it = spoiled("delay=300ms");
    let start = Instant::now();
    for part in bytes(10_000).chunks(1000) {
        it.server.write_all(part).unwrap();
        thread::sleep(Duration::from_millis(5)); // so that each arrives on its own
    }
    it.server.shutdown(Shutdown::Write).unwrap();
    let sent = start.elapsed();
    let (reads, end) = it.reads();
    end.unwrap();
    assert_eq!(flat(&reads), bytes(10_000));
    assert!(sent + reads[0].1 >= Duration::from_millis(290), "{:?}", reads[0].1);
    assert!(start.elapsed() < Duration::from_millis(900), "the delays do not add up");
}

#[test]
fn jitter_keeps_the_order_and_repeats_with_the_seed() {
    let times = || {
        let mut it = spoiled("chunk=10,jitter=20ms");
        it.serve(&bytes(200));
        let (reads, end) = it.reads();
        end.unwrap();
        assert_eq!(flat(&reads), bytes(200));
        reads.iter().map(|(_, at)| at.as_millis() as i64).collect::<Vec<_>>()
    };
    let (one, two) = (times(), times());
    assert!(one[one.len() - 1] >= 12, "later than the pieces' distance alone: {one:?}");
    let off = (one[one.len() - 1] - two[two.len() - 1]).abs();
    assert!(off < 15, "{one:?} {two:?}");
}

#[test]
fn rate_is_kept_within_a_fifth() {
    for (rate, length) in [(100_000, 60_000), (2_000_000, 1_200_000)] {
        let mut it = spoiled(&format!("rate={rate}"));
        let mut server = it.server.try_clone().unwrap();
        let sent = bytes(length);
        let writer = thread::spawn(move || {
            server.write_all(&sent).unwrap();
            server.shutdown(Shutdown::Write).unwrap();
        });
        let (reads, end) = it.reads();
        end.unwrap();
        writer.join().unwrap();
        assert_eq!(flat(&reads).len(), length);
        let measured = length as f64 / reads.last().unwrap().1.as_secs_f64();
        let ratio = measured / f64::from(rate);
        assert!((0.8..1.2).contains(&ratio), "{ratio}");
    }
}

#[test]
fn hold_tail_comes_late_but_comes() {
    let mut it = spoiled("hold-tail=100");
    it.server.write_all(&bytes(1000)).unwrap();
    let mut buffer = [0; 2000];
    let start = Instant::now();
    let mut first = 0;
    while first < 900 {
        first += it.client.read(&mut buffer[first..]).unwrap();
    }
    assert_eq!(first, 900, "the tail is held");
    let rest = it.client.read(&mut buffer[first..]).unwrap();
    assert_eq!((rest, &buffer[..1000]), (100, &bytes(1000)[..]));
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
    it.serve(&bytes(50));
    assert_eq!(flat(&it.reads().0), bytes(50), "a stream shorter than the tail comes too");
}

#[test]
fn fin_after_is_a_read_of_nothing() {
    let mut it = spoiled("fin-after=3000");
    it.serve(&bytes(5000));
    let (reads, end) = it.reads();
    end.unwrap();
    assert_eq!(flat(&reads), bytes(3000));
    it.client.write_all(b"the other way is open").unwrap();
    it.client.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    it.server.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"the other way is open");
    let events = it.events();
    let fin =
        events.iter().position(|e| (e.direction, &e.kind) == (Direction::ToClient, &Kind::Fin));
    assert!(
        matches!(&events[fin.unwrap() - 1].kind, Kind::Fault { text } if text.starts_with("fin-after=3000"))
    );
    assert!(events.iter().any(|e| e.kind == Kind::Lost { length: 2000 }), "{events:?}");
}

#[test]
fn reset_after_is_econnreset_for_both() {
    let mut it = spoiled("reset-after=3000");
    it.server.write_all(&bytes(5000)).unwrap();
    let (reads, end) = it.reads();
    assert_eq!(flat(&reads), bytes(3000));
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(it.server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn fin_and_reset_after_nothing() {
    assert_eq!(spoiled("fin-after=0").client.read(&mut [0]).unwrap(), 0);
    let error = spoiled("reset-after=0").client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn stall_after_is_silence_one_way_only() {
    let mut it = spoiled("stall-after=3000");
    it.serve(&bytes(5000));
    let mut buffer = vec![0; 3000];
    it.client.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, bytes(3000));
    it.client.write_all(b"ping").unwrap();
    it.client.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    it.server.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"ping");
    drop(it.server); // now closed in both directions, which must not get through either
    it.client.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let error = it.client.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    assert!(it.recorder.events().iter().any(|e| e.kind == Kind::Stall));
    it.stop.stop();
    it.relay.join().unwrap();
}

#[test]
fn a_stalled_connection_ends_with_the_client() {
    let mut it = spoiled("stall-after=0");
    it.serve(&bytes(5000));
    relay::reset(it.client);
    it.relay.join().unwrap();
    assert_eq!(it.server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_stalled_connection_ends_when_both_have_gone() {
    let mut it = spoiled("stall-after=0");
    relay::reset(it.server);
    it.client.write_all(b"anybody there?").unwrap();
    drop(it.client);
    it.relay.join().unwrap();
}

#[test]
fn corrupt_at_changes_one_bit() {
    for (length, chunk) in [(1000, 1000), (1000, 7)] {
        let mut it = spoiled(&format!("corrupt-at=777,chunk={chunk}"));
        it.serve(&bytes(length));
        let (reads, end) = it.reads();
        end.unwrap();
        let mut expected = bytes(length);
        expected[777] ^= 1;
        assert_eq!(flat(&reads), expected);
        let faults = it.events().into_iter().filter(|e| matches!(e.kind, Kind::Fault { .. }));
        assert_eq!(faults.count(), 1);
    }
}

#[test]
fn an_rst_comes_behind_delayed_data() {
    let mut it = spoiled("delay=100ms,chunk=400");
    it.server.write_all(&bytes(1000)).unwrap();
    relay::reset(it.server);
    let (mut got, mut buffer) = (Vec::new(), [0; 2000]);
    let error = loop {
        match it.client.read(&mut buffer) {
            Ok(length) if length > 0 => got.extend_from_slice(&buffer[..length]),
            other => break other.unwrap_err(),
        }
    };
    assert_eq!((got, error.kind()), (bytes(1000), ErrorKind::ConnectionReset));
}

/// Sends datagrams through a relay whose way to the server is spoiled; returns what arrives, and
/// what was recorded.
fn datagrams(to_server: &str, count: usize, seed: u64) -> (Vec<Vec<u8>>, Vec<Event>) {
    let faults = Faults { to_server: to_server.parse().unwrap(), seed, ..Faults::default() };
    let [door, target, client] = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let (at, to) = (door.local_addr().unwrap(), target.local_addr().unwrap());
    let (recorder, stop) = (Recorder::new(), Stop::new());
    let relay = thread::spawn({
        let (recorder, stop) = (recorder.clone(), stop.clone());
        move || relay::udp(&door, to, &faults, &recorder, Some(&stop), &|_, _| {}).unwrap()
    });
    let reader = thread::spawn(move || {
        let (mut arrived, mut buffer) = (Vec::new(), [0; 2000]);
        target.set_read_timeout(Some(LIMIT)).unwrap();
        while let Ok(length @ 1..) = target.recv(&mut buffer) {
            arrived.push(buffer[..length].to_vec());
        }
        arrived
    });
    let wait_for = |done: &dyn Fn(&[Event]) -> bool| {
        let end = Instant::now() + LIMIT;
        while !done(&recorder.events()) {
            assert!(Instant::now() < end, "{:?}", recorder.events());
            thread::yield_now();
        }
    };
    let of =
        |events: &[Event], what: fn(&Kind) -> bool| events.iter().filter(|e| what(&e.kind)).count();

    for n in 1..=count {
        client.send_to(format!("{n:05}{}", "a".repeat(95)).as_bytes(), at).unwrap();
        // One at a time: the relay's socket must not overflow.
        wait_for(&|events| {
            of(events, |kind| {
                matches!(kind, Kind::Data { .. } | Kind::Lost { .. }) || is_fault(kind, "reorder")
            }) >= n
        });
    }
    wait_for(&|events| {
        of(events, |kind| matches!(kind, Kind::Data { .. } | Kind::Lost { .. }))
            == count + of(events, |kind| is_fault(kind, "dup"))
    });
    stop.stop();
    relay.join().unwrap();
    client.send_to(b"", to).unwrap(); // the end
    (reader.join().unwrap(), recorder.events())
}

fn number(datagram: &[u8]) -> usize {
    String::from_utf8_lossy(&datagram[..5]).parse().unwrap()
}

#[test]
fn drop_loses_a_share_and_the_same_again_with_the_same_seed() {
    let numbers =
        |seed| datagrams("drop=20%", 300, seed).0.iter().map(|d| number(d)).collect::<Vec<_>>();
    let first = numbers(1);
    assert!((210..270).contains(&first.len()), "{}", first.len());
    assert!(first.is_sorted());
    assert_eq!(first, numbers(1));
    assert_ne!(first, numbers(2));
}

#[test]
fn dup_sends_a_share_twice() {
    let (arrived, _) = datagrams("dup=10%", 300, 3);
    assert!((310..360).contains(&arrived.len()), "{}", arrived.len());
    let mut numbers: Vec<_> = arrived.iter().map(|d| number(d)).collect();
    assert!(numbers.is_sorted());
    numbers.dedup();
    assert!(numbers.into_iter().eq(1..=300));
}

#[test]
fn reorder_lets_the_next_one_overtake() {
    let (arrived, _) = datagrams("reorder=10%", 300, 4);
    let mut numbers: Vec<_> = arrived.iter().map(|d| number(d)).collect();
    let overtaken = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!((10..60).contains(&overtaken), "{overtaken}");
    numbers.sort();
    assert!(numbers.into_iter().eq(1..=300), "none is lost");
}

#[test]
fn truncate_cuts_each_datagram_and_corrupt_changes_one_byte() {
    let (arrived, _) = datagrams("truncate=50,corrupt-at=210", 5, 5);
    let sizes: Vec<_> = arrived.iter().map(Vec::len).collect();
    assert_eq!(sizes, [50; 5]);
    assert_eq!(arrived[2][10], b'a' ^ 1, "byte 210 is byte 10 of the third datagram");
}

#[test]
fn each_client_address_gets_its_own_answers() {
    let [door, target] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let at = door.local_addr().unwrap();
    let (to, recorder, stop) = (target.local_addr().unwrap(), Recorder::new(), Stop::new());
    let relay = thread::spawn({
        let (recorder, stop) = (recorder.clone(), stop.clone());
        move || {
            relay::udp(&door, to, &Faults::default(), &recorder, Some(&stop), &|_, _| {}).unwrap()
        }
    });
    let echo = thread::spawn(move || {
        let mut buffer = [0; 100];
        for _ in 0..30 {
            let (length, from) = target.recv_from(&mut buffer).unwrap();
            target.send_to(&buffer[..length], from).unwrap();
        }
    });
    let clients: Vec<_> = (0..10).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for round in 0..3 {
        for (n, client) in clients.iter().enumerate() {
            client.send_to(format!("{n} {round}").as_bytes(), at).unwrap();
        }
        for (n, client) in clients.iter().enumerate() {
            let mut buffer = [0; 100];
            client.set_read_timeout(Some(LIMIT)).unwrap();
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..length], *format!("{n} {round}").as_bytes());
            assert_eq!(from, at);
        }
    }
    echo.join().unwrap();
    stop.stop();
    relay.join().unwrap();
    let mut numbers: Vec<_> = recorder.events().iter().map(|e| e.connection).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 10);
}

#[test]
fn nobody_at_the_target_is_refused() {
    let door = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = door.local_addr().unwrap();
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (recorder, stop) = (Recorder::new(), Stop::new());
    let mut seen = recorder.observe(100);
    let relay = thread::spawn({
        let stop = stop.clone();
        move || {
            relay::udp(&door, nobody, &Faults::default(), &recorder, Some(&stop), &|_, _| {})
                .unwrap()
        }
    });
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"anybody?", at).unwrap();
    assert!(seen.any(|event| event.kind == Kind::Refused));
    stop.stop();
    relay.join().unwrap();
}

fn is_fault(kind: &Kind, word: &str) -> bool {
    matches!(kind, Kind::Fault { text } if text.starts_with(word))
}
