//! One run of a program under test against one peer.

pub mod udp;

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockRef, Socket, Type};
use wire::event::{Connection, Direction, Kind, Recorder};

use crate::check::{Failure, Stop};
use crate::facts::{self, Architecture, Facts};
use crate::hang::{self, Transport};
use crate::peer::{Incoming, Peer};
use crate::subject::{self, Placeholder, Run, Subject};

/// Time for a program to start and to connect, on a loaded machine.
pub const START: Duration = Duration::from_secs(20);

/// How long nothing moves before a program is taken to hang.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How long one check may take: far longer than any does with a right program on a loaded machine.
pub const LONGEST: Duration = Duration::from_secs(90);

/// What a program may send beyond what it was asked for before it is heard no longer: more than one
/// read brings.
const TOO_MUCH: u64 = 64 * 1024;

/// A silence after which the grader looks what the program waits for; it may have a short time-out.
const SILENCE: Duration = Duration::from_millis(400);

/// A program under test, and what is recorded of it.
pub struct Trial<'s> {
    subject: &'s Subject,
    recorder: Recorder,
    process: Option<Process>,
    waited: String,
    descriptors: Option<usize>,
    claim: Option<Claim>,
    deadline: Instant,
    /// How the program serves several clients, once it was seen doing it.
    pub architecture: Option<Architecture>,
}

/// How a program ended.
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// Its errors.
    pub stderr: String,
}

impl<'s> Trial<'s> {
    /// A trial of `subject` that has not begun.
    pub fn new(subject: &'s Subject, recorder: Recorder) -> Self {
        Trial {
            subject,
            recorder,
            process: None,
            waited: String::new(),
            descriptors: None,
            claim: None,
            deadline: Instant::now() + LONGEST,
            architecture: None,
        }
    }

    /// A listening socket on a free port of `host`, with receive buffers of `buffer` bytes, or as
    /// the system has them.
    ///
    /// # Errors
    /// There is no such address on this machine.
    pub fn listen(&self, host: IpAddr, buffer: Option<usize>) -> io::Result<TcpListener> {
        let listener = TcpListener::bind((host, 0))?;
        if let Some(buffer) = buffer {
            SockRef::from(&listener).set_recv_buffer_size(buffer)?; // inherited by connections
        }
        Ok(listener)
    }

