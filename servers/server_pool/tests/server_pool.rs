//! server_pool: as many clients at once as there are workers, and the others wait.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{LIMIT, Server, ask};

fn start(args: &[&str]) -> Server {
    let args = [&["localhost:0", "--backlog", "200"], args].concat();
    Server::start(Path::new(env!("CARGO_BIN_EXE_server_pool")), args).unwrap()
}

#[test]
fn who_comes_when_all_workers_are_busy_waits_and_is_served_in_the_end() {
    let server = start(&["--workers", "2"]);
    let mut busy: Vec<_> = (0..2).map(|_| server.connect()).collect();
    busy.iter().for_each(|sock| assert_eq!(ask(sock, b"x"), b"x"));
    // Two wait in the channel, one with the accepting thread, the others in the system's queue.
    let waiting: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for mut sock in &waiting {
        sock.write_all(b"waiting").unwrap();
    }
    for mut sock in [&waiting[0], &waiting[19]] {
        sock.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(sock.read(&mut [0; 7]).is_err(), "served by nobody");
        sock.set_read_timeout(Some(LIMIT)).unwrap();
    }
    busy.pop(); // one worker is enough for all of them, one after another
    for mut sock in waiting {
        let mut back = [0; 7];
        sock.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"waiting");
    }
    assert_eq!(ask(&busy[0], b"x"), b"x");
}

#[test]
fn sixteen_workers_unless_told_otherwise_and_never_none() {
    let server = start(&[]);
    let socks: Vec<_> = (0..16).map(|_| server.connect()).collect();
    socks.iter().rev().for_each(|sock| assert_eq!(ask(sock, b"x"), b"x"));
    for workers in ["0", "65536", "many"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server_pool"));
        let ended = harness::run(command.args(["--workers", workers]), b"").unwrap();
        assert_eq!(ended.error().0, Some(2));
    }
}
