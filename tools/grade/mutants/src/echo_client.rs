//! An echo client that is right but for the one thing that its name says.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

/// The things that can be wrong; with `right` nothing is.
pub const NAMES: &[&str] = &[
    "right",
    "accepts-early-eof",
    "busy-waits",
    "compares-trimmed-lines",
    "counts-only",
    "ends-with-a-reset",
    "fails-in-spite",
    "gives-up-on-a-late-tail",
    "ignores-short-writes",
    "ignores-the-port",
    "ipv4-only",
    "keeps-everything",
    "keeps-everything-and-leaves",
    "leaves-a-child",
    "leaves-a-daemon",
    "lies-in-the-report",
    "never-half-closes",
    "no-timeout",
    "one-read-per-message",
    "panics-on-reset",
    "retries-for-ever",
    "says-nothing",
    "sends-for-ever",
    "sends-too-little",
    "succeeds-when-refused",
    "succeeds-when-reset",
    "waits-out-an-early-eof",
    "writes-before-reading",
];

/// The client and what is wrong with it.
struct Client<'a> {
    name: &'a str,
    count: usize,
    length: usize,
    timeout: Duration,
}

/// `mutants NAME HOST:PORT COUNT LENGTH TIMEOUT [--json]`.
pub fn main(name: &str, args: &[String]) -> ExitCode {
    let [addr, count, length, timeout, ..] = args else { return ExitCode::from(2) };
    let number = |text: &String| text.parse().unwrap_or(0.0);
    let client = Client {
        name,
        count: number(count) as usize,
        length: number(length) as usize,
        timeout: Duration::from_secs_f64(number(timeout)),
    };
    let result = client.connect(addr).and_then(|sock| client.run(&sock));
    if args.iter().any(|arg| arg == "--json") {
        client.report(addr, *result.as_ref().unwrap_or(&0));
    }
    match result {
        Ok(_) if !client.is("fails-in-spite") => ExitCode::SUCCESS,
        Err(error) if client.forgives(error.kind()) => ExitCode::SUCCESS,
        Err(_) if client.is("says-nothing") => ExitCode::FAILURE,
        result => {
            eprintln!("error: {:?}", result.map_err(|error| error.kind()));
            ExitCode::FAILURE
        }
    }
}

