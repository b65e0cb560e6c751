//! What server_select does and the other servers need not: thousands of clients in one thread.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Server, ask};
use socket2::{Domain, SockRef, Socket, Type};

fn start(args: &[&str]) -> Server {
    let args = [&["localhost:0", "--backlog", "500"], args].concat();
    Server::start(Path::new(env!("CARGO_BIN_EXE_server_select")), args).unwrap()
}

/// A figure of `/proc/PID/status`, proc(5).
fn status(server: &Server, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", server.process.pid)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Clock ticks of CPU time so far.
fn cpu_time(server: &Server) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", server.process.pid)).unwrap();
    let fields: Vec<_> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum()
}

#[test]
fn one_thread_and_less_than_a_kibibyte_for_each_of_three_thousand() {
    let server = start(&[]);
    assert_eq!(ask(&server.connect(), b"first"), b"first");
    let before = status(&server, "RssAnon");
    let mut socks = Vec::new();
    while socks.len() < 3000 {
        match TcpStream::connect(server.addr) {
            Ok(sock) => socks.push(sock),
            Err(error) => {
                eprintln!("skipped: {error}"); // out of descriptors here
                return;
            }
        }
        assert_eq!(ask(&socks[socks.len() - 1], &[b'x'; 1000]), [b'x'; 1000]);
    }
    let grown = (status(&server, "RssAnon") - before) * 1024;
    assert!(grown < 3000 * 1024, "{grown} bytes for 3000 clients");
    assert_eq!(status(&server, "Threads"), 1);
    socks.iter().rev().for_each(|sock| assert_eq!(ask(sock, b"again"), b"again"));
}

#[test]
fn what_a_slow_reader_filled_is_freed_when_it_has_read() {
    let server = start(&["-b", "65536"]);
    assert_eq!(ask(&server.connect(), b"first"), b"first");
    let before = status(&server, "RssAnon");
    let socks: Vec<_> = (0..30).map(|_| server.connect()).collect();
    for mut sock in &socks {
        // Until nothing more fits, for a while: what is unsent has gathered in the server then.
        sock.set_nonblocking(true).unwrap();
        let (mut sent, mut full) = (0, 0);
        while full < 5 {
            match sock.write(&[b'x'; 65536]) {
                Ok(n) => (sent, full) = (sent + n, 0),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    full += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        sock.set_nonblocking(false).unwrap();
        sock.read_exact(&mut vec![0; sent]).unwrap();
    }
    let grown = status(&server, "RssAnon") - before;
    assert!(grown < 600, "{grown} KiB are kept for 30 clients that wait for nothing");
}

#[test]
fn urgent_data_does_not_keep_it_busy() {
    let server = start(&[]);
    let sock = server.connect();
    assert_eq!(ask(&sock, b"x"), b"x");
    SockRef::from(&sock).send_out_of_band(b"!").unwrap();
    let mut back = [0; 1];
    (&sock).read_exact(&mut back).unwrap();
    assert_eq!(&back, b"!"); // in line with the rest
    let before = cpu_time(&server);
    std::thread::sleep(Duration::from_millis(500));
    assert!(cpu_time(&server) - before < 10, "it turns without end");
}

#[test]
fn at_the_limit_with_somebody_waiting_it_does_not_turn() {
    let server = start(&["--max-clients", "1"]);
    let sock = server.connect();
    assert_eq!(ask(&sock, b"x"), b"x");
    let _waiting = server.connect();
    let before = cpu_time(&server);
    std::thread::sleep(Duration::from_millis(500));
    assert!(cpu_time(&server) - before < 10, "it turns without end");
}

#[test]
fn who_reads_slowly_and_steadily_is_not_silent() {
    let server = start(&["--idle-timeout", "2"]);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap(); // what it has not read waits in the server
    socket.connect(&server.addr.into()).unwrap();
    let (sock, message) = (TcpStream::from(socket), vec![b'x'; 4 << 20]);
    std::thread::scope(|scope| {
        scope.spawn(|| drop((&sock).write_all(&message))); // a reset is seen below
        let (mut back, start) = (vec![0; message.len()], Instant::now());
        for part in back.chunks_mut(8192) {
            if start.elapsed() < Duration::from_secs(8) {
                std::thread::sleep(Duration::from_millis(50)); // 160 kB a second
            }
            (&sock).read_exact(part).unwrap();
        }
        assert!(back == message);
    });
}
