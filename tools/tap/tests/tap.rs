//! tap as a process: what a client and a server see through it, what it writes, how it ends.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Server, Signal, run};
use nix::sys::resource::{Resource, setrlimit};

const TAP: &str = env!("CARGO_BIN_EXE_tap");

fn tap<const N: usize>(target: SocketAddr, options: [&str; N]) -> Server {
    let addresses = ["127.0.0.1:0".to_owned(), target.to_string()];
    let options = options.map(str::to_owned);
    Server::start(Path::new(TAP), addresses.iter().chain(&options)).unwrap()
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let sock = TcpStream::connect(addr).unwrap();
    sock.set_read_timeout(Some(LIMIT)).unwrap();
    sock
}

/// An echo server in this process, for as many connections as come.
fn echo() -> SocketAddr {
    let (listener, addr) = listen();
    thread::spawn(move || {
        for conn in listener.incoming().flatten() {
            let echo = move || {
                let _ = io::copy(&mut &conn, &mut &conn);
                let _ = conn.shutdown(Shutdown::Write);
            };
            thread::Builder::new().stack_size(128 * 1024).spawn(echo).unwrap();
        }
    });
    addr
}

/// Ends tap as Ctrl+C does; returns its stdout.
fn stop(mut tap: Server) -> String {
    tap.process.signal(Signal::INT);
    assert_eq!(tap.process.wait(LIMIT).unwrap().code(), Some(0));
    String::from_utf8(tap.process.stdout.all(LIMIT)).unwrap()
}

fn wait_for(tap: &Server, text: &str) {
    let found = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(text);
    let stdout = tap.process.stdout.wait(LIMIT, found);
    assert!(found(&stdout), "{}", String::from_utf8_lossy(&stdout));
}

fn talk(addr: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut sock = connect(addr);
    sock.write_all(message).unwrap();
    sock.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    sock.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn a_conversation_and_its_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [svg, html, json, mermaid] = ["a.svg", "a.html", "a.jsonl", "a.mmd"].map(file);
    let options = ["--svg", &svg, "--html", &html, "--json", &json, "--mermaid", &mermaid];
    let tap = tap(echo(), options);
    assert!(fs::read_to_string(&svg).unwrap().contains("no connection yet"));
    assert_eq!(talk(tap.addr, b"hello <wire>\n"), b"hello <wire>\n");
    wait_for(&tap, "13 bytes to the client");
    let ladder = stop(tap);
    let lines: Vec<_> = ladder.lines().collect();
    assert!(lines[0].starts_with("Tap to 127.0.0.1:"), "{ladder}");
    for part in ["── connect ─", "13 bytes  \"hello <wire>\\n\"", "FIN  the client sends no more"]
    {
        assert!(ladder.contains(part), "{ladder}");
    }
    assert!(!ladder.contains('\x1b'), "no colours where there is no terminal");
    let headline = "The client closed first, but only half: the server could still answer";
    for drawing in [&svg, &html, &mermaid] {
        let drawing = fs::read_to_string(drawing).unwrap();
        assert!(drawing.contains(headline) || drawing.contains("but only half"), "{drawing}");
    }

    let draw = |options: &[&str]| run(Command::new(TAP).args(["draw", &json]).args(options), b"");
    let drawn = draw(&[]).unwrap();
    assert_eq!(drawn.code, Some(0));
    let drawn = String::from_utf8(drawn.stdout).unwrap();
    assert_eq!(drawn.trim_end(), lines[1..].join("\n").trim_end());
    let again = file("again.svg");
    assert_eq!(draw(&["--svg", &again]).unwrap().code, Some(0));
    assert_eq!(fs::read(&again).unwrap(), fs::read(&svg).unwrap());
}

