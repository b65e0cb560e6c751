//! A chat server: a thread reads what a client says, another writes what it is to hear.
//! It shows that nobody waits for anybody: what is said goes into a bounded queue per client, and
//! who lets the queue fill is dropped. One lock makes one order of all that happens, the same for
//! everybody. Still wrong: two threads per client, most of them asleep. `chat_select` repairs it.
//!
//! terminal 1: `cargo run -q -p chat_thread`; 2: `cargo run -q -p chat_client -- localhost 3333`

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};
use std::{mem, thread};

use common::args::{Limits, ServerArgs};
use common::{exit, output};
use crossbeam_channel::{Receiver, Sender, bounded};
use log::{debug, warn};
use socket2::SockRef;

/// Bytes of the longest line, without its newline.
const LINE: usize = 64 * 1024;
/// Texts that may wait for a client. The queues share their texts: this bounds them all together.
const QUEUE: usize = 1024;
/// Connections at most, two threads each: near 20 000 threads the process is aborted (measured).
const CONNECTIONS: usize = 4000;
/// How long a client may take nothing of what is sent to it, or go on sending when it must go.
const PATIENCE: Duration = Duration::from_secs(5);
/// The last words to a client that must go.
const TOO_LONG: &str = "Refused: a line of more than 65536 bytes\n";
const SILENT: &str = "Closed: nothing has moved for too long\n";

type Text = Arc<str>;

fn main() -> ExitCode {
    let (args, limits) = ServerArgs::parse_chat(clap::command!());
    exit::finish(serve(&args, &limits))
}

