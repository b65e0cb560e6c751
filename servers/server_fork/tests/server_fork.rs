//! server_fork beyond what all servers have in common: its children. (The rest: server_select.)
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use harness::{LIMIT, Server, Signal, ask};

fn start(args: &[&str]) -> Server {
    let args = [&["localhost:0", "--backlog", "200"], args].concat();
    Server::start(Path::new(env!("CARGO_BIN_EXE_server_fork")), args).unwrap()
}

/// The ids of the server's children, ended ones that nobody has reaped included.
fn children(server: &Server) -> Vec<i32> {
    let pid = server.process.pid;
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let mut later = || {
        std::thread::sleep(Duration::from_millis(10));
        holds()
    };
    (0..1000).any(|_| later())
}

/// How many sockets a process has open.
fn sockets(pid: i32) -> usize {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn each_client_has_a_child_and_each_process_its_own_socket_only() {
    let server = start(&[]);
    let socks: Vec<_> = (0..5).map(|_| server.connect()).collect();
    socks.iter().for_each(|sock| assert_eq!(ask(sock, b"x"), b"x"));
    assert_eq!(children(&server).len(), 5);
    for child in children(&server) {
        assert_eq!(sockets(child), 1, "the connection alone");
    }
    // The parent may be about to close the last connection.
    let own = server.process.pid.cast_signed();
    assert!(eventually(|| sockets(own) == 1), "the listener alone");
}

#[test]
fn hundreds_of_ended_children_leave_no_zombie_and_no_client_is_lost() {
    let server = start(&[]);
    for _ in 0..10 {
        let socks: Vec<_> = (0..50).map(|_| server.connect()).collect();
        socks.iter().for_each(|sock| assert_eq!(ask(sock, b"x"), b"x"));
    } // fifty end at once, while others are accepted
    assert!(eventually(|| children(&server).is_empty()), "{:?}", children(&server));
}

#[test]
fn the_children_end_with_their_parent_however_it_ends() {
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let mut server = start(&[]);
        let socks: Vec<_> = (0..3).map(|_| server.connect()).collect();
        socks.iter().for_each(|sock| assert_eq!(ask(sock, b"x"), b"x"));
        server.process.signal_alone(signal);
        server.process.wait(LIMIT).unwrap();
        for mut sock in socks {
            assert!(matches!(sock.read(&mut [0]), Ok(0)), "served on after {signal:?}");
        }
        assert!(eventually(|| !server.process.has_left()), "a child is left after {signal:?}");
        TcpListener::bind(server.addr).unwrap();
    }
}