#[test]
fn numbers_of_any_size_are_drawn() {
    let data =
        r#"{"at_us":18446744073709551615,"connection":1,"direction":"to-server","kind":"data","#;
    let data = format!(r#"{data}"offset":{0},"length":{0},"preview":"hello"}}"#, u64::MAX);
    let input = format!("{data}\n").repeat(2);
    for file in [&[][..], &["--svg", "/dev/stdout"], &["--html", "/dev/stdout"]] {
        let drawn = run(Command::new(TAP).args(["draw", "-"]).args(file), input.as_bytes());
        let drawn = drawn.unwrap();
        assert_eq!((drawn.code, &*drawn.stderr), (Some(0), ""), "{file:?}");
        assert!(String::from_utf8(drawn.stdout).unwrap().contains(&u64::MAX.to_string()));
    }
}

#[test]
fn a_target_that_refuses_ends_the_connection() {
    let (listener, nobody) = listen();
    drop(listener);
    let tap = tap(nobody, []);
    let mut sock = connect(tap.addr);
    assert_eq!(sock.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    wait_for(&tap, "The server refused the connection");
    assert!(tap.logged("Connection refused"));
    assert!(stop(tap).contains("refused"));
}

#[test]
fn a_client_who_never_reads_stalls_only_its_own_server() {
    let (listener, addr) = listen();
    let tap = tap(addr, []);
    let lazy = connect(tap.addr);
    let mut conn = listener.accept().unwrap().0;
    conn.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut total = 0;
    while let Ok(length) = conn.write(&[7; 65536]) {
        total += length;
        assert!(total < 128 << 20, "somebody buffers without bound");
    }
    let mut other = connect(tap.addr);
    let mut second = listener.accept().unwrap().0;
    second.write_all(b"still served").unwrap();
    let mut answer = [0; 12];
    other.read_exact(&mut answer).unwrap();
    assert!(harness::peak_memory(tap.process.pid).unwrap() < 64 * 1024);
    drop(lazy);
    wait_for(&tap, "The client closed first, abruptly");
    stop(tap);
}

#[test]
fn sigint_in_the_middle_leaves_whole_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("a.html");
    let tap = tap(echo(), ["--html", html.to_str().unwrap(), "--to-client", "stall-after=5"]);
    let mut sock = connect(tap.addr);
    sock.write_all(b"0123456789").unwrap();
    sock.read_exact(&mut [0; 5]).unwrap();
    wait_for(&tap, "stall");
    stop(tap);
    let page = fs::read_to_string(html).unwrap();
    assert!(page.contains("Stalled: the client waits") && page.ends_with("</html>\n"), "{page}");
    match sock.read(&mut [0]) {
        Ok(length) => assert_eq!(length, 0, "tap is gone"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "tap is gone"),
    }
}

#[test]
fn clients_wait_while_there_are_no_descriptors() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("a.svg");
    let mut command = Command::new(TAP);
    let target = echo().to_string();
    command.args(["127.0.0.1:0", &target, "--svg", svg.to_str().unwrap()]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 40; exec \"$@\"", "sh"]);
    limited.arg(command.get_program()).args(command.get_args());
    let process = harness::Process::spawn(&mut limited).unwrap();
    let line = process.stdout.wait(LIMIT, |bytes| bytes.contains(&b'\n'));
    let line = String::from_utf8(line).unwrap();
    let addr = line.lines().next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    let tap = Server { process, addr };

    let socks: Vec<_> = (0..60).map(|_| connect(addr)).collect();
    assert!(tap.logged("Too many open files"));
    let spent = cpu_time(tap.process.pid);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        thread::yield_now();
    }
    let spent = cpu_time(tap.process.pid) - spent;
    assert!(spent < Duration::from_millis(100), "spins: {spent:?} of CPU time in 0.5 s");
    drop(socks);
    assert_eq!(talk(addr, b"served again"), b"served again");
    stop(tap);
    assert!(fs::read_to_string(svg).unwrap().ends_with("</svg>\n"));
}

/// User and system time of a process so far (proc(5); 100 ticks a second).
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    Duration::from_millis(ticks.map(|n| n.parse::<u64>().unwrap() * 10).sum())
}

#[test]
fn five_hundred_connections_at_once() {
    let soft = 4096;
    setrlimit(Resource::RLIMIT_NOFILE, soft, soft).unwrap();
    let tap = tap(echo(), []);
    let mut socks: Vec<_> = (0..500).map(|_| connect(tap.addr)).collect();
    for round in 0..3 {
        for (n, sock) in socks.iter_mut().enumerate() {
            sock.write_all(format!("{round:03} {n:06}").as_bytes()).unwrap();
        }
        for (n, sock) in socks.iter_mut().enumerate() {
            let mut answer = [0; 10];
            sock.read_exact(&mut answer).unwrap();
            assert_eq!(answer, *format!("{round:03} {n:06}").as_bytes());
        }
    }
    let memory = harness::peak_memory(tap.process.pid).unwrap();
    println!("500 connections: {memory} KiB");
    assert!(memory < 100 * 1024, "{memory} KiB");
    for mut sock in socks {
        sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(sock.read(&mut [0]).unwrap(), 0);
    }
    stop(tap);
}

