//! Both chat servers as their clients meet them, `chat_client` and any other that speaks lines.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Process, Signal, has};
use socket2::SockRef;

const SERVERS: [&str; 2] = ["chat_thread", "chat_select"];

fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let programs = ["chat_thread", "chat_select", "chat_client"];
    let folder = BUILT.get_or_init(|| harness::build(programs).unwrap());
    folder.join(name)
}

struct Chat {
    process: Process,
    addr: SocketAddr,
}

impl Chat {
    fn start(name: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program(name));
        let process = Process::spawn(command.args(["127.0.0.1", "0"]).args(args)).unwrap();
        Self::started(process).unwrap()
    }

    /// The chat of `process`, if that says where it listens.
    fn started(process: Process) -> Option<Self> {
        let first = process.stdout.wait(LIMIT, |text| text.contains(&b'\n'));
        let first = String::from_utf8(first).unwrap();
        let port = first.strip_prefix("Chat Server started on port ")?;
        let port = port.lines().next()?.strip_suffix('.')?.parse().unwrap();
        Some(Chat { process, addr: ([127, 0, 0, 1], port).into() })
    }

    /// Everything printed behind the first line, once that ends in `end`.
    fn printed(&self, end: &str) -> String {
        let text = self.process.stdout.wait(LIMIT, |text| text.ends_with(end.as_bytes()));
        let text = String::from_utf8(text).unwrap();
        let tail: String = text.chars().rev().take(300).collect();
        let tail: String = tail.chars().rev().collect();
        assert!(text.ends_with(end), "not the end of what is printed: {tail}");
        text.split_once('\n').unwrap().1.to_owned()
    }

    fn join(&self) -> Peer {
        Peer::of(TcpStream::connect(self.addr).unwrap())
    }

    fn client(&self) -> Process {
        let mut command = Command::new(program("chat_client"));
        Process::spawn(command.arg(self.addr.to_string())).unwrap()
    }

    fn interrupt(mut self) {
        self.process.signal(Signal::INT);
        assert_eq!(self.process.wait(LIMIT).unwrap().code(), Some(0));
        assert!(self.process.stdout.all(LIMIT).ends_with(b"\nexit\n"));
    }
}

struct Peer {
    sock: BufReader<TcpStream>,
    addr: SocketAddr,
}

impl Peer {
    fn of(sock: TcpStream) -> Self {
        sock.set_read_timeout(Some(LIMIT)).unwrap();
        sock.set_write_timeout(Some(LIMIT)).unwrap();
        let addr = sock.local_addr().unwrap();
        Peer { sock: BufReader::new(sock), addr }
    }

