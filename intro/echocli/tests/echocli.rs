//! echocli as its users meet it: what it is fed, who answers, what it says and how it ends.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use harness::{Ended, LIMIT, Process, Server, has, program};
use socket2::SockRef;

fn echocli() -> Command {
    Command::new(env!("CARGO_BIN_EXE_echocli"))
}

/// A server for one client, which does `what` with the connection.
fn server(what: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || listener.accept().and_then(|(conn, _)| what(conn)));
    addr
}

fn echo(conn: TcpStream) -> io::Result<()> {
    io::copy(&mut &conn, &mut &conn).map(|_| ())
}

/// Runs echocli with `input` against `what`.
fn against(input: &[u8], what: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static) -> Ended {
    let addr = server(what).to_string();
    harness::run(echocli().args([&*addr, "--timeout", "0.5"]), input).unwrap()
}

#[test]
fn any_input_comes_back_as_it_was() {
    let long = [vec![b'x'; 300_000], b"\nnot long\n".to_vec()].concat();
    for input in ["hello\n안녕\n".as_bytes(), b"no newline", b"\xff\xfe\n\x00\n\n", &long] {
        let ended = against(input, echo);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        assert_eq!(ended.stdout, input);
    }
}

#[test]
fn no_input_is_a_run_of_no_messages_and_said_so() {
    let ended = against(b"", echo);
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stderr, "note: standard input was empty: nothing was sent\n");
}

#[test]
fn an_echo_in_single_bytes_is_put_together() {
    let ended = against("hello\n안녕\n".as_bytes(), |mut conn| {
        conn.set_nodelay(true)?;
        let mut byte = [0];
        while conn.read(&mut byte)? > 0 {
            conn.write_all(&byte)?;
        }
        Ok(())
    });
    assert_eq!((ended.code, &ended.stdout[..]), (Some(0), "hello\n안녕\n".as_bytes()));
}

#[test]
fn each_typed_line_is_answered_before_the_next_is_typed() {
    let addr = server(echo).to_string();
    let mut client = Process::spawn(echocli().arg(addr)).unwrap();
    let mut stdin = client.stdin.take().unwrap();
    for typed in ["one\n", "one\ntwo\n"] {
        stdin.write_all(&typed.as_bytes()[typed.len() - 4..]).unwrap();
        let shown = client.stdout.wait(LIMIT, |shown| shown == typed.as_bytes());
        assert_eq!(shown, typed.as_bytes());
    }
    drop(stdin);
    assert_eq!(client.wait(LIMIT).and_then(|status| status.code()), Some(0));
}

#[test]
fn much_goes_through_echoserv_in_little_memory() {
    const SIZE: usize = 64 << 20;
    let server = Server::start(&program("echoserv"), ["localhost:0"]).unwrap();
    let (mut back, stdout) = io::pipe().unwrap();
    let mut client = {
        let mut command = echocli();
        command.arg(server.addr.to_string()).stdin(Stdio::piped()).stdout(stdout);
        Process::start(&mut command).unwrap()
    };
    let mut sent = vec![0; SIZE];
    File::open("/dev/urandom").unwrap().read_exact(&mut sent).unwrap();
    let mut received = vec![0; SIZE];
    let stdin = thread::scope(|scope| {
        let mut stdin = client.stdin.take().unwrap();
        let sent = &sent;
        let feeder = scope.spawn(move || stdin.write_all(sent).map(|()| stdin).unwrap());
        back.read_exact(&mut received).unwrap();
        feeder.join().unwrap()
    });
    assert!(sent == received);
    for pid in [client.pid, server.process.pid] {
        let peak = harness::peak_memory(pid).unwrap();
        assert!(peak < 32 * 1024, "{peak} KiB");
    }
    drop(stdin);
    assert_eq!(client.wait(LIMIT).and_then(|status| status.code()), Some(0));
}

#[test]
fn what_comes_after_the_half_close_is_printed_and_is_not_an_echo() {
    let ended = against(b"hello\n", |conn| {
        echo(conn.try_clone()?)?;
        (&conn).write_all(b"bye\n")
    });
    assert_eq!(ended.stdout, b"hello\nbye\n");
    assert_eq!(ended.error(), (Some(1), "byte 6 was never sent: received 0x62"));
}

#[test]
fn a_changed_byte_is_noticed() {
    let ended = against(b"hello\n", |mut conn| {
        conn.read_exact(&mut [0; 6])?;
        conn.write_all(b"hellO\n")
    });
    assert_eq!(ended.error(), (Some(1), "byte 4 differs: sent 0x6f, received 0x4f"));
}

