//! clients_select: more connections than descriptors allowed. (What it has in common with `clients`
//! is tested there.)
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use harness::{echo, serve};

#[test]
fn the_limit_of_descriptors_is_raised_or_told() {
    let server = serve(echo);
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
