//! An uppercase server and an uppercase client over UDP that are right but for the one thing that
//! their name says.

use std::io::{self, Error, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use nix::sys::socket::{setsockopt, sockopt};

/// The things that can be wrong with a server; with `right` nothing is.
pub const SERVERS: &[&str] = &[
    "right",
    "answers-from-another-port",
    "answers-the-first-client",
    "busy-waits",
    "dies-of-a-dead-client",
    "echoes",
    "ends-on-empty",
    "ignores-empty",
    "ignores-interrupt",
    "interrupted-is-an-error",
    "ipv4-only",
    "lecture-buffer",
    "text-only",
];

/// The things that can be wrong with a client; with `right` nothing is.
pub const CLIENTS: &[&str] = &[
    "right",
    "believes-anybody",
    "busy-waits",
    "checks-the-host-only",
    "checks-the-port-only",
    "ends-on-a-wrong-answer",
    "fails-in-spite",
    "ignores-a-dead-port",
    "ipv4-only",
    "lecture-buffer",
    "never-retries",
    "no-timeout",
    "panics-at-a-dead-port",
    "retries-for-ever",
    "retries-once",
    "says-nothing",
    "succeeds-at-a-dead-port",
    "succeeds-unanswered",
    "takes-any-answer",
    "takes-half-an-answer",
];

/// The receive buffer of the lecture's programs.
const LECTURE_BUFFER: usize = 2048;
const BUFFER: usize = 65_535;

/// `mutants SUITE NAME HOST:PORT`.
pub fn server(name: &str, args: &[String]) -> ExitCode {
    let [addr] = args else { return ExitCode::from(2) };
    match serve(name, addr) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {:?}", error.kind());
            ExitCode::FAILURE
        }
    }
}

fn serve(name: &str, addr: &str) -> io::Result<()> {
    let mut addr: SocketAddr = addr.parse().map_err(Error::other)?;
    if name == "ipv4-only" {
        addr.set_ip([127, 0, 0, 1].into());
    }
    on_interrupt(name)?;
    let sock = UdpSocket::bind(addr)?;
    sock.set_nonblocking(name == "busy-waits")?;
    #[cfg(target_os = "linux")] // Windows has it so without being asked
    if name == "dies-of-a-dead-client" {
        // From now on the answer to somebody who has gone makes the next call fail.
        setsockopt(&sock, sockopt::Ipv4RecvErr, &true)?;
    }
    let mut buffer = vec![0; if name == "lecture-buffer" { LECTURE_BUFFER } else { BUFFER }];
    let mut first = None;
    loop {
        let (n, client) = match sock.recv_from(&mut buffer) {
            Err(error) if is_passing(error.kind()) => continue,
            result => result?,
        };
        let mut message = buffer[..n].to_vec();
        match name {
            "ends-on-empty" if n == 0 => return Ok(()),
            "ignores-empty" if n == 0 => continue,
            "text-only" => message = String::from_utf8_lossy(&message).to_uppercase().into_bytes(),
            "echoes" => {}
            _ => message.make_ascii_uppercase(),
        }
        let first = *first.get_or_insert(client);
        match name {
            "answers-from-another-port" => {
                addr.set_port(0);
                UdpSocket::bind(addr)?.send_to(&message, client)?;
            }
            "answers-the-first-client" => {
                sock.send_to(&message, first)?;
            }
            _ => {
                sock.send_to(&message, client)?;
            }
        }
    }
}

fn on_interrupt(name: &str) -> io::Result<()> {
    let (ignored, status) = (name == "ignores-interrupt", name == "interrupted-is-an-error");
    let end = move || {
        if !ignored {
            process::exit(status.into());
        }
    };
    ctrlc::set_handler(end).map_err(Error::other)
}

/// The client and what is wrong with it.
struct Client<'a> {
    name: &'a str,
    server: SocketAddr,
    sock: UdpSocket,
    timeout: Duration,
}

