//! clients_select: as clients, and what it measures; more connections than descriptors allowed.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use harness::Ended;

/// A server that does `what` with every connection, each in a thread.
fn server(what: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for conn in listener.incoming().map_while(Result::ok) {
            let what = what.clone();
            thread::spawn(move || what(conn));
        }
    });
    addr
}

fn echo(conn: TcpStream) -> io::Result<()> {
    io::copy(&mut &conn, &mut &conn).map(|_| ())
}

fn run(args: &[&str]) -> Ended {
    harness::run(Command::new(env!("CARGO_BIN_EXE_clients_select")).args(args), b"").unwrap()
}

#[test]
fn each_client_has_its_report_and_all_have_a_sum() {
    let ended = run(&["-n", "2", "-l", "9", &server(echo)]);
    let one = " n   sent  rcvd\n---------------\n(0, (9, 9))\n(1, (9, 9))\ntotal (18, 18)\n\
               verdict: every byte came back\n";
    let sum = "all clients\ntotal (54, 54)\nverdict: every byte came back to 3 of 3 clients\n";
    let expected = format!("client 1\n{one}client 2\n{one}client 3\n{one}{sum}");
    let text = String::from_utf8(ended.stdout).unwrap();
    assert_eq!((ended.code, &text[..expected.len()]), (Some(0), &*expected));
    assert_eq!(ended.stderr, "", "progress is for a terminal only");
}

#[test]
fn the_worst_status_is_the_status_of_all() {
    let turn = Arc::new(AtomicUsize::new(0));
    let server = server(move |conn| match turn.fetch_add(1, Ordering::Relaxed) {
        0 => conn.shutdown(Shutdown::Both),
        _ => echo(conn),
    });
    let ended = run(&["--json", &server, "4"]);
    let all: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!((ended.code, &all["complete"]), (Some(1), &3.into()));
    assert_eq!(all["clients"].as_array().unwrap().len(), 4);
    assert!(ended.error().1.ends_with(": the server closed the connection early"));
}

#[test]
fn bad_arguments_are_told_in_one_line() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (args, status, text) in [
        (&["-f", "-", &dead][..], 2, "standard input can feed one client only"),
        (&["-f", "/", &dead], 2, "/: is a directory"),
        (&[&dead, "0"], 2, "invalid value '0'"),
        (&["-l", "3", &dead], 2, "--length must be at least 6"),
        (&[&dead], 3, "Connection refused"),
    ] {
        let ended = run(args);
        let (code, line) = ended.error();
        assert!(code == Some(status) && line.contains(text), "{args:?}: {code:?} {line}");
    }
}

#[test]
fn the_limit_of_descriptors_is_raised_or_told() {
    let server = server(echo);
    for (limit, connections) in [("-Sn 32", "100"), ("-n 32", "100"), ("-n 32", "10000000")] {
        let script = format!("ulimit {limit}; exec \"$0\" -q --json -n 1 {server} {connections}");
        let client = env!("CARGO_BIN_EXE_clients_select");
        let ended = harness::run(Command::new("sh").args(["-c", &script, client]), b"").unwrap();
        if limit == "-Sn 32" || (ended.code == Some(0) && connections == "100") {
            let all: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
            assert_eq!((ended.code, &all["load"]["round_trips"]), (Some(0), &100.into()));
        } else {
            let (code, line) = ended.error(); // only root may raise the hard limit
            assert!(code == Some(2) && line.contains("ulimit -Hn"), "{code:?} {line}");
        }
    }
}