    /// A socket that holds a port where nobody listens, so that nobody else takes it.
    ///
    /// # Errors
    /// The system's.
    pub fn dead_port(&self) -> io::Result<(Socket, SocketAddr)> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        let addr = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((socket, addr))
    }

    /// Lets the program have no more than so many descriptors, from its next start on.
    pub fn limit_descriptors(&mut self, descriptors: usize) {
        self.descriptors = Some(descriptors);
    }

    /// Starts the program; an earlier run of it is over.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&mut self, run: &Run) -> Result<(), Stop> {
        self.process = None;
        let mut command = self.subject.command(run);
        let program = command.get_program().to_string_lossy().into_owned();
        if let Some(descriptors) = self.descriptors {
            let limited = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
            let mut shell = Command::new("sh");
            shell.args(["-c", &limited]).arg(command.get_program()).args(command.get_args());
            command = shell;
        }
        command.env("RUST_BACKTRACE", "0").env("PYTHONUNBUFFERED", "1"); // its lines are awaited
        let mut process = Process::spawn(&mut command)
            .map_err(|error| Stop::Inconclusive(format!("{program} cannot be started: {error}")))?;
        let stdin = process.stdin.take();
        if self.subject.fed {
            let messages = subject::messages(run.count, run.length);
            let feed = move || stdin.map(|mut stdin| stdin.write_all(&messages)); // it need not read
            thread::Builder::new().spawn(feed)?;
        }
        self.process = Some(process);
        Ok(())
    }

    /// Starts a server under test on a free port of `host`, and waits until it is open.
    ///
    /// # Errors
    /// It cannot be started, or never opens the port.
    pub fn serve(&mut self, host: IpAddr, transport: Transport) -> Result<SocketAddr, Stop> {
        let (port, claim) = free_port(host)?;
        self.claim = Some(claim);
        let server = SocketAddr::new(host, port);
        self.serve_at(server, transport).map(|()| server)
    }

    /// As [`Trial::serve`], at an address that was used before.
    ///
    /// # Errors
    /// As [`Trial::serve`].
    pub fn serve_at(&mut self, server: SocketAddr, transport: Transport) -> Result<(), Stop> {
        /// Nothing tells when a port is opened by somebody else, so it is looked for.
        const LOOK: Duration = Duration::from_millis(5);
        /// The system's list of sockets is long. A process that has none may yet have a child that
        /// listens, and is looked after less often.
        const RARELY: u32 = 8;
        self.start(&Run { server, count: 0, length: 0, timeout: START, json: false })?;
        let end = Instant::now() + START;
        for look in 1.. {
            let is_worth_it = facts::has_socket(self.process()?.pid) || look % RARELY == 0;
            if is_worth_it && hang::is_open(server.port(), transport)? {
                return self.stays_in_foreground();
            }
            let seen = match self.process()?.wait(LOOK) {
                // The shell could not start it: see `start`.
                Some(status) if self.descriptors.is_some() && is_not_found(status) => {
                    let seen = self.end(PATIENCE)?.last_words();
                    return Err(Stop::Inconclusive(format!("it cannot be started: {seen}")));
                }
                Some(_) if self.process()?.has_left() => return Err(self.in_background()),
                Some(_) => self.end(PATIENCE)?.last_words(),
                None if Instant::now() > end => format!("nothing after {START:?}"),
                None => continue,
            };
            let why = "The server does not listen on the address it was given.";
            return Err(fail("E_NOT_LISTENING", why, format!("{server} is open"), seen));
        }
        Ok(())
    }

    /// Whether a server, which nobody has told to end, has not left its work to others: it may do so
    /// before or after its port is open.
    ///
    /// # Errors
    /// It has.
    pub fn stays_in_foreground(&mut self) -> Result<(), Stop> {
        let has_left = |it: &mut Process| it.wait(Duration::ZERO).is_some() && it.has_left();
        match self.claim.is_some() && self.process.as_mut().is_some_and(has_left) {
            true => Err(self.in_background()),
            false => Ok(()),
        }
    }

    /// That the program has left its work to others.
    fn in_background(&mut self) -> Stop {
        let why = "The program goes to the background: what was started has ended, and something \
                   that it started runs on.";
        let seen = self.has_ended(PATIENCE).map_or(String::new(), |ended| ended.last_words());
        fail("E_BACKGROUND", why, "it serves until it is told to end", seen)
    }

    /// Connects to a server under test, which listens at `server`, with a receive buffer of
    /// `buffer` bytes, or as the system has it.
    ///
    /// # Errors
    /// There is no connection.
    pub fn connect(&mut self, server: SocketAddr, buffer: Option<usize>) -> Result<Peer, Stop> {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, TimedOut};
        let (program, wire) = (self.process()?.pid, self.recorder.connection());
        Peer::connect((program, self.deadline), server, buffer, START, wire).map_err(|error| {
            if !matches!(error.kind(), ConnectionRefused | ConnectionReset | TimedOut) {
                return error.into(); // out of descriptors, say
            }
            let why = "The server does not take a connection.";
            fail("E_NOT_LISTENING", why, format!("{server} accepts"), error.to_string())
        })
    }

    /// How the program ended, if it has, or does so within `within`.
    pub fn has_ended(&mut self, within: Duration) -> Option<Ended> {
        self.process.as_mut()?.wait(within)?;
        self.end(within).ok()
    }

    /// Kills the program with its children, so that it cannot set anything in order before.
    ///
    /// # Errors
    /// The program was never started.
    pub fn kill(&mut self) -> Result<(), Stop> {
        self.process()?.kill();
        Ok(())
    }

    /// What the program holds, its children included, where the system tells.
    pub fn facts(&self) -> Option<Facts> {
        Facts::of(self.process.as_ref()?.pid)
    }

    /// The process of the program, once it was started.
    ///
    /// # Errors
    /// It was never started.
    pub fn process(&mut self) -> Result<&mut Process, Stop> {
        let missing = || Stop::Inconclusive("the program was not started".to_owned());
        self.process.as_mut().ok_or_else(missing)
    }

    /// Accepts the connection of the program.
    ///
    /// # Errors
    /// It ends, or waits, without connecting.
    pub fn accept(&mut self, listener: &TcpListener) -> Result<Peer, Stop> {
        let deadline = self.deadline;
        let process = self.process()?;
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(&process.gone, PollFlags::IN | PollFlags::HUP),
        ];
        let end = Instant::now() + START;
        while Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            let timeout =
                Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut fds, Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => continue,
                result => result.map_err(io::Error::from)?,
            };
            if !fds[0].revents().is_empty() {
                let (sock, _) = listener.accept()?;
                let program = (process.pid, deadline);
                return Ok(Peer::new(program, sock, self.recorder.connection())?);
            }
            if !fds[1].revents().is_empty() {
                let ended = self.end(PATIENCE)?;
                return Err(no_connection(ended.summary()));
            }
        }
        Err(no_connection(format!("it was still running after {START:?}")))
    }

    /// A connection to record in when there was none: a port where nobody listens.
    pub fn unconnected(&self) -> Connection {
        let wire = self.recorder.connection();
        wire.record(Direction::ToServer, Kind::Connect);
        wire.record(Direction::ToClient, Kind::Refused);
        wire
    }

    /// Waits for the program to end.
    ///
    /// # Errors
    /// It does not, within `within` (or longer, if it is only late).
    pub fn end(&mut self, within: Duration) -> Result<Ended, Stop> {
        let process = self.process()?;
        let ended = hang::patiently(process.pid, within, |within| Ok(process.wait(within)));
        let Some(status) = ended? else {
            let doing = hang::doing(process.pid);
            return Err(fail(
                "E_HANG",
                format!("The program did not end within {within:?}."),
                "it ends by itself",
                doing.unwrap_or("it is still running".to_owned()),
            ));
        };
        let (stdout, stderr) = (process.stdout.clone(), process.stderr.clone());
        // A child that was left behind would hold the streams open: what is there by now counts.
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(stdout.all(PATIENCE)), text(stderr.all(PATIENCE)));
        Ok(Ended { status, stdout, stderr })
    }

    /// Whether anything that the program has started, which has ended, goes on running.
    ///
    /// # Errors
    /// The program was never started.
    pub fn left_child(&mut self) -> Result<bool, Stop> {
        /// Nothing tells when it ends.
        const LOOK: Duration = Duration::from_millis(10);
        let end = Instant::now() + PATIENCE;
        let process = self.process()?;
        while process.has_left() {
            if Instant::now() > end {
                return Ok(true);
            }
            thread::sleep(LOOK);
        }
        Ok(false)
    }

    /// As [`Trial::left_child`], as a check.
    ///
    /// # Errors
    /// Something goes on.
    pub fn leaves_no_child(&mut self) -> Result<(), Stop> {
        if !self.left_child()? {
            return Ok(());
        }
        let why = "The program ended and left a child process running.";
        Err(fail("E_LEFT_CHILD", why, "no process of it is left", "one still runs"))
    }

    /// The most memory that a process of the program, itself or a child, has held so far, in KiB,
    /// where the system tells.
    pub fn peak_memory(&self) -> Option<u64> {
        let processes = hang::processes(self.process.as_ref()?.pid)?.into_iter();
        processes.filter_map(|pid| harness::peak_memory(pid).ok()).max()
    }

    /// Bytes of one message of `run` on the wire.
    pub fn message(&self, run: &Run) -> usize {
        run.length + self.subject.header
    }

    /// Whether the program can be told how many bytes to send.
    pub fn knows_total(&self) -> bool {
        self.takes(Placeholder::Count) && self.takes(Placeholder::Length)
    }

    /// Bytes that the program has to send in `run`.
    pub fn total(&self, run: &Run) -> u64 {
        (run.count * self.message(run)) as u64
    }

    /// Whether the command can be told what `placeholder` stands for.
    pub fn takes(&self, placeholder: Placeholder) -> bool {
        self.subject.takes(placeholder)
    }

    /// Whether the program is busy while there is nothing to do, where the system tells, in words.
    pub fn is_busy(&self) -> Option<String> {
        hang::busy(self.process.as_ref()?.pid)
    }

    /// Whether the program has something to do, where the system tells: its silence says nothing then.
    pub fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(|process| hang::is_running(process.pid))
    }

    /// What the program and `peer` wait for, where the system tells.
    pub fn explain(&self, peer: &Peer) -> String {
        let doing = self.process.as_ref().and_then(|process| hang::doing(process.pid));
        let addresses = peer.addresses().ok();
        let queues = addresses.and_then(|(client, server)| hang::queues(client, server));
        let known = [doing, queues.map(|queues| queues.to_string())];
        known.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }

    /// Receives what the client sends in `run` until its FIN or RST, or until nothing moves for
    /// [`PATIENCE`]; hands each piece on. What the program waited for in its last silence is kept for
    /// [`Trial::waited`].
    ///
    /// # Errors
    /// What `handle` says; it does not stop sending.
    pub fn receive_all(
        &mut self,
        peer: &mut Peer,
        run: &Run,
        mut handle: impl FnMut(&Self, &mut Peer, &[u8]) -> Result<(), Stop>,
    ) -> Result<Incoming, Stop> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let mut incoming = peer.receive(&mut buffer, SILENCE)?;
            if incoming == Incoming::Silence {
                self.waited = self.explain(peer);
                incoming = peer.receive(&mut buffer, PATIENCE - SILENCE)?;
            }
            match incoming {
                Incoming::Data(n) => {
                    self.stops(peer, run)?;
                    handle(self, peer, &buffer[..n])?;
                }
                end => return Ok(end),
            }
        }
    }

    /// Whether the client has not sent far more than it was to send in `run`.
    ///
    /// # Errors
    /// It has.
    pub fn stops(&self, peer: &Peer, run: &Run) -> Result<(), Stop> {
        if !self.knows_total() || peer.received <= self.total(run) + TOO_MUCH {
            return Ok(());
        }
        let why = "The program does not stop sending.";
        let seen = format!("{} bytes so far", peer.received);
        Err(fail("E_SENT_TOO_MUCH", why, format!("{} bytes", self.total(run)), seen))
    }

    /// What the program waited for in its last long silence; empty if it never was silent, or the
    /// system does not tell.
    pub fn waited(&self) -> &str {
        &self.waited
    }

    /// What is tried.
    pub fn subject(&self) -> &'s Subject {
        self.subject
    }

    /// When it is over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Where what crosses the wire is recorded.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}

