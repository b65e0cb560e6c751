//! echoserv as its clients meet it: one at a time, in order, whatever they do to it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{LIMIT, Process, Server, Signal, has};
use socket2::SockRef;

fn start(args: &[&str]) -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_echoserv")), args).unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let sock = TcpStream::connect(server.addr).unwrap();
    sock.set_read_timeout(Some(LIMIT)).unwrap();
    sock
}

/// Sends `message` and a FIN, and takes everything that comes back.
fn exchange(mut sock: &TcpStream, message: &[u8]) -> Vec<u8> {
    sock.write_all(message).unwrap();
    sock.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    sock.read_to_end(&mut back).unwrap();
    back
}

#[test]
fn one_client_at_a_time_and_in_order() {
    let server = start(&["localhost:0"]);
    let first = connect(&server);
    assert!(server.logged(&format!("Connection from {}", first.local_addr().unwrap())));
    let others: Vec<_> = (0..5).map(|_| connect(&server)).collect(); // connected, not refused
    for mut sock in &others {
        sock.write_all(b"waiting").unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
    }
    let mut waiting = &others[0];
    waiting.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(waiting.read(&mut [0; 8]).is_err(), "a second client is served beside the first");
    waiting.set_read_timeout(Some(LIMIT)).unwrap();

    assert_eq!(exchange(&first, b"first"), b"first");
    let mut lines = vec![format!("Client closed {}", first.local_addr().unwrap())];
    for mut sock in &others {
        let mut back = Vec::new();
        sock.read_to_end(&mut back).unwrap();
        assert_eq!(back, b"waiting");
        lines.push(format!("Connection from {}", sock.local_addr().unwrap()));
        lines.push(format!("Client closed {}", sock.local_addr().unwrap()));
    }
    assert!(server.logged(lines.last().unwrap()));
    let log = String::from_utf8(server.process.stderr.wait(LIMIT, |_| true)).unwrap();
    let found: Vec<_> = lines.iter().map(|line| log.find(line.as_str())).collect();
    assert!(found.is_sorted() && found[0].is_some(), "{log}");
}

#[test]
fn any_bytes_come_back_whatever_the_buffer() {
    let message: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(n) >> 8) as u8).collect();
    for buffer in ["1", "1000", "65536"] {
        let server = start(&["[::1]:0", "--buffer", buffer]);
        assert_eq!(exchange(&connect(&server), &message), message);
    }
}

#[test]
fn two_hundred_resets_leave_it_running() {
    // A queue of 5 would be full now and then, and a full queue answers after a second.
    let server = start(&["localhost:0", "--backlog", "200"]);
    for n in 0..200 {
        let mut sock = connect(&server);
        if n % 2 == 0 {
            sock.write_all(b"never read back").unwrap();
        }
        SockRef::from(&sock).set_linger(Some(Duration::ZERO)).unwrap(); // closes with an RST
    }
    assert_eq!(exchange(&connect(&server), b"still there"), b"still there");
    assert!(server.logged("Client lost"));
}

#[test]
fn a_signal_ends_it_and_its_port_is_free_at_once() {
    let mut here = "localhost:0".to_owned();
    for signal in [Signal::INT, Signal::TERM, Signal::INT] {
        let mut server = start(&[&here]);
        here = server.addr.to_string();
        let open = connect(&server);
        let mut served = &open;
        served.write_all(b"x").unwrap();
        served.read_exact(&mut [0]).unwrap();
        server.process.signal(signal);
        let status = server.process.wait(LIMIT).unwrap();
        assert_eq!(status.code(), Some(0), "{signal:?}");
    }
}

#[test]
fn its_address_is_the_lectures_unless_told_otherwise() {
    // In a test the port may be taken; either way it says which one it meant.
    let mut process = Process::spawn(&mut Command::new(env!("CARGO_BIN_EXE_echoserv"))).unwrap();
    let stdout = process.stdout.wait(LIMIT, |line| line.ends_with(b"\n"));
    if stdout.is_empty() {
        assert_eq!(process.wait(LIMIT).and_then(|status| status.code()), Some(3));
        let stderr = String::from_utf8(process.stderr.all(LIMIT)).unwrap();
        assert!(stderr.starts_with("error: cannot listen on localhost:10007: "), "{stderr}");
    } else {
        assert_eq!(stdout, b"Server started: 127.0.0.1:10007\n");
    }
}

#[test]
fn what_it_cannot_listen_on_is_told_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (here, status, text) in [
        (&*taken, 3, "Address already in use"),
        ("192.0.2.1:10007", 3, "cannot listen on 192.0.2.1:10007"), // TEST-NET: nobody's
        ("localhost:70000", 2, "'70000' is not a port"),
        ("localhost", 2, "no port"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_echoserv"));
        let ended = harness::run(command.arg(here), b"").unwrap();
        let (code, line) = ended.error();
        assert_eq!(code, Some(status), "{line}");
        assert!(line.contains(text), "{line}");
    }
}

#[test]
fn port_7_needs_a_permission() {
    // Root has it, and goes on as nobody; a folder closed to nobody leaves nothing to try.
    let mut command = Command::new(env!("CARGO_BIN_EXE_echoserv"));
    command.arg("localhost:7");
    if nix::unistd::geteuid().is_root() {
        command.uid(65534);
    }
    match harness::run(&mut command, b"") {
        Ok(ended) => {
            let (code, line) = ended.error();
            assert_eq!(code, Some(3));
            assert!(line.starts_with("cannot listen on localhost:7: Permission denied"), "{line}");
        }
        Err(error) => eprintln!("skipped: the program cannot be run as nobody: {error}"),
    }
}

/// What `command` makes of `input` when it is a client of echoserv.
fn foreign(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let ended = harness::run(command, input).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

fn host_and_port(addr: SocketAddr) -> [String; 2] {
    [addr.ip().to_string(), addr.port().to_string()]
}

#[test]
fn nc_is_a_client_too() {
    if has("nc") {
        let server = start(&["localhost:0"]);
        let mut nc = Command::new("nc");
        nc.arg("-N").args(host_and_port(server.addr));
        let input = [b'x'; 100_000];
        assert_eq!(foreign(&mut nc, &input), input);
    }
}

#[test]
fn python_is_a_client_too() {
    if has("python3") {
        let server = start(&["localhost:0"]);
        let program = "
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sock.send('안녕'.encode('utf-8'))
print(sock.recv(1024).decode('utf-8'))
sock.close()";
        let mut python = Command::new("python3");
        python.env("PYTHONIOENCODING", "utf-8").args(["-c", program]);
        python.args(host_and_port(server.addr));
        assert_eq!(foreign(&mut python, b""), "안녕\n".as_bytes());
    }
}
