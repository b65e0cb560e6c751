//! What all servers of part 3 have in common, but for the two that are wrong on purpose: many
//! clients at once, of any make, and nothing that one of them does harms another.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{LIMIT, Process, Server, Signal, ask, has, program};
use socket2::SockRef;

const RIGHT: [&str; 4] = ["server_select", "server_thread", "server_class", "server_fork"];

/// Starts a server with a queue that a test cannot fill: a full one answers after a second.
fn start(name: &str, args: &[&str]) -> Server {
    let args = [&["localhost:0", "--backlog", "500"], args].concat();
    Server::start(&program(name), args).unwrap()
}

/// Sends `message` and a FIN, and takes everything that comes back.
fn exchange(mut sock: &TcpStream, message: &[u8]) -> Vec<u8> {
    sock.write_all(message).unwrap();
    sock.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    sock.read_to_end(&mut back).unwrap();
    back
}

fn reset(sock: TcpStream) {
    SockRef::from(&sock).set_linger(Some(Duration::ZERO)).unwrap(); // dropped, it sends an RST
}

#[test]
fn a_silent_client_keeps_nobody_waiting() {
    for name in RIGHT {
        let server = start(name, &[]);
        let socks: Vec<_> = (0..100).map(|_| server.connect()).collect();
        for (n, sock) in socks.iter().enumerate().rev() {
            let message = format!("{name} {n}");
            assert_eq!(ask(sock, message.as_bytes()), message.as_bytes());
        }
    }
}

#[test]
fn any_bytes_come_back_whatever_the_buffer() {
    let message: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(n) >> 8) as u8).collect();
    for name in RIGHT {
        for buffer in ["1", "1000", "65536"] {
            let server = start(name, &["--buffer", buffer]);
            let sock = server.connect();
            std::thread::scope(|scope| {
                let sender = || {
                    (&sock).write_all(&message).unwrap();
                    sock.shutdown(Shutdown::Write).unwrap();
                };
                std::thread::Builder::new().spawn_scoped(scope, sender).unwrap();
                let mut back = Vec::new();
                (&sock).read_to_end(&mut back).unwrap();
                assert!(back == message, "{name} -b {buffer}: {} bytes", back.len());
            });
        }
    }
}

#[test]
fn resets_at_every_moment_harm_nobody() {
    for name in RIGHT {
        let server = start(name, &[]);
        let witness = server.connect();
        for n in 0..200 {
            let sock = server.connect();
            match n % 4 {
                0 => {}                                              // at once
                1 => (&sock).write_all(b"never read back").unwrap(), // with an echo on its way
                2 => drop(ask(&sock, b"served")),
                _ => sock.shutdown(Shutdown::Write).unwrap(), // after a FIN
            }
            reset(sock);
            if n % 50 == 0 {
                assert_eq!(ask(&witness, b"unharmed"), b"unharmed");
            }
        }
        assert_eq!(exchange(&server.connect(), b"still there"), b"still there");
        assert_eq!(exchange(&witness, b"unharmed"), b"unharmed");
        assert!(server.logged("Client lost"), "{name}");
    }
}

#[test]
fn who_sends_and_never_reads_harms_nobody() {
    for name in RIGHT {
        let server = start(name, &["-b", "65536"]);
        let hog = server.connect();
        hog.set_nonblocking(true).unwrap();
        let (data, mut sent) = (vec![b'x'; 1 << 20], 0);
        // Until nothing more fits, for a while: both systems and the server have had enough then.
        let mut full = 0;
        while full < 20 {
            match (&hog).write(&data) {
                Ok(n) => (sent, full) = (sent + n, 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    full += 1;
                    assert_eq!(ask(&server.connect(), b"unharmed"), b"unharmed");
                }
                Err(error) => panic!("{name}: {error}"),
            }
            assert!(sent < 256 << 20, "{name} takes everything from a client that never reads");
        }
        hog.set_nonblocking(false).unwrap();
        hog.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        (&hog).read_to_end(&mut back).unwrap(); // at last it does read, and nothing is lost
        assert!(back.len() == sent && back.iter().all(|byte| *byte == b'x'), "{name}");
    }
}