    fn say(&self, text: impl AsRef<[u8]>) {
        self.sock.get_ref().write_all(text.as_ref()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.sock.read_line(&mut line).unwrap();
        line
    }

    #[track_caller]
    fn hears(&mut self, lines: &str) {
        for line in lines.split_inclusive('\n') {
            assert_eq!(self.line(), line);
        }
    }

    fn fin(&self) {
        self.sock.get_ref().shutdown(Shutdown::Write).unwrap();
    }

    fn reset(self) {
        SockRef::from(self.sock.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// All that comes up to the end of the connection.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.sock.read_to_string(&mut rest).unwrap();
        rest
    }
}

fn connected(online: usize) -> String {
    format!("Connected to the chat server ({} online)\n", users(online))
}

fn entered(addr: SocketAddr, online: usize) -> String {
    format!("New user {addr} entered ({} online)\n", users(online))
}

fn left(addr: SocketAddr, online: usize) -> String {
    format!("The user {addr} left ({} online)\n", users(online))
}

fn users(online: usize) -> String {
    format!("{online} user{}", if online > 1 { "s" } else { "" })
}

/// Waits until the client has printed so many whole lines; returns all of them.
fn lines(client: &Process, count: usize) -> String {
    let is_there = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count() >= count;
    String::from_utf8(client.stdout.wait(LIMIT, is_there)).unwrap()
}

fn type_line(client: &mut Process, line: &str) {
    client.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
}

/// The address in the server's last `New user` line.
fn newcomer(printed: &str) -> SocketAddr {
    printed.rsplit("New user ").next().unwrap().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn the_transcripts_are_the_assignments() {
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let mut first = chat.client();
        assert_eq!(lines(&first, 1), connected(1));
        let a = newcomer(&chat.printed("entered (1 user online)\n"));
        type_line(&mut first, "Hello\n");
        lines(&first, 2);
        let mut second = chat.client();
        assert_eq!(lines(&second, 1), connected(2));
        let b = newcomer(&chat.printed("entered (2 users online)\n"));
        type_line(&mut second, "World\n");
        assert_eq!(lines(&second, 2), connected(2) + "[You] World\n");
        second.signal(Signal::INT); // Ctrl+C
        assert_eq!(second.wait(LIMIT).unwrap().code(), Some(0));
        assert_eq!(second.stdout.all(LIMIT), (connected(2) + "[You] World\nexit\n").as_bytes());
        let heard = connected(1)
            + "[You] Hello\n"
            + &entered(b, 2)
            + &format!("[{b}] World\n")
            + &left(b, 1);
        assert_eq!(lines(&first, 5), heard);
        drop(first.stdin.take()); // Ctrl+D
        assert_eq!(first.wait(LIMIT).unwrap().code(), Some(0));
        assert_eq!(first.stdout.all(LIMIT), heard.as_bytes());
        let all = entered(a, 1)
            + &format!("[{a}] Hello\n")
            + &entered(b, 2)
            + &format!("[{b}] World\n")
            + &left(b, 1)
            + &left(a, 0);
        assert_eq!(chat.printed("left (0 user online)\n"), all);
        chat.interrupt();
    }
}

#[test]
fn any_program_that_speaks_lines_is_a_client() {
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let mut one = chat.join();
        one.hears(&connected(1));
        if has("nc") {
            let (host, port) = (chat.addr.ip().to_string(), chat.addr.port().to_string());
            let mut nc = Command::new("nc");
            let ended =
                harness::run(nc.args(["-N", &host, &port]), b"one\n\ntwo\r\nthree").unwrap();
            let expected = connected(2) + "[You] one\n[You] \n[You] two\n[You] three\n";
            assert_eq!(String::from_utf8(ended.stdout).unwrap(), expected);
            let nc = newcomer(&chat.printed("left (1 user online)\n"));
            let said = format!("[{nc}] one\n[{nc}] \n[{nc}] two\n[{nc}] three\n");
            one.hears(&(entered(nc, 2) + &said + &left(nc, 1)));
        }
        one.say("in ");
        one.say("pieces\nand");
        one.hears("[You] in pieces\n");
        one.fin();
        assert_eq!(one.rest(), "[You] and\n");
    }
}

#[test]
fn everybody_sees_fifty_come_and_go_in_one_order() {
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let mut watcher = chat.join();
        watcher.hears(&connected(1));
        let addr = chat.addr;
        let threads: Vec<_> = (0..50)
            .map(|n| {
                thread::spawn(move || {
                    let mut peer = Peer::of(TcpStream::connect(addr).unwrap());
                    let first = peer.line();
                    match n % 3 {
                        0 => peer.reset(),
                        1 => drop(peer),
                        _ => {
                            peer.fin();
                            peer.rest();
                        }
                    }
                    first
                })
            })
            .collect();
        let told: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let (mut online, mut seen, mut counts) = (1, String::new(), Vec::new());
        for _ in 0..100 {
            let line = watcher.line();
            let addr = line.split(' ').nth(2).unwrap().parse().unwrap();
            if line.contains(" entered ") {
                online += 1;
                counts.push(connected(online));
                assert_eq!(line, entered(addr, online));
            } else {
                online -= 1;
                assert_eq!(line, left(addr, online));
            }
            seen += &line;
        }
        assert_eq!(online, 1);
        let (mut told, mut counts) = (told, counts);
        told.sort();
        counts.sort();
        assert_eq!(told, counts, "each newcomer is told the count that the others are told");
        assert_eq!(chat.printed(&seen).split_once('\n').unwrap().1, seen);
    }
}

