//! chat_client as its server, its user and its terminal meet it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use harness::{Ended, LIMIT, Process, Signal, has};

const CLIENT: &str = env!("CARGO_BIN_EXE_chat_client");
const ENDED: &str = "error: the chat server has ended the connection\n";

/// A client and its server, which is the test.
fn pair() -> (Process, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = Command::new(CLIENT);
    let client = Process::spawn(client.arg(listener.local_addr().unwrap().to_string())).unwrap();
    let (conn, _) = listener.accept().unwrap();
    conn.set_read_timeout(Some(LIMIT)).unwrap();
    (client, conn)
}

/// What the client prints when its server says `text` and closes.
fn shown(text: &[u8]) -> String {
    let (mut client, mut conn) = pair();
    conn.write_all(text).unwrap();
    drop(conn);
    assert_eq!(client.wait(LIMIT).unwrap().code(), Some(1));
    assert_eq!(client.stderr.all(LIMIT), ENDED.as_bytes());
    String::from_utf8(client.stdout.all(LIMIT)).unwrap()
}

fn type_line(client: &mut Process, line: &[u8]) {
    client.stdin.as_mut().unwrap().write_all(line).unwrap();
}

#[test]
fn what_comes_after_the_last_typed_line_is_printed() {
    let (mut client, mut conn) = pair();
    type_line(&mut client, b"one\n\xff\ntwo");
    drop(client.stdin.take());
    let mut heard = Vec::new();
    conn.read_to_end(&mut heard).unwrap(); // a half-close: the FIN comes, and the client stays
    assert_eq!(heard, b"one\n\xff\ntwo");
    conn.write_all("still 안녕\nhere".as_bytes()).unwrap();
    drop(conn);
    assert_eq!(client.wait(LIMIT).unwrap().code(), Some(0));
    assert_eq!(client.stdout.all(LIMIT), "still 안녕\nhere\n".as_bytes());
    assert_eq!(client.stderr.all(LIMIT), b"");
}

#[test]
fn the_end_of_the_server_is_told_once() {
    assert_eq!(shown(b"hello\n"), "hello\n");
    assert_eq!(shown(b""), "");
    let (mut client, mut conn) = pair();
    type_line(&mut client, b"never read\n"); // so that the close is a reset
    conn.peek(&mut [0]).unwrap();
    conn.write_all(b"hello\n").unwrap();
    client.stdout.wait(LIMIT, |text| text == b"hello\n");
    drop(conn);
    assert_eq!(client.wait(LIMIT).unwrap().code(), Some(1));
    assert_eq!(client.stdout.all(LIMIT), b"hello\n");
    assert_eq!(client.stderr.all(LIMIT), ENDED.as_bytes());
}

#[test]
fn a_hostile_server_does_not_command_the_terminal() {
    let text = b"\x1b[2J\x1b]0;x\x07\r[You] \xff\x9b\xc2\x9b\t\0\x7f \xe2\x80\xae\n";
    let safe =
        "\\u{1b}[2J\\u{1b}]0;x\\u{7}\\r[You] \u{fffd}\u{fffd}\\u{9b}\\t\\u{0}\\u{7f} \\u{202e}\n";
    assert_eq!(shown(text), safe);
}

#[test]
fn an_endless_line_is_not_kept() {
    let (client, mut conn) = pair();
    let data = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        conn.write_all(&data).unwrap();
    }
    let memory = harness::peak_memory(client.pid).unwrap();
    assert!(memory < 24 * 1024, "{memory} KiB");
}

#[test]
fn output_that_nobody_takes_ends_it() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut client = Command::new(CLIENT);
    client.arg(addr.ip().to_string()).arg(addr.port().to_string());
    client.stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped());
    let mut client = Process::start(&mut client).unwrap();
    let (mut conn, _) = listener.accept().unwrap();
    conn.write_all(b"hello\n").unwrap();
    assert_eq!(client.wait(LIMIT).unwrap().code(), Some(1));
    let error = String::from_utf8(client.stderr.all(LIMIT)).unwrap();
    assert!(error.starts_with("error: standard output: "), "{error}");
}

