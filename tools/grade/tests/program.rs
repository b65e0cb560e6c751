//! The program `grade` as graders and scripts meet it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, id};
use std::thread::sleep;
use std::time::Duration;

use harness::{Ended, LIMIT, Process, Stat, has};
use serde_json::Value;

/// A student's client in Python: right but for its end, which is half-closed only if told to.
const STUDENT: &str = "
import socket, sys
host, port, count, length, how = sys.argv[1:]
sock = socket.create_connection((host, int(port)), 5)
for n in range(1, int(count) + 1):
    message = (b'%05d' % n).ljust(int(length) - 1, b'a') + b'\\n'
    sock.sendall(message)
    received = b''
    while how != 'wrong' and len(received) < len(message):
        data = sock.recv(2048)
        if not data:
            sys.exit('server terminated')
        received += data
    if how == 'wrong':
        sock.recv(2048)
    elif received != message:
        sys.exit('different')
if how != 'wrong':
    sock.shutdown(socket.SHUT_WR)
    if sock.recv(1):
        sys.exit('too much')
";

/// A student's chat server with a wire format of its own: a length, then that many bytes. It is right,
/// unless it is told to keep to itself who leaves.
const CHAT_SERVER: &str = "
import queue, socket, struct, sys, threading
host, port, how = sys.argv[1:]
lock, users = threading.Lock(), {}
def online():
    return '(%d user%s online)' % (len(users), '' if len(users) < 2 else 's')
def tell(text, but=None):
    print(''.join(c if c.isprintable() else '?' for c in text))
    for name in [name for name in users if name != but]:
        put(name, text)
def put(name, text):
    try:
        if name in users:
            users[name][0].put_nowait(text.encode())
    except queue.Full:
        leave(name)
def leave(name):
    if name in users:
        waiting, conn = users.pop(name)
        conn.shutdown(socket.SHUT_RDWR)
        if how != 'wrong':
            tell('The user %s left %s' % (name, online()))
def write(conn, waiting):
    try:
        while True:
            data = waiting.get()
            conn.sendall(struct.pack('!I', len(data)) + data)
    except OSError:
        pass
def serve(conn, name):
    waiting = queue.Queue(500)
    with lock:
        users[name] = waiting, conn
        put(name, 'Connected to the chat server ' + online())
        tell('New user %s entered %s' % (name, online()), name)
    threading.Thread(target=write, args=(conn, waiting), daemon=True).start()
    file = conn.makefile('rb')
    try:
        while head := file.read(4):
            text = file.read(*struct.unpack('!I', head)).decode()
            with lock:
                tell('[%s] %s' % (name, text), name)
                put(name, '[You] ' + text)
    except (OSError, struct.error):
        pass
    with lock:
        try:
            leave(name)
        except OSError:
            tell('The user %s left %s' % (name, online()))
listener = socket.create_server((host, int(port)), backlog=100)
print('Chat Server started on port %s.' % port)
try:
    while True:
        conn, addr = listener.accept()
        threading.Thread(target=serve, args=(conn, '%s:%d' % addr), daemon=True).start()
except KeyboardInterrupt:
    print('\\nexit')
";

/// The client that belongs to it. It does not flush what it prints.
const CHAT_CLIENT: &str = "
import os, socket, struct, sys, threading
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def receive():
    file = sock.makefile('rb')
    try:
        while head := file.read(4):
            text = file.read(*struct.unpack('!I', head)).decode()
            print(''.join(c if c.isprintable() else '?' for c in text))
    except OSError:
        pass
    print('The server has ended.')
    os._exit(1)
try:
    threading.Thread(target=receive, daemon=True).start()
    for line in sys.stdin.buffer:
        data = line.rstrip(b'\\r\\n').decode(errors='replace').encode()
        if len(data) > 65536:
            print('That line is too long.')
        else:
            sock.sendall(struct.pack('!I', len(data)) + data)
    threading.Event().wait()
except KeyboardInterrupt:
    print('\\nexit')
";

fn grade(args: &[&str]) -> Ended {
    harness::run(Command::new(env!("CARGO_BIN_EXE_grade")).args(args), b"").unwrap()
}

fn student(how: &str, only: &str) -> Ended {
    let command = ["python3", "-c", STUDENT, "{host}", "{port}", "{count}", "{length}", how];
    let options = ["--json", "--only", only, "--suite", "echo-client", "--"];
    grade(&[&options[..], &command].concat())
}

