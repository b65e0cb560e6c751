//! The chat of `chat_thread` with all clients in one thread: nothing blocks, nothing is locked.
//! It shows that a client is a little state: the line it has begun, the bytes on their way to it,
//! and whether it leaves. What happens in one thread has an order by itself. Standard output has a
//! thread of its own, since it cannot be waited for together with sockets everywhere.
//!
//! terminal 1: `cargo run -q -p chat_select`; 2: `cargo run -q -p chat_client -- localhost 3333`
#![expect(unsafe_code, reason = "a poller may not outlive the sockets in it")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::args::{Limits, ServerArgs};
use common::net::Listener;
use common::{exit, output};
use log::{debug, warn};
use polling::{Event, Events, PollMode, Poller};
use socket2::SockRef;

/// Bytes of the longest line, without its newline.
const LINE: usize = 64 * 1024;
/// Bytes of one read at most: what comes of it, with `[You]` before each line, fits into a queue.
const READ: usize = 8 * 1024;
/// Bytes that may wait for a client.
const QUEUE: usize = 2 << 20;
/// How long a client that leaves may take to read the rest, and to stop sending.
const PATIENCE: Duration = Duration::from_secs(5);
/// For ever, to a person.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn main() -> ExitCode {
    let (args, limits) = ServerArgs::parse_chat(clap::command!());
    exit::finish(serve(&args, limits))
}

fn serve(args: &ServerArgs, limits: Limits) -> io::Result<()> {
    let mut listener = args.listen(exit::farewell())?;
    output::print(format!("Chat Server started on port {}.\n", listener.local_addr()?.port()))?;
    let console = output::Console::start()?;
    listener.set_nonblocking(true)?;
    let (poller, clients) = (Poller::new()?, BTreeMap::new());
    let mut chat = Chat { poller, clients, online: 0, limits, console };
    // SAFETY: the listener lives longer than the chat and its poller.
    unsafe { chat.poller.add(&*listener, Event::none(0)) }?;
    chat.run(&mut listener, &mut vec![0; args.buffer.min(READ)])
}

struct Chat {
    poller: Poller, // the first to be dropped: it knows the sockets of the others
    clients: BTreeMap<usize, Client>,
    online: usize,
    limits: Limits,
    console: output::Console,
}

struct Client {
    conn: TcpStream,
    addr: SocketAddr,
    /// What has come of a line, and what is on its way to the client.
    line: Vec<u8>,
    unsent: VecDeque<u8>,
    /// Whether its socket is watched for input, and for room to write.
    interest: (bool, bool),
    /// When something came from it or went to it last, whether it leaves, whether its FIN has come.
    moved: Instant,
    left: bool,
    ended: bool,
}

impl Chat {
    fn run(&mut self, listener: &mut Listener, buffer: &mut [u8]) -> io::Result<()> {
        let mut events = Events::new();
        let mut pause = YEAR;
        for id in 1.. {
            // Out of descriptors, say: whoever waits to be accepted must not keep the loop spinning.
            self.poller.modify(&**listener, Event::new(0, pause == YEAR, false))?;
            let wait = self.settle()?.min(mem::replace(&mut pause, YEAR));
            events.clear();
            self.poller.wait(&mut events, Some(wait))?;
            for event in events.iter() {
                if event.key != 0 {
                    if event.readable {
                        self.hear(event.key, buffer);
                    }
                } else if let Err(error) = self.enter(listener, id) {
                    warn!("accept: {error}");
                    pause = Duration::from_millis(100);
                }
            }
        }
        Ok(())
    }

    /// Lets a newcomer in, if there is room.
    fn enter(&mut self, listener: &mut Listener, id: usize) -> io::Result<()> {
        let (mut conn, addr) = match listener.accept() {
            Err(error) if is_temporary(&error) => return Ok(()),
            result => result?,
        };
        conn.set_nonblocking(true)?;
        if self.online >= self.limits.max_clients {
            let _ = conn.write(b"Refused: the chat is full\n");
            let _ = conn.shutdown(Shutdown::Write);
            let _ = conn.read(&mut [0; LINE]); // closing with unread input would send an RST
            return Ok(());
        }
        let _ = conn.set_nodelay(true); // a line goes out at once, whether the last is ACKed or not
        // SAFETY: a client is deleted from the poller before its socket is closed.
        unsafe { self.poller.add_with_mode(&conn, Event::readable(id), PollMode::Level) }?;
        self.clients.insert(id, Client::new(conn, addr));
        self.online += 1;
        let users = users(self.online);
        let connected = format!("Connected to the chat server ({users} online)\n");
        self.post(format!("New user {addr} entered ({users} online)\n"), (id, &connected));
        Ok(())
    }

