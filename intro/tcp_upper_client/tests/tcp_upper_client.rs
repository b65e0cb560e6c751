//! tcp_upper_client as its users meet it: a sentence in, its answer out, or a clear error.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use harness::{Ended, Server, has, program};

const CLIENT: &str = env!("CARGO_BIN_EXE_tcp_upper_client");

/// What a server makes of a sentence.
type Answer = fn(Vec<u8>) -> Vec<u8>;

/// Runs the client with `input` against a server that answers a whole sentence with `answer`.
fn against(input: &[u8], answer: Answer) -> Ended {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let serve = move |(mut conn, _): (TcpStream, _)| -> io::Result<()> {
        let mut sentence = Vec::new();
        conn.read_to_end(&mut sentence)?;
        conn.write_all(&answer(sentence))
    };
    thread::spawn(move || listener.accept().and_then(serve));
    harness::run(Command::new(CLIENT).arg(addr), input).unwrap()
}

#[test]
fn the_answer_is_printed() {
    let server = Server::start(&program("tcp_upper_server"), ["localhost:0"]).unwrap();
    let long = "a".repeat(64 * 1024 - 1) + "\n";
    for (sentence, printed) in [
        ("hello\n", "From Server: HELLO\n".to_owned()),
        ("no newline", "From Server: NO NEWLINE\n".to_owned()),
        ("hello, 안녕\nsecond line\n", "From Server: HELLO, 안녕\n".to_owned()),
        (&long, format!("From Server: {}", long.to_uppercase())),
    ] {
        let mut command = Command::new(CLIENT);
        let ended =
            harness::run(command.arg(server.addr.to_string()), sentence.as_bytes()).unwrap();
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), printed);
    }
}

#[test]
fn what_is_no_answer_is_told() {
    let too_long = vec![b'a'; 64 * 1024 + 1];
    let cases: [(&[u8], Answer, i32, &str); 5] = [
        (b"", |sentence| sentence, 2, "standard input holds no sentence"),
        (&too_long, |sentence| sentence, 2, "a sentence of at most 65536 bytes is wanted"),
        (b"hello\n", |_| b"HEL".to_vec(), 1, "the server closed the connection early"),
        (b"hello\n", |sentence| sentence, 1, "the answer is not the sentence in upper case"),
        (b"hello\n", |_| b"HELLO\nBYE\n".to_vec(), 1, "the answer is not the sentence in upper"),
    ];
    for (input, answer, status, text) in cases {
        let ended = against(input, answer);
        let (code, line) = ended.error();
        assert!(code == Some(status) && line.starts_with(text), "{code:?} {line}");
    }
}

#[test]
fn the_prompt_is_for_a_terminal_only() {
    if has("python3") {
        let server = Server::start(&program("tcp_upper_server"), ["localhost:0"]).unwrap();
        let program = "
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b''
while not shown.endswith(b': '):
    shown += os.read(terminal, 1024)
os.write(terminal, b'hello\\n')
try:
    while b'HELLO' not in shown:
        shown += os.read(terminal, 1024)
except OSError:
    pass
os.waitpid(pid, 0)
sys.stdout.buffer.write(shown)";
        let mut python = Command::new("python3");
        python.args(["-c", program, CLIENT, &server.addr.to_string()]);
        let ended = harness::run(&mut python, b"").unwrap();
        let shown = String::from_utf8(ended.stdout).unwrap();
        assert!(shown.starts_with("Input lowercase sentence: "), "{shown}{}", ended.stderr);
        assert!(shown.contains("From Server: HELLO"), "{shown}");
    }
}