/// Whether a shell did not find, or could not run, what it was to start.
fn is_not_found(status: ExitStatus) -> bool {
    matches!(status.code(), Some(126 | 127))
}

/// A port of `host` that nobody uses, and that no other grader takes as long as it is claimed. It lies
/// below those that the system gives to clients, so that no connection of somebody else takes it
/// before the server does.
fn free_port(host: IpAddr) -> io::Result<(u16, Claim)> {
    const FIRST: u32 = 10_000;
    const LAST: u32 = 32_000; // net.ipv4.ip_local_port_range begins at 32768
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Graders that run at the same time begin far from each other.
    let first = std::process::id().wrapping_mul(0x9E37_79B9) >> 8;
    for _ in FIRST..LAST {
        let n = first + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + n % (LAST - FIRST)) as u16;
        if let Ok(claim) = claim(port)
            && is_free((host, port).into())?
            && UdpSocket::bind((host, port)).is_ok()
        {
            return Ok((port, claim));
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// A socket whose name says to other graders that a port is taken; the name is free again when the
/// socket is closed (unix(7), abstract names).
#[cfg(target_os = "linux")]
type Claim = std::os::unix::net::UnixDatagram;

#[cfg(target_os = "linux")]
fn claim(port: u16) -> io::Result<Claim> {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("socklab grades a server at port {port}");
    Claim::bind_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)
}

#[cfg(not(target_os = "linux"))]
type Claim = ();

#[cfg(not(target_os = "linux"))]
fn claim(_: u16) -> io::Result<Claim> {
    Ok(())
}

/// Whether nobody uses `addr`, nor has lately: a server that does not set SO_REUSEADDR needs a port
/// without a past.
fn is_free(addr: SocketAddr) -> io::Result<bool> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    Ok(socket.bind(&addr.into()).is_ok())
}

