//! An echo server that is right but for the one thing that its name says: a thread per client, or
//! one thread for all (`select-…`), or a process per client (`fork-…`).

use std::collections::HashSet;
use std::env;
use std::hint::black_box;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{self, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, SockRef, Socket, Type};

/// The things that can be wrong; with `right`, `select-right` and `fork-right` nothing is.
pub const NAMES: &[&str] = &[
    "right",
    "closes-at-the-fin",
    "dies-of-a-broken-pipe",
    "dies-of-a-reset",
    "drops-an-unfinished-line",
    "ends-without-descriptors",
    "fork-leaves-a-child",
    "fork-leaves-zombies",
    "fork-right",
    "goes-to-the-background",
    "ignores-sigterm",
    "keeps-every-client",
    "keeps-everything",
    "leaks-descriptors",
    "leaks-threads",
    "leaves-a-daemon",
    "listens-elsewhere",
    "never-closes",
    "no-reuseaddr",
    "one-answer-per-client",
    "poses-as-threaded",
    "select-blocks-in-a-write",
    "select-drops-all-on-an-error",
    "select-ignores-short-writes",
    "select-never-rests",
    "select-polls-with-a-nap",
    "select-right",
    "select-spins-on-a-full-buffer",
    "select-unbounded",
    "sixteen-at-once",
    "spins-without-descriptors",
    "text-not-bytes",
    "unhandled-signals",
];

/// A server, and what is wrong with it.
#[derive(Clone, Copy)]
struct Server<'a> {
    name: &'a str,
}

/// Bytes of one read.
const BUFFER: usize = 64 * 1024;
/// What `select-…` holds for a client before it stops reading from it.
const HIGH_WATER: usize = 256 * 1024;
/// What [`Server::is`] `keeps-every-client` keeps.
const KEPT: usize = 64 * 1024;

/// The children of `fork-…`.
static CHILDREN: Mutex<Option<HashSet<u32>>> = Mutex::new(None);
/// The workers of `sixteen-at-once` that are free.
static FREE: AtomicUsize = AtomicUsize::new(16);

