//! udp_upper_client as its users meet it: a sentence in, its answer out, or waiting for ever.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::Command;

use harness::{Ended, Server, has, program};

const CLIENT: &str = env!("CARGO_BIN_EXE_udp_upper_client");

fn server(here: &str) -> Server {
    Server::start(&program("udp_upper_server"), [here]).unwrap()
}

fn run(args: &[&str], input: &[u8]) -> Ended {
    harness::run(Command::new(CLIENT).args(args), input).unwrap()
}

#[test]
fn the_answer_is_printed() {
    for here in ["localhost:0", "[::1]:0"] {
        let server = server(here);
        let addr = &*server.addr.to_string();
        for (args, input, printed) in [
            (&[addr][..], &b"hello\nsecond line\n"[..], &b"HELLO\n"[..]),
            (&[addr], b"no newline", b"NO NEWLINE\n"),
            (&[addr], b"\n", b"\n"), // an empty datagram, and an empty answer
            (&[addr], b"not text: \xff\0\n", b"NOT TEXT: \xff\0\n"),
            (&[addr, "hello,", "안녕"], b"not read", "HELLO, 안녕\n".as_bytes()),
            (&[addr, ""], b"", b"\n"),
            (&[addr, "a\nb"], b"", b"A\nB\n"),
            (&[addr, "--", "-x"], b"", b"-X\n"),
        ] {
            let ended = run(args, input);
            assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{args:?}");
            assert_eq!(ended.stdout, printed, "{args:?}");
        }
        let longest = "a".repeat(65_507);
        assert_eq!(run(&[addr], longest.as_bytes()).stdout.len(), 65_508);
    }
}

#[test]
fn a_name_is_looked_up() {
    let server = server("localhost:0");
    for host in ["localhost", ""] {
        let ended = run(&[&format!("{host}:{}", server.addr.port()), "hello"], b"");
        assert_eq!(ended.stdout, b"HELLO\n");
    }
}

#[test]
fn what_cannot_be_sent_is_told_in_one_line() {
    let too_long = vec![b'a'; 65_508];
    for (args, input, status, text) in [
        (&["127.0.0.1:9"][..], &b""[..], 2, "standard input holds no sentence"),
        (&["127.0.0.1:9"], &too_long, 3, "127.0.0.1:9: Message too long"),
        (&["no-such-host.invalid:9", "x"], b"", 3, "cannot find the host no-such-host.invalid"),
        (&["localhost"], b"", 2, "no port"),
        (&["localhost:0"], b"", 2, "nobody listens on port 0"),
        (&[], b"", 2, "required"),
    ] {
        let ended = run(args, input);
        let (code, line) = ended.error();
        assert!(code == Some(status) && line.contains(text), "{args:?}: {code:?} {line}");
    }
}

#[test]
fn the_prompt_is_for_a_terminal_only() {
    if has("python3") {
        let server = server("localhost:0");
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
        assert!(shown.contains("HELLO"), "{shown}");
    }
}
