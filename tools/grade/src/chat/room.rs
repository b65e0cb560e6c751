//! A chat server under test, and who takes part: real clients, or the grader speaking lines.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Output, Process, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use socket2::{Domain, SockRef, Socket, Type};
use wire::event::{Connection, Direction, Kind, Recorder};

use super::line::{Line, shown};
use crate::check::Stop;
use crate::hang::{self, Transport};
use crate::subject::{Run, filled};
use crate::trial::{PATIENCE, START, Trial, fail, in_time};

/// How long nothing is heard before what was awaited is taken not to come.
pub const QUIET: Duration = Duration::from_secs(5);

/// How long anything is awaited of a program that goes on and on.
const ENDLESS: Duration = Duration::from_secs(30);

/// Bytes that one participant hears before what it hears is taken to be without end.
const MOST_BYTES: u64 = 64 << 20;

/// Lines, in the same way: a check makes 10 000 or so.
const MOST_LINES: usize = 50_000;

/// A server under test that is open, and the way in.
pub struct Room<'t, 's> {
    /// The run.
    pub trial: &'t mut Trial<'s>,
    /// How to enter.
    pub door: Door,
    stdout: Output,
}

/// How to enter: all that a thread needs to know.
pub struct Door {
    /// Where the server listens.
    pub server: SocketAddr,
    client: Vec<String>,
    lines: bool,
    recorder: Recorder,
    /// Whether somebody has heard more than anybody says.
    endless: Arc<AtomicBool>,
    /// When the trial is over.
    deadline: Instant,
}

/// Somebody in the chat.
pub struct Participant {
    /// What is heard: the lines that came, or that the client printed.
    pub ear: Ear,
    body: Body,
}

enum Body {
    /// The grader itself.
    Lines { sock: Arc<TcpStream>, wire: Connection },
    /// A client under test.
    Client(Box<Process>),
}

/// The lines of a stream, as they come.
#[derive(Clone, Default)]
pub struct Ear(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    lines: Vec<Vec<u8>>,
    rest: Vec<u8>,
    bytes: u64,
    over: bool,
    deadline: Option<Instant>,
}

impl Heard {
    fn push(&mut self, mut line: Vec<u8>) {
        let cursor = line.len() - shown(&line).len();
        line.drain(..cursor);
        self.lines.push(line);
    }
}

impl<'t, 's> Room<'t, 's> {
    /// Starts the server and waits until it is open.
    ///
    /// # Errors
    /// As [`Trial::serve`].
    pub fn open(trial: &'t mut Trial<'s>) -> Result<Self, Stop> {
        let server = trial.serve(IpAddr::V4(Ipv4Addr::LOCALHOST), Transport::Tcp)?;
        let client = trial.subject().client.clone();
        let lines = client.is_empty() || trial.subject().lines;
        let recorder = trial.recorder().clone();
        let (endless, deadline) = (Arc::default(), trial.deadline());
        let door = Door { server, client, lines, recorder, endless, deadline };
        let stdout = trial.process()?.stdout.clone();
        Ok(Room { trial, door, stdout })
    }

    /// Waits until the server has printed `count` lines; returns those it has.
    pub fn printed(&self, count: usize) -> Vec<Vec<u8>> {
        let (mut seen, mut lines) = (0, 0);
        let bytes = self.stdout.wait(QUIET, |bytes| {
            lines += bytes[seen..].iter().filter(|byte| **byte == b'\n').count();
            seen = bytes.len();
            lines >= count
        });
        let mut lines: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.pop_if(|last| last.is_empty());
        lines
    }

