//! A chat server: a thread reads what a client says, another writes what it is to hear.
//! It shows that nobody waits for anybody: what is said goes into a bounded queue per client, and
//! who lets the queue fill is dropped. One lock makes one order of all that happens, the same for
//! everybody. Still wrong: two threads per client, most of them asleep. `chat_select` repairs it.
//!
//! terminal 1: `cargo run -q -p chat_thread`; 2: `cargo run -q -p chat_client -- localhost 3333`

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};
use std::{mem, thread};

use common::args::{Limits, ServerArgs};
use common::{exit, output};
use crossbeam_channel::{Receiver, Sender, bounded};
use log::{debug, warn};
use socket2::{SockRef, TcpKeepalive};

/// Bytes of the longest line, without its newline.
const LINE: usize = 64 * 1024;
/// Texts that may wait for a client. The queues share their texts: this bounds them all together.
const QUEUE: usize = 1024;
/// Texts that may wait for standard output, which may be as slow as any client.
const CONSOLE: usize = 16 * 1024;
/// Connections at most, two threads each: near 20 000 threads the process is aborted (measured).
const CONNECTIONS: usize = 4000;
/// When to ask a silent client whether it is still there: it may have vanished without a FIN.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// For ever, to a person.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a client may take nothing of what is sent to it, or go on sending when it must go.
const PATIENCE: Duration = Duration::from_secs(10);
/// The last words to a client that must go.
const TOO_LONG: &str = "Refused: a line of more than 65536 bytes\n";
const SILENT: &str = "Closed: nothing has moved for too long\n";

type Text = Arc<str>;

struct Chat {
    room: Mutex<Room>,
    limits: Limits,
    buffer_size: usize,
}

fn main() -> ExitCode {
    let (args, limits) = ServerArgs::parse_chat(clap::command!());
    exit::finish(serve(&args, limits))
}

