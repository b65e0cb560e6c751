//! Servers that are not ours come out as is known of them.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use grade::check::{self, Graded, Outcome};
use grade::subject::Subject;
use harness::has;

/// A service of inetd needs a file of configuration: one for each port.
const INETD: &str = r#"
file="$1/inetd-$3.conf"
printf '%s stream tcp nowait.1000000 %s /bin/cat cat\n' "$2:$3" "$(id -un)" > "$file"
exec inetd -i "$file"
"#;

/// An echo server of Python's standard library.
const PYTHON: &str = "
import socketserver, sys
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
kind, host, port = sys.argv[1:]
getattr(socketserver, kind)((host, int(port)), Echo).serve_forever()
";

/// `command` graded by the suite for echo servers: what it failed, and its architecture.
fn graded(command: &[&str]) -> (Vec<&'static str>, &'static str) {
    let command = command.iter().map(|part| part.to_string()).collect();
    let subject = Subject { name: "foreign".to_owned(), command, ..Subject::default() };
    let suite = check::suite("echo-server").unwrap();
    let graded: Graded = check::grade(&[(subject, suite)], &[], |_, _| ()).remove(0);
    for checked in &graded.checked {
        if let Outcome::Inconclusive(why) = &checked.outcome {
            panic!("{}: {why}", checked.check.id);
        }
    }
    (graded.failed(), graded.architecture().unwrap().name)
}

#[test]
fn socat_ends_with_another_status() {
    if has("socat") {
        let socat = ["socat", "TCP-LISTEN:{port},fork,reuseaddr", "EXEC:cat"];
        assert_eq!(graded(&socat), (vec!["interrupt"], "processes"));
    }
}

#[test]
fn the_children_of_inetd_serve_on() {
    if has("inetd") {
        let folder = env!("CARGO_TARGET_TMPDIR");
        let inetd = ["sh", "-c", INETD, "sh", folder, "{host}", "{port}"];
        assert_eq!(graded(&inetd), (vec!["interrupt"], "processes"));
    }
}

#[test]
fn a_python_server_without_threads_serves_one_at_a_time() {
    if has("python3") {
        let python = ["python3", "-c", PYTHON, "TCPServer", "{host}", "{port}"];
        let fails = vec!["concurrent", "many", "hog", "interrupt", "restart"];
        assert_eq!(graded(&python), (fails, "iterative"));
    }
}

#[test]
fn a_python_server_with_threads_spins_without_descriptors() {
    if has("python3") {
        let python = ["python3", "-c", PYTHON, "ThreadingTCPServer", "{host}", "{port}"];
        assert_eq!(graded(&python), (vec!["descriptors", "interrupt", "restart"], "threads"));
    }
}

#[test]
fn a_python_server_with_processes_has_forty_of_them() {
    if has("python3") {
        let python = ["python3", "-c", PYTHON, "ForkingTCPServer", "{host}", "{port}"];
        assert_eq!(graded(&python), (vec!["many", "interrupt", "restart"], "processes"));
    }
}

#[test]
fn who_does_not_listen_where_it_must_is_told_so() {
    let subject = Subject {
        name: "foreign".to_owned(),
        command: ["true", "{addr}"].map(str::to_owned).to_vec(),
        ..Subject::default()
    };
    let suite = check::suite("echo-server").unwrap();
    let graded = check::grade(&[(subject, suite)], &[], |_, _| ()).remove(0);
    for checked in &graded.checked {
        let Outcome::Failed(failure) = &checked.outcome else { panic!("{}", checked.check.id) };
        assert_eq!(failure.code, "E_NOT_LISTENING");
        assert!(!failure.hint(suite).is_empty());
    }
}
