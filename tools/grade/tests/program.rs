//! The program `grade` as graders and scripts meet it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use harness::{Ended, has};
use serde_json::Value;

/// A student's client in Python: right but for its end, which is half-closed only if told to.
const STUDENT: &str = "
import socket, sys
host, port, count, length, how = sys.argv[1:]
sock = socket.create_connection((host, int(port)), 5)
for n in range(1, int(count) + 1):
    message = (b'%05d' % n).ljust(int(length) - 1, b'a') + b'\\n'
    sock.sendall(message)
    received = b''
    while how != 'wrong' and len(received) < len(message):
        data = sock.recv(2048)
        if not data:
            sys.exit('server terminated')
        received += data
    if how == 'wrong':
        sock.recv(2048)
    elif received != message:
        sys.exit('different')
if how != 'wrong':
    sock.shutdown(socket.SHUT_WR)
    if sock.recv(1):
        sys.exit('too much')
";

fn grade(args: &[&str]) -> Ended {
    harness::run(Command::new(env!("CARGO_BIN_EXE_grade")).args(args), b"").unwrap()
}

fn student(how: &str, only: &str) -> Ended {
    let command = ["python3", "-c", STUDENT, "{host}", "{port}", "{count}", "{length}", how];
    let options = ["--json", "--only", only, "--suite", "echo-client", "--"];
    grade(&[&options[..], &command].concat())
}

#[test]
fn a_students_program_in_another_language_is_graded() {
    if !has("python3") {
        return;
    }
    let right = student("right", "echo,late-tail,report");
    let results: Value = serde_json::from_slice(&right.stdout).unwrap();
    let checks = &results["programs"][0]["checks"];
    let outcomes: Vec<_> = (0..3).map(|n| checks[n]["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["passed", "passed", "skipped"], "{results}");
    assert_eq!(checks[2]["why"], "the command has no {json}: only for programs with --json");
    assert_eq!(right.code, Some(0));

    let wrong = student("wrong", "late-tail");
    let results: Value = serde_json::from_slice(&wrong.stdout).unwrap();
    let check = &results["programs"][0]["checks"][0];
    assert_eq!(check["code"], "E_CLOSED_WITH_UNREAD_DATA", "{results}");
    assert!(check["hint"].as_str().unwrap().contains("labs.md"));
    assert!(check["ladder"].as_str().unwrap().contains("this came too late"));
    assert_eq!(wrong.code, Some(1));
}

#[test]
fn a_failure_is_told_with_code_hint_and_both_ladders() {
    let ended = grade(&["--only", "late-tail", "client_wrong", "client_shutdown"]);
    let shown = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for part in [
        "client_wrong, late-tail: E_CLOSED_WITH_UNREAD_DATA",
        "hint      half-close, then read to the end of file (labs.md",
        "The client closed first, too early: the server was still sending",
        "client_shutdown, late-tail: passed, for comparison",
        "The client closed first, then the server: all in order",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
}

#[test]
fn what_cannot_be_graded_is_told_in_one_line() {
    for (args, status, text) in [
        (&[][..], 2, "name a PACKAGE, or --suite S -- COMMAND"),
        (&["no_such_program"], 2, "no program called no_such_program has a suite"),
        (&["--only", "eecho", "client_wrong"], 2, "no check is called eecho"),
        (&["--suite", "ecco", "--", "true", "{addr}"], 2, "no suite ecco; there are: echo-client"),
        (&["--suite", "echo-client", "--", "true"], 2, "COMMAND needs {addr}"),
        (&["--suite", "echo-client"], 2, "required"),
        (&["client_wrong", "--", "true"], 2, "cannot be used with"),
    ] {
        let ended = grade(args);
        let (code, line) = ended.error();
        assert!(code == Some(status) && line.contains(text), "{args:?}: {code:?} {line}");
    }
}

#[test]
fn a_program_that_cannot_be_started_is_not_found_guilty() {
    let ended =
        grade(&["--json", "--only", "echo", "--suite", "echo-client", "--", "/no/such", "{addr}"]);
    let results: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let check = &results["programs"][0]["checks"][0];
    assert_eq!((check["outcome"].as_str(), ended.code), (Some("inconclusive"), Some(3)));
    assert!(check["why"].as_str().unwrap().starts_with("/no/such cannot be started"));
}