#[test]
fn ten_thousand_lines_arrive_whole_and_in_one_order() {
    const CLIENTS: usize = 20;
    const LINES: usize = 500;
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let mut peers: Vec<_> = (0..CLIENTS).map(|_| chat.join()).collect();
        let start = format!("({CLIENTS} users online)");
        peers.iter_mut().for_each(|peer| while !peer.line().contains(&start) {});
        let threads: Vec<_> = peers
            .into_iter()
            .map(|mut peer| {
                thread::spawn(move || {
                    let sock = peer.sock.get_ref().try_clone().unwrap();
                    let sending = thread::spawn(move || {
                        for n in 0..LINES {
                            (&sock)
                                .write_all(format!("{n} {}\n", "x".repeat(n % 97)).as_bytes())
                                .unwrap();
                        }
                    });
                    let you = format!("[{}]", peer.addr);
                    let heard: Vec<_> =
                        (0..CLIENTS * LINES).map(|_| peer.line().replace("[You]", &you)).collect();
                    sending.join().unwrap();
                    heard.concat()
                })
            })
            .collect();
        let heard: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(heard.iter().all(|text| *text == heard[0]), "{name}: everybody sees another order");
        let mut next = std::collections::HashMap::new();
        for line in heard[0].lines() {
            let (who, text) = line.split_once(' ').unwrap();
            let n: &mut usize = next.entry(who).or_default();
            assert_eq!(text, format!("{n} {}", "x".repeat(*n % 97)));
            *n += 1;
        }
        assert!(next.len() == CLIENTS && next.values().all(|n| *n == LINES));
        let printed = chat.printed("left (0 user online)\n");
        assert!(printed.contains(&heard[0]), "{name}: the server prints another order");
    }
}

#[test]
fn who_does_not_read_is_dropped_and_delays_nobody() {
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let mut slow = Peer::of(narrow(chat.addr));
        slow.hears(&connected(1));
        let mut speaker = chat.join();
        speaker.hears(&connected(2));
        let line = "x".repeat(60_000);
        let mut said = 0;
        loop {
            speaker.say(format!("{line}\n"));
            let start = Instant::now();
            let heard = speaker.line();
            assert!(start.elapsed() < LIMIT / 2, "{name}: the slow one delays the others");
            if heard == left(slow.addr, 1) {
                break;
            }
            assert_eq!(heard, format!("[You] {line}\n"));
            said += 1;
            assert!(said < 5000, "{name}: who does not read is never dropped");
        }
        assert!(said > 10, "{name}: dropped before its queue could fill");
        speaker.hears(&format!("[You] {line}\n"));
        let mut third = chat.join();
        third.hears(&connected(2));
        let end = slow.sock.read_to_end(&mut Vec::new());
        assert!(end.is_ok() || end.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
        wait_for_threads(&chat, if name == "chat_thread" { 2 + 2 * 2 } else { 2 });
    }
}

#[test]
fn many_who_do_not_read_cost_little_memory() {
    const SILENT: usize = 30;
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let silent: Vec<_> = (0..SILENT).map(|_| narrow(chat.addr)).collect();
        let mut speaker = chat.join();
        speaker.hears(&connected(SILENT + 1));
        let sock = speaker.sock.get_ref().try_clone().unwrap();
        let line = "x".repeat(60_000) + "\n";
        let sending = thread::spawn(move || while (&sock).write_all(line.as_bytes()).is_ok() {});
        let gone = (0..10_000).filter(|_| speaker.line().starts_with("The user ")).take(SILENT);
        assert_eq!(gone.count(), SILENT, "{name}: who does not read is never dropped");
        speaker.sock.get_ref().shutdown(Shutdown::Both).unwrap();
        sending.join().unwrap();
        let peak = harness::peak_memory(chat.process.pid).unwrap();
        assert!(peak < 120_000, "{name}: {peak} KiB");
        drop(silent);
    }
}

