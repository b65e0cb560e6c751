//! Runs programs as processes, for tests and for the tools that judge them: each in a process
//! group of its own, with bounded time and bounded output, and gone afterwards, children included.
//!
//! Unix only, like everything that judges.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{
    Pid, WaitId, WaitIdOptions, kill_process, kill_process_group, test_kill_process_group, waitid,
};

/// Longer than anything here takes on a loaded machine: whoever waits this long waits in vain.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Bytes kept of each output stream of a process; the rest is read and thrown away.
pub const KEPT_OUTPUT: usize = 1 << 20;

/// The variable of the environment by which a process is known wherever it has gone, since it is
/// inherited: the marks of those who started it, the outermost first.
const MARK: &str = "HARNESS_PROCESS";

/// The groups of the processes that run; none is started while somebody holds them.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A running process, killed with all its children when dropped.
pub struct Process {
    /// Its process id, and the id of its process group: nobody else's, even after its end.
    pub pid: u32,
    /// Its standard input; take and drop it to end it.
    pub stdin: Option<ChildStdin>,
    /// What it has written to standard output.
    pub stdout: Output,
    /// What it has written to standard error.
    pub stderr: Output,
    /// Ends when the process does: to be polled together with sockets.
    pub gone: PipeReader,
    child: Child,
    mark: String,
    exited: Receiver<ExitStatus>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with all three streams piped.
    ///
    /// # Errors
    /// The program cannot be started, or no thread to watch it.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start(command)
    }

    /// Starts `command` with its streams as they were set; what is not piped cannot be seen.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn start(command: &mut Command) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{}{}/", own_mark(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut running = running();
        let mut child = command.env(MARK, &mark).process_group(0).spawn()?;
        running.insert(child.id());
        drop(running);
        let (sender, exited) = mpsc::channel();
        let (gone, alive) = io::pipe()?;
        let pid = child.id();
        let streams = (child.stdout.take(), child.stderr.take());
        let mut process = Process {
            pid,
            stdin: child.stdin.take(),
            stdout: Output::default(),
            stderr: Output::default(),
            gone,
            child,
            mark,
            exited,
            status: None,
        };
        watch("wait", move || {
            let status = ended(pid, WaitIdOptions::empty());
            let _ = status.map(|status| sender.send(status)); // nobody may want to know any more
            drop(alive);
        })?;
        process.stdout = streams.0.map_or(Ok(Output::default()), Output::collect)?;
        process.stderr = streams.1.map_or(Ok(Output::default()), Output::collect)?;
        Ok(process)
    }

    /// Waits for the process itself to end, at most `limit`; `None` if it still runs then.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        if self.status.is_none() {
            // The system may know that it has ended before the thread that waits has said so.
            let now = ended(self.pid, WaitIdOptions::NOHANG);
            self.status = now.or_else(|| self.exited.recv_timeout(limit).ok());
        }
        self.status
    }

    /// Whether anything still runs that the process, which has ended, has started: also in the
    /// background, with a group of its own, where the system tells.
    pub fn has_left(&self) -> bool {
        match cfg!(target_os = "linux") {
            true => left(&self.mark, Some(self.pid)).next().is_some(),
            false => id(self.pid).is_some_and(|group| test_kill_process_group(group).is_ok()),
        }
    }

    /// Kills the process, its children, and what has gone to the background.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.wait(LIMIT);
        kill_left(&self.mark, Some(self.pid));
    }

    /// Sends `signal` to the process alone, as `kill PID` does.
    pub fn signal_alone(&self, signal: Signal) {
        let _ = id(self.pid).map(|pid| kill_process(pid, signal)); // ended already: so be it
    }

    /// Sends `signal` to the process and its children, as Ctrl+C does.
    pub fn signal(&self, signal: Signal) {
        let _ = id(self.pid).map(|group| kill_process_group(group, signal)); // gone: so be it
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        running().remove(&self.pid);
        let _ = self.child.try_wait(); // from now on its id may be another's
    }
}

fn id(pid: u32) -> Option<Pid> {
    Pid::from_raw(pid.cast_signed())
}

/// How process `pid` ended, once it has. It is not reaped, which keeps its id from being given to
/// another process, who would be killed in its place.
fn ended(pid: u32, options: WaitIdOptions) -> Option<ExitStatus> {
    let (pid, options) = (id(pid)?, options | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let ended = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), options)).ok()??;
    let raw = ended.exit_status().map(|status| status << 8).or_else(|| ended.terminating_signal());
    raw.map(ExitStatus::from_raw)
}

