//! udp_upper_client_retry as its users meet it: every sentence answered, whatever is lost; and the
//! client that it repairs, which waits for ever.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write;
use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Ended, LIMIT, Process, Server, has, program};

const CLIENT: &str = env!("CARGO_BIN_EXE_udp_upper_client_retry");

fn server(here: &str) -> Server {
    Server::start(&program("udp_upper_server"), [here]).unwrap()
}

fn run(args: &[&str], input: &[u8]) -> Ended {
    harness::run(Command::new(CLIENT).args(args), input).unwrap()
}

/// A network that loses, doubles and swaps datagrams on their way to `server` and back.
fn bad_network(server: &Server) -> Server {
    const FAULTS: &str = "drop=30%,dup=10%,reorder=10%";
    let target = server.addr.to_string();
    let faults = ["--udp", "--seed", "5", "--to-server", FAULTS, "--to-client", FAULTS];
    Server::start(&program("tap"), [&["localhost:0", &*target][..], &faults].concat()).unwrap()
}

#[test]
fn each_sentence_is_answered_once_and_in_order_whatever_the_network_does() {
    let server = server("localhost:0");
    let network = bad_network(&server);
    // Two equal lines in a row, and empty ones, are no reason to fall out of step.
    let line = |n: usize| match n % 10 {
        7 | 8 => "the same\n".to_owned(),
        9 => "\n".to_owned(),
        _ => format!("line number {n}\n"),
    };
    let lines: String = (0..200).map(line).collect();
    let addr = network.addr.to_string();
    let ended = run(&["--timeout", "0.005", "--retries", "60", &addr], lines.as_bytes());
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), lines.to_uppercase());
    let told = network.process.stdout.wait(LIMIT, |bytes| bytes.len() > 10_000);
    let told = String::from_utf8(told).unwrap();
    for fault in ["lost", "dup: ", "reorder: "] {
        assert!(told.contains(fault), "{fault:?} never happened: {told}");
    }
}

#[test]
fn the_lectures_client_waits_for_ever_there() {
    let server = server("localhost:0");
    let network = bad_network(&server);
    let client = program("udp_upper_client");
    let addr = network.addr.to_string();
    let mut process = Process::spawn(Command::new(&client).args([&*addr, "hello"])).unwrap();
    let lost = |told: &[u8]| String::from_utf8_lossy(told).contains("5 bytes lost");
    assert!(lost(&network.process.stdout.wait(LIMIT, lost)), "nothing was lost");
    let ended = process.wait(Duration::from_secs(2)); // in vain
    assert!(ended.is_none(), "{ended:?} {:?}", process.stderr.all(LIMIT));
}

#[test]
fn sentences_come_from_arguments_a_pipe_or_a_file() {
    let server = server("[::1]:0");
    let addr = &*server.addr.to_string();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"of a file\n\nno newline").unwrap();
    let file = file.path().to_str().unwrap();
    for (args, input, printed) in [
        (&[addr][..], &b"one\ntwo\n\n\xff\0"[..], &b"ONE\nTWO\n\n\xff\0\n"[..]),
        (&[addr, "-f", "-"], b"one\n", b"ONE\n"),
        (&[addr, "-f", file], b"not read", b"OF A FILE\n\nNO NEWLINE\n"),
        (&[addr, "hello,", "안녕"], b"not read", "HELLO, 안녕\n".as_bytes()),
        (&[addr], b"", b""),
    ] {
        let ended = run(args, input);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{args:?}");
        assert_eq!(ended.stdout, printed, "{args:?}");
    }
    let longest = "a".repeat(65_507);
    assert_eq!(run(&[addr], longest.as_bytes()).stdout, (longest.to_uppercase() + "\n").as_bytes());
}

#[test]
fn the_answer_is_out_before_the_next_sentence_is_read() {
    let server = server("localhost:0");
    let mut process = Process::spawn(Command::new(CLIENT).arg(server.addr.to_string())).unwrap();
    let mut stdin = process.stdin.take().unwrap();
    for (n, printed) in ["A\n", "A\nB\n"].into_iter().enumerate() {
        stdin.write_all(&[b'a' + n as u8, b'\n']).unwrap();
        assert_eq!(
            process.stdout.wait(LIMIT, |out| out.len() >= printed.len()),
            printed.as_bytes()
        );
    }
    drop(stdin);
    assert!(process.wait(LIMIT).unwrap().success());
}

