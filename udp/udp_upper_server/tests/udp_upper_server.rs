//! udp_upper_server as its clients meet it: every datagram answered, whatever the others do.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use harness::{LIMIT, Process, Server, Signal};

/// The longest datagram over IPv4: 65 535 bytes less the headers of IP and UDP.
const LARGEST: usize = 65_507;

fn start(args: &[&str]) -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_udp_upper_server")), args).unwrap()
}

/// A client's socket, connected to `server`.
fn client(server: SocketAddr) -> UdpSocket {
    let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let sock = UdpSocket::bind(any).unwrap();
    sock.connect(server).unwrap();
    sock.set_read_timeout(Some(LIMIT)).unwrap();
    sock
}

fn receive(sock: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let n = sock.recv(&mut buffer).unwrap();
    buffer.truncate(n);
    buffer
}

fn ask(sock: &UdpSocket, message: &[u8]) -> Vec<u8> {
    sock.send(message).unwrap();
    receive(sock)
}

#[test]
fn both_ip_versions_are_answered() {
    for here in ["localhost:0", "127.0.0.1:0", "[::1]:0"] {
        let server = start(&[here]);
        assert_eq!(ask(&client(server.addr), b"hello, 42"), b"HELLO, 42", "{here}");
    }
    let server = start(&[":0"]);
    for host in ["127.0.0.1", "::1"] {
        let addr = SocketAddr::new(host.parse().unwrap(), server.addr.port());
        assert_eq!(ask(&client(addr), host.as_bytes()), host.as_bytes());
    }
}

#[test]
fn a_datagram_is_answered_whole_whatever_is_in_it() {
    let server = start(&["localhost:0"]);
    let sock = client(server.addr);
    let bytes: Vec<u8> = (0..LARGEST).map(|n| (n * 7 % 256) as u8).collect();
    for message in [&b""[..], b"x", b"\0\n\xff", "안녕 é".as_bytes(), &bytes[..2049], &bytes] {
        assert!(ask(&sock, message) == message.to_ascii_uppercase(), "{} bytes", message.len());
    }
}

#[test]
fn each_datagram_is_one_sentence() {
    let server = start(&["localhost:0"]);
    let sock = client(server.addr);
    for message in [&b"one"[..], b"", b"two\nthree"] {
        sock.send(message).unwrap();
    }
    assert_eq!([(); 3].map(|()| receive(&sock)), [&b"ONE"[..], b"", b"TWO\nTHREE"]);
}

#[test]
fn a_datagram_that_is_cut_is_logged() {
    let server = start(&["localhost:0", "-b", "10"]);
    let sock = client(server.addr);
    assert_eq!(ask(&sock, b"abcdefghij"), b"ABCDEFGHIJ");
    assert_eq!(ask(&sock, b"abcdefghijk"), b"ABCDEFGHIJ");
    let line = format!("A datagram from {} was cut to 10 bytes", sock.local_addr().unwrap());
    assert!(server.logged(&line));
    let log = String::from_utf8(server.process.stderr.wait(LIMIT, |_| true)).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}"); // nothing about the one that just fitted
}

#[test]
fn a_client_of_both_families_is_logged_by_its_own_address() {
    let server = start(&[":0", "-b", "1"]);
    let sock = client(SocketAddr::new([127, 0, 0, 1].into(), server.addr.port()));
    assert_eq!(ask(&sock, b"ab"), b"A");
    assert!(server.logged(&format!("A datagram from {} was", sock.local_addr().unwrap())));
}

#[test]
fn the_longest_datagrams_of_both_ip_versions_are_not_cut_to_something_else() {
    let server = start(&["[::1]:0"]);
    let sock = client(server.addr);
    let longest = vec![b'a'; 65_527]; // IPv6: its own header does not count
    assert_eq!(ask(&sock, &longest).len(), LARGEST);
    assert!(server.logged("was cut to 65507 bytes"));
    let server = start(&["[::1]:0", "-b", "65535"]);
    assert_eq!(ask(&client(server.addr), &longest), vec![b'A'; 65_527]);
}

