//! The chat of `chat_thread` with all clients in one thread: nothing blocks, nothing is locked.
//! It shows that a client is a little state: the line it has begun, the bytes on their way to it,
//! and whether it leaves. What happens in one thread has an order by itself. Standard output has a
//! thread of its own, since it cannot be waited for together with sockets everywhere.
//!
//! terminal 1: `cargo run -q -p chat_select`; 2: `cargo run -q -p chat_client -- localhost 3333`
#![expect(unsafe_code, reason = "a poller may not outlive the sockets in it")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread::Builder;
use std::time::{Duration, Instant};

use common::args::{Limits, ServerArgs};
use common::net::Listener;
use common::{exit, output};
use crossbeam_channel::{Sender, bounded};
use log::{debug, warn};
use polling::{Event, Events, PollMode, Poller};
use socket2::{SockRef, TcpKeepalive};

/// Bytes of the longest line, without its newline.
const LINE: usize = 64 * 1024;
/// Bytes of one read at most: what it brings, with all that is put before each line, must fit into
/// every queue.
const READ: usize = 8 * 1024;
/// Bytes that may wait for a client.
const QUEUE: usize = 2 << 20;
/// Texts that may wait for standard output, which may be as slow as any client.
const CONSOLE: usize = 16 * 1024;
/// When to ask a silent client whether it is still there: it may have vanished without a FIN.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long a client that leaves may take to read the rest, and to stop sending.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody is accepted after that has failed.
const PAUSE: Duration = Duration::from_millis(100);
/// For ever, to a person.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// The last words to a client that must go.
const TOO_LONG: &str = "Refused: a line of more than 65536 bytes\n";
const SILENT: &str = "Closed: nothing has moved for too long\n";

fn main() -> ExitCode {
    let (args, limits) = ServerArgs::parse_chat(clap::command!());
    exit::finish(serve(&args, limits))
}

fn serve(args: &ServerArgs, limits: Limits) -> io::Result<()> {
    let listener = args.listen(exit::farewell())?;
    output::print(format!("Chat Server started on port {}.\n", listener.local_addr()?.port()))?;
    let (console, texts) = bounded::<String>(CONSOLE);
    Builder::new().spawn(move || texts.iter().all(|text| output::print(text).is_ok()))?;
    listener.set_nonblocking(true)?;
    let (poller, clients) = (Poller::new()?, BTreeMap::new());
    let mut chat = Chat { poller, clients, online: 0, limits, console };
    // SAFETY: the listener lives longer than the chat and its poller.
    unsafe { chat.poller.add(&*listener, Event::none(0)) }?;
    chat.run(&listener, &mut vec![0; args.buffer.min(READ)])
}

struct Chat {
    poller: Poller, // the first to be dropped: it knows the sockets of the others
    clients: BTreeMap<usize, Client>,
    online: usize,
    limits: Limits,
    console: Sender<String>,
}

struct Client {
    conn: TcpStream,
    addr: SocketAddr,
    /// What has come of a line.
    line: Vec<u8>,
    /// What is on its way to it.
    unsent: VecDeque<u8>,
    /// Whether its socket is watched for input, and for room to write.
    interest: (bool, bool),
    /// Whether its FIN has come.
    ended: bool,
    /// When something came from it or went to it last; when it left.
    moved: Instant,
    left: Option<Instant>,
}

impl Chat {
    fn run(&mut self, listener: &Listener, buffer: &mut [u8]) -> io::Result<()> {
        let (mut events, mut failed) = (Events::new(), false);
        for id in 1.. {
            // Asked anew each turn, unless accepting has failed: the next would only fail as well.
            self.poller.modify(&**listener, Event::new(0, !failed, false))?;
            let pause = if failed { PAUSE } else { YEAR };
            let wait = self.settle()?.min(pause);
            events.clear();
            self.poller.wait(&mut events, Some(wait))?;
            failed = false;
            for event in events.iter() {
                if event.key != 0 {
                    self.hear(event.key, buffer);
                } else if let Err(error) = self.enter(listener, id) {
                    warn!("accept: {error}");
                    failed = true;
                }
            }
        }
        Ok(())
    }

    /// Lets a newcomer in, if there is room.
    fn enter(&mut self, listener: &Listener, id: usize) -> io::Result<()> {
        let (conn, peer) = match listener.accept() {
            Err(error) if is_temporary(&error) => return Ok(()),
            result => result?,
        };
        conn.set_nonblocking(true)?;
        if self.online >= self.limits.max_clients {
            let _ = (&conn).write(b"Refused: the chat is full\n");
            let _ = conn.shutdown(Shutdown::Write);
            let _ = (&conn).read(&mut [0; LINE]); // closing with unread input would send an RST
            return Ok(());
        }
        let _ = conn.set_nodelay(true); // a line goes out at once, not after the ACK of the one before
        let _ = SockRef::from(&conn).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        // An IPv4 client of a socket for both families goes by its IPv4 address.
        let addr = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        // SAFETY: a client is deleted from the poller before its socket is closed.
        unsafe { self.poller.add_with_mode(&conn, Event::readable(id), PollMode::Level) }?;
        let (line, unsent, moved) = (Vec::new(), VecDeque::new(), Instant::now());
        let (interest, ended, left) = ((true, false), false, None);
        let client = Client { conn, addr, line, unsent, interest, ended, moved, left };
        self.clients.insert(id, client);
        self.online += 1;
        let users = users(self.online);
        let connected = format!("Connected to the chat server ({users} online)\n");
        self.post(format!("New user {addr} entered ({users} online)\n"), Some((id, connected)));
        Ok(())
    }