    /// Waits until `who` hears a line, the `from`th or a later one, that is `wanted`; returns its
    /// number.
    ///
    /// # Errors
    /// It does not come: `code` and `why`, and what was expected.
    pub fn hears(
        &mut self,
        who: &Participant,
        from: usize,
        (code, why, expected): (&'static str, &str, &str),
        wanted: impl Fn(Line<'_>) -> bool,
    ) -> Result<usize, Stop> {
        let (mut next, mut found) = (from, None);
        who.ear.wait(|lines| {
            while found.is_none() && next < lines.len() {
                found = wanted(Line::of(&lines[next])).then_some(next);
                next += 1;
            }
            found.is_some()
        });
        found.ok_or_else(|| self.failure(code, why, expected, who.last()))
    }

    /// Waits until `who` is told that somebody entered, after its `from`th line; returns the name.
    ///
    /// # Errors
    /// It is not told.
    pub fn hears_of_newcomer(&mut self, who: &Participant, from: usize) -> Result<String, Stop> {
        let why = "Those who are in the chat are not told of a newcomer.";
        let told = ("E_NOTICE", why, "New user IP:PORT entered (N users online)");
        let at = self.hears(who, from, told, |line| matches!(line, Line::Entered(..)))?;
        match Line::of(&who.ear.line(at)) {
            Line::Entered(name, _) => Ok(name.to_owned()),
            _ => Ok(String::new()),
        }
    }

    /// Waits until `who` is told that `name` left; returns how many are said to be online then.
    ///
    /// # Errors
    /// It is not told.
    pub fn hears_of_leaving(
        &mut self,
        who: &Participant,
        name: &str,
        (code, why): (&'static str, &str),
    ) -> Result<usize, Stop> {
        let expected = format!("The user {name} left (N users online)");
        let is_it = |line: Line<'_>| matches!(line, Line::Left(left, _) if left == name);
        let at = self.hears(who, 0, (code, why, &expected), is_it)?;
        match Line::of(&who.ear.line(at)) {
            Line::Left(_, count) => Ok(count),
            _ => Ok(0),
        }
    }

    /// Somebody enters, is told so, and `witness` is told, too. Returns who and the name.
    ///
    /// # Errors
    /// One of them is not told.
    pub fn join_before(
        &mut self,
        witness: &Participant,
        enter: impl Fn(&Door) -> Result<Participant, Stop>,
    ) -> Result<(Participant, String), Stop> {
        let from = witness.ear.count();
        let newcomer = enter(&self.door).map_err(|stop| self.blame(stop))?;
        let name = self.hears_of_newcomer(witness, from)?;
        Ok((newcomer, name))
    }

    /// Somebody enters and is told so.
    ///
    /// # Errors
    /// It is not told.
    pub fn join(&mut self) -> Result<Participant, Stop> {
        self.door.join().map_err(|stop| self.blame(stop))
    }

    /// Tries whether `speaker` and `listener` can still chat.
    ///
    /// # Errors
    /// They cannot: `why`.
    pub fn still_serves(
        &mut self,
        speaker: &mut Participant,
        listener: &Participant,
        why: &str,
    ) -> Result<(), Stop> {
        let from = listener.ear.count();
        speaker.say(b"still here\n")?;
        let told = ("E_SERVER_GONE", why, "what one says arrives at the others");
        self.hears(listener, from, told, |line| matches!(line, Line::Said(_, "still here")))?;
        Ok(())
    }

    /// A failure: that the server ended, if it did, since everything else follows from that.
    pub fn failure(
        &mut self,
        code: &'static str,
        why: impl Into<String>,
        expected: impl Into<String>,
        seen: impl Into<String>,
    ) -> Stop {
        self.blame(fail(code, why, expected, seen))
    }

    /// `stop`; or that the server ended, or something goes on without end, if that is so.
    pub fn blame(&mut self, stop: Stop) -> Stop {
        /// A server that is about to end has closed its sockets already.
        const ABOUT_TO: Duration = Duration::from_millis(200);
        let Ok(process) = self.trial.process() else { return stop };
        if !matches!(stop, Stop::Failed(_)) {
            return stop;
        }
        if let Err(over) = in_time(self.door.deadline) {
            return over;
        }
        if self.door.endless.load(Ordering::Relaxed) {
            let who = if self.door.has_clients() { "A client" } else { "The server" };
            let why = format!("{who} prints without end.");
            let seen = format!("more than {MOST_LINES} lines, or {} MiB", MOST_BYTES >> 20);
            return fail("E_PRINTS_ON", why, "a line for each that is said", seen);
        }
        if process.wait(ABOUT_TO).is_none() {
            return stop;
        }
        let seen = self.trial.end(PATIENCE).map(|ended| ended.summary());
        let why = "The server ended: everybody has lost the chat.";
        fail("E_SERVER_GONE", why, "no client ends the server", seen.unwrap_or_default())
    }
}

impl Door {
    /// Whether the clients are programs under test.
    pub fn has_clients(&self) -> bool {
        !self.client.is_empty()
    }

    /// Whether the grader can be a bad neighbour itself: it knows how the wire looks.
    pub fn speaks_lines(&self) -> bool {
        self.lines
    }

    /// Somebody enters as everybody does, and is told so.
    ///
    /// # Errors
    /// It is not told.
    pub fn join(&self) -> Result<Participant, Stop> {
        let newcomer = match self.has_clients() {
            true => self.client()?,
            false => self.lines(None, true)?,
        };
        Self::welcomed(newcomer)
    }

    /// Somebody enters who is up to no good, and is told so.
    ///
    /// # Errors
    /// It is not told.
    pub fn join_hostile(&self) -> Result<Participant, Stop> {
        match self.lines {
            true => Self::welcomed(self.lines(None, true)?),
            false => self.join(),
        }
    }

    /// Somebody enters who does not read.
    ///
    /// # Errors
    /// There is no connection.
    pub fn join_deaf(&self) -> Result<Participant, Stop> {
        const SMALL: usize = 4096;
        if self.lines {
            return self.lines(Some(SMALL), false);
        }
        let client = self.join()?;
        client.signal(Signal::STOP);
        Ok(client)
    }

    fn welcomed(newcomer: Participant) -> Result<Participant, Stop> {
        let welcome = |line: &Vec<u8>| matches!(Line::of(line), Line::Welcome(_) | Line::Other);
        match newcomer.ear.wait_within(START, |lines| lines.iter().any(welcome)) {
            true => Ok(newcomer),
            false => Err(fail(
                "E_NOTICE",
                "A newcomer is not told that it is connected.",
                "Connected to the chat server (N users online)",
                newcomer.last(),
            )),
        }
    }

    fn client(&self) -> Result<Participant, Stop> {
        let run = Run { server: self.server, count: 0, length: 0, timeout: START, json: false };
        let mut command = filled(&self.client, &run);
        let name = command.get_program().to_string_lossy().into_owned();
        let (screen, stdout) = terminal()?;
        command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let process = Process::start(command.env("RUST_BACKTRACE", "0"))
            .map_err(|error| Stop::Inconclusive(format!("{name} cannot be started: {error}")))?;
        drop(command); // it holds the client's end of the terminal, too
        let ear = Ear::listen(screen, self)?;
        Ok(Participant { ear, body: Body::Client(Box::new(process)) })
    }

    fn lines(&self, buffer: Option<usize>, reads: bool) -> Result<Participant, Stop> {
        let sock = Socket::new(Domain::for_address(self.server), Type::STREAM, None)?;
        if let Some(buffer) = buffer {
            sock.set_recv_buffer_size(buffer)?; // before the window is told
        }
        sock.connect_timeout(&self.server.into(), START).map_err(|error| {
            let why = "The server does not take a connection.";
            fail("E_NOT_LISTENING", why, format!("{} accepts", self.server), error.to_string())
        })?;
        sock.set_write_timeout(Some(QUIET))?;
        sock.set_tcp_nodelay(true)?; // a piece written alone goes out alone
        let (sock, wire) = (Arc::new(TcpStream::from(sock)), self.recorder.connection());
        wire.record(Direction::ToServer, Kind::Connect);
        wire.record(Direction::ToClient, Kind::Accept);
        let ear = match reads {
            true => {
                let stream = Recorded { sock: sock.clone(), wire: wire.clone() };
                Ear::listen(stream, self)?
            }
            false => Ear::default(),
        };
        Ok(Participant { ear, body: Body::Lines { sock, wire } })
    }
}

impl Participant {
    /// Says `bytes`; whether they were taken. Not so if nobody reads them, or reads any more.
    ///
    /// # Errors
    /// The system's.
    pub fn say(&mut self, mut bytes: &[u8]) -> io::Result<bool> {
        /// A pipe that is writable has room for as much (pipe(7): PIPE_BUF).
        const ROOM: usize = 4096;
        let refused = |error: io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(false),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Ok(false),
            _ => Err(error),
        };
        match &mut self.body {
            Body::Lines { sock, wire } => {
                wire.data(Direction::ToServer, bytes);
                (&**sock).write_all(bytes).map_or_else(refused, |()| Ok(true))
            }
            Body::Client(process) => {
                let Some(stdin) = &mut process.stdin else { return Ok(false) };
                let within = Timespec::try_from(QUIET).map_err(io::Error::other)?;
                while !bytes.is_empty() {
                    let mut fds = [PollFd::new(&*stdin, PollFlags::OUT)];
                    match poll(&mut fds, Some(&within)) {
                        Ok(0) => return Ok(false),
                        Err(rustix::io::Errno::INTR) => continue,
                        result => result?,
                    };
                    match stdin.write(&bytes[..bytes.len().min(ROOM)]) {
                        Ok(n) => bytes = &bytes[n..],
                        Err(error) => return refused(error),
                    }
                }
                Ok(true)
            }
        }
    }

    /// Lets the server read what was said, before more of it comes.
    pub fn let_be_read(&self) {
        /// Time for a client to read it and to send it on, and for the server to read it.
        const SOON: Duration = Duration::from_millis(20);
        match &self.body {
            Body::Lines { sock, .. } => look(|| {
                let queues = hang::queues(sock.local_addr().ok()?, sock.peer_addr().ok()?)?;
                Some(queues.client_unsent + queues.server_unread == 0)
            }),
            Body::Client(_) => thread::sleep(SOON),
        }
    }

    /// Leaves as everybody does: a FIN, or Ctrl+C at the client. What was heard remains.
    pub fn leave(mut self) -> Ear {
        match &mut self.body {
            Body::Lines { sock, wire } => {
                if sock.shutdown(Shutdown::Write).is_ok() {
                    wire.record(Direction::ToServer, Kind::Fin);
                }
            }
            Body::Client(process) => process.signal(Signal::INT),
        }
        self.ear.wait(|_| false);
        self.ear.clone()
    }

    /// Is gone without a word: an RST, or a client that is killed with something unread, which
    /// makes the system send an RST as well. `unread` sees to it that something comes.
    ///
    /// # Errors
    /// The system's.
    pub fn crash(self, unread: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        match &self.body {
            Body::Lines { sock, wire } => {
                SockRef::from(&**sock).set_linger(Some(Duration::ZERO))?;
                sock.shutdown(Shutdown::Read)?; // the listening thread lets go of it
                self.ear.wait(|_| false);
                wire.record(Direction::ToServer, Kind::Reset);
            }
            Body::Client(process) => {
                process.signal(Signal::STOP);
                unread()?;
            }
        }
        Ok(())
    }

    /// Sends `signal` to the client.
    pub fn signal(&self, signal: Signal) {
        if let Body::Client(process) = &self.body {
            process.signal(signal);
        }
    }

    /// The client.
    pub fn process(&mut self) -> Option<&mut Process> {
        match &mut self.body {
            Body::Client(process) => Some(process),
            Body::Lines { .. } => None,
        }
    }

    /// What the client has written on stderr when it has ended.
    pub fn last_complaint(&self) -> String {
        self.complaint(PATIENCE)
    }

    fn complaint(&self, within: Duration) -> String {
        match &self.body {
            Body::Client(process) => {
                String::from_utf8_lossy(&process.stderr.all(within)).into_owned()
            }
            Body::Lines { .. } => String::new(),
        }
    }

    /// Waits until `found` holds for the lines so far, or the client has written on stderr; whether
    /// one of them came.
    pub fn hears_or_complains(&self, mut found: impl FnMut(&[Vec<u8>]) -> bool) -> bool {
        /// Two streams: neither is left waiting long for the other.
        const LOOK: Duration = Duration::from_millis(20);
        let end = Instant::now() + QUIET;
        loop {
            let is_over = self.ear.lock().over; // then a last look, also at all of stderr
            let within = if is_over { PATIENCE } else { Duration::ZERO };
            if self.ear.wait_within(LOOK, &mut found) || !self.complaint(within).is_empty() {
                return true;
            }
            if is_over || Instant::now() > end {
                return false;
            }
        }
    }

    /// What was heard last, in words.
    pub fn last(&self) -> String {
        let complaint = self.complaint(Duration::ZERO);
        let first = complaint.lines().next().map(|line| format!("; on stderr: {line}"));
        self.ear.last() + &first.unwrap_or_default()
    }
}

impl Drop for Participant {
    /// The listening thread ends with the connection; a client is killed by its own drop.
    fn drop(&mut self) {
        if let Body::Lines { sock, .. } = &self.body {
            let _ = sock.shutdown(Shutdown::Read); // it may be gone
        }
    }
}

/// Waits until `found` something that nothing tells of when it happens, at most [`QUIET`]; not if the
/// system does not tell of it at all.
pub fn look(found: impl Fn() -> Option<bool>) {
    const AGAIN: Duration = Duration::from_millis(5);
    let started = Instant::now();
    while found() == Some(false) && started.elapsed() < QUIET {
        thread::sleep(AGAIN);
    }
}

/// A terminal for a client to print on, as it is, and the end where it is read: on a pipe most
/// languages would keep back what is printed, or print it in pieces that threads tear apart.
fn terminal() -> io::Result<(File, File)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    #[cfg(target_os = "linux")]
    let flags = flags | OpenptFlags::CLOEXEC; // or the next client would hold it open
    let screen = openpt(flags)?;
    grantpt(&screen)?;
    unlockpt(&screen)?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let stdout = open(ptsname(&screen, Vec::new())?, flags, Mode::empty())?;
    let mut modes = tcgetattr(&stdout)?;
    modes.make_raw(); // a newline remains a newline
    tcsetattr(&stdout, OptionalActions::Now, &modes)?;
    Ok((screen.into(), stdout.into()))
}

/// A socket whose bytes are recorded as they are read.
struct Recorded {
    sock: Arc<TcpStream>,
    wire: Connection,
}

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&*self.sock).read(buffer);
        match &read {
            Ok(0) => self.wire.record(Direction::ToClient, Kind::Fin),
            Ok(n) => {
                self.wire.data(Direction::ToClient, &buffer[..*n]);
                acknowledge(&self.sock);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.wire.record(Direction::ToClient, Kind::Reset);
            }
            Err(_) => {}
        }
        read
    }
}

