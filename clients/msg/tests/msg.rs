//! msg: what it prints is the lecture's.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

fn msg(args: &[&str]) -> harness::Ended {
    harness::run(Command::new(env!("CARGO_BIN_EXE_msg")).args(args), b"").unwrap()
}

#[test]
fn the_lectures_messages() {
    let all = msg(&[]).stdout;
    assert_eq!((all.len(), all.iter().filter(|&&byte| byte == b'\n').count()), (40_000, 20));
    assert_eq!(msg(&["-n", "2", "-l", "8"]).stdout, b"00001aa\n00002aa\n");
    let none = msg(&["-n", "0"]);
    assert_eq!((none.code, none.stdout), (Some(0), vec![]));
    let (code, line) = (msg(&["-l", "3"]).code, msg(&["-l", "3"]).error().1.to_owned());
    assert_eq!((code, &*line), (Some(2), "--length must be at least 6: a number and a newline"));
}
