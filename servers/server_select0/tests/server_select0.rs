//! server_select0 serves many clients, and ends with the first bad one: its lesson.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

use harness::{LIMIT, Server, ask};
use socket2::SockRef;

fn start(args: &[&str]) -> Server {
    let args = [&["localhost:0", "--backlog", "200"], args].concat();
    Server::start(Path::new(env!("CARGO_BIN_EXE_server_select0")), args).unwrap()
}

#[test]
fn good_clients_are_served_all_at_once() {
    let server = start(&[]);
    let mut socks: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for _ in 0..3 {
        socks.iter().rev().for_each(|sock| assert_eq!(ask(sock, b"x"), b"x"));
        socks.truncate(socks.len() / 2);
    }
}

#[test]
fn a_reset_ends_it() {
    let mut server = start(&[]);
    let (witness, sock) = (server.connect(), server.connect());
    assert_eq!(ask(&witness, b"x"), b"x");
    assert_eq!(ask(&sock, b"x"), b"x");
    SockRef::from(&sock).set_linger(Some(Duration::ZERO)).unwrap();
    drop(sock); // sends an RST
    assert_eq!(server.process.wait(LIMIT).unwrap().code(), Some(3));
    assert!(server.logged("error: Connection reset by peer"));
    assert!(matches!((&witness).read(&mut [0]), Ok(0) | Err(_)), "the others go with it");
}

#[test]
fn a_client_that_never_reads_ends_it() {
    let mut server = start(&[]);
    let sock = server.connect();
    sock.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while server.process.wait(Duration::ZERO).is_none() {
        match (&sock).write(&[b'x'; 65536]) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                server.process.wait(Duration::from_millis(10));
            }
            Err(_) => {
                server.process.wait(LIMIT);
            }
        }
        assert!(sent < 256 << 20, "it takes everything");
    }
    assert_eq!(server.process.wait(LIMIT).unwrap().code(), Some(3));
    assert!(server.logged("error: Resource temporarily unavailable"));
}