fn running() -> MutexGuard<'static, BTreeSet<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the marks of all processes begin with that are started here.
fn own_mark() -> String {
    format!("{}{}.", env::var(MARK).unwrap_or_default(), process::id())
}

/// The processes whose mark begins with `mark`, and those of process group `group`, where the system
/// tells; none that has ended.
fn left(mark: &str, group: Option<u32>) -> impl Iterator<Item = u32> {
    let wanted = format!("{MARK}={mark}");
    let is_marked = move |pid: u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable.starts_with(wanted.as_bytes()))
    };
    // One that is about to end has no environment any more, and its sockets yet.
    pids().filter(move |pid| match group_of(*pid) {
        found if found == group => Stat::of(*pid).is_some_and(|stat| stat.state != 'Z'),
        _ => is_marked(*pid),
    })
}

/// Kills what is [`left`], and waits until it is gone.
fn kill_left(mark: &str, group: Option<u32>) {
    let end = Instant::now() + LIMIT;
    loop {
        let mut found = false;
        for pid in left(mark, group) {
            found = true;
            let _ = id(pid).map(|pid| kill_process(pid, Signal::KILL)); // gone already: so be it
        }
        if !found || Instant::now() > end {
            return;
        }
        thread::sleep(Duration::from_millis(2)); // one of them may just have started another
    }
}

/// Kills all processes that were started here, with what they have started; none can be started, or
/// dropped, any more: for a program that is about to end.
pub fn kill_all() {
    let running = running();
    for group in &*running {
        let _ = id(*group).map(|group| kill_process_group(group, Signal::KILL)); // gone: so be it
    }
    kill_left(&own_mark(), None);
    std::mem::forget(running);
}

/// What a process has written to one of its streams so far, at most [`KEPT_OUTPUT`] bytes.
#[derive(Clone, Default)]
pub struct Output(Arc<(Mutex<Collected>, Condvar)>);

#[derive(Default)]
struct Collected {
    kept: Vec<u8>,
    total: u64,
    open: bool,
}