/// An uppercase server over UDP in this process.
fn upper() -> SocketAddr {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2000];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            server.send_to(&buffer[..length].to_ascii_uppercase(), from).unwrap();
        }
    });
    addr
}

/// Sends a datagram from a new address; returns the socket and what came back.
fn ask(addr: SocketAddr, message: &str) -> (UdpSocket, Vec<u8>) {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.send_to(message.as_bytes(), addr).unwrap();
    let mut buffer = [0; 2000];
    let length = client.recv(&mut buffer).unwrap();
    (client, buffer[..length].to_vec())
}

#[test]
fn an_ipv4_client_of_a_tap_for_both_families_goes_by_its_own_address() {
    let args = [":0".to_owned(), upper().to_string(), "--udp".to_owned()];
    let tap = Server::start(Path::new(TAP), args).unwrap();
    let (client, answer) = ask(([127, 0, 0, 1], tap.addr.port()).into(), "hello");
    assert_eq!(answer, b"HELLO");
    wait_for(&tap, &format!("│ {} -> ", client.local_addr().unwrap()));
    stop(tap);
}

#[test]
fn datagrams_have_a_ladder_per_client() {
    let tap = tap(upper(), ["--udp", "--to-client", "truncate=3", "--seed", "1"]);
    for message in ["hello", "world"] {
        let (_, answer) = ask(tap.addr, message);
        assert_eq!(answer, message.to_uppercase().as_bytes()[..3]);
    }
    wait_for(&tap, "\"WOR\"");
    let ladder = stop(tap);
    for part in ["connection 1\n", "connection 2\n", "\"hello\"", "truncate=3: 2 bytes cut off"] {
        assert!(ladder.contains(part), "{ladder}");
    }
}

/// Waits until `file` holds `text`.
fn wait_for_file(file: &Path, text: &str) {
    let end = Instant::now() + LIMIT;
    while !fs::read_to_string(file).unwrap().contains(text) {
        assert!(Instant::now() < end, "{}", fs::read_to_string(file).unwrap());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn pictures_are_drawn_while_it_is_quiet() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.jsonl");
    let streams = tap(echo(), ["--json", json.to_str().unwrap()]);
    for message in ["hello", "again"] {
        let mut sock = connect(streams.addr);
        sock.write_all(message.as_bytes()).unwrap();
        wait_for_file(&json, message); // the connection is open
    }
    stop(streams);
    let datagrams = tap(upper(), ["--udp", "--json", json.to_str().unwrap()]);
    for message in ["HELLO", "AGAIN"] {
        ask(datagrams.addr, message);
        wait_for_file(&json, message);
    }
    stop(datagrams);
}

#[test]
fn clients_that_are_forgotten_are_logged() {
    let mut command = Command::new(TAP);
    command.args(["127.0.0.1:0", &upper().to_string(), "--udp"]).env("RUST_LOG", "info");
    let process = harness::Process::spawn(&mut command).unwrap();
    let line = process.stdout.wait(LIMIT, |bytes| bytes.contains(&b'\n'));
    let line = String::from_utf8(line).unwrap();
    let addr = line.lines().next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    let tap = Server { process, addr };
    let clients: Vec<_> = (0..257).map(|_| ask(addr, "hello").0).collect(); // one too many
    assert!(tap.logged(&format!("connection 1: {}", clients[0].local_addr().unwrap())));
    assert!(tap.logged("connection 1 is over"));
    wait_for(&tap, "forgotten: too many clients");
    stop(tap);
}

#[test]
fn errors_are_one_clear_line_and_a_status() {
    let (_listener, taken) = listen();
    let taken = taken.to_string();
    let sock = UdpSocket::bind("[::1]:0").unwrap();
    let half_taken = format!(":{}", sock.local_addr().unwrap().port()); // 0.0.0.0 is free
    let missing = "/no/such/folder/a.svg";
    for (args, status, why) in [
        (
            &[":0", ":7", "--to-server", "chnk=1"][..],
            2,
            "'chnk=1': no such fault; known are: chunk",
        ),
        (&[":0", ":7", "--to-client", "drop=10%"], 2, "'drop=10%' is for datagrams"),
        (&[":0", ":7", "--udp", "--to-client", "chunk=1"], 2, "'chunk=1' is for streams"),
        (&[":0", ":0"], 2, "port 0"),
        (&["::1:7", ":7"], 2, "brackets"),
        (&[":0"], 2, "<TARGET>"),
        (&[&taken, ":7"], 3, "in use"),
        (&[&half_taken, ":7", "--udp"], 3, "in use"),
        (&[":0", ":7", "--svg", missing], 1, missing),
        (&["draw", "/no/such.jsonl"], 2, "/no/such.jsonl: No such file"),
        (&["draw", "/etc/passwd"], 2, "/etc/passwd: line 1 is no event"),
        (&["draw", "/"], 2, "directory"),
    ] {
        let ended = run(Command::new(TAP).args(args), b"").unwrap();
        assert_eq!(ended.code, Some(status), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.starts_with("error: "), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("Os {"));
    }
}

#[test]
fn a_target_that_is_the_tap_itself_is_refused() {
    for (listen, target) in [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("127.0.0.1", "0.0.0.0"),
        ("[::1]", "[::1]"),
        ("", ""),
        ("", "127.0.0.2"),
        ("", "[::1]"),
        ("0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", "[::ffff:127.0.0.1]"),
    ] {
        for options in [&[][..], &["--udp"]] {
            let ended = || {
                let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                let args = [listen, target].map(|host| format!("{host}:{port}"));
                run(Command::new(TAP).args(args).args(options), b"").unwrap()
            };
            // Whoever else wants a port may be given this one.
            let mut attempts = std::iter::repeat_with(ended).take(20);
            let ended = attempts.find(|ended| ended.code != Some(3)).unwrap();
            let (code, line) = ended.error();
            assert_eq!(code, Some(2), "{listen} {target} {options:?}");
            assert!(line.ends_with("is the tap itself"), "{line}");
        }
    }
}

#[test]
fn another_who_has_the_same_port_is_no_reason_to_refuse_a_target() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let args = [format!("[::1]:{port}"), format!("localhost:{port}"), "--udp".to_owned()];
    let tap = Server::start(Path::new(TAP), args).unwrap();
    let client = UdpSocket::bind("[::1]:0").unwrap();
    client.send_to(b"hello", tap.addr).unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(server.recv(&mut [0; 10]).unwrap(), 5);
    stop(tap);
}