#[test]
fn a_students_program_in_another_language_is_graded() {
    if !has("python3") {
        return;
    }
    let right = student("right", "echo,late-tail,report");
    let results: Value = serde_json::from_slice(&right.stdout).unwrap();
    let checks = &results["programs"][0]["checks"];
    let outcomes: Vec<_> = (0..3).map(|n| checks[n]["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["passed", "passed", "skipped"], "{results}");
    assert_eq!(checks[2]["why"], "the command has no {json}: only for programs with --json");
    assert_eq!(right.code, Some(0));

    let wrong = student("wrong", "late-tail");
    let results: Value = serde_json::from_slice(&wrong.stdout).unwrap();
    let check = &results["programs"][0]["checks"][0];
    assert_eq!(check["code"], "E_CLOSED_WITH_UNREAD_DATA", "{results}");
    assert!(check["hint"].as_str().unwrap().contains("labs.md"));
    assert!(check["ladder"].as_str().unwrap().contains("this came too late"));
    assert_eq!(wrong.code, Some(1));
}

/// The outcomes of `checks` of the chat, its server called with `how`; and the codes of failures.
fn chat(how: &str, checks: &str) -> Vec<(String, Option<String>)> {
    let server = format!("python3 -c \"{CHAT_SERVER}\" {{host}} {{port}} {how}");
    let client = format!("python3 -c \"{CHAT_CLIENT}\" {{host}} {{port}}");
    let options = ["--json", "--suite", "chat", "--only", checks];
    let ended = grade(&[&options[..], &["--server", &server, "--client", &client]].concat());
    let results: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let outcome = |check: &Value| (text(&check["outcome"]).unwrap(), text(&check["code"]));
    results["programs"][0]["checks"].as_array().unwrap().iter().map(outcome).collect()
}

#[test]
fn a_chat_with_a_wire_format_of_its_own_is_graded() {
    if !has("python3") {
        return;
    }
    let checks = "transcript,framing,interrupt-server,interrupt-client,server-ends";
    let passed = ("passed".to_owned(), None);
    assert_eq!(chat("right", checks), vec![passed.clone(); 5]);
    let failed = |code: &str| ("failed".to_owned(), Some(code.to_owned()));
    let outcomes = [failed("E_TRANSCRIPT"), passed, failed("E_NOTICE")];
    assert_eq!(chat("wrong", "transcript,framing,interrupt-client"), outcomes);
}

#[test]
fn a_failure_is_told_with_code_hint_and_both_ladders() {
    let ended = grade(&["--only", "late-tail", "client_wrong", "client_shutdown"]);
    let shown = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for part in [
        "client_wrong, late-tail: E_CLOSED_WITH_UNREAD_DATA",
        "hint      half-close, then read to the end of file (labs.md",
        "The client closed first, too early: the server was still sending",
        "client_shutdown, late-tail: passed, for comparison",
        "The client closed first, then the server: all in order",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
}

#[test]
fn how_a_server_serves_several_clients_is_shown() {
    let ended = grade(&["--json", "--only", "concurrent", "echoserv"]);
    let results: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(results["programs"][0]["architecture"], "iterative", "{results}");
    assert_eq!(results["programs"][0]["checks"][0]["code"], "E_ONE_AT_A_TIME", "{results}");

    let ended = grade(&["--only", "concurrent", "echoserv"]);
    let shown = String::from_utf8(ended.stdout).unwrap();
    let seen = "Seen in /proc: iterative (with 5 clients: 1 process, 1 thread, 2 sockets).";
    assert!(shown.contains(seen), "{shown}");
}

#[test]
fn what_cannot_be_graded_is_told_in_one_line() {
    for (args, status, text) in [
        (&[][..], 2, "name a PACKAGE, or --suite S -- COMMAND"),
        (&["no_such_program"], 2, "no program called no_such_program has a suite"),
        (&["--only", "eecho", "client_wrong"], 2, "no check is called eecho"),
        (
            &["--suite", "ecco", "--", "true", "{addr}"],
            2,
            "no suite ecco; there are: echo-client, echo-server, chat, upper-tcp, upper-udp-server",
        ),
        (&["--suite", "chat", "--server", "true {addr}", "--client", "true"], 2, "needs {addr}"),
        (&["--suite", "chat", "--server", "true '{addr}"], 2, "a quote is left open"),
        (&["--suite", "echo-client", "--", "true"], 2, "COMMAND needs {addr}"),
        (&["--suite", "echo-client"], 2, "required"),
        (&["client_wrong", "--", "true"], 2, "cannot be used with"),
        (
            &["--header", "18446744073709551615", "--suite", "echo-client", "--", "true", "{addr}"],
            2,
            "number too large",
        ),
    ] {
        let ended = grade(args);
        let (code, line) = ended.error();
        assert!(code == Some(status) && line.contains(text), "{args:?}: {code:?} {line}");
    }
}

#[test]
fn a_program_that_cannot_be_started_is_not_found_guilty() {
    let ended =
        grade(&["--json", "--only", "echo", "--suite", "echo-client", "--", "/no/such", "{addr}"]);
    let results: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let check = &results["programs"][0]["checks"][0];
    assert_eq!((check["outcome"].as_str(), ended.code), (Some("inconclusive"), Some(3)));
    assert!(check["why"].as_str().unwrap().starts_with("/no/such cannot be started"));
}

/// What comes out of check `id` of `suite` for the mutant called `mutant`, started by the shell
/// `script` with `options`.
fn check(id: &str, suite: &str, mutant: &str, script: &str, options: &[&str]) -> Value {
    let mutants = harness::program("mutants").display().to_string();
    let command = ["sh", "-c", script, "sh", &mutants, suite, mutant];
    let ended =
        grade(&[&["--json", "--only", id, "--suite", suite, "--"][..], &command, options].concat());
    let results: Value = serde_json::from_slice(&ended.stdout).unwrap();
    results["programs"][0]["checks"][0].clone()
}

const OPTIONS: &[&str] = &["{addr}", "{count}", "{length}", "{timeout}"];

#[test]
fn a_program_that_starts_slowly_may_yet_be_refused() {
    for (id, suite) in [("refused", "echo-client"), ("dead-port", "upper-udp-client")] {
        let result = check(id, suite, "right", "sleep 5; exec \"$@\"", OPTIONS);
        assert_eq!(result["outcome"], "passed", "{result}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn memory_is_seen_behind_a_shell() {
    let result =
        check("backpressure", "echo-client", "keeps-everything", "\"$@\"; exit $?", OPTIONS);
    assert_eq!(result["code"], "E_MEMORY", "{result}");
}

#[test]
#[cfg(target_os = "linux")]
fn an_interrupted_grader_leaves_nothing_behind() {
    for signal in ["INT", "TERM"] {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{signal}-{}", id()));
        let script = "setsid sleep 600 & echo $! $$ > $0; exec sleep 600";
        let server = ["sh", "-c", script, file.to_str().unwrap(), "{addr}"];
        let options = ["--only", "echo", "--suite", "echo-server", "--"];
        let mut grade = Command::new(env!("CARGO_BIN_EXE_grade"));
        let mut grade = Process::spawn(grade.args(options).args(server)).unwrap();
        let pids = (0..4000).find_map(|_| {
            sleep(Duration::from_millis(5)); // until the server has said so
            fs::read_to_string(&file).ok().filter(|pids| pids.ends_with('\n'))
        });
        let kill = ["-s", signal, &grade.pid.to_string()].map(str::to_owned);
        assert!(Command::new("kill").args(kill).status().unwrap().success());
        assert_eq!(grade.wait(LIMIT).unwrap().code(), None, "it ends by the signal");
        let runs = |stat: &Stat| {
            let pids = pids.as_deref().unwrap().split_whitespace();
            stat.state != 'Z' && pids.into_iter().any(|pid| pid == stat.pid.to_string())
        };
        assert!(!harness::processes().iter().any(runs));
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn who_is_told_the_count_alone_may_send_lines_of_its_own_length() {
    let options = ["{addr}", "{count}", "10", "{timeout}"];
    let result = check("echo", "echo-client", "right", "exec \"$@\"", &options);
    assert_eq!(result["outcome"], "passed", "{result}");
}

#[test]
fn a_hint_is_of_the_suites_own_protocol() {
    let result = check("upper", "upper-tcp", "never-closes", "exec \"$@\"", &["{addr}"]);
    assert_eq!(result["code"], "E_NOT_CLOSED", "{result}");
    assert!(result["hint"].as_str().unwrap().ends_with("(labs.md 1.6)"), "{result}");
}

#[test]
fn a_program_that_does_not_compile_is_told_in_one_line() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grade"));
    command.arg("client_wrong").env("RUSTC", "false");
    let ended = harness::run(&mut command, b"").unwrap();
    let last = ended.stderr.lines().next_back();
    assert_eq!((ended.code, last), (Some(2), Some("error: the programs cannot be built")));
}