#[test]
fn clients_that_are_gone_do_not_end_it() {
    let server = start(&["localhost:0"]);
    let alive = client(server.addr);
    for _ in 0..50 {
        // Connected to somebody else, it takes no answer: ICMP port unreachable.
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        gone.connect(alive.local_addr().unwrap()).unwrap();
        gone.send_to(b"gone", server.addr).unwrap();
    }
    assert_eq!(ask(&alive, b"still there"), b"STILL THERE");
}

#[test]
fn its_clients_are_told_apart() {
    let server = start(&["localhost:0"]);
    let clients: Vec<_> = (0..100).map(|_| client(server.addr)).collect();
    for (n, sock) in clients.iter().enumerate() {
        sock.send(format!("client {n}").as_bytes()).unwrap();
    }
    for (n, sock) in clients.iter().enumerate().rev() {
        assert_eq!(receive(sock), format!("CLIENT {n}").as_bytes());
    }
}

#[test]
fn it_says_that_it_is_ready_and_ends_on_a_signal() {
    let mut here = "localhost:0".to_owned();
    for signal in [Signal::INT, Signal::TERM, Signal::INT] {
        let mut server = start(&[&here]);
        here = server.addr.to_string(); // free again at once
        assert_eq!(ask(&client(server.addr), b"x"), b"X");
        server.process.signal(signal);
        let status = server.process.wait(LIMIT).unwrap();
        assert_eq!(status.code(), Some(0), "{signal:?}");
        let stdout = String::from_utf8(server.process.stdout.all(LIMIT)).unwrap();
        let lines = format!("Server started: {here}\nThe server is ready to receive\n");
        assert_eq!(stdout, lines);
    }
}

#[test]
fn each_datagram_is_logged_when_that_is_asked_for() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_udp_upper_server"));
    let process = Process::spawn(command.arg("localhost:0").env("RUST_LOG", "debug")).unwrap();
    let stdout = process.stdout.wait(LIMIT, |bytes| bytes.contains(&b'\n'));
    let stdout = String::from_utf8(stdout).unwrap();
    let addr = stdout.lines().next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    let server = Server { process, addr };
    let sock = client(addr);
    ask(&sock, b"hi\n");
    assert!(server.logged(&format!("3 bytes from {}: hi\\n", sock.local_addr().unwrap())));
}

#[test]
fn its_address_is_the_lectures_unless_told_otherwise() {
    // In a test the port may be taken; either way it says which one it meant.
    let mut command = Command::new(env!("CARGO_BIN_EXE_udp_upper_server"));
    let mut process = Process::spawn(&mut command).unwrap();
    let stdout = process.stdout.wait(LIMIT, |line| line.ends_with(b"\n"));
    if stdout.is_empty() {
        assert_eq!(process.wait(LIMIT).and_then(|status| status.code()), Some(3));
        let stderr = String::from_utf8(process.stderr.all(LIMIT)).unwrap();
        assert!(stderr.starts_with("error: cannot receive at localhost:12000: "), "{stderr}");
    } else {
        assert!(stdout.starts_with(b"Server started: 127.0.0.1:12000\n"));
    }
}

#[test]
fn what_it_cannot_do_is_told_in_one_line() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (args, status, text) in [
        (&[&*taken][..], 3, "Address already in use"),
        (&["192.0.2.1:12000"], 3, "cannot receive at 192.0.2.1:12000"), // TEST-NET: nobody's
        (&["localhost:70000"], 2, "'70000' is not a port"),
        (&["localhost"], 2, "no port"),
        (&["-b", "0", "localhost:0"], 2, "0 is not in 1..=65535"),
        (&["-b", "65536", "localhost:0"], 2, "65536 is not in 1..=65535"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_udp_upper_server"));
        let ended = harness::run(command.args(args), b"").unwrap();
        let (code, line) = ended.error();
        assert!(code == Some(status) && line.contains(text), "{args:?}: {code:?} {line}");
    }
}