fn serve(args: &ServerArgs, limits: Limits) -> io::Result<()> {
    let listener = args.listen(exit::farewell())?;
    output::print(format!("Chat Server started on port {}.\n", listener.local_addr()?.port()))?;
    let (console, texts) = bounded::<Text>(CONSOLE);
    Builder::new().spawn(move || texts.iter().all(|text| output::print(&*text).is_ok()))?;
    let room = Mutex::new(Room { members: BTreeMap::new(), console });
    let chat = Arc::new(Chat { room, limits, buffer_size: args.buffer });
    for id in 0.. {
        let entered = listener.accept().and_then(|(conn, peer)| enter(&chat, id, conn, peer));
        if let Err(error) = entered {
            // Out of descriptors or threads, say: the next may fare no better, so do not spin on it.
            warn!("accept: {error}");
            thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// Lets a newcomer in, in the order of their coming, and gives it a thread.
fn enter(chat: &Arc<Chat>, id: u64, conn: TcpStream, peer: SocketAddr) -> io::Result<()> {
    let online = chat.room().members.len();
    if online >= chat.limits.max_clients || Arc::strong_count(chat) > CONNECTIONS {
        conn.set_nonblocking(true)?; // it may not keep the others waiting
        let _ = (&conn).write(b"Refused: the chat is full\n");
        let _ = conn.shutdown(Shutdown::Write);
        let _ = (&conn).read(&mut [0; LINE]); // closing with unread input would send an RST
        return Ok(());
    }
    let _ = conn.set_write_timeout(Some(PATIENCE));
    let _ = conn.set_nodelay(true); // a line goes out at once, not after the ACK of the one before
    let _ = SockRef::from(&conn).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
    // An IPv4 client of a socket for both families goes by its IPv4 address.
    let addr = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let (conn, (queue, texts)) = (Arc::new(conn), bounded(QUEUE));
    chat.room().join(id, Member { addr, conn: conn.clone(), queue });
    let of_all = chat.clone();
    let spawned = Builder::new().spawn(move || of_all.attend(id, addr, &conn, &texts));
    spawned.map(drop).inspect_err(|_| chat.room().leave(id, ""))
}

impl Chat {
    fn room(&self) -> MutexGuard<'_, Room> {
        lock(&self.room)
    }

    /// Hears a client until it leaves; then it still gets all that was posted before.
    fn attend(&self, id: u64, addr: SocketAddr, conn: &TcpStream, texts: &Receiver<Text>) {
        let moved = Mutex::new(Instant::now()); // when something came from it or went to it last
        thread::scope(|scope| {
            let writer = Builder::new().spawn_scoped(scope, || {
                let written = write(conn, texts, &moved);
                written.or_else(|_| conn.shutdown(Shutdown::Both)) // what is said is not heard, either
            });
            let end = writer.and_then(|_| self.hear(id, addr, conn, &moved));
            debug!("{addr}: {end:?}");
            self.room().leave(id, end.unwrap_or_default()); // nobody posts any more: the writer ends
        });
        let _ = conn.shutdown(Shutdown::Write); // sends a FIN
        // Closing with unread input would send an RST and destroy what is on its way.
        let _ = conn.set_read_timeout(Some(PATIENCE));
        let _ = io::copy(&mut conn.take(1 << 24), &mut io::sink());
    }

    /// Hears a client to its FIN; returns the last words to it if it must go before.
    fn hear(
        &self,
        id: u64,
        addr: SocketAddr,
        conn: &TcpStream,
        moved: &Mutex<Instant>,
    ) -> io::Result<&str> {
        let idle = self.limits.idle_timeout.unwrap_or(YEAR);
        let mut input = BufReader::with_capacity(self.buffer_size, conn);
        let (mut line, mut yours, mut others) = (Vec::new(), String::new(), String::new());
        loop {
            let left = idle.saturating_sub(lock(moved).elapsed());
            conn.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match input.by_ref().take((LINE + 1 - line.len()) as u64).read_until(b'\n', &mut line) {
                Err(error) if !is_timeout(&error) => return Err(error),
                Err(_) if lock(moved).elapsed() >= idle => return Ok(SILENT),
                Err(_) => continue,
                Ok(_) => *lock(moved) = Instant::now(),
            }
            let end = match line.ends_with(b"\n") {
                true => None,
                false if line.len() > LINE => Some(TOO_LONG),
                false => Some(""), // the FIN
            };
            if !line.is_empty() && end != Some(TOO_LONG) {
                let text = text_of(&line);
                yours += &format!("[You] {text}\n");
                others += &format!("[{addr}] {text}\n");
                line.clear();
            }
            if end.is_some() || !input.buffer().contains(&b'\n') || others.len() > LINE {
                self.room().say(id, mem::take(&mut yours), mem::take(&mut others));
            }
            if let Some(last) = end {
                return Ok(last);
            }
        }
    }
}

/// Writes what comes out of the queue, several texts at once if they are there.
fn write(mut conn: &TcpStream, texts: &Receiver<Text>, moved: &Mutex<Instant>) -> io::Result<()> {
    for text in texts {
        let mut data = text.to_string();
        texts.try_iter().take(QUEUE).for_each(|text| data += &text);
        conn.write_all(data.as_bytes())?; // if it fails, the thread that hears finds out as well
        *lock(moved) = Instant::now();
    }
    Ok(())
}

/// Who is online. All that happens goes through here, one thing after the other.
struct Room {
    members: BTreeMap<u64, Member>,
    console: Sender<Text>,
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
        self.say(id, connected, format!("New user {addr} entered ({users} online)\n"));
    }

    /// Lets a client go, unless it was dropped before.
    fn leave(&mut self, id: u64, last: &str) {
        if let Some(Member { addr, queue, .. }) = self.members.remove(&id) {
            let _ = queue.try_send(last.into());
            self.post(self.left(addr), None);
        }
    }

    fn left(&self, addr: SocketAddr) -> Text {
        format!("The user {addr} left ({} online)\n", users(self.members.len())).into()
    }

    /// Posts what `id` does, as it and as the others see it, unless it was dropped before.
    fn say(&mut self, id: u64, yours: String, others: String) {
        if self.members.contains_key(&id) && !others.is_empty() {
            self.post(others.into(), Some((id, yours.into())));
        }
    }

    /// Posts a text to everybody, but `yours` to that one. It waits for nobody: whose queue is full is
    /// dropped, and that is the next text.
    fn post(&mut self, mut text: Text, mut yours: Option<(u64, Text)>) {
        let mut slow = BTreeSet::new();
        loop {
            let _ = self.console.try_send(text.clone()); // full: the lines are not printed
            for (id, member) in &self.members {
                let text = yours.as_ref().filter(|(you, _)| you == id).map_or(&text, |(_, it)| it);
                if member.queue.try_send(text.clone()).is_err() {
                    slow.insert(*id);
                }
            }
            let dropped = slow.pop_first().and_then(|id| self.members.remove(&id));
            let Some(Member { addr, conn, .. }) = dropped else { return };
            warn!("{addr} is dropped: it does not read");
            let _ = SockRef::from(&*conn).set_linger(Some(Duration::ZERO)); // an RST, not a FIN in the end
            let _ = conn.shutdown(Shutdown::Both); // wakes its threads
            (text, yours) = (self.left(addr), None);
        }
    }
}

fn users(online: usize) -> String {
    format!("{online} user{}", if online > 1 { "s" } else { "" })
}

/// A line as it may be shown; telnet's lines end with a carriage return as well.
fn text_of(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    output::safe(line.strip_suffix(b"\r").unwrap_or(line))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