#[test]
fn a_signal_ends_it_with_clients_connected_and_its_port_is_free_at_once() {
    for name in RIGHT.into_iter().chain(["server_pool", "server_select0"]) {
        let mut here = "localhost:0".to_owned();
        for signal in [Signal::INT, Signal::TERM] {
            let mut server = Server::start(&program(name), [&here]).unwrap();
            here = server.addr.to_string();
            let socks: Vec<_> = (0..3).map(|_| server.connect()).collect();
            socks.iter().for_each(|sock| assert_eq!(ask(sock, b"x"), b"x"));
            server.process.signal_alone(signal);
            let status = server.process.wait(LIMIT).unwrap();
            assert_eq!(status.code(), Some(0), "{name} {signal:?}");
            for mut sock in socks {
                assert!(matches!(sock.read(&mut [0]), Ok(0) | Err(_)), "{name} {signal:?}");
            }
        }
    }
}

#[test]
fn being_stopped_and_continued_is_no_error() {
    for name in RIGHT {
        let server = start(name, &[]);
        let sock = server.connect();
        assert_eq!(ask(&sock, b"before"), b"before");
        server.process.signal(Signal::STOP);
        (&sock).write_all(b"after").unwrap();
        server.process.signal(Signal::CONT);
        let mut back = [0; 5];
        (&sock).read_exact(&mut back).unwrap();
        assert_eq!(&back, b"after");
        assert_eq!(exchange(&server.connect(), b"new"), b"new");
    }
}

#[test]
fn out_of_descriptors_newcomers_are_sent_away_and_the_others_served() {
    for (name, more) in [
        ("server_select", &[][..]),
        ("server_thread", &[]),
        ("server_class", &[]),
        ("server_pool", &["--workers", "64"]), // more than there are descriptors
    ] {
        let limited = ["-c", "ulimit -n 32; exec \"$@\"", "sh"].map(Into::into);
        let args = ["localhost:0", "--backlog", "100"].map(Into::into);
        let more: Vec<_> = more.iter().map(Into::into).collect();
        let all = [&limited[..], &[program(name).into_os_string()], &args, &more].concat();
        let server = Server::start(Path::new("sh"), all).unwrap();
        let socks: Vec<_> = (0..60).map(|_| server.connect()).collect();
        let mut served = 0;
        for mut sock in &socks {
            let mut back = [0; 1];
            let asked = sock.write_all(b"x").and_then(|()| sock.read(&mut back));
            served += usize::from(matches!(asked, Ok(1)));
            assert!(
                !matches!(asked, Err(error) if error.kind() == ErrorKind::WouldBlock),
                "{name}"
            );
        }
        assert!((16..32).contains(&served), "{name}: {served} served");
        assert!(server.logged("Client sent away"), "{name}");
        drop(socks);
        let all_gone = |log: &[u8]| {
            let log = String::from_utf8_lossy(log);
            log.matches("Client closed").count() + log.matches("Client lost").count() == served
        };
        assert!(all_gone(&server.process.stderr.wait(LIMIT, all_gone)), "{name}");
        assert_eq!(exchange(&server.connect(), b"after"), b"after", "{name}");
    }
}

#[test]
fn over_the_limit_a_client_waits_until_another_leaves() {
    for name in ["server_select", "server_thread", "server_class"] {
        let server = start(name, &["--max-clients", "2"]);
        let mut served: Vec<_> = (0..2).map(|_| server.connect()).collect();
        served.iter().for_each(|sock| assert_eq!(ask(sock, b"x"), b"x"));
        let waiting = server.connect();
        (&waiting).write_all(b"let me in").unwrap();
        waiting.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!((&waiting).read(&mut [0]).is_err(), "{name}: served over the limit");
        drop(served.pop());
        waiting.set_read_timeout(Some(LIMIT)).unwrap();
        let mut back = [0; 9];
        (&waiting).read_exact(&mut back).unwrap();
        assert_eq!(&back, b"let me in", "{name}");
        assert_eq!(ask(&served[0], b"x"), b"x");
        // And in turn, without a pause for each.
        drop(served);
        (0..50).for_each(|_| assert_eq!(exchange(&server.connect(), b"next"), b"next"));
    }
}

#[test]
fn who_is_silent_for_too_long_is_closed_and_who_is_not_is_served() {
    for name in ["server_select", "server_thread", "server_class"] {
        let server = start(name, &["--idle-timeout", "1"]);
        let (silent, busy) = (server.connect(), server.connect());
        silent.set_nonblocking(true).unwrap();
        let mut asked = 0;
        let waits = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        while (&silent).read(&mut [0]).is_err_and(waits) {
            assert_eq!(ask(&busy, b"x"), b"x");
            std::thread::sleep(Duration::from_millis(50));
            asked += 1;
            assert!(asked < 1000, "{name}: nobody is closed");
        }
        assert!(asked >= 10, "{name}: closed too early");
        let gone = format!("Client lost {}: silent", silent.local_addr().unwrap());
        assert!(server.logged(&gone), "{name}");
        assert_eq!(exchange(&busy, b"still here"), b"still here");
    }
}

