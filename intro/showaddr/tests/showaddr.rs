//! showaddr as a student meets it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_showaddr");

#[test]
fn an_address_and_a_port_are_shown() {
    let ended = harness::run(Command::new(PROGRAM).arg("[::1]:10007"), b"").unwrap();
    let shown = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(
        shown,
        "address   ::1 (IPv6)\nport      10007: registered\n\
         a server at :10007 listens on [::]:10007: every interface\n\
         a server at localhost:10007 listens on 127.0.0.1:10007: this machine only\n"
    );
}

#[test]
fn an_error_is_one_line() {
    for (there, status, text) in [
        ("no-such-host.invalid", 3, "cannot find the host no-such-host.invalid"),
        ("::1:7", 2, "brackets"),
        ("localhost:echo", 2, "'echo' is not a port"),
    ] {
        let ended = harness::run(Command::new(PROGRAM).arg(there), b"").unwrap();
        let (code, line) = ended.error();
        assert!(code == Some(status) && line.contains(text), "{code:?} {line}");
    }
}