/// `mutants echo-server NAME HOST:PORT`, and `mutants echo-server NAME child` for one client on
/// standard input.
pub fn main(name: &'static str, args: &[String]) -> ExitCode {
    let server = Server { name };
    let result = match args.first().map(String::as_str) {
        Some("child") => server.serve_stdin(),
        Some(addr) => server.run(addr),
        None => return ExitCode::from(2),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Server<'static> {
    fn is(self, name: &str) -> bool {
        self.name == name
    }

    fn run(self, addr: &str) -> io::Result<()> {
        if self.is("goes-to-the-background") {
            // It opens its port when what was started has ended, and not a moment before.
            let script = "while kill -0 $0; do sleep 0.01; done; exec \"$1\" echo-server right $2";
            let (own, exe) = (process::id().to_string(), env::current_exe()?);
            let exe = exe.to_string_lossy();
            return in_background(&["sh", "-c", script, &own, &exe, addr]);
        }
        if self.is("leaves-a-daemon") {
            in_background(&["sleep", "60"])?;
        }
        self.handle_signals()?;
        let listener = self.listen(addr.parse().map_err(io::Error::other)?)?;
        match self.name.split('-').next() {
            Some("select") => self.multiplex(&listener),
            _ => self.accept(&listener),
        }
    }

    /// Ends with status 0 on SIGINT and SIGTERM, and ends the children.
    fn handle_signals(self) -> io::Result<()> {
        if self.is("unhandled-signals") {
            return Ok(());
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        thread::Builder::new().spawn(move || {
            for signal in &mut signals {
                if self.is("ignores-sigterm") && signal == SIGTERM {
                    continue;
                }
                let children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
                let ends = !self.is("fork-leaves-a-child");
                for child in children.iter().flatten().filter(|_| ends) {
                    let pid = Pid::from_raw(child.cast_signed());
                    let _ = pid.map(|pid| kill_process(pid, Signal::KILL)); // gone already
                }
                process::exit(0);
            }
        })?;
        Ok(())
    }

    fn listen(self, mut addr: SocketAddr) -> io::Result<TcpListener> {
        if self.is("listens-elsewhere") {
            addr.set_ip([127, 0, 0, 2].into());
        }
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(!self.is("no-reuseaddr"))?;
        socket.bind(&addr.into())?;
        socket.listen(5)?;
        Ok(socket.into())
    }

    /// A thread or a process per client.
    fn accept(self, listener: &TcpListener) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((conn, _)) if self.name.starts_with("fork-") => self.fork(conn)?,
                Ok((conn, _)) => self.spawn(conn)?,
                Err(error) if self.is("ends-without-descriptors") => return Err(error),
                Err(_) if self.is("spins-without-descriptors") => {}
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn spawn(self, conn: TcpStream) -> io::Result<()> {
        while self.is("sixteen-at-once") && FREE.load(Ordering::SeqCst) == 0 {
            thread::sleep(Duration::from_millis(5));
        }
        FREE.fetch_sub(1, Ordering::SeqCst);
        let serve = move || {
            let result = self.echo(&conn);
            FREE.fetch_add(1, Ordering::SeqCst);
            self.leave(conn, result);
        };
        let served = thread::Builder::new().stack_size(128 * 1024).spawn(serve)?;
        if self.is("poses-as-threaded") {
            let _ = served.join();
        }
        Ok(())
    }

    /// What is done when a client has gone.
    fn leave(self, conn: TcpStream, result: io::Result<()>) {
        match result {
            Err(error) if self.is("dies-of-a-reset") && error.kind() != ErrorKind::BrokenPipe => {
                process::exit(1)
            }
            Err(error)
                if self.is("dies-of-a-broken-pipe") && error.kind() == ErrorKind::BrokenPipe =>
            {
                process::exit(1)
            }
            _ => {}
        }
        match self.name {
            "never-closes" => mem::forget(conn),
            "leaks-descriptors" => {
                let _ = conn.shutdown(Shutdown::Both);
                mem::forget(conn);
            }
            "leaks-threads" => {
                drop(conn);
                loop {
                    thread::park();
                }
            }
            "keeps-every-client" => mem::forget(black_box(vec![1_u8; KEPT])),
            _ => {}
        }
    }

    /// Serves one client to its end. An error of a write is a `BrokenPipe`, one of a read is not.
    fn echo(self, mut conn: &TcpStream) -> io::Result<()> {
        conn.set_nodelay(true)?;
        let mut buffer = vec![0; BUFFER];
        let (mut kept, mut line) = (Vec::new(), Vec::new());
        loop {
            let n = match conn.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(ErrorKind::ConnectionReset.into()),
            };
            if self.is("closes-at-the-fin") && has_fin(conn)? {
                return Ok(());
            }
            let data = &buffer[..n];
            let written = match self.name {
                "text-not-bytes" => conn.write_all(String::from_utf8_lossy(data).as_bytes()),
                "drops-an-unfinished-line" => {
                    line.extend_from_slice(data);
                    let end = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                    conn.write_all(&line.drain(..end).collect::<Vec<u8>>())
                }
                _ => conn.write_all(data),
            };
            written.map_err(|_| ErrorKind::BrokenPipe)?;
            match self.name {
                "keeps-everything" => kept.extend_from_slice(data),
                "one-answer-per-client" => return Ok(()),
                _ => {}
            }
        }
    }

    /// A process for one client, which is its standard input.
    fn fork(self, conn: TcpStream) -> io::Result<()> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["echo-server", self.name, "child"]).stdin(Stdio::from(OwnedFd::from(conn)));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let children = || CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = children(); // a signal must not come between a child and its being known
        let Ok(mut child) = command.spawn() else { return Ok(()) }; // the client is closed
        let pid = child.id();
        known.get_or_insert_default().insert(pid);
        drop(known);
        if !self.is("fork-leaves-zombies") {
            thread::Builder::new().stack_size(32 * 1024).spawn(move || {
                let _ = child.wait();
                children().get_or_insert_default().remove(&pid);
            })?;
        }
        Ok(())
    }

    fn serve_stdin(self) -> io::Result<()> {
        let conn = io::stdin();
        let conn = TcpStream::from(std::os::fd::AsFd::as_fd(&conn).try_clone_to_owned()?);
        self.echo(&conn)
    }

    /// One thread for all clients.
    fn multiplex(self, listener: &TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let mut clients: Vec<Client> = Vec::new();
        let mut may_accept = true;
        let mut awake = Instant::now();
        loop {
            if self.is("select-polls-with-a-nap") && awake.elapsed() > Duration::from_millis(1) {
                thread::sleep(Duration::from_millis(3)); // a quarter of a CPU
                awake = Instant::now();
            }
            let interests: Vec<_> = clients.iter().map(|client| self.interest(client)).collect();
            let accepting = if may_accept { PollFlags::IN } else { PollFlags::empty() };
            let mut fds = vec![PollFd::new(listener, accepting)];
            let conns = clients.iter().zip(interests);
            fds.extend(conns.map(|(client, interest)| PollFd::new(&client.conn, interest)));
            // Out of descriptors: the next look at the listener is in a while.
            let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let none = Timespec { tv_sec: 0, tv_nsec: 0 };
            let timeout = match () {
                () if self.is("select-never-rests") => Some(&none),
                () if self.is("select-polls-with-a-nap") => Some(&none),
                () if !may_accept => Some(&pause),
                () => None,
            };
            match poll(&mut fds, timeout) {
                Err(Errno::INTR) => continue,
                result => result?,
            };
            let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
            drop(fds);
            may_accept = true;
            let mut failed = false;
            for (client, ready) in clients.iter_mut().zip(&ready[1..]) {
                client.done = !ready.is_empty()
                    && self.turn(client, *ready).unwrap_or_else(|_| {
                        failed = true;
                        true
                    });
            }
            clients.retain(|client| !client.done);
            if failed && self.is("select-drops-all-on-an-error") {
                clients.clear();
            }
            if !ready[0].is_empty() {
                match listener.accept() {
                    Ok((conn, _)) => {
                        conn.set_nodelay(true)?;
                        conn.set_nonblocking(!self.is("select-blocks-in-a-write"))?;
                        if self.is("select-ignores-short-writes") {
                            SockRef::from(&conn).set_send_buffer_size(4096)?; // so that there are some
                        }
                        clients.push(Client { conn, unsent: Vec::new(), eof: false, done: false });
                    }
                    Err(error) => may_accept = error.kind() == ErrorKind::WouldBlock,
                }
            }
        }
    }

    fn interest(self, client: &Client) -> PollFlags {
        let mut interest = PollFlags::empty();
        let full = client.unsent.len() >= HIGH_WATER && !self.is("select-unbounded");
        let asks = !full || self.is("select-spins-on-a-full-buffer");
        interest.set(PollFlags::IN, !client.eof && asks);
        interest.set(PollFlags::OUT, !client.unsent.is_empty());
        interest
    }

    /// Reads and writes what is ready; whether the client has gone.
    fn turn(self, client: &mut Client, ready: PollFlags) -> io::Result<bool> {
        let mut conn = &client.conn;
        let full = client.unsent.len() >= HIGH_WATER && !self.is("select-unbounded");
        if ready.intersects(PollFlags::IN | PollFlags::ERR | PollFlags::HUP) && !full && !client.eof
        {
            let mut buffer = [0; BUFFER];
            match conn.read(&mut buffer) {
                Ok(0) => client.eof = true,
                Ok(n) => client.unsent.extend_from_slice(&buffer[..n]),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        } else if ready.intersects(PollFlags::ERR | PollFlags::HUP) {
            SockRef::from(conn).take_error()?.map_or(Ok(()), Err)?;
        }
        if self.is("select-blocks-in-a-write") {
            conn.write_all(&client.unsent)?;
            client.unsent.clear();
        } else if !client.unsent.is_empty() {
            match conn.write(&client.unsent) {
                Ok(_) if self.is("select-ignores-short-writes") => client.unsent.clear(),
                Ok(n) => drop(client.unsent.drain(..n)),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(client.eof && client.unsent.is_empty())
    }
}

/// A client of `select-…`.
struct Client {
    conn: TcpStream,
    unsent: Vec<u8>,
    eof: bool,
    done: bool,
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Starts the command `line` in a session of its own.
fn in_background(line: &[&str]) -> io::Result<()> {
    let mut command = Command::new("setsid");
    command.args(line).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).spawn().map(drop)
}

/// Whether the client's FIN has come, behind whatever is still to be read.
fn has_fin(conn: &TcpStream) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    const FIN: PollFlags = PollFlags::RDHUP;
    #[cfg(not(target_os = "linux"))]
    const FIN: PollFlags = PollFlags::HUP;
    let mut fds = [PollFd::new(conn, FIN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(fds[0].revents().contains(FIN))
}