#[test]
fn a_tap_that_cannot_start_leaves_the_pictures_of_an_earlier_run() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("a.svg");
    fs::write(&svg, "of an earlier run").unwrap();
    let (_listener, taken) = listen();
    let args = [&taken.to_string(), ":7", "--svg", svg.to_str().unwrap()];
    assert_eq!(run(Command::new(TAP).args(args), b"").unwrap().code, Some(3));
    assert_eq!(fs::read_to_string(svg).unwrap(), "of an earlier run");
}

#[test]
fn a_closed_stdout_does_not_end_the_relay() {
    let mut process = Command::new(TAP)
        .args(["127.0.0.1:0", &echo().to_string()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = process.stdout.take().unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    drop(stdout);
    let line = String::from_utf8(line).unwrap();
    let addr = line.trim_end().rsplit(' ').next().unwrap().parse().unwrap();
    let answers = [1, 2, 3].map(|n| talk(addr, &[n; 100]));
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(answers, [1, 2, 3].map(|n| vec![n; 100]));
}

/// Bytes per second from a server to a client at `addr`.
fn throughput(listener: &TcpListener, addr: SocketAddr) -> f64 {
    const TOTAL: usize = 2 << 30;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut conn = listener.accept().unwrap().0;
            let block = vec![7; 256 * 1024];
            for _ in 0..TOTAL / block.len() {
                conn.write_all(&block).unwrap();
            }
        });
        let mut sock = connect(addr);
        let (mut total, mut buffer) = (0, vec![0; 256 * 1024]);
        let start = Instant::now();
        while total < TOTAL {
            total += sock.read(&mut buffer).unwrap();
        }
        total as f64 / start.elapsed().as_secs_f64()
    })
}

#[test]
#[ignore = "a measurement, for a release build on an idle machine"]
fn throughput_is_at_least_half_of_the_direct_one() {
    let (listener, addr) = listen();
    let tap = tap(addr, []);
    let mut ratios: Vec<_> = (0..7)
        .map(|_| {
            let direct = throughput(&listener, addr);
            let relayed = throughput(&listener, tap.addr);
            println!("direct {:.2} GB/s, through tap {:.2} GB/s", direct / 1e9, relayed / 1e9);
            relayed / direct
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2} (from {:.2} to {:.2})", ratios[3], ratios[0], ratios[6]);
    assert!(ratios[3] >= 0.5);
    stop(tap);
}
