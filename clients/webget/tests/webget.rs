//! webget against servers that answer well, badly, and not at all.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use harness::Ended;

/// Runs webget against a server that answers with `answer`, then closes; with the request line.
fn get(path: &str, answer: &'static [u8]) -> (Ended, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let (sender, request) = mpsc::channel();
    let serve = move |conn: TcpStream| -> io::Result<()> {
        let mut lines = BufReader::new(&conn).lines();
        sender.send(lines.next().unwrap()?).unwrap();
        lines.map_while(Result::ok).find(|line| line.is_empty());
        (&conn).write_all(answer)
    };
    thread::spawn(move || listener.accept().and_then(|(conn, _)| serve(conn)));
    let mut webget = Command::new(env!("CARGO_BIN_EXE_webget"));
    let ended = harness::run(webget.args([&*addr, path]), b"").unwrap();
    (ended, request.try_recv().unwrap_or_default())
}

#[test]
fn a_body_comes_out_byte_for_byte() {
    for head in [
        &b"HTTP/1.0 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\n"[..],
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.0 200 OK\n\n",
    ] {
        let answer = [head, b"\r\n\xff\0\n"].concat().leak();
        let (ended, request) = get("/a?b=c", answer);
        assert_eq!((ended.code, &*ended.stdout), (Some(0), &b"\r\n\xff\0\n"[..]));
        assert_eq!(request, "GET /a?b=c HTTP/1.0");
    }
}

#[test]
fn what_is_no_page_is_an_error() {
    let endless = [b'x'; 1 << 20].to_vec().leak();
    let endless_head = [b"HTTP/1.0 200 OK\r\n", &endless[..]].concat().leak();
    for (answer, why) in [
        (&b"HTTP/1.0 404 Not Found\r\n\r\ngone"[..], "the server answers HTTP/1.0 404 Not Found"),
        (
            b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nabcd",
            "the server closed the connection early",
        ),
        (b"", "the server answers nothing"),
        (b"220 mail.example ESMTP\r\n", "the server answers 220 mail.example ESMTP"),
        (endless, "the server answers xxx"),
        (endless_head, "the head of the answer has no end"),
        (b"HTTP/1.0 200 OK\r\nContent-Ty", "the head of the answer has no end"),
        (b"HTTP/1.0 200 OK", "the head of the answer has no end"),
        (b"garbage 200 is here\n\nx", "the server answers garbage 200"),
        (b"HTTP/1.0 \x1b[31m404\r\n\r\n", "the server answers HTTP/1.0 \\u{1b}[31m404"),
    ] {
        let (ended, _) = get("/", answer);
        let (code, line) = ended.error();
        assert!(code == Some(1) && line.starts_with(why), "{code:?} {line}");
    }
    assert_eq!(get("/", b"HTTP/1.0 404 Not Found\r\n\r\ngone").0.stdout, b"gone");
    for path in ["/a b", "/\r\nHost: x", "a", "/안녕"] {
        assert_eq!(get(path, b"").0.error().0, Some(2), "{path:?}");
    }
}