#[test]
fn a_time_out_doubles_and_the_client_gives_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_read_timeout(Some(LIMIT)).unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let started = Instant::now();
    let args = ["--timeout", "0.01", "--retries", "5", &addr, "hello"];
    let ended = run(&args, b"");
    // 10, 20, 40, 80, 80 and 80 ms: at least; a loaded machine may take longer.
    assert!(started.elapsed() >= Duration::from_millis(310), "{:?}", started.elapsed());
    assert_eq!(ended.error(), (Some(1), &*format!("{addr}: the server has not answered")));
    let mut buffer = [0; 10];
    for _ in 0..6 {
        assert_eq!(silent.recv(&mut buffer).unwrap(), 5);
    }
    silent.set_nonblocking(true).unwrap();
    assert!(silent.recv(&mut buffer).is_err(), "a seventh try");
}

#[test]
fn what_was_answered_before_is_printed_before_the_client_gives_up() {
    let sock = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = sock.local_addr().unwrap().to_string();
    let mut process =
        Process::spawn(Command::new(CLIENT).args(["--timeout", "0.01", "--retries", "2", &addr]))
            .unwrap();
    process.stdin.take().unwrap().write_all(b"one\ntwo\n").unwrap();
    sock.set_read_timeout(Some(LIMIT)).unwrap();
    let (_, client) = sock.recv_from(&mut [0; 10]).unwrap();
    sock.send_to(b"ONE", client).unwrap();
    assert_eq!(process.wait(LIMIT).and_then(|status| status.code()), Some(1));
    assert_eq!(process.stdout.all(LIMIT), b"ONE\n");
}

#[test]
fn what_fails_is_told_in_one_line_and_at_once() {
    // Connected to somebody else, it holds the port and takes nothing: nobody is there.
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
    dead.connect(other.local_addr().unwrap()).unwrap();
    let dead = &*dead.local_addr().unwrap().to_string();
    // Held to the end: `dead` is the name of a port that must stay without a server.
    let refused = &*format!("{dead}: Connection refused");
    let too_long = vec![b'a'; 65_508];
    for (args, input, status, text) in [
        (&["--timeout", "600", dead, "hello"][..], &b""[..], 3, refused),
        (&[dead], &too_long, 3, "Message too long"),
        (&[dead, "-f", "/no/such/file"], b"", 2, "/no/such/file"),
        (&[dead, "-f", "x", "text"], b"", 2, "cannot be used with"),
        (&["--timeout", "0", dead], b"", 2, "a number of seconds greater than 0 is wanted"),
        (&["--retries=-1", dead], b"", 2, "--retries"),
        (&["no-such-host.invalid:9", "x"], b"", 3, "cannot find the host no-such-host.invalid"),
        (&["localhost"], b"", 2, "no port"),
    ] {
        let ended = run(args, input);
        let (code, line) = ended.error();
        assert!(code == Some(status) && line.contains(text), "{args:?}: {code:?} {line}");
    }
}

#[test]
fn a_terminal_is_asked() {
    if has("python3") {
        let server = server("localhost:0");
        let program = "
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b''
try:
    for sentence, answer in [(b'one\\n', b'ONE\\r\\n'), (b'two\\n', b'TWO\\r\\n')]:
        while b'Input lowercase sentence: ' not in shown:
            shown += os.read(terminal, 1024)
        os.write(terminal, sentence)
        while answer not in shown:
            shown += os.read(terminal, 1024)
    os.write(terminal, b'\\x04')
    while True:
        data = os.read(terminal, 1024)
        if not data:
            break
        shown += data
except OSError:
    pass
_, status = os.waitpid(pid, 0)
print(os.waitstatus_to_exitcode(status), shown)";
        let mut python = Command::new("python3");
        python.args(["-c", program, CLIENT, &server.addr.to_string()]);
        let ended = harness::run(&mut python, b"").unwrap();
        let shown = String::from_utf8(ended.stdout).unwrap();
        assert!(shown.starts_with("0 ") && shown.contains("TWO"), "{shown}{}", ended.stderr);
    }
}