/// Waits until the server has no more than `most` threads: nobody who left has left one behind.
fn wait_for_threads(chat: &Chat, most: usize) {
    let end = Instant::now() + LIMIT;
    let tasks = format!("/proc/{}/task", chat.process.pid);
    while std::fs::read_dir(&tasks).unwrap().count() > most {
        assert!(Instant::now() < end, "a thread is left behind");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_never_reads_leaves_nothing_behind() {
    thread::scope(|scope| {
        for name in SERVERS {
            // What it says is stuck in the queue when the FIN comes; it is stuck before.
            for (length, count) in [(60_000, 80), (1000, 20_000)] {
                scope.spawn(move || never_reads(name, length, count));
            }
        }
    });
}

fn never_reads(name: &str, length: usize, count: usize) {
    let chat = Chat::start(name, &[]);
    let mut watcher = chat.join();
    watcher.hears(&connected(1));
    let peer = chat.join();
    watcher.hears(&entered(peer.addr, 2));
    let gone = left(peer.addr, 1);
    let watching = thread::spawn(move || while watcher.line() != gone {});
    let line = format!("{}\n", "x".repeat(length));
    let mut sock = peer.sock.get_ref();
    let _ = (0..count).try_for_each(|_| sock.write_all(line.as_bytes())); // until it is thrown out
    let _ = sock.shutdown(Shutdown::Write);
    watching.join().unwrap();
    wait_for_threads(&chat, 2);
}

#[test]
fn who_talks_faster_than_it_listens_waits_for_itself() {
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let mut peer = chat.join();
        peer.hears(&connected(1));
        let sock = peer.sock.get_ref().try_clone().unwrap();
        let sending = thread::spawn(move || {
            let text: String = (0..1_000_000).map(|n| format!("{n:07}\n")).collect(); // 8 MB
            (&sock).write_all(text.as_bytes()).unwrap();
            sock.shutdown(Shutdown::Write).unwrap();
        });
        thread::sleep(Duration::from_secs(1)); // in which all that comes back would be too much
        for n in 0..1_000_000 {
            assert_eq!(peer.line(), format!("[You] {n:07}\n"));
        }
        sending.join().unwrap();
        assert_eq!(peer.rest(), "");
    }
}

#[test]
fn who_reads_slowly_and_steadily_loses_nothing() {
    thread::scope(|scope| SERVERS.iter().for_each(|name| drop(scope.spawn(|| reads_slowly(name)))));
}

fn reads_slowly(name: &str) {
    let chat = Chat::start(name, &["--idle-timeout", "2"]);
    let mut peer = Peer::of(narrow(chat.addr));
    peer.hears(&connected(1));
    let text: String = (0..500_000).map(|n| format!("{n:07}\n")).collect(); // 4 MB
    let sock = peer.sock.get_ref().try_clone().unwrap();
    let sending = thread::spawn(move || {
        (&sock).write_all(text.as_bytes()).unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
    });
    let start = Instant::now();
    for n in 0..500_000 {
        if n % 500 == 0 && start.elapsed() < Duration::from_secs(8) {
            thread::sleep(Duration::from_millis(50)); // 160 kB a second
        }
        assert_eq!(peer.line(), format!("[You] {n:07}\n"), "{name}");
    }
    sending.join().unwrap();
    assert_eq!(peer.rest(), "");
}

/// A connection on which the system takes little before the client has read it.
fn narrow(addr: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&addr.into()).unwrap();
    socket.into()
}

#[test]
fn a_reset_is_a_leave() {
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let mut one = chat.join();
        one.hears(&connected(1));
        let mut two = chat.join();
        two.hears(&connected(2));
        let addr = two.addr;
        two.reset();
        one.hears(&(entered(addr, 2) + &left(addr, 1)));
    }
}

#[test]
fn a_line_may_have_64_kib_and_not_a_byte_more() {
    for name in SERVERS {
        for buffer in ["1024", "1000000"] {
            let chat = Chat::start(name, &["--buffer", buffer]);
            let mut one = chat.join();
            one.hears(&connected(1));
            let longest = "y".repeat(65536);
            one.say(format!("{longest}\n"));
            one.hears(&format!("[You] {longest}\n"));
            let endless = longest.repeat(64); // no RST may come while it is sent
            for end in ["\n", "", "\nmore\n", &endless] {
                let mut two = chat.join();
                two.hears(&connected(2));
                two.say(format!("before\n{longest}y{end}"));
                assert_eq!(two.rest(), "[You] before\nRefused: a line of more than 65536 bytes\n");
                let said = format!("[{}] before\n", two.addr);
                one.hears(&(entered(two.addr, 2) + &said + &left(two.addr, 1)));
            }
            if name == "chat_thread" {
                wait_for_threads(&chat, 2 + 2);
            }
        }
    }
}

#[test]
fn nothing_that_a_terminal_obeys_is_sent_on() {
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let (mut one, mut two) = (chat.join(), chat.join());
        one.hears(&(connected(1) + &entered(two.addr, 2)));
        two.hears(&connected(2));
        two.say(b"\x1b]0;owned\x07 \xff\xc3\x28 \xec\x95\x88\rnew \xc2\x9b2J\t\0\n");
        let shown = "\\u{1b}]0;owned\\u{7} \u{fffd}\u{fffd}( 안\\rnew \\u{9b}2J\\t\\u{0}\n";
        two.hears(&format!("[You] {shown}"));
        one.hears(&format!("[{}] {shown}", two.addr));
        chat.printed(&format!("[{}] {shown}", two.addr));
    }
}

#[test]
fn characters_cut_in_two_on_their_way_are_whole() {
    for name in SERVERS {
        let chat = Chat::start(name, &["--buffer", "1"]);
        let mut one = chat.join();
        one.hears(&connected(1));
        one.say("안녕 🙂\n");
        one.hears("[You] 안녕 🙂\n");
    }
}