fn serve(args: &ServerArgs, limits: &Limits) -> io::Result<()> {
    let mut listener = args.listen(exit::farewell())?;
    output::print(format!("Chat Server started on port {}.\n", listener.local_addr()?.port()))?;
    let console = output::Console::start()?;
    let room = Arc::new(Mutex::new(Room { members: BTreeMap::new(), console }));
    for id in 0.. {
        let entered = listener.accept().and_then(|(conn, addr)| {
            let full = lock(&room).members.len() >= limits.max_clients;
            if full || Arc::strong_count(&room) > CONNECTIONS {
                return turn_away(&conn);
            }
            let _ = conn.set_nodelay(true); // a line goes out at once, whether the last is ACKed or not
            conn.set_read_timeout(limits.idle_timeout)?;
            conn.set_write_timeout(Some(PATIENCE))?;
            let (room, conn) = (room.clone(), Arc::new(conn));
            let (moved, taken) = (AtomicBool::new(false), bounded(1));
            Client { room, id, addr, conn, moved, taken }.enter(args.buffer)
        });
        if let Err(error) = entered {
            // Out of descriptors or threads, say: the next may fare no better, so do not spin on it.
            warn!("accept: {error}");
            thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// Tells a newcomer that there is no room, without waiting for it.
fn turn_away(mut conn: &TcpStream) -> io::Result<()> {
    conn.set_nonblocking(true)?;
    let _ = conn.write(b"Refused: the chat is full\n");
    let _ = conn.shutdown(Shutdown::Write);
    let _ = conn.read(&mut [0; LINE]); // closing with unread input would send an RST
    Ok(())
}

/// A client, as its two threads see it.
struct Client {
    room: Arc<Mutex<Room>>,
    id: u64,
    addr: SocketAddr,
    conn: Arc<TcpStream>,
    /// Whether something has been written since the last time-out of a read.
    moved: AtomicBool,
    /// Tells the thread that hears it when there is room in its queue again.
    taken: (Sender<()>, Receiver<()>),
}

impl Client {
    /// Gives a newcomer its two threads and lets it in, in the order of their coming.
    fn enter(self, buffer_size: usize) -> io::Result<()> {
        let ((queue, texts), client) = (bounded(QUEUE), Arc::new(self));
        let newcomer = Member { addr: client.addr, conn: client.conn.clone(), queue };
        let (hearing, writing, posted) = (client.clone(), client.clone(), texts.clone());
        let mut room = lock(&client.room); // what it says has to wait until it has joined
        let spawned = Builder::new()
            .spawn(move || writing.write(&posted))
            .and_then(|_| Builder::new().spawn(move || hearing.attend(&texts, buffer_size)));
        if spawned.is_err() {
            turn_away(&client.conn)?; // without a queue, the thread that writes ends by itself
        } else {
            room.join(client.id, newcomer);
        }
        spawned.map(drop)
    }

    /// Hears the client until it leaves; then it still gets all that was posted before.
    fn attend(&self, texts: &Receiver<Text>, buffer_size: usize) {
        let end = self.hear(texts, buffer_size);
        debug!("{}: {end:?}", self.addr);
        lock(&self.room).leave(self.id, end.unwrap_or_default());
    }

    /// Hears the client to its FIN; returns the last words to it if it must go before.
    fn hear(&self, texts: &Receiver<Text>, buffer_size: usize) -> io::Result<&'static str> {
        let mut input = BufReader::with_capacity(buffer_size, &*self.conn);
        let (mut line, mut yours, mut others) = (Vec::new(), String::new(), String::new());
        loop {
            if texts.len() > QUEUE / 2 {
                let _ = self.taken.1.recv_timeout(PATIENCE); // it talks faster than it listens: so wait
            }
            let room = LINE + 1 - line.len();
            match input.by_ref().take(room as u64).read_until(b'\n', &mut line) {
                Err(error) if !is_timeout(&error) => return Err(error),
                Err(_) if self.moved.swap(false, Relaxed) => continue,
                Err(_) => return Ok(SILENT),
                Ok(_) => {}
            }
            let end = match line.last() {
                Some(b'\n') => None,
                _ if line.len() > LINE => Some(TOO_LONG),
                _ => Some(""), // the FIN
            };
            if !line.is_empty() && end != Some(TOO_LONG) {
                let text = output::safe_line(&mem::take(&mut line));
                yours += &format!("[You] {text}\n");
                others += &format!("[{}] {text}\n", self.addr);
            }
            // Several lines that have come at once are one text, unless it gets too long.
            let done = end.is_some() || !input.buffer().contains(&b'\n') || others.len() > LINE;
            if done && !others.is_empty() {
                lock(&self.room).post(mem::take(&mut others), (self.id, mem::take(&mut yours)));
            }
            if let Some(last) = end {
                return Ok(last);
            }
        }
    }

    /// Writes what comes out of the queue, several short texts at once if they are there, until the
    /// client has left; then sends a FIN.
    fn write(&self, texts: &Receiver<Text>) -> io::Result<()> {
        for text in texts {
            let mut data = text.to_string();
            while data.len() < LINE
                && let Ok(text) = texts.try_recv()
            {
                data += &text;
            }
            let _ = self.taken.0.try_send(());
            let written = (&*self.conn).write_all(data.as_bytes());
            written.or_else(|_| self.conn.shutdown(Shutdown::Both))?; // who does not hear is not heard
            self.moved.store(true, Relaxed);
        }
        self.conn.shutdown(Shutdown::Write)?;
        self.drain()
    }

    /// Takes what the client still sends, for a while: closing with unread input would send an RST,
    /// which destroys what is on its way.
    fn drain(&self) -> io::Result<()> {
        let (end, mut buffer) = (Instant::now() + PATIENCE, [0; 8 * 1024]);
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.conn.set_read_timeout(Some(left))?;
            if (&*self.conn).read(&mut buffer)? == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// Who is online. All that happens goes through here, one thing after the other.
struct Room {
    members: BTreeMap<u64, Member>,
    console: output::Console,
}

struct Member {
    addr: SocketAddr,
    conn: Arc<TcpStream>,
    queue: Sender<Text>,
}

impl Room {
    fn join(&mut self, id: u64, newcomer: Member) {
        let (addr, users) = (newcomer.addr, users(self.members.len() + 1));
        self.members.insert(id, newcomer);
        let connected = format!("Connected to the chat server ({users} online)\n");
        self.post(format!("New user {addr} entered ({users} online)\n"), (id, connected));
    }

    fn leave(&mut self, id: u64, last: &str) {
        if let Some(Member { addr, queue, .. }) = self.members.remove(&id) {
            let _ = queue.try_send(last.into());
            let users = users(self.members.len());
            self.post(format!("The user {addr} left ({users} online)\n"), (id, String::new()));
        }
    }

    /// Posts what `you` does, as you and as the others see it. It waits for nobody: the connection
    /// of who has a full queue is shut down, so that its thread lets it leave.
    fn post(&self, others: String, (you, yours): (u64, String)) {
        let (others, yours) = (Text::from(others), Text::from(yours));
        self.console.post(others.clone());
        for (id, member) in &self.members {
            let text = if *id == you { &yours } else { &others };
            if member.queue.try_send(text.clone()).is_err() {
                debug!("{}: does not read", member.addr);
                let _ = SockRef::from(&*member.conn).set_linger(Some(Duration::ZERO)); // an RST
                let _ = member.conn.shutdown(Shutdown::Both);
            }
        }
    }
}

fn users(online: usize) -> String {
    format!("{online} user{}", if online > 1 { "s" } else { "" })
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