/// `mutants SUITE NAME HOST:PORT COUNT LENGTH TIMEOUT`.
pub fn client(name: &str, args: &[String]) -> ExitCode {
    let [addr, count, length, timeout] = args else { return ExitCode::from(2) };
    let number = |text: &String| text.parse().unwrap_or(0.0);
    let (count, length) = (number(count) as usize, number(length) as usize);
    let timeout = Duration::from_secs_f64(number(timeout));
    let run = |client: Client<'_>| {
        let sentence = |n: usize| format!("{n:05}{:a<width$}", "", width = length - 6);
        (1..=count).try_for_each(|n| client.ask(sentence(n).as_bytes()))
    };
    match Client::open(name, addr, timeout).and_then(run) {
        Ok(()) if name != "fails-in-spite" => ExitCode::SUCCESS,
        Err(error) => {
            let refused = error.kind() == ErrorKind::ConnectionRefused;
            match name {
                "says-nothing" => return ExitCode::FAILURE,
                "succeeds-unanswered" if !refused => return ExitCode::SUCCESS,
                "succeeds-at-a-dead-port" if refused => return ExitCode::SUCCESS,
                "panics-at-a-dead-port" if refused => panic!("{error}"),
                _ => {}
            }
            eprintln!("error: {:?}", error.kind());
            ExitCode::FAILURE
        }
        Ok(()) => {
            eprintln!("error: in spite of all");
            ExitCode::FAILURE
        }
    }
}

impl<'a> Client<'a> {
    fn open(name: &'a str, server: &str, timeout: Duration) -> io::Result<Self> {
        let server: SocketAddr = server.parse().map_err(Error::other)?;
        if name == "ipv4-only" && server.is_ipv6() {
            return Err(ErrorKind::Unsupported.into());
        }
        let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = Client { name, server, sock: UdpSocket::bind(any)?, timeout };
        let unconnected = ["believes-anybody", "checks-the-host-only", "checks-the-port-only"];
        if !unconnected.contains(&name) {
            client.sock.connect(server)?;
        }
        client.sock.set_nonblocking(name == "busy-waits")?;
        Ok(client)
    }

    fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Whether an answer of `from` is looked at.
    fn believes(&self, from: SocketAddr) -> bool {
        match self.name {
            "believes-anybody" => true,
            "checks-the-host-only" => from.ip() == self.server.ip(),
            "checks-the-port-only" => from.port() == self.server.port(),
            _ => from == self.server,
        }
    }

    fn ask(&self, sentence: &[u8]) -> io::Result<()> {
        let tries = match self.name {
            "never-retries" => 1,
            "retries-once" => 2,
            "retries-for-ever" => u32::MAX,
            _ => 4,
        };
        let wanted = sentence.to_ascii_uppercase();
        for attempt in 0..tries {
            match self.send(sentence) {
                Err(error) if self.overlooks(&error) => {}
                result => {
                    result?;
                }
            }
            let timeout = self.timeout * (1 << attempt.min(3));
            if let Some(answer) = self.receive(&wanted, Instant::now() + timeout)? {
                println!("{}", String::from_utf8_lossy(&answer));
                return Ok(());
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    fn send(&self, sentence: &[u8]) -> io::Result<usize> {
        match self.sock.peer_addr() {
            Ok(_) => self.sock.send(sentence),
            Err(_) => self.sock.send_to(sentence, self.server), // not connected
        }
    }

    fn overlooks(&self, error: &Error) -> bool {
        self.is("ignores-a-dead-port") && error.kind() == ErrorKind::ConnectionRefused
    }

    fn receive(&self, wanted: &[u8], end: Instant) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; if self.is("lecture-buffer") { LECTURE_BUFFER } else { BUFFER }];
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            if !self.is("no-timeout") {
                self.sock.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            }
            let (answer, from) = match self.sock.recv_from(&mut buffer) {
                Ok((n, from)) => (&buffer[..n], from),
                Err(error) if is_passing(error.kind()) || self.overlooks(&error) => continue,
                Err(error) => return Err(error),
            };
            let is_right = match self.name {
                "takes-any-answer" => true,
                "takes-half-an-answer" => wanted.starts_with(answer),
                _ => wanted == answer,
            };
            if self.believes(from) && is_right {
                return Ok(Some(answer.to_vec()));
            }
            if self.is("ends-on-a-wrong-answer") {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        Ok(None)
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