/// Acknowledges at once what was read. A server that leaves Nagle's algorithm on would wait 40 ms for
/// it, again and again.
#[cfg(target_os = "linux")]
fn acknowledge(sock: &TcpStream) {
    let _ = SockRef::from(sock).set_tcp_quickack(true); // otherwise it is slower, and as right
}

#[cfg(not(target_os = "linux"))]
fn acknowledge(_: &TcpStream) {}

impl Ear {
    /// Hears `stream` to its end, or until it is taken to be `endless`.
    fn listen<R: Read + Send + 'static>(
        mut stream: R,
        Door { endless, deadline, .. }: &Door,
    ) -> io::Result<Self> {
        let ear = Ear::default();
        ear.lock().deadline = Some(*deadline);
        let (shared, endless) = (ear.clone(), endless.clone());
        let listen = move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                match stream.read(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Ok(n @ 1..) if shared.hear(&buffer[..n]) => {}
                    Ok(1..) => {
                        endless.store(true, Ordering::Relaxed);
                        break;
                    }
                    _ => break,
                }
            }
            drop(stream); // before anybody is told that it is over
            shared.end();
        };
        thread::Builder::new().name("ear".to_owned()).spawn(listen)?;
        Ok(ear)
    }

    /// Hears `bytes`; whether more may come.
    fn hear(&self, bytes: &[u8]) -> bool {
        let mut heard = self.lock();
        heard.bytes += bytes.len() as u64;
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            let mut line = std::mem::take(&mut heard.rest);
            line.extend(piece);
            heard.push(line);
        }
        heard.rest.extend(last);
        self.0.1.notify_all();
        heard.bytes < MOST_BYTES && heard.lines.len() < MOST_LINES
    }

    fn end(&self) {
        let mut heard = self.lock();
        let rest = std::mem::take(&mut heard.rest);
        if !rest.is_empty() {
            heard.push(rest);
        }
        heard.over = true;
        self.0.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` holds for the lines so far; whether it does. Not so when the stream is
    /// over, the trial is, or nothing comes for [`QUIET`].
    pub fn wait(&self, found: impl FnMut(&[Vec<u8>]) -> bool) -> bool {
        self.wait_within(QUIET, found)
    }

    /// As [`Ear::wait`], for what may be `quiet` for a longer time: a program that starts.
    fn wait_within(&self, quiet: Duration, mut found: impl FnMut(&[Vec<u8>]) -> bool) -> bool {
        let mut heard = self.lock();
        let (started, mut since, mut bytes) = (Instant::now(), Instant::now(), heard.bytes);
        while !found(&heard.lines) {
            if heard.bytes != bytes {
                (since, bytes) = (Instant::now(), heard.bytes);
            }
            let left = quiet.saturating_sub(since.elapsed());
            let is_late = heard.deadline.is_some_and(|deadline| Instant::now() > deadline);
            if heard.over || left.is_zero() || started.elapsed() > ENDLESS || is_late {
                return false;
            }
            let waited = self.0.1.wait_timeout(heard, left);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        self.lock().lines.clone()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().lines.len()
    }

    /// The line with number `at`.
    pub fn line(&self, at: usize) -> Vec<u8> {
        self.lock().lines.get(at).cloned().unwrap_or_default()
    }

    /// What was heard last, in words.
    pub fn last(&self) -> String {
        let heard = self.lock();
        let rest = (!heard.rest.is_empty()).then_some(&heard.rest);
        let lines = heard.lines.iter().chain(rest);
        let all = lines.clone().count();
        let last = lines.skip(all.saturating_sub(3)).map(|line| quoted(line));
        let last = last.collect::<Vec<_>>().join(", then ");
        let end = if heard.over { ", then the end" } else { "" };
        format!("{}{end}", if all == 0 { "nothing" } else { &last })
    }
}

/// A line for a person: nothing raw in it, and not too long.
pub fn quoted(line: &[u8]) -> String {
    const SHOWN: usize = 100;
    let cut =
        if line.len() > SHOWN { format!("… ({} bytes)", line.len()) } else { String::new() };
    format!("{:?}{cut}", String::from_utf8_lossy(&line[..line.len().min(SHOWN)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_prints_without_end_is_not_listened_to_for_ever() {
        for byte in [b'\n', b'a'] {
            let door = door(Duration::from_secs(60));
            let ear = Ear::listen(io::repeat(byte), &door).unwrap();
            assert!(!ear.wait(|_| false) && ear.lock().over);
            assert!(door.endless.load(Ordering::Relaxed) && ear.count() < 2 * MOST_LINES);
        }
    }

    #[test]
    fn nothing_is_waited_for_when_the_trial_is_over() {
        let (nothing, _open) = io::pipe().unwrap();
        let started = Instant::now();
        assert!(!Ear::listen(nothing, &door(Duration::ZERO)).unwrap().wait(|_| false));
        assert!(started.elapsed() < QUIET);
    }

    fn door(left: Duration) -> Door {
        Door {
            server: ([127, 0, 0, 1], 7).into(),
            client: Vec::new(),
            lines: true,
            recorder: Recorder::new(),
            endless: Arc::default(),
            deadline: Instant::now() + left,
        }
    }
}