/// Whether a trial may go on that ends at `deadline`.
///
/// # Errors
/// It is over.
pub fn in_time(deadline: Instant) -> Result<(), Stop> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let why = "The program goes on and on: the check was broken off.";
    Err(fail("E_TOO_LONG", why, "seconds, at most", format!("not over after {LONGEST:?}")))
}

/// A failure.
pub fn fail(
    code: &'static str,
    why: impl Into<String>,
    expected: impl Into<String>,
    seen: impl Into<String>,
) -> Stop {
    let (why, expected, seen) = (why.into(), expected.into(), seen.into());
    Stop::Failed(Failure { code, why, expected, seen })
}

fn no_connection(seen: String) -> Stop {
    let why = "The program did not connect to the server it was given.";
    fail("E_NO_CONNECTION", why, "a connection to that host and port", seen)
}

impl Ended {
    /// How it ended, in a few words: its status and the first line of its errors; of a traceback the
    /// last one, which names the error.
    pub fn summary(&self) -> String {
        let mut lines = self.stderr.lines().filter(|line| !line.trim().is_empty());
        let is_traceback = self.stderr.contains(TRACEBACK);
        let line = if is_traceback { lines.next_back() } else { lines.next() };
        format!("{}, {}", self.status, line.unwrap_or("and nothing on stderr"))
    }