#[test]
fn a_server_that_leaves_early_is_an_error() {
    let ended = against(b"hello\n", |mut conn| {
        conn.read_exact(&mut [0; 6])?;
        conn.write_all(b"hel")?;
        conn.shutdown(Shutdown::Both)
    });
    assert_eq!(ended.stdout, b"hel");
    assert_eq!(ended.error(), (Some(1), "the server closed the connection early"));
}

#[test]
fn a_reset_and_a_silent_server_are_network_errors() {
    let ended = against(b"hello\n", |mut conn| {
        conn.read_exact(&mut [0; 6])?;
        SockRef::from(&conn).set_linger(Some(std::time::Duration::ZERO)) // closes with an RST
    });
    assert_eq!(ended.error(), (Some(3), "Connection reset by peer (os error 104)"));
    let ended = against(b"hello\n", |mut conn| conn.read_to_end(&mut Vec::new()).map(|_| ()));
    assert_eq!(ended.error(), (Some(3), "timed out: the server is silent"));
}

#[test]
fn bad_arguments_are_told_in_one_line() {
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (server, status, text) in [
        ("localhost", 2, "no port"),
        ("localhost:0", 2, "port 0"),
        ("localhost:70000", 2, "'70000' is not a port"),
        ("::1:7", 2, "brackets"),
        ("no-such-host.invalid:7", 3, "cannot find the host no-such-host.invalid"),
        (&dead, 3, &format!("({dead}: Connection refused")),
    ] {
        let ended = harness::run(echocli().arg(server), b"").unwrap();
        let (code, line) = ended.error();
        assert_eq!(code, Some(status), "{line}");
        assert!(line.contains(text), "{line}");
    }
    for timeout in ["0", "-1", "nan", "inf", "1e400", "soon"] {
        let ended = harness::run(echocli().args([&dead, "--timeout", timeout]), b"").unwrap();
        assert_eq!(ended.error().0, Some(2), "--timeout {timeout}");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_an_error() {
    let (reader, closed) = io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for (stdout, text) in
        [(Stdio::from(full), "No space left on device"), (Stdio::from(closed), "Broken pipe")]
    {
        let mut command = echocli();
        command.arg(server(echo).to_string()).stdout(stdout);
        let ended = harness::run_into(&mut command, b"hello\n").unwrap();
        let (code, line) = ended.error();
        assert_eq!(code, Some(1));
        assert!(line.starts_with("standard output: ") && line.contains(text), "{line}");
    }
}

#[test]
fn an_input_that_cannot_be_read_is_an_error() {
    let mut command = echocli();
    command.arg(server(echo).to_string()).stdin(File::open("/").unwrap());
    let mut client = Process::start(command.stderr(Stdio::piped())).unwrap();
    let stderr = client.stderr.all(LIMIT);
    assert_eq!(stderr, b"error: standard input: Is a directory (os error 21)\n");
    assert_eq!(client.wait(LIMIT).and_then(|status| status.code()), Some(1));
}

/// Runs echocli through a foreign echo server, with lines, long lines and no final newline.
fn through(addr: &str) {
    let input = [&b"hello\n\xec\x95\x88\n"[..], &[b'x'; 20_000], b"\nno newline"].concat();
    let ended = harness::run(echocli().arg(addr), &input).unwrap();
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
    assert_eq!(ended.stdout, input);
}

#[test]
fn socat_is_a_server_too() {
    if !has("socat") {
        return;
    }
    let mut socat = Command::new("socat");
    socat.args(["-d", "-d", "TCP-LISTEN:0,bind=127.0.0.1,fork", "EXEC:cat"]);
    let socat = Process::spawn(&mut socat).unwrap();
    let log = socat.stderr.wait(LIMIT, |log| String::from_utf8_lossy(log).contains("listening on"));
    let log = String::from_utf8(log).unwrap();
    let listening = log.lines().find(|line| line.contains("listening on")).unwrap();
    through(listening.rsplit(' ').next().unwrap());
}

#[test]
fn inetd_is_a_server_too() {
    if !has("inetd") {
        return;
    }
    // inetd takes no port 0: one is chosen here, and freed for it.
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = tempfile::NamedTempFile::new().unwrap();
    writeln!(config, "{addr} stream tcp nowait root /bin/cat cat").unwrap();
    let inetd = Process::spawn(Command::new("inetd").arg("-i").arg(config.path())).unwrap();
    // Nor does it say when it listens.
    let started = (0..500).any(|_| {
        thread::sleep(std::time::Duration::from_millis(10));
        TcpStream::connect(addr).is_ok()
    });
    assert!(started, "inetd: {}", String::from_utf8_lossy(&inetd.stderr.all(LIMIT)));
    through(&addr.to_string());
}
