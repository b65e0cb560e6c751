//! tcp_upper_server as its clients meet it: one sentence each, answered whole.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{LIMIT, Server, has};
use socket2::SockRef;

fn start(args: &[&str]) -> Server {
    Server::start(Path::new(env!("CARGO_BIN_EXE_tcp_upper_server")), args).unwrap()
}

fn connect(server: &Server) -> TcpStream {
    let sock = TcpStream::connect(server.addr).unwrap();
    sock.set_read_timeout(Some(LIMIT)).unwrap();
    sock.set_nodelay(true).unwrap();
    sock
}

/// Everything that the server sends, to its FIN.
fn answer(mut sock: TcpStream) -> String {
    let mut answer = String::new();
    sock.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_sentence_ends_with_a_newline_or_a_fin() {
    let server = start(&["localhost:0"]);
    let mut with_newline = connect(&server);
    with_newline.write_all("hello, 안녕 é\n".as_bytes()).unwrap();
    assert_eq!(answer(with_newline), "HELLO, 안녕 é\n");
    let mut with_fin = connect(&server);
    with_fin.write_all(b"hello").unwrap();
    with_fin.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answer(with_fin), "HELLO");
}

#[test]
fn a_sentence_longer_than_a_read_is_answered_whole() {
    let server = start(&["localhost:0"]);
    let sentence = "a".repeat(64 * 1024) + "\n";
    let mut sock = connect(&server);
    sock.write_all(sentence.as_bytes()).unwrap();
    assert_eq!(answer(sock), sentence.to_uppercase());
}

#[test]
fn a_sentence_in_pieces_is_answered_whole() {
    let server = start(&["localhost:0"]);
    let mut sock = connect(&server);
    for piece in ["he", "ll", "o\n"] {
        sock.write_all(piece.as_bytes()).unwrap();
        let mut back = vec![0; piece.len()];
        sock.read_exact(&mut back).unwrap();
        assert_eq!(back, piece.to_uppercase().as_bytes());
    }
    assert_eq!(answer(sock), "");
}

#[test]
fn what_comes_after_the_sentence_does_not_destroy_the_answer() {
    let server = start(&["localhost:0", "--buffer", "16"]);
    for _ in 0..20 {
        let mut sock = connect(&server);
        sock.write_all(&[&b"one\n"[..], &[b'x'; 4096]].concat()).unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(answer(sock), "ONE\n"); // and not ECONNRESET
    }
}

#[test]
fn a_reset_leaves_it_running() {
    let server = start(&["localhost:0"]);
    let mut sock = connect(&server);
    sock.write_all(b"never").unwrap();
    SockRef::from(&sock).set_linger(Some(Duration::ZERO)).unwrap();
    drop(sock);
    let mut sock = connect(&server);
    sock.write_all(b"still there\n").unwrap();
    assert_eq!(answer(sock), "STILL THERE\n");
}

#[test]
fn the_lectures_client_is_answered() {
    if has("python3") {
        let server = start(&["localhost:0"]);
        let program = "
import sys
from socket import *
clientSocket = socket(AF_INET, SOCK_STREAM)
clientSocket.connect((sys.argv[1], int(sys.argv[2])))
clientSocket.send(b'hello\\n')
print('From Server:', clientSocket.recv(1024))
clientSocket.close()";
        let mut python = Command::new("python3");
        python.args(["-c", program, "localhost", &server.addr.port().to_string()]);
        let ended = harness::run(&mut python, b"").unwrap();
        assert_eq!(ended.stdout, b"From Server: b'HELLO\\n'\n", "{}", ended.stderr);
    }
}