    /// How a server ended that has logged before: its status and the last line of its errors.
    pub fn last_words(&self) -> String {
        let is_said = |line: &&str| !line.trim().is_empty() && !line.starts_with("note: ");
        let last = self.stderr.lines().rfind(is_said);
        format!("{}, {}", self.status, last.unwrap_or("and nothing on stderr"))
    }

    /// Whether it died instead of handling an error: by a signal, a panic, an exception.
    pub fn crashed(&self) -> bool {
        self.status.code().is_none() || has_trace(&self.stderr)
    }

    /// Whether it says that something is wrong: on stderr, or in the last line that it printed, where
    /// some words tell it from the report of a program that noticed nothing.
    fn complained(&self) -> bool {
        let words =
            ["error", "abnormal", "terminat", "reset", "refused", "closed", "fail", "missing"];
        let last = self.last_printed().unwrap_or_default().to_lowercase();
        !self.stderr.trim().is_empty() || words.iter().any(|word| last.contains(word))
    }

    fn last_printed(&self) -> Option<&str> {
        self.stdout.lines().rfind(|line| !line.trim().is_empty())
    }

    /// Whether this is the end of a program that met `trouble`.
    ///
    /// # Errors
    /// It is not: it crashed, noticed nothing, or said nothing.
    pub fn badly(&self, trouble: &str) -> Result<(), Stop> {
        /// Characters of a line for a person.
        const SHOWN: usize = 100;
        let mut seen = self.summary();
        let (code, why) = if self.crashed() {
            ("E_CRASHED", format!("The program crashed on {trouble}."))
        } else if self.status.success() {
            ("E_SUCCESS_IN_SPITE", format!("The program ended with success in spite of {trouble}."))
        } else if !self.complained() {
            if let Some(last) = self.last_printed() {
                let last: String = last.chars().take(SHOWN).collect();
                seen += &format!("; the last line on stdout: {last:?}");
            }
            ("E_NO_MESSAGE", format!("The program ended without a word on stderr about {trouble}."))
        } else {
            return Ok(());
        };
        Err(fail(code, why, "a message on stderr and a status other than 0", seen))
    }
}

/// How the last words of a Python program begin.
const TRACEBACK: &str = "Traceback (most recent call last)";

/// Whether `stderr` has the marks of a program that died instead of handling an error.
pub fn has_trace(stderr: &str) -> bool {
    ["panicked at", TRACEBACK, "Exception in thread"].iter().any(|trace| stderr.contains(trace))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_on_stdout_only_is_shown() {
        let status = Command::new("false").status().unwrap();
        let ended =
            |stdout: &str| Ended { status, stdout: stdout.to_owned(), stderr: String::new() };
        let Err(Stop::Failed(failure)) = ended("5 bytes\nEcho differs\n\n").badly("trouble") else {
            panic!("it passes")
        };
        assert_eq!(failure.code, "E_NO_MESSAGE");
        assert!(failure.why.contains("on stderr") && failure.seen.ends_with(r#""Echo differs""#));
        assert!(ended("5 bytes\nConnection refused\n").badly("trouble").is_ok());
    }

    #[test]
    fn a_traceback_is_summed_up_by_its_last_line() {
        let status = Command::new("false").status().unwrap();
        let summary = |stderr: &str| {
            Ended { status, stdout: String::new(), stderr: stderr.to_owned() }.summary()
        };
        let traceback = format!("{TRACEBACK}:\n  File \"x\", line 1\nTypeError: not bytes\n");
        assert!(summary(&traceback).ends_with(", TypeError: not bytes"));
        assert!(summary("error: refused\nmore\n").ends_with(", error: refused"));
    }

    #[test]
    fn a_port_is_claimed_by_one_grader_only() {
        let (port, claimed) = free_port(IpAddr::from([127, 0, 0, 1])).unwrap();
        assert!(claim(port).is_err());
        drop(claimed);
        assert!(claim(port).is_ok());
    }
}