impl Client<'_> {
    fn is(&self, name: &str) -> bool {
        self.name == name
    }

    fn forgives(&self, kind: ErrorKind) -> bool {
        self.is("succeeds-when-refused") && kind == ErrorKind::ConnectionRefused
            || self.is("succeeds-when-reset") && is_reset(kind)
    }

    fn total(&self) -> usize {
        self.count * self.length
    }

    /// The byte at `offset` of everything that is sent.
    fn byte(&self, offset: usize) -> u8 {
        if offset % self.length == self.length - 1 { b'\n' } else { b'a' + (offset % 23) as u8 }
    }

    fn connect(&self, addr: &str) -> io::Result<TcpStream> {
        let mut addr: SocketAddr = addr.parse().map_err(Error::other)?;
        if self.is("ignores-the-port") {
            addr.set_port(1);
        }
        if self.is("ipv4-only") && addr.is_ipv6() {
            return Err(ErrorKind::Unsupported.into());
        }
        loop {
            match TcpStream::connect_timeout(&addr, self.timeout) {
                Err(_) if self.is("retries-for-ever") => thread::sleep(Duration::from_millis(50)),
                result => return result,
            }
        }
    }

    /// Sends everything and receives it back; returns the number of bytes that came.
    fn run(&self, sock: &TcpStream) -> io::Result<usize> {
        if !self.is("no-timeout") {
            sock.set_read_timeout(Some(self.timeout))?;
        }
        if self.is("leaves-a-child") || self.is("leaves-a-daemon") {
            let command: &[&str] =
                if self.is("leaves-a-child") { &["sleep"] } else { &["setsid", "sleep"] };
            let mut child = Command::new(command[0]);
            child
                .args(&command[1..])
                .arg("60")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            drop(child.spawn()?);
        }
        if self.is("one-read-per-message") {
            return self.take_turns(sock);
        }
        if self.is("writes-before-reading") {
            self.send(sock)?;
            return self.receive(sock);
        }
        thread::scope(|scope| {
            let sender = scope.spawn(|| self.send(sock));
            let received = self.receive(sock);
            if received.is_err() {
                let _ = sock.shutdown(Shutdown::Both); // so that the sender ends, too
            }
            let sent = sender.join().unwrap_or_else(|_| Err(Error::other("panic")));
            let result = match (sent, received) {
                // An RST may be seen by the sender alone; the receiver then reads an end of file.
                (Err(error), _) if error.kind() == ErrorKind::ConnectionReset => Err(error),
                (sent, Ok(received)) => sent.map(|()| received),
                (_, Err(error)) => Err(error),
            };
            let is_early = |error: &Error| error.kind() == ErrorKind::UnexpectedEof;
            if self.is("waits-out-an-early-eof") && result.as_ref().is_err_and(is_early) {
                thread::sleep(self.timeout);
            }
            if let Err(error) = &result
                && self.is("panics-on-reset")
                && is_reset(error.kind())
            {
                panic!("{error}");
            }
            result
        })
    }

    fn send(&self, mut sock: &TcpStream) -> io::Result<()> {
        let short = usize::from(self.is("sends-too-little"));
        let count = if self.is("sends-for-ever") { usize::MAX } else { self.count };
        for n in 0..count {
            if n >= self.count {
                thread::sleep(Duration::from_millis(5)); // an end of file is noticed in between
            }
            let start = n * self.length;
            let message: Vec<u8> =
                (start + short..start + self.length).map(|o| self.byte(o)).collect();
            if self.is("ignores-short-writes") {
                sock.set_write_timeout(Some(Duration::from_millis(1)))?;
                let _ = sock.write(&message);
            } else {
                self.write_all(sock, &message)?;
            }
        }
        let half_closes =
            !["never-half-closes", "ends-with-a-reset", "keeps-everything-and-leaves"]
                .contains(&self.name);
        if half_closes { sock.shutdown(Shutdown::Write) } else { Ok(()) }
    }

    fn write_all(&self, mut sock: &TcpStream, mut message: &[u8]) -> io::Result<()> {
        while !message.is_empty() {
            match sock.write(message) {
                Ok(n) => message = &message[n..],
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.is("busy-waits") => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&self, mut sock: &TcpStream) -> io::Result<usize> {
        let (mut received, mut same, mut kept) = (0, true, Vec::new());
        let (mut text, mut line) = (Vec::new(), 0);
        let mut buffer = vec![0; 64 * 1024];
        let mut silence = Instant::now();
        sock.set_nonblocking(self.is("busy-waits"))?;
        loop {
            let in_tail = received + self.length > self.total();
            if self.is("gives-up-on-a-late-tail") && in_tail {
                sock.set_read_timeout(Some(Duration::from_millis(250)))?;
            }
            match sock.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    let start = received;
                    received += n;
                    let known = received.min(self.total());
                    if self.is("compares-trimmed-lines") {
                        text.extend_from_slice(&buffer[..n]);
                        same &= self.compare_lines(&mut text, &mut line);
                    } else {
                        same &= (start..known).all(|o| buffer[o - start] == self.byte(o));
                    }
                    if self.name.starts_with("keeps-everything") {
                        kept.extend_from_slice(&buffer[..n]);
                    }
                    silence = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.is("busy-waits") => {
                    if silence.elapsed() > self.timeout {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                Err(error)
                    if error.kind() == ErrorKind::WouldBlock
                        && in_tail
                        && self.is("gives-up-on-a-late-tail") =>
                {
                    return Ok(received);
                }
                Err(error) => return Err(error),
            }
            if self.is("never-half-closes") && received >= self.total() {
                sock.shutdown(Shutdown::Write)?;
            }
            if self.is("keeps-everything-and-leaves") && received >= self.total() {
                break;
            }
            if self.is("ends-with-a-reset") && received >= self.total() {
                SockRef::from(sock).set_linger(Some(Duration::ZERO))?;
                break;
            }
        }
        drop(kept);
        if self.is("compares-trimmed-lines") && line == self.count {
            received = self.total();
        }
        self.judge(received, same)
    }

    fn judge(&self, received: usize, same: bool) -> io::Result<usize> {
        let early = received < self.total() && self.is("accepts-early-eof");
        let same = same || self.is("counts-only");
        match same && (early || received == self.total()) {
            true => Ok(received),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Takes the whole lines out of `text`; whether they are, blanks and empty ones aside, the
    /// lines sent from `line` on.
    fn compare_lines(&self, text: &mut Vec<u8>, line: &mut usize) -> bool {
        let mut same = true;
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let got: Vec<u8> = text.drain(..=end).collect();
            if !got.trim_ascii().is_empty() {
                let start = *line * self.length;
                let sent: Vec<u8> = (start..start + self.length).map(|o| self.byte(o)).collect();
                same &= got.trim_ascii() == sent.trim_ascii();
                *line += 1;
            }
        }
        same
    }

    /// One read for each message, then a close.
    fn take_turns(&self, mut sock: &TcpStream) -> io::Result<usize> {
        let (mut received, mut same) = (0, true);
        let mut buffer = vec![0; self.length + 1];
        for n in 0..self.count {
            let message: Vec<u8> =
                (n * self.length..(n + 1) * self.length).map(|o| self.byte(o)).collect();
            sock.write_all(&message)?;
            match sock.read(&mut buffer)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => {
                    same &=
                        buffer[..n].iter().enumerate().all(|(i, b)| *b == self.byte(received + i));
                    received += n;
                }
            }
        }
        self.judge(received, same)
    }

    fn report(&self, addr: &str, received: usize) {
        let sent = self.total() + usize::from(self.is("lies-in-the-report"));
        println!(
            r#"{{"program":"{}","server":"{addr}","sent":[{sent}],"received":[{received}],"totals":{{"sent":{sent},"received":{received}}},"verdict":"all-back","error":null}}"#,
            self.name
        );
    }
}

/// Whether it is the server's RST: the first call to notice hears of a reset, the next of a pipe.
fn is_reset(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
