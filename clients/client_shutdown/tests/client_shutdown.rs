//! What the echo clients of the ladder have in common: arguments, files, outputs, exit statuses.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use harness::{Ended, LIMIT, Process, echo, has, program, serve};
use serde_json::Value;
use socket2::SockRef;

const LADDER: [&str; 8] = [
    "client_wrong",
    "client_shutdown",
    "client_makefile",
    "client_fixed",
    "client_prefix",
    "client_thread",
    "client_select",
    "client_class",
];

/// Runs every client of the ladder, the wrong one first.
fn run(args: &[&str]) -> impl Iterator<Item = (&'static str, Ended)> {
    LADDER.into_iter().map(move |client| {
        let ended = harness::run(Command::new(program(client)).args(args), b"").unwrap();
        (client, ended)
    })
}

fn json(ended: &Ended) -> Value {
    serde_json::from_slice(&ended.stdout).unwrap()
}

#[test]
fn bad_arguments_are_told_in_one_line() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (args, status, text) in [
        (&["localhost:0"][..], 2, "port 0"),
        (&["-l", "3", &dead], 2, "--length must be at least 6"),
        (&["-n", "1234567", "-l", "7", &dead], 2, "--length must be at least 8"),
        (&["-n", "-1", &dead], 2, "unexpected argument '-1'"),
        (&["-l", "18446744073709551615", &dead], 2, "from 1 to 1073741824"),
        (&["--timeout", "0", &dead], 2, "greater than 0"),
        (&["-f", "/no/such/file", &dead], 2, "/no/such/file: No such file"),
        (&["-f", "/", &dead], 2, "/: is a directory"),
        (&[&dead], 3, "Connection refused"),
    ] {
        for (client, ended) in run(args) {
            let (code, line) = ended.error();
            assert!(code == Some(status) && line.contains(text), "{client} {args:?}: {line}");
            assert!(ended.stdout.is_empty(), "{client} {args:?}");
        }
    }
}

#[test]
fn no_messages_are_a_run_too() {
    let server = serve(echo);
    for args in [["-n", "0", "-q", &server], ["-f", "-", "-q", &server]] {
        for (client, ended) in run(&args) {
            let summary = "total (0, 0)\nverdict: every byte came back\n";
            assert_eq!((ended.code, &*ended.stdout), (Some(0), summary.as_bytes()), "{client}");
        }
    }
}

#[test]
fn a_file_comes_back_whatever_it_holds() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let lines = [&[b'x'; 70_000][..], b"\n\xff\xfe\0\n\nno newline"];
    file.write_all(&lines.concat()).unwrap();
    let server = serve(echo);
    for (client, ended) in run(&["--json", "-f", file.path().to_str().unwrap(), &server]).skip(1) {
        let report = json(&ended);
        assert_eq!((ended.code, &report["verdict"]), (Some(0), &"all-back".into()), "{client}");
        let header = if client == "client_prefix" { 5 } else { 0 };
        let sent = [64 * 1024, 70_001 - 64 * 1024, 4, 1, 10].map(|length| length + header);
        assert_eq!(report["sent"], Value::from(sent.to_vec()), "{client}: not a row for each line");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let server = serve(echo);
    for client in LADDER {
        let (reader, closed) = io::pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        for stdout in [Stdio::from(full), Stdio::from(closed)] {
            let mut command = Command::new(program(client));
            let ended = harness::run_into(command.arg(&server).stdout(stdout), b"").unwrap();
            let (code, line) = ended.error();
            assert!(code == Some(1) && line.starts_with("standard output: "), "{client}: {line}");
        }
    }
}

#[test]
fn a_server_that_sends_for_ever_keeps_nobody() {
    let flood = serve(|mut conn| {
        loop {
            conn.write_all(&[b'x'; 1000])?;
        }
    });
    for (client, ended) in run(&["-q", &flood]) {
        let (code, line) = ended.error();
        let texts = match client {
            "client_prefix" => &["refused: a frame"][..],
            _ => &["byte 0 differs", "byte 0 was never sent"], // the flood may come first
        };
        let is_told = texts.iter().any(|text| line.starts_with(text));
        assert!(code == Some(1) && is_told, "{client}: {code:?} {line}");
        assert!(!ended.stdout.is_empty(), "{client}: no report");
    }
}

/// Echoes half of what it receives first.
fn half(mut conn: &TcpStream) -> io::Result<()> {
    let mut data = [0; 1000];
    conn.read_exact(&mut data)?;
    conn.write_all(&data[..500])
}

#[test]
fn a_server_that_fails_is_told_apart_and_reported() {
    let left = serve(|conn| {
        half(&conn)?;
        conn.shutdown(Shutdown::Write)?;
        io::copy(&mut &conn, &mut io::sink()).map(|_| ()) // no RST
    });
    let reset = serve(|conn| {
        half(&conn)?;
        SockRef::from(&conn).set_linger(Some(Duration::ZERO)) // closes with an RST
    });
    let silent = serve(|conn| {
        half(&conn)?;
        thread::park(); // neither reads nor writes
        Ok(())
    });
    let early = "the server closed the connection early";
    for (server, errors) in [
        (left, &[(1, early)][..]),
        (reset, &[(3, "reset"), (1, early)]), // whoever of two threads is told, the other reads 0
        (silent, &[(3, "timed out: the server is silent")]),
    ] {
        for (client, ended) in run(&["--json", "--timeout", "0.4", "-n", "200000", &server]) {
            let report = json(&ended);
            let (code, line) = ended.error();
            let is = |&(status, text): &(i32, &str)| code == Some(status) && line.contains(text);
            assert!(errors.iter().any(is), "{client}: status {code:?}, {line}");
            assert_eq!((&report["error"], &report["verdict"]), (&line.into(), &"missing".into()));
        }
    }
}

#[test]
fn the_lectures_defaults() {
    let server = serve(echo);
    for (client, ended) in run(&["--json", &server]).skip(1) {
        let (count, length) = match client {
            "client_thread" | "client_select" => (100, 2000),
            "client_prefix" => (20, 2005),
            _ => (20, 2000),
        };
        assert_eq!(json(&ended)["sent"], Value::from(vec![length; count]), "{client}");
    }
}

#[test]
fn foreign_servers_echo_as_well() {
    if has("socat") {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork");
        let socat = Process::spawn(Command::new("socat").args(["-d", "-d", &listen, "EXEC:cat"]));
        let socat = socat.unwrap();
        let listening = |log: &[u8]| String::from_utf8_lossy(log).contains("listening on");
        assert!(listening(&socat.stderr.wait(LIMIT, listening)));
        for (client, ended) in run(&["-q", &format!("127.0.0.1:{port}")]).skip(1) {
            assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{client}");
        }
    }
}
