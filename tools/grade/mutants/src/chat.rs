//! A chat, server and client, that is right but for the one thing that its name says.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{self, ExitCode};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// The things that can be wrong; with `right` and `client-right` nothing is.
pub const NAMES: &[&str] = &[
    "right",
    "broadcasts-under-a-lock",
    "counts-racily",
    "counts-without-the-newcomer",
    "cuts-characters",
    "dies-of-a-reset",
    "drops-in-silence",
    "keeps-its-port",
    "loses-the-leave-notice",
    "merges-notices",
    "one-read-is-one-line",
    "passes-escape-sequences",
    "prints-no-exit",
    "refuses-without-a-reason",
    "resets-are-not-leaving",
    "says-users-for-one",
    "tears-lines",
    "throws-out-who-is-not-utf8",
    "unbounded-line",
    "unbounded-queue",
    "client-right",
    "client-ends-without-a-word",
    "client-prints-empty-lines",
    "client-says-no-exit",
    "client-waits-for-its-input",
];

/// Bytes in a line, at most.
const LINE: usize = 64 * 1024;
/// Bytes in a line that is torn, at most.
const TORN: usize = 100;
/// Lines that wait for a client, at most.
const QUEUE: usize = 512;

/// `mutants chat NAME server|client HOST:PORT`.
pub fn main(name: &'static str, args: &[String]) -> ExitCode {
    let result = match args {
        [role, addr] if role == "server" => serve(name, addr),
        [role, addr] if role == "client" => chat(name, addr),
        _ => return ExitCode::from(2),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn at_interrupt(exit: &'static str) -> io::Result<()> {
    let end = move || {
        let _ = io::stdout().write_all(exit.as_bytes());
        process::exit(0);
    };
    ctrlc::set_handler(end).map_err(io::Error::other)
}

struct Chat {
    name: &'static str,
    users: Mutex<Vec<User>>,
}

/// Somebody who is online.
struct User {
    addr: SocketAddr,
    sock: Arc<TcpStream>,
    queue: Queue,
}

#[derive(Clone)]
enum Queue {
    Bounded(SyncSender<Vec<u8>>),
    Unbounded(mpsc::Sender<Vec<u8>>),
    /// No queue: the socket itself.
    None,
}

/// Why a client is read no more.
enum End {
    Left,
    Reset,
    Refused(&'static str),
}

fn serve(name: &'static str, addr: &str) -> io::Result<()> {
    let addr: SocketAddr = addr.parse().map_err(io::Error::other)?;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(name != "keeps-its-port")?;
    socket.bind(&addr.into())?;
    socket.listen(128)?;
    let listener = TcpListener::from(socket);
    at_interrupt(if name == "prints-no-exit" { "" } else { "\nexit\n" })?;
    println!("Chat Server started on port {}.", addr.port());
    let chat = Arc::new(Chat { name, users: Mutex::default() });
    loop {
        let (sock, addr) = listener.accept()?;
        let chat = chat.clone();
        thread::Builder::new().spawn(move || chat.attend(Arc::new(sock), addr))?;
    }
}

impl Chat {
    fn is(&self, name: &str) -> bool {
        self.name == name
    }

    fn users(&self) -> MutexGuard<'_, Vec<User>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn online(&self, count: usize) -> String {
        let one = count < 2 && !self.is("says-users-for-one");
        format!("({count} user{} online)", if one { "" } else { "s" })
    }

    /// One client, from its coming to its leaving.
    fn attend(&self, sock: Arc<TcpStream>, addr: SocketAddr) {
        let Ok(queue) = self.queue(&sock) else { return };
        self.enter(sock.clone(), addr, queue);
        let end = self.read(&sock, addr);
        match end {
            End::Reset if self.is("dies-of-a-reset") => process::exit(1),
            End::Reset if self.is("resets-are-not-leaving") => return,
            End::Refused(why) if !self.is("refuses-without-a-reason") => {
                let users = self.users();
                if let Some(user) = users.iter().find(|user| user.addr == addr) {
                    user.tell(format!("{why}\n").as_bytes());
                }
            }
            _ => {}
        }
        let mut users = self.users();
        let before = users.len();
        users.retain(|user| user.addr != addr); // its writer ends with the queue, and closes
        if users.len() < before {
            self.tell_left(&mut users, addr);
        }
        drop(users);
        if matches!(end, End::Refused(_)) {
            // Closing with unread input would send an RST and destroy the reason on its way.
            let _ = sock.set_read_timeout(Some(Duration::from_secs(1)));
            let _ = io::copy(&mut (&*sock).take(16 << 20), &mut io::sink());
        }
    }

    fn queue(&self, sock: &Arc<TcpStream>) -> io::Result<Queue> {
        if self.is("broadcasts-under-a-lock") {
            return Ok(Queue::None);
        }
        let sock = sock.clone();
        if self.is("unbounded-queue") {
            let (sender, lines) = mpsc::channel();
            thread::Builder::new().spawn(move || write(&sock, &lines))?;
            return Ok(Queue::Unbounded(sender));
        }
        let (sender, lines) = mpsc::sync_channel(QUEUE);
        thread::Builder::new().spawn(move || write(&sock, &lines))?;
        Ok(Queue::Bounded(sender))
    }

    fn enter(&self, sock: Arc<TcpStream>, addr: SocketAddr, queue: Queue) {
        let mut users = self.users();
        let mut count = users.len() + 1;
        if self.is("counts-racily") {
            drop(users);
            thread::sleep(Duration::from_millis(10));
            users = self.users();
        } else {
            count = users.len() + 1;
        }
        let newcomer = User { addr, sock, queue };
        let told = count - usize::from(self.is("counts-without-the-newcomer"));
        let welcome = format!("Connected to the chat server {}\n", self.online(told));
        newcomer.tell(welcome.as_bytes());
        let notice = format!("New user {addr} entered {}", self.online(count));
        println!("{notice}");
        users.push(newcomer);
        self.tell(&mut users, Some(addr), &format!("{notice}\n"));
    }

    fn tell_left(&self, users: &mut Vec<User>, addr: SocketAddr) {
        if self.is("loses-the-leave-notice") {
            return;
        }
        let notice = format!("The user {addr} left {}", self.online(users.len()));
        println!("{notice}");
        let end = if self.is("merges-notices") { "" } else { "\n" };
        self.tell(users, None, &format!("{notice}{end}"));
    }

    /// Tells everybody but `except`; who does not keep up is dropped, and the others are told.
    fn tell(&self, users: &mut Vec<User>, except: Option<SocketAddr>, text: &str) {
        let is_lost = |user: &&User| Some(user.addr) != except && !user.tell(text.as_bytes());
        let lost: Vec<_> = users.iter().filter(is_lost).map(|user| user.addr).collect();
        for addr in lost {
            let Some(at) = users.iter().position(|user| user.addr == addr) else { continue };
            let user = users.remove(at);
            let _ = user.sock.shutdown(Shutdown::Both); // it may be gone
            if !self.is("drops-in-silence") {
                self.tell_left(users, addr);
            }
        }
    }

    fn say(&self, addr: SocketAddr, text: &str) {
        let text: String = text.trim_end_matches('\r').chars().map(|c| self.safe(c)).collect();
        let mut users = self.users();
        println!("[{addr}] {text}");
        if self.is("tears-lines") && text.len() < TORN {
            self.tell(&mut users, Some(addr), &format!("[{addr}] "));
            drop(users);
            thread::yield_now();
            users = self.users();
            self.tell(&mut users, Some(addr), &format!("{text}\n"));
        } else {
            self.tell(&mut users, Some(addr), &format!("[{addr}] {text}\n"));
        }
        if let Some(user) = users.iter().find(|user| user.addr == addr) {
            user.tell(format!("[You] {text}\n").as_bytes());
        }
    }

    fn safe(&self, c: char) -> char {
        let passes = !c.is_control() || c == '\t' || self.is("passes-escape-sequences");
        if passes { c } else { '\u{fffd}' }
    }

    /// Reads what the client says until it says no more.
    fn read(&self, mut sock: &TcpStream, addr: SocketAddr) -> End {
        let (mut buffer, mut held) = (vec![0; 16 * 1024], Vec::new());
        loop {
            match sock.read(&mut buffer) {
                Ok(0) => return End::Left,
                Ok(n) if self.is("one-read-is-one-line") => {
                    self.say(addr, String::from_utf8_lossy(&buffer[..n]).trim_end());
                    continue;
                }
                Ok(n) if self.is("cuts-characters") => {
                    held.extend(String::from_utf8_lossy(&buffer[..n]).as_bytes());
                }
                Ok(n) => held.extend(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return End::Reset,
            }
            let mut start = 0;
            while let Some(length) = held[start..].iter().position(|byte| *byte == b'\n') {
                let line = &held[start..start + length];
                if line.len() > LINE && !self.is("unbounded-line") {
                    return End::Refused("The line is longer than 64 KiB.");
                }
                if self.is("throws-out-who-is-not-utf8") && str::from_utf8(line).is_err() {
                    return End::Refused("That is not UTF-8.");
                }
                self.say(addr, &String::from_utf8_lossy(line));
                start += length + 1;
            }
            held.drain(..start);
            if held.len() > LINE && !self.is("unbounded-line") {
                return End::Refused("The line is longer than 64 KiB.");
            }
        }
    }
}

impl User {
    /// Puts `line` into the user's queue; whether there was room.
    fn tell(&self, line: &[u8]) -> bool {
        match &self.queue {
            Queue::Bounded(queue) => queue.try_send(line.to_vec()).is_ok(),
            Queue::Unbounded(queue) => queue.send(line.to_vec()).is_ok(),
            Queue::None => (&*self.sock).write_all(line).is_ok(),
        }
    }
}

/// Writes the queue of one client, several lines at once if they are there; then sends a FIN.
fn write(mut sock: &TcpStream, lines: &Receiver<Vec<u8>>) {
    const AT_ONCE: usize = 32;
    for mut data in lines {
        data.extend(lines.try_iter().take(AT_ONCE).flatten());
        if sock.write_all(&data).is_err() {
            break;
        }
    }
    let _ = sock.shutdown(Shutdown::Both); // it may be gone
}

/// The client.
fn chat(name: &'static str, addr: &str) -> io::Result<()> {
    at_interrupt(if name == "client-says-no-exit" { "" } else { "\nexit\n" })?;
    let sock = Arc::new(TcpStream::connect(addr)?);
    let sender = sock.clone();
    let send = move || io::copy(&mut io::stdin(), &mut &*sender);
    let sending = thread::Builder::new().spawn(send)?;
    let mut stdout = io::stdout();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match (&*sock).read(&mut buffer) {
            Ok(n @ 1..) => {
                stdout.write_all(&buffer[..n])?;
                stdout.flush()?;
            }
            Ok(_) if name == "client-prints-empty-lines" => {
                stdout.write_all(b"\n")?;
                thread::sleep(Duration::from_millis(1)); // the grader has seen enough soon
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ if name == "client-ends-without-a-word" => return Ok(()),
            _ if name == "client-waits-for-its-input" => {
                let _ = sending.join();
                return Ok(());
            }
            _ => return Err(io::Error::other("the server has ended")),
        }
    }
}