    /// Hears a client once: lines, a piece of one, its FIN.
    fn hear(&mut self, id: usize, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let n = match (&client.conn).read(buffer) {
            Err(error) if is_temporary(&error) => return,
            Err(error) => {
                debug!("{}: {error}", client.addr);
                self.leave(id, "");
                return self.close(id);
            }
            Ok(n) => n,
        };
        (client.moved, client.ended) = (Instant::now(), n == 0);
        if client.left.is_some() {
            return; // what it still says is read, so that no RST is sent, and not heard
        }
        let (mut yours, mut others, mut end) = (String::new(), String::new(), None);
        for part in buffer[..n].split_inclusive(|byte| *byte == b'\n') {
            client.line.extend(part);
            let whole = part.ends_with(b"\n");
            if client.line.len() - usize::from(whole) > LINE {
                (client.line, end) = (Vec::new(), Some(TOO_LONG));
                break;
            }
            if whole {
                client.take_line(&mut yours, &mut others);
            }
        }
        if n == 0 {
            end = Some("");
            if !client.line.is_empty() {
                client.take_line(&mut yours, &mut others); // the last may end with the FIN
            }
        }
        if !others.is_empty() {
            self.post(others, Some((id, yours)));
        }
        if let Some(last) = end {
            self.leave(id, last);
        }
    }

    /// Posts a text to everybody, but `yours` to that one. It waits for nobody: whose queue is full is
    /// dropped, and that is the next text.
    fn post(&mut self, mut text: String, mut yours: Option<(usize, String)>) {
        let mut slow = BTreeSet::new();
        loop {
            for (id, client) in self.clients.iter_mut().filter(|(_, client)| client.left.is_none())
            {
                let text = yours.as_ref().filter(|(you, _)| you == id).map_or(&text, |(_, it)| it);
                client.unsent.extend(text.as_bytes());
                if client.unsent.len() > LINE
                    && client.send().is_ok()
                    && client.unsent.len() > QUEUE
                {
                    slow.insert(*id);
                }
            }
            let _ = self.console.try_send(text); // full: the lines are not printed
            let Some(id) = slow.pop_first() else { return };
            let Some(client) = self.clients.get_mut(&id) else { return };
            warn!("{} is dropped: it does not read", client.addr);
            let _ = SockRef::from(&client.conn).set_linger(Some(Duration::ZERO)); // an RST, not a FIN
            self.online -= 1;
            (text, yours) = (left(client.addr, self.online), None);
            self.close(id);
        }
    }

    /// Lets a client go, with some last words to it, when all is sent that was posted before.
    fn leave(&mut self, id: usize, last: &str) {
        let Some(client) = self.clients.get_mut(&id).filter(|client| client.left.is_none()) else {
            return;
        };
        client.unsent.extend(last.as_bytes());
        client.left = Some(Instant::now());
        self.online -= 1;
        let text = left(client.addr, self.online);
        self.post(text, None);
    }

    fn close(&mut self, id: usize) {
        if let Some(client) = self.clients.remove(&id) {
            let _ = self.poller.delete(&client.conn);
        }
    }

    /// Sends what there is room for and closes what is at its end. Interest follows state: who asks
    /// for room without having something to send is woken for ever. Returns how long nothing is due.
    fn settle(&mut self) -> io::Result<Duration> {
        let idle = self.limits.idle_timeout.unwrap_or(YEAR);
        let silent = |client: &Client| client.left.is_none() && client.moved.elapsed() >= idle;
        let silent = self.clients.iter().filter(|(_, client)| silent(client)).map(|(id, _)| *id);
        for id in silent.collect::<Vec<_>>() {
            self.leave(id, SILENT);
        }
        let (mut wait, mut closing) = (YEAR, Vec::new());
        for (id, client) in &mut self.clients {
            let sent = client.send(); // an error of who is online will be heard as well
            let (since, patience) =
                client.left.map_or((client.moved, idle), |left| (left, PATIENCE));
            wait = wait.min(patience.saturating_sub(since.elapsed()));
            if client.left.is_some() {
                let done = client.unsent.is_empty();
                if done {
                    let _ = client.conn.shutdown(Shutdown::Write); // sends a FIN
                }
                if sent.is_err() || done && client.ended || since.elapsed() >= PATIENCE {
                    closing.push(*id);
                    continue;
                }
            }
            let interest = (!client.ended, !client.unsent.is_empty());
            if interest != client.interest {
                client.interest = interest;
                let event = Event::new(*id, interest.0, interest.1);
                self.poller.modify_with_mode(&client.conn, event, PollMode::Level)?;
            }
        }
        closing.into_iter().for_each(|id| self.close(id));
        Ok(wait)
    }
}

impl Client {
    /// Takes the line that is complete, as the client and as the others will see it.
    fn take_line(&mut self, yours: &mut String, others: &mut String) {
        let text = text_of(&mem::take(&mut self.line));
        *yours += &format!("[You] {text}\n");
        *others += &format!("[{}] {text}\n", self.addr);
    }

    /// Sends what there is room for.
    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match (&self.conn).write(self.unsent.as_slices().0) {
                Ok(n) => drop(self.unsent.drain(..n)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.moved = Instant::now();
        }
        Ok(())
    }
}

fn left(addr: SocketAddr, online: usize) -> String {
    format!("The user {addr} left ({} online)\n", users(online))
}

fn users(online: usize) -> String {
    format!("{online} user{}", if online > 1 { "s" } else { "" })
}

/// A line as it may be shown; telnet's lines end with a carriage return as well.
fn text_of(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    output::safe(line.strip_suffix(b"\r").unwrap_or(line))
}

/// Whether a read or write has only to be tried again: being ready is a hint, not a promise.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
