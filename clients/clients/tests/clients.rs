//! clients and clients_select: a report for each client and one for all.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{Ended, echo, program, serve};

/// Runs both programs, the one with threads first.
fn run(args: &[&str]) -> [Ended; 2] {
    ["clients", "clients_select"]
        .map(|name| harness::run(Command::new(program(name)).args(args), b"").unwrap())
}

#[test]
fn each_client_has_its_report_and_all_have_a_sum() {
    let one = " n   sent  rcvd\n---------------\n(0, (9, 9))\n(1, (9, 9))\ntotal (18, 18)\n\
               verdict: every byte came back\n";
    let sum = "all clients\ntotal (54, 54)\nverdict: every byte came back to 3 of 3 clients\n";
    let expected = format!("client 1\n{one}client 2\n{one}client 3\n{one}{sum}");
    for ended in run(&["-n", "2", "-l", "9", &serve(echo)]) {
        let text = String::from_utf8(ended.stdout).unwrap();
        assert_eq!((ended.code, &text[..expected.len()]), (Some(0), &*expected));
        assert_eq!(ended.stderr, "", "progress is for a terminal only");
    }
}

#[test]
fn the_worst_status_is_the_status_of_all() {
    let turn = Arc::new(AtomicUsize::new(0));
    let server = serve(move |conn| match turn.fetch_add(1, Ordering::Relaxed) % 4 {
        0 => conn.shutdown(Shutdown::Both),
        _ => echo(conn),
    });
    for ended in run(&["--json", &server, "4"]) {
        let all: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!((ended.code, &all["complete"]), (Some(1), &3.into()));
        assert_eq!(all["clients"].as_array().unwrap().len(), 4);
        assert!(ended.error().1.ends_with(": the server closed the connection early"));
    }
}

#[test]
fn what_is_wrong_with_a_client_is_told() {
    let greets = serve(|mut conn| {
        conn.write_all(b"hello\n")?;
        echo(conn)
    });
    for ended in run(&["-q", &greets]) {
        let (code, line) = ended.error();
        // The greeting may come before anything is sent.
        let texts = [": byte 0 differs", ": byte 0 was never sent"];
        let is_told = texts.iter().any(|text| line.contains(text));
        assert!(code == Some(1) && is_told, "{code:?} {line}");
        assert_eq!(ended.stderr.lines().count(), 3);
    }
}

#[test]
fn who_was_never_connected_has_nothing_to_report_but_the_error() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (ended, json) in run(&[&dead]).into_iter().zip(run(&["--json", &dead])) {
        assert!(!String::from_utf8(ended.stdout).unwrap().contains("to 3 of"));
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        let error = json["clients"].get(0).unwrap_or(&json)["error"].as_str().unwrap().to_owned();
        assert!(error.contains("Connection refused"), "{error}");
    }
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
        for ended in run(args) {
            let (code, line) = ended.error();
            assert!(code == Some(status) && line.contains(text), "{args:?}: {code:?} {line}");
        }
    }
}