impl Output {
    fn collect(mut stream: impl Read + Send + 'static) -> io::Result<Self> {
        let output = Output::default();
        output.lock().open = true;
        let shared = output.clone();
        watch("output", move || {
            let mut buffer = [0; 16 * 1024];
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                let mut collected = shared.lock();
                let room = KEPT_OUTPUT - collected.kept.len();
                collected.kept.extend(&buffer[..read.min(room)]);
                collected.total += read as u64;
                collected.open = read > 0;
                shared.0.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        })?;
        Ok(output)
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` holds for the bytes so far, the stream has ended, or `limit` is over;
    /// returns the bytes.
    pub fn wait(&self, limit: Duration, mut found: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
        let end = Instant::now() + limit;
        let mut collected = self.lock();
        while !found(&collected.kept) && collected.open {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                break;
            };
            let waited = self.0.1.wait_timeout(collected, left);
            collected = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        collected.kept.clone()
    }

    /// Waits for the end of the stream, at most `limit`; returns all that was kept of it.
    pub fn all(&self, limit: Duration) -> Vec<u8> {
        self.wait(limit, |_| false)
    }

    /// The number of bytes written so far, also of those that were not kept.
    pub fn total(&self) -> u64 {
        self.lock().total
    }
}

/// How a process ended and what it wrote.
pub struct Ended {
    /// Its exit status; `None` after a signal, and if it had to be killed.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error, as text.
    pub stderr: String,
}

impl Ended {
    /// The exit status and the error of a run that failed as it should: stderr begins with one line
    /// `error: …` and holds neither a panic nor anything Debug-formatted.
    ///
    /// # Panics
    /// Stderr is anything else.
    pub fn error(&self) -> (Option<i32>, &str) {
        let line = self.stderr.lines().next().and_then(|line| line.strip_prefix("error: "));
        let unclear = ["panicked", "Os {", "Error {", "kind:"];
        match line {
            Some(line) if !unclear.iter().any(|word| self.stderr.contains(word)) => {
                (self.code, line)
            }
            _ => panic!("no clear error: status {:?}, stderr: {}", self.code, self.stderr),
        }
    }
}

/// Runs `command` to its end with `input` on standard input; kills it after [`LIMIT`].
///
/// # Errors
/// The program cannot be started.
pub fn run(command: &mut Command, input: &[u8]) -> io::Result<Ended> {
    command.stdout(Stdio::piped());
    run_into(command, input)
}

/// As [`run`], with standard output where `command` says; what is not piped cannot be seen.
///
/// # Errors
/// As [`run`].
pub fn run_into(command: &mut Command, input: &[u8]) -> io::Result<Ended> {
    let mut process = Process::start(command.stdin(Stdio::piped()).stderr(Stdio::piped()))?;
    let (stdin, input) = (process.stdin.take(), input.to_vec());
    watch("input", move || {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(&input); // a program need not read all of its input
        }
    })?;
    let status = process.wait(LIMIT);
    process.kill(); // a child left behind would hold the streams open
    Ok(Ended {
        code: status.and_then(|status| status.code()),
        stdout: process.stdout.all(LIMIT),
        stderr: String::from_utf8_lossy(&process.stderr.all(LIMIT)).into_owned(),
    })
}

/// A server of this workspace that has said where it listens.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl Server {
    /// Starts the server `program` with `args` and waits for the first line of its stdout, which
    /// ends in its address: `Server started: 127.0.0.1:10007`.
    ///
    /// # Errors
    /// It cannot be started, or ended or stayed silent before it said so; with its stderr.
    pub fn start<S: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> io::Result<Self> {
        let process = Process::spawn(Command::new(program).args(args))?;
        let stdout = process.stdout.wait(LIMIT, |bytes| bytes.contains(&b'\n'));
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        let addr = stdout.lines().next().and_then(|line| line.rsplit(' ').next()?.parse().ok());
        match addr {
            Some(addr) => Ok(Server { process, addr }),
            None => {
                let stderr = process.stderr.all(Duration::from_secs(1));
                let stderr = String::from_utf8_lossy(&stderr).into_owned();
                Err(io::Error::other(format!("{}: {stdout}{stderr}", program.display())))
            }
        }
    }

    /// A connection to the server, on which a read waits at most [`LIMIT`].
    ///
    /// # Panics
    /// There is none.
    pub fn connect(&self) -> TcpStream {
        let sock = TcpStream::connect(self.addr).expect("a connection");
        sock.set_read_timeout(Some(LIMIT)).expect("a time-out");
        sock
    }

    /// Waits until the server has logged `text` on stderr, at most [`LIMIT`]; whether it has.
    pub fn logged(&self, text: &str) -> bool {
        let found = |log: &[u8]| String::from_utf8_lossy(log).contains(text);
        found(&self.process.stderr.wait(LIMIT, found))
    }
}

/// A server in this process that does `what` with every connection, each in a thread; returns its
/// address.
///
/// # Panics
/// There is no port, or no thread, for it.
pub fn serve(what: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    let accept = move || {
        for conn in listener.incoming().map_while(Result::ok) {
            let what = what.clone();
            let _ = watch("connection", move || drop(what(conn))); // no thread: the client sees a FIN
        }
    };
    watch("server", accept).expect("a thread");
    addr
}

/// Sends `message` and takes as much back.
///
/// # Panics
/// It does not come.
pub fn ask(mut sock: &TcpStream, message: &[u8]) -> Vec<u8> {
    let mut back = vec![0; message.len()];
    sock.write_all(message).expect("room for the message");
    sock.read_exact(&mut back).expect("an answer");
    back
}

/// Sends back whatever comes, up to the FIN: for [`serve`].
///
/// # Errors
/// The client is lost.
pub fn echo(conn: TcpStream) -> io::Result<()> {
    io::copy(&mut &conn, &mut &conn).map(|_| ())
}

/// The path of the program `name` of this workspace, built as the running program was built.
///
/// # Panics
/// It cannot be built: nothing can be run then.
pub fn program(name: &str) -> PathBuf {
    build([name]).expect("a program to run").join(name)
}

/// Builds the programs `names` of this workspace as the running program was built; returns the
/// folder that they are in.
///
/// # Errors
/// They cannot be built; why is said on stderr by cargo.
pub fn build<'n>(names: impl IntoIterator<Item = &'n str>) -> io::Result<PathBuf> {
    let exe = env::current_exe()?;
    let folder = exe.parent().ok_or(io::ErrorKind::NotFound)?; // target/PROFILE
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let mut build = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    build.args(["build", "--quiet"]).args(names.into_iter().flat_map(|name| ["--package", name]));
    if folder.ends_with("release") {
        build.arg("--release");
    }
    match build.status()?.success() {
        true => Ok(folder.to_owned()),
        false => Err(io::Error::other("the programs cannot be built")),
    }
}

/// Whether the foreign program `name` is on this machine. If not, says that the test is skipped.
pub fn has(name: &str) -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&folders).chain(["/usr/sbin".into()]);
    let found = folders.into_iter().any(|folder| folder.join(name).is_file());
    if !found {
        let _ = writeln!(io::stderr(), "skipped: no {name} on this machine");
    }
    found
}

/// What Linux tells of a process or a thread in `/proc/…/stat` (proc(5)).
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// Its id.
    pub pid: u32,
    /// Its state in one letter: `R` if it runs or would, `D` if the system has something to do for it
    /// first, `Z` if it has ended and nobody has waited for it.
    pub state: char,
    /// The process that started it, or that looks after it since that one's end.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Stat::read(Path::new(&format!("/proc/{pid}")))
    }

    /// What is told in `folder`, as `/proc/PID` or `/proc/PID/task/TID`.
    pub fn read(folder: &Path) -> Option<Self> {
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        // The name in parentheses may hold anything.
        let (start, rest) = stat.rsplit_once(')')?;
        let (pid, mut fields) = (start.split_once(' ')?.0.parse().ok()?, rest.split_whitespace());
        let state = fields.next()?.chars().next()?;
        let mut number = || fields.next()?.parse().ok();
        Some(Stat { pid, state, parent: number()?, group: number()? })
    }

    /// Whether it runs, or would if the machine were faster.
    pub fn runs(&self) -> bool {
        matches!(self.state, 'R' | 'D')
    }
}

/// All processes of this machine, where the system tells.
pub fn processes() -> Vec<Stat> {
    pids().filter_map(Stat::of).collect()
}

/// The processes of process group `group`, where the system tells. Of the others little is asked:
/// there may be thousands.
pub fn group(group: u32) -> Option<Vec<Stat>> {
    let mut all = pids().peekable();
    all.peek()?;
    Some(all.filter(|pid| group_of(*pid) == Some(group)).filter_map(Stat::of).collect())
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The process group of process `pid`; 0 is the kernel's own, which rustix does not know.
fn group_of(pid: u32) -> Option<u32> {
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    nix::unistd::getpgid(Some(pid)).ok().map(|group| group.as_raw().cast_unsigned())
}

/// The most memory that process `pid` has held so far, in KiB (`VmHWM`, proc(5)).
///
/// # Errors
/// There is no such process, or no `/proc`.
pub fn peak_memory(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no VmHWM: a zombie?"))
}

fn watch(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(body).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_fed_and_heard() {
        let ended =
            run(Command::new("sh").args(["-c", "cat; echo why >&2; exit 7"]), b"x").unwrap();
        assert_eq!((ended.code, &ended.stdout[..], &*ended.stderr), (Some(7), &b"x"[..], "why\n"));
    }

    #[test]
    fn the_id_of_a_process_is_nobody_elses_until_it_is_dropped() {
        let mut process = Process::spawn(Command::new("sh").args(["-c", "exit 7"])).unwrap();
        assert_eq!(process.wait(LIMIT).unwrap().code(), Some(7));
        process.kill(); // of nobody, and the status stays
        assert_eq!(process.wait(LIMIT).unwrap().code(), Some(7));
        let is_taken = |pid| rustix::process::test_kill_process(id(pid).unwrap()).is_ok();
        let pid = process.pid;
        assert!(is_taken(pid));
        drop(process);
        assert!(!is_taken(pid), "it is left behind as a zombie");
    }

    #[test]
    fn a_process_is_gone_with_its_children() {
        let process =
            Process::spawn(Command::new("sh").args(["-c", "sleep 600 & echo $!; wait"])).unwrap();
        let line = process.stdout.wait(LIMIT, |bytes| bytes.ends_with(b"\n"));
        let child = String::from_utf8(line).unwrap();
        let stdout = process.stdout.clone();
        drop(process);
        stdout.all(LIMIT); // ends only when the child has let go of it too
        assert!(!stdout.lock().open, "child {child} still runs");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_is_gone_with_what_went_to_the_background() {
        let script = "setsid sh -c 'echo $$; exec sleep 600' > $0 & wait";
        let file = env::temp_dir().join(format!("harness-{}", process::id()));
        let mut process =
            Process::spawn(Command::new("sh").args(["-c", script]).arg(&file)).unwrap();
        let child = (0..1000).find_map(|_| {
            thread::sleep(Duration::from_millis(5)); // until it has said so
            fs::read_to_string(&file).ok()?.trim().parse::<u32>().ok()
        });
        assert!(left(&process.mark, None).any(|pid| Some(pid) == child));
        process.signal(Signal::KILL);
        process.wait(LIMIT).unwrap();
        assert!(process.has_left());
        process.kill();
        assert!(!process.has_left());
        fs::remove_file(file).unwrap();
    }
}