#[test]
fn arguments_are_checked_and_a_dead_server_is_named() {
    let run =
        |args: &[&str]| -> Ended { harness::run(Command::new(CLIENT).args(args), b"").unwrap() };
    for args in [&[][..], &["localhost"], &["localhost", "x"], &["localhost:0"], &["::1", "0"]] {
        assert_eq!(run(args).error().0, Some(2), "{args:?}");
    }
    assert_eq!(run(&["localhost", "1", "2"]).error().0, Some(2));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let ended = run(&["127.0.0.1", &port]);
    let (status, error) = ended.error();
    assert_eq!(status, Some(3));
    assert!(error.contains(&format!("cannot connect to 127.0.0.1:{port}")), "{error}");
}

#[test]
fn ctrl_c_is_a_leave() {
    let (mut client, mut conn) = pair();
    conn.write_all(b"hello\n").unwrap();
    client.stdout.wait(LIMIT, |text| text == b"hello\n");
    client.signal(Signal::INT);
    assert_eq!(client.wait(LIMIT).unwrap().code(), Some(0));
    assert_eq!(client.stdout.all(LIMIT), b"hello\nexit\n");
    assert_eq!(conn.read(&mut [0]).unwrap(), 0);
}

/// A client on a terminal of 20 columns, and its server. What it shows is what the terminal gets.
fn on_terminal() -> (Process, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let run = format!("stty cols 20 rows 24; exec {CLIENT} {}", listener.local_addr().unwrap());
    let mut script = Command::new("script");
    let script = Process::spawn(script.args(["-qefc", &run, "/dev/null"])).unwrap();
    let (conn, _) = listener.accept().unwrap();
    conn.set_read_timeout(Some(LIMIT)).unwrap();
    (script, conn)
}

#[track_caller]
fn shows(terminal: &Process, text: &str) {
    let seen = terminal.stdout.wait(LIMIT, |seen| seen == text.as_bytes());
    assert_eq!(String::from_utf8_lossy(&seen), text);
}

#[test]
fn on_a_terminal_a_typed_line_gives_way_to_the_one_that_comes_back() {
    if !has("script") {
        return;
    }
    let (mut terminal, mut conn) = on_terminal();
    conn.write_all(b"Connected\n").unwrap();
    let mut seen = "\r\x1b[KConnected\r\n".to_owned();
    shows(&terminal, &seen);
    for (line, rows) in
        [("Hello", 1), ("", 1), ("12345678901234567890", 1), ("안녕안녕안녕안녕안녕1", 2)]
    {
        type_line(&mut terminal, format!("{line}\n").as_bytes());
        seen += &format!("{line}\r\n\x1b[{rows}A\r\x1b[J");
        shows(&terminal, &seen);
        let mut heard = vec![0; line.len() + 1];
        conn.read_exact(&mut heard).unwrap();
        assert_eq!(heard, format!("{line}\n").as_bytes());
        conn.write_all(format!("[You] {line}\n").as_bytes()).unwrap();
        seen += &format!("\r\x1b[K[You] {line}\r\n");
        shows(&terminal, &seen);
    }
    type_line(&mut terminal, b"\x03"); // Ctrl+C
    assert_eq!(terminal.wait(LIMIT).unwrap().code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&terminal.stdout.all(LIMIT)), seen + "^C\r\nexit\r\n");
    assert_eq!(conn.read(&mut [0]).unwrap(), 0);
}

#[test]
fn on_a_terminal_ctrl_d_is_the_end_of_what_is_said() {
    if !has("script") {
        return;
    }
    let (mut terminal, mut conn) = on_terminal();
    conn.write_all(b"Connected\n").unwrap();
    shows(&terminal, "\r\x1b[KConnected\r\n");
    type_line(&mut terminal, b"\x04");
    assert_eq!(conn.read(&mut [0]).unwrap(), 0);
    conn.shutdown(Shutdown::Write).unwrap();
    assert_eq!(terminal.wait(LIMIT).unwrap().code(), Some(0));
}