#[test]
fn a_hundred_of_nc_and_of_socat_at_once() {
    for (tool, options) in [("nc", vec!["-N"]), ("socat", vec!["-t", "10", "-"])] {
        if !has(tool) {
            continue;
        }
        for name in ["server_select", "server_thread"] {
            let server = start(name, &[]);
            let (host, port) = (server.addr.ip().to_string(), server.addr.port().to_string());
            let mut clients = Vec::new();
            for _ in 0..100 {
                let mut command = Command::new(tool);
                command.args(&options);
                match tool {
                    "nc" => command.args([&host, &port]),
                    _ => command.arg(format!("TCP:{host}:{port}")),
                };
                clients.push(Process::spawn(&mut command).unwrap());
            }
            for (n, client) in clients.iter_mut().enumerate().rev() {
                let line = format!("{tool} {n}\n").into_bytes();
                client.stdin.as_mut().unwrap().write_all(&line).unwrap();
                let back = client.stdout.wait(LIMIT, |bytes| bytes.ends_with(b"\n"));
                assert_eq!(back, line, "{name}");
            }
            for client in &mut clients {
                client.stdin = None;
                let status = client.wait(LIMIT).unwrap();
                assert!(status.success(), "{tool} at {name}: {status}");
            }
        }
    }
}

#[test]
fn a_hundred_sockets_of_python_at_once() {
    if !has("python3") {
        return;
    }
    let code = "
import socket, sys
socks = [socket.create_connection((sys.argv[1], sys.argv[2])) for _ in range(100)]
for n, sock in reversed(list(enumerate(socks))):
    message = ('안녕 %d' % n).encode() * 500
    sock.sendall(message)
    sock.shutdown(socket.SHUT_WR)
    assert b''.join(iter(lambda: sock.recv(1024), b'')) == message, n
print('ok')";
    for name in RIGHT {
        let server = start(name, &[]);
        let mut python = Command::new("python3");
        python.args(["-c", code, &server.addr.ip().to_string(), &server.addr.port().to_string()]);
        let ended = harness::run(&mut python, b"").unwrap();
        assert_eq!(ended.stdout, b"ok\n", "{name}: {}", ended.stderr);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn every_connection_has_a_keepalive() {
    for name in RIGHT {
        let server = start(name, &[]);
        let sock = server.connect();
        assert_eq!(ask(&sock, b"x"), b"x");
        // proc(5): local port, remote port, …, the timer: 2 is the keepalive's.
        let (here, there) = (server.addr.port(), sock.local_addr().unwrap().port());
        let ends = format!(":{here:04X} 0100007F:{there:04X} 01 ");
        let found = || {
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let line = table.lines().find(|line| line.contains(&ends)).unwrap().to_owned();
            line.split_whitespace().nth(5).unwrap().starts_with("02:")
        };
        // While the ACK of the echo is awaited the timer is another's.
        assert!((0..1000).any(|_| found() || wait_a_moment()), "{name}");
    }
}

#[cfg(target_os = "linux")]
fn wait_a_moment() -> bool {
    std::thread::sleep(Duration::from_millis(10));
    false
}

#[test]
fn what_cannot_be_is_told_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for name in RIGHT.into_iter().chain(["server_pool", "server_select0"]) {
        for (args, status, text) in [
            (&[&*taken][..], 3, "Address already in use"),
            (&["localhost"], 2, "no port"),
            (&["localhost:0", "-b", "0"], 2, "a number of bytes"),
            (&["localhost:0", "--no-such"], 2, "--no-such"),
        ] {
            let ended = harness::run(Command::new(program(name)).args(args), b"").unwrap();
            let (code, line) = ended.error();
            assert_eq!(code, Some(status), "{name}: {line}");
            assert!(line.contains(text), "{name}: {line}");
        }
    }
    for name in ["server_select", "server_thread", "server_class"] {
        for args in [["--max-clients", "0"], ["--idle-timeout", "0"], ["--idle-timeout", "x"]] {
            let ended = harness::run(Command::new(program(name)).args(args), b"").unwrap();
            assert_eq!(ended.error().0, Some(2), "{name} {args:?}");
        }
    }
}