    /// Hears a client once: lines, a piece of one, its FIN.
    fn hear(&mut self, id: usize, buffer: &mut [u8]) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let n = match client.conn.read(buffer) {
            Err(error) if is_temporary(&error) => return,
            result => result.unwrap_or(0), // a reset is a way to leave as well
        };
        client.ended = n == 0;
        if client.left {
            return; // read, so that closing sends no RST, and not heard
        }
        client.moved = Instant::now();
        let mut end = (n == 0).then_some("");
        let (mut yours, mut others) = (String::new(), String::new());
        let last = n == 0 && !client.line.is_empty(); // the last line may end with the FIN
        let data = if last { b"\n" } else { &buffer[..n] };
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            client.line.extend(part);
            if client.line.len() > LINE + usize::from(part.ends_with(b"\n")) {
                end = Some("Refused: a line of more than 65536 bytes\n");
                break;
            }
            if part.ends_with(b"\n") {
                let text = output::safe_line(&mem::take(&mut client.line));
                yours += &format!("[You] {text}\n");
                others += &format!("[{}] {text}\n", client.addr);
            }
        }
        self.post(others, (id, &yours));
        if let Some(last) = end {
            self.leave(id, last);
        }
    }

    /// Lets a client go; it will still get what was posted before, and some last words.
    fn leave(&mut self, id: usize, last: &str) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.unsent.extend(last.as_bytes());
        client.left = true;
        self.online -= 1;
        let left = format!("The user {} left ({} online)\n", client.addr, users(self.online));
        self.post(left, (id, ""));
    }

    /// Posts what `you` does, as you and as the others see it. It waits for nobody: the connection
    /// of who has too much unsent is shut down, so that it will be heard to leave.
    fn post(&mut self, others: String, (you, yours): (usize, &str)) {
        for (id, client) in self.clients.iter_mut().filter(|(_, client)| !client.left) {
            if client.unsent.is_empty() {
                client.moved = Instant::now(); // it has from now on to take what is there
            }
            client.unsent.extend(if *id == you { yours } else { &others }.as_bytes());
            if client.unsent.len() > LINE && client.send().is_ok() && client.unsent.len() > QUEUE {
                debug!("{}: does not read", client.addr);
                client.unsent.clear();
                let _ = SockRef::from(&client.conn).set_linger(Some(Duration::ZERO)); // an RST
                let _ = client.conn.shutdown(Shutdown::Both);
            }
        }
        if !others.is_empty() {
            self.console.post(others.into());
        }
    }

    /// Lets go whoever has not moved for too long. Who reads slowly may have made room without an
    /// event: epoll tells of room only when a third of the send buffer is free. So try it first.
    fn dismiss_silent(&mut self, idle: Duration) {
        let mut silent = Vec::new();
        let is_due = |client: &Client| !client.left && client.due_in(idle).is_zero();
        for (id, client) in self.clients.iter_mut().filter(|(_, client)| is_due(client)) {
            let _ = client.send(); // an error will be heard as well
            if is_due(client) {
                silent.push(*id);
            }
        }
        for id in silent {
            self.leave(id, "Closed: nothing has moved for too long\n");
        }
    }

    /// Sends what there is room for, and closes what is at its end. Returns how long nothing is due.
    fn settle(&mut self) -> io::Result<Duration> {
        let idle = self.limits.idle_timeout.unwrap_or(YEAR);
        self.dismiss_silent(idle);
        let (mut wait, mut closing) = (YEAR, Vec::new());
        for (id, client) in &mut self.clients {
            let sent = client.send(); // an error of who is online will be heard as well
            if client.left && client.is_done(sent) {
                closing.push(*id);
                continue;
            }
            wait = wait.min(client.due_in(idle));
            // Who talks faster than it listens is not heard for a while; who asks for room without
            // having something to send is woken for ever.
            let waiting = client.unsent.len();
            let interest = (!client.ended && waiting < QUEUE / 2, waiting > 0);
            if mem::replace(&mut client.interest, interest) != interest {
                let event = Event::new(*id, interest.0, interest.1);
                self.poller.modify_with_mode(&client.conn, event, PollMode::Level)?;
            }
        }
        for client in closing.iter().filter_map(|id| self.clients.remove(id)) {
            self.poller.delete(&client.conn)?;
        }
        Ok(wait)
    }
}

impl Client {
    fn new(conn: TcpStream, addr: SocketAddr) -> Self {
        let (line, unsent, moved) = (Vec::new(), VecDeque::new(), Instant::now());
        Client {
            conn,
            addr,
            line,
            unsent,
            interest: (true, false),
            moved,
            left: false,
            ended: false,
        }
    }

    /// Sends what there is room for.
    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.conn.write(self.unsent.as_slices().0) {
                Err(error) if is_temporary(&error) => return Ok(()),
                result => drop(self.unsent.drain(..result?)),
            }
            self.moved = Instant::now();
        }
        Ok(())
    }

    /// When it is to leave if nothing moves, or to be closed: soon if it does not take what is there.
    fn due_in(&self, idle: Duration) -> Duration {
        let idle = if self.left { PATIENCE } else { idle };
        let most = if self.unsent.is_empty() { idle } else { PATIENCE.min(idle) };
        most.saturating_sub(self.moved.elapsed())
    }

    /// Whether it may be closed: it has all, the FIN too, and its own has come; or it is too late.
    fn is_done(&self, sent: io::Result<()>) -> bool {
        let finished = self.unsent.is_empty();
        if finished {
            let _ = self.conn.shutdown(Shutdown::Write);
        }
        sent.is_err() || finished && self.ended || self.due_in(PATIENCE).is_zero()
    }
}

fn users(online: usize) -> String {
    format!("{online} user{}", if online > 1 { "s" } else { "" })
}

/// Whether a read or write has only to be tried again: being ready is a hint, not a promise.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
