//! server_class: one framework, two services. (The rest: server_select.)
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

use harness::{Server, ask, program};

fn start(args: &[&str]) -> Server {
    let args = [&["localhost:0", "--backlog", "200"], args].concat();
    Server::start(Path::new(env!("CARGO_BIN_EXE_server_class")), args).unwrap()
}

#[test]
fn upper_is_a_service_for_many_clients_at_once() {
    let server = start(&["--service", "upper"]);
    let socks: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for sock in socks.iter().rev() {
        let sentence = "naïve 안녕\n".as_bytes();
        assert_eq!(ask(sock, sentence), "NAïVE 안녕\n".as_bytes()); // ASCII only
        assert_eq!(ask(sock, b"and another\n"), b"AND ANOTHER\n");
    }
}

#[test]
fn the_lectures_client_of_the_other_server_is_a_client_of_this_one() {
    let server = start(&["--service", "upper", "-b", "3"]);
    let mut client = Command::new(program("tcp_upper_client"));
    let ended = harness::run(client.arg(server.addr.to_string()), b"hello\n").unwrap();
    assert_eq!((ended.code, &ended.stdout[..]), (Some(0), &b"From Server: HELLO\n"[..]));
}

#[test]
fn a_service_that_is_none_is_refused() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server_class"));
    let ended = harness::run(command.args(["--service", "lower"]), b"").unwrap();
    let (code, line) = ended.error();
    assert!(code == Some(2) && line.contains("lower"), "{line}");
}
