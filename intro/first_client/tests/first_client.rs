//! first_client as a student meets it: each step is shown, an error is one line.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::net::TcpListener;
use std::process::Command;

use harness::{Server, program};

const CLIENT: &str = env!("CARGO_BIN_EXE_first_client");

#[test]
fn each_step_is_shown() {
    for here in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::start(&program("echoserv"), [here]).unwrap();
        let addr = server.addr.to_string();
        let ended = harness::run(Command::new(CLIENT).arg(&addr), b"").unwrap();
        let shown = String::from_utf8(ended.stdout).unwrap();
        let steps: Vec<_> = shown.lines().map(|line| &line[..8]).collect();
        let expected = ["socket  ", "connect ", "send    ", "recv    ", "close   "];
        assert_eq!(steps, expected, "{shown}{}", ended.stderr);
        assert_eq!(shown.matches(&format!("peer {addr}")).count(), 3);
        assert!(shown.contains("20 bytes, 12 characters"), "bytes are sent, not characters");
        assert!(shown.contains("20 bytes: Hello, 대한민국!"));
    }
}

#[test]
fn an_error_is_one_line() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let refused = format!("connect to {dead}: Connection refused");
    for (args, status, text) in [
        (&[&*dead][..], 3, &*refused),
        (&["::1:7"], 2, "brackets"),
        (&[&dead, ""], 2, "a value is required"),
    ] {
        let ended = harness::run(Command::new(CLIENT).args(args), b"").unwrap();
        let (code, line) = ended.error();
        assert!(code == Some(status) && line.contains(text), "{code:?} {line}");
    }
}
