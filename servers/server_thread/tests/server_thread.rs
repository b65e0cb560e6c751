//! server_thread beyond what all servers have in common: its threads. (The rest: server_select.)
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{LIMIT, Server, ask};

fn start(args: &[&str]) -> Server {
    let args = [&["localhost:0", "--backlog", "200"], args].concat();
    Server::start(Path::new(env!("CARGO_BIN_EXE_server_thread")), args).unwrap()
}

/// The names of the server's threads, but for the first.
fn threads(server: &Server) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.process.pid)).unwrap();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm"));
    let names = tasks.filter_map(|task| name(task.ok()?).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name != "server_thread").collect()
}

#[test]
fn each_client_has_a_thread_of_its_name_until_it_leaves() {
    let server = start(&[]);
    let socks: Vec<_> = (0..5).map(|_| server.connect()).collect();
    socks.iter().for_each(|sock| assert_eq!(ask(sock, b"x"), b"x"));
    let mut found = threads(&server);
    found.sort();
    let name = |sock: &TcpStream| sock.local_addr().unwrap().to_string()[..15].to_owned();
    let mut wanted: Vec<_> = socks.iter().map(name).collect(); // the system keeps 15 bytes
    wanted.sort();
    assert_eq!(found, wanted);
    drop(socks);
    let all_left = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        threads(&server).is_empty()
    });
    assert!(all_left, "{:?}", threads(&server));
}

#[test]
fn out_of_threads_a_client_is_sent_away() {
    // The option is -p in dash and -u elsewhere. Root is not bound by the limit, and goes on as
    // somebody who has no other processes.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -u 10 2>/dev/null || ulimit -p 10; exec \"$@\"", "sh"]);
    command.args([env!("CARGO_BIN_EXE_server_thread"), "localhost:0"]);
    if nix::unistd::geteuid().is_root() {
        command.uid(54321);
    }
    let mut process = harness::Process::spawn(&mut command).unwrap();
    let line = process.stdout.wait(LIMIT, |bytes| bytes.contains(&b'\n'));
    let line = String::from_utf8(line).unwrap();
    let Some(addr) = line.trim().rsplit(' ').next().and_then(|addr| addr.parse().ok()) else {
        eprintln!("skipped: it cannot be run as nobody: {:?}", process.wait(LIMIT));
        return;
    };
    let server = Server { process, addr };
    let mut socks = Vec::new();
    let sent_away = (0..20).any(|_| {
        socks.push(server.connect());
        let mut sock = socks.last().unwrap();
        !matches!(sock.write_all(b"x").and_then(|()| sock.read(&mut [0])), Ok(1))
    });
    assert!(sent_away && socks.len() > 2, "{} threads", socks.len());
    assert!(server.logged("Client sent away"));
    assert_eq!(ask(&socks[0], b"served on"), b"served on");
}