#[test]
fn who_comes_when_the_chat_is_full_is_told_so() {
    for name in SERVERS {
        let chat = Chat::start(name, &["--max-clients", "2"]);
        let (mut one, mut two) = (chat.join(), chat.join());
        one.hears(&(connected(1) + &entered(two.addr, 2)));
        two.hears(&connected(2));
        let mut three = chat.join();
        assert_eq!(three.rest(), "Refused: the chat is full\n");
        let mut client = chat.client();
        assert_eq!(client.wait(LIMIT).unwrap().code(), Some(1));
        assert_eq!(client.stdout.all(LIMIT), b"Refused: the chat is full\n");
        let addr = two.addr;
        drop(two);
        one.hears(&left(addr, 1));
        let mut four = chat.join();
        four.hears(&connected(2));
        one.hears(&entered(four.addr, 2));
    }
}

#[test]
fn who_is_refused_and_sends_on_is_closed_all_the_same() {
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let mut peer = chat.join();
        peer.hears(&connected(1));
        peer.say("y".repeat(65537));
        assert_eq!(peer.rest(), "Refused: a line of more than 65536 bytes\n");
        let start = Instant::now();
        while peer.sock.get_ref().write_all(b"y").is_ok() {
            assert!(start.elapsed() < LIMIT / 2, "{name} never lets go");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn who_comes_when_threads_run_out_is_told_so_and_nobody_else() {
    for limit in [6, 7] {
        // The server has two threads, each client has two.
        // The option is -p in dash and -u elsewhere. Root is not bound by the limit, and goes on as
        // somebody who has no other processes.
        let mut command = Command::new("sh");
        let line = format!("ulimit -u {limit} 2>/dev/null || ulimit -p {limit}; exec \"$@\"");
        command.args(["-c", &line, "sh"]).arg(program("chat_thread")).args(["127.0.0.1", "0"]);
        if nix::unistd::geteuid().is_root() {
            command.uid(20_000 + std::process::id() % 30_000);
        }
        let process = Process::spawn(&mut command).unwrap();
        let Some(chat) = Chat::started(process) else {
            eprintln!("skipped: it cannot be run as nobody");
            return;
        };
        let mut one = chat.join();
        one.hears(&connected(1));
        let mut two = chat.join();
        two.hears(&connected(2));
        one.hears(&entered(two.addr, 2));
        for _ in 0..3 {
            assert_eq!(chat.join().rest(), "Refused: the chat is full\n");
        }
        one.say("served on\n");
        one.hears("[You] served on\n");
    }
}

#[test]
fn who_is_silent_is_sent_away_and_who_hears_something_is_not() {
    for name in SERVERS {
        let chat = Chat::start(name, &["--idle-timeout", "3"]);
        let (mut one, mut two) = (chat.join(), chat.join());
        one.hears(&(connected(1) + &entered(two.addr, 2)));
        two.hears(&connected(2));
        let start = Instant::now();
        let mut last = start;
        while start.elapsed() < Duration::from_secs(4) {
            last = Instant::now();
            one.say("x\n");
            one.hears("[You] x\n");
            two.hears(&format!("[{}] x\n", one.addr));
            thread::sleep(Duration::from_millis(50));
        }
        for peer in [&mut one, &mut two] {
            let last = peer.rest();
            let last =
                last.strip_prefix("The user ").map_or(&*last, |it| it.split_once('\n').unwrap().1);
            assert_eq!(last, "Closed: nothing has moved for too long\n");
        }
        assert!(last.elapsed() >= Duration::from_secs(3), "{name}: too soon");
        chat.printed("left (0 user online)\n");
    }
}

#[test]
fn ctrl_c_leaves_nothing_listening_or_established() {
    for name in SERVERS {
        let chat = Chat::start(name, &[]);
        let mut client = chat.client();
        lines(&client, 1);
        let mut peer = chat.join();
        peer.hears(&connected(2));
        lines(&client, 2);
        let addr = chat.addr;
        chat.interrupt();
        assert_eq!(peer.rest(), "");
        assert_eq!(client.wait(LIMIT).unwrap().code(), Some(1)); // although its stdin is open
        let text = client.stderr.all(LIMIT);
        assert_eq!(text, b"error: the chat server has ended the connection\n");
        assert_eq!(client.stdout.all(LIMIT), (connected(1) + &entered(peer.addr, 2)).as_bytes());
        assert!(TcpStream::connect(addr).is_err(), "somebody still listens");
        let again = Chat::start(name, &[]);
        drop(again);
        if has("ss") {
            let filter = format!("sport = :{0} or dport = :{0}", addr.port());
            let mut ss = Command::new("ss");
            ss.args(["-Htan", "state", "established", "state", "listening"]).arg(filter);
            assert_eq!(harness::run(&mut ss, b"").unwrap().stdout, b"");
        }
    }
}

#[test]
fn on_a_terminal_ctrl_c_ends_on_a_line_of_its_own() {
    for name in SERVERS.iter().filter(|_| has("script")) {
        let run = format!("exec {} 127.0.0.1 0", program(name).display());
        let mut script = Command::new("script");
        let mut script = Process::spawn(script.args(["-qefc", &run, "/dev/null"])).unwrap();
        let first = script.stdout.wait(LIMIT, |text| text.ends_with(b".\r\n"));
        script.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
        assert_eq!(script.wait(LIMIT).unwrap().code(), Some(0));
        let all = String::from_utf8(script.stdout.all(LIMIT)).unwrap();
        assert_eq!(all, String::from_utf8(first).unwrap() + "^C\r\nexit\r\n");
    }
}

#[test]
fn a_server_whose_output_nobody_takes_serves_on_and_ends_when_told_to() {
    for name in SERVERS {
        let (stdout, theirs) = std::io::pipe().unwrap();
        let mut command = Command::new(program(name));
        let command = command.args(["127.0.0.1", "0"]).stdout(theirs).stderr(Stdio::null());
        let mut process = Process::start(command).unwrap();
        let mut stdout = BufReader::new(stdout);
        let mut port = String::new();
        stdout.read_line(&mut port).unwrap(); // and no more
        let port = port.trim_end().rsplit(' ').next().unwrap().strip_suffix('.').unwrap();
        let mut peer = Peer::of(TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap());
        peer.hears(&connected(1));
        let (line, shown) = ("\x1b".repeat(60_000), "\\u{1b}".repeat(60_000));
        for _ in 0..150 {
            peer.say(format!("{line}\n")); // 54 MB in all, far more than a pipe holds
            peer.hears(&format!("[You] {shown}\n"));
        }
        let peak = harness::peak_memory(process.pid).unwrap();
        assert!(peak < 30_000, "{name} keeps what is not printed: {peak} KiB");
        process.signal(Signal::TERM);
        assert_eq!(process.wait(LIMIT / 4).expect(name).code(), Some(0));
        drop(stdout);
    }
}

#[test]
fn without_descriptors_newcomers_are_sent_away_and_the_chat_goes_on() {
    for name in SERVERS {
        let mut command = Command::new("sh");
        let line = format!("ulimit -n 32; exec {} 127.0.0.1 0", program(name).display());
        let chat = Chat::started(Process::spawn(command.args(["-c", &line])).unwrap()).unwrap();
        let mut peers: Vec<_> = (0..50).map(|_| chat.join()).collect();
        let lines: Vec<_> = peers.iter_mut().map(Peer::line).collect();
        let served = lines.iter().filter(|line| !line.is_empty()).count();
        assert!((10..32).contains(&served), "{served} are served");
        peers[0].say("still here\n");
        while peers[0].line() != "[You] still here\n" {}
    }
}

#[test]
fn an_address_has_one_word_or_two() {
    for name in SERVERS {
        let run =
            |args: &[&str]| harness::run(Command::new(program(name)).args(args), b"").unwrap();
        for args in [
            &["localhost"][..],
            &["localhost", "x"],
            &["localhost", "70000"],
            &["localhost:1", "2"],
            &["localhost", "0", "0"],
            &["--max-clients", "0"],
            &["--idle-timeout", "0"],
        ] {
            let ended = run(args);
            assert_eq!(ended.error().0, Some(2), "{args:?}");
            assert!(ended.stdout.is_empty());
        }
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        for args in [vec![format!("127.0.0.1:{port}")], vec!["127.0.0.1".into(), port.to_string()]]
        {
            let ended = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(ended.error().0, Some(3));
            assert!(ended.error().1.contains(&format!("127.0.0.1:{port}")), "{}", ended.stderr);
        }
        for args in [&["::1", "0"][..], &["[::1]", "0"], &["[::1]:0"], &[":0", "--backlog", "5"]] {
            let mut command = Command::new(program(name));
            let process = Process::spawn(command.args(args)).unwrap();
            let first = process.stdout.wait(LIMIT, |text| text.contains(&b'\n'));
            assert!(first.starts_with(b"Chat Server started on port "), "{args:?}");
        }
    }
}
