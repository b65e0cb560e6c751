//! An echo server with one thread for ten thousand clients, and none of them can harm another.
//! It shows the state that a thread would keep on its stack: what is still to be sent to whom.
//! Interest follows state: a client that does not read is not read from, either. A client's error
//! is its own. Over `--max-clients` a newcomer waits in the queue until somebody leaves.
//!
//! `cargo run -q -p server_select` in terminal 1, `cargo run -q -p clients -- :10007 5` in 2
#![expect(unsafe_code, reason = "a poller may not outlive the sockets in it")]

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::args::{Limits, ServerArgs};
use common::exit;
use common::net::Listener;
use log::{debug, info, warn};
use polling::{AsSource, Event, Events, PollMode, Poller};
use socket2::SockRef;

/// The key of the listening socket; the connections count from 1.
const LISTENER: usize = 0;
/// How many are accepted, and pieces received from one, while the others wait.
const IN_A_ROW: usize = 64;
/// Bytes that wait to be sent to a client before nothing more is read from it.
const HIGH_WATER: usize = 64 * 1024;
/// How often silent clients are looked for; how long nobody is accepted after accept(2) failed.
const TICK: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let (args, limits) = ServerArgs::parse_with(clap::command!(), "localhost:10007");
    exit::finish(serve(&args, limits))
}

fn serve(args: &ServerArgs, limits: Limits) -> io::Result<()> {
    let listener = args.start()?;
    listener.set_nonblocking(true)?;
    SockRef::from(&*listener).set_tcp_nodelay(true)?; // the connections inherit it
    let (poller, buffer, conns) = (Poller::new()?, vec![0; args.buffer], HashMap::new());
    // SAFETY: the fields of a server are dropped in their order, the poller last.
    unsafe { poller.add(&*listener, Event::none(LISTENER)) }?;
    let (accepted, pausing, now) = (0, false, Instant::now());
    Server { listener, conns, accepted, buffer, limits, pausing, now, poller }.run()
}

/// The sockets, and the selector that watches them.
struct Server {
    listener: Listener,
    conns: HashMap<usize, Conn>,
    /// How many there have been, which is the key of the last.
    accepted: usize,
    buffer: Vec<u8>,
    limits: Limits,
    /// Whether nobody is accepted for a moment.
    pausing: bool,
    /// When the selector returned, if anybody asks.
    now: Instant,
    poller: Poller,
}

impl Server {
    fn run(mut self) -> io::Result<()> {
        let (mut events, mut asked, mut looked) = (Events::new(), Event::none(LISTENER), self.now);
        loop {
            let has_room = self.conns.len() < self.limits.max_clients;
            let interest = Event::new(LISTENER, has_room && !self.pausing, false);
            ask(&self.poller, &*self.listener, interest, &mut asked)?;
            let is_timed = self.pausing || self.limits.idle_timeout.is_some();
            events.clear();
            self.poller.wait(&mut events, is_timed.then_some(TICK))?;
            if is_timed {
                self.now = Instant::now();
            }
            for event in events.iter() {
                match event.key {
                    LISTENER => self.accept(),
                    _ => self.echo(event),
                }
            }
            if self.now >= looked + TICK {
                (looked, self.pausing) = (self.now, false);
                self.close_silent();
            }
        }
    }

    fn accept(&mut self) {
        for _ in self.conns.len()..self.limits.max_clients.min(self.conns.len() + IN_A_ROW) {
            match self.listener.accept().and_then(|(sock, peer)| self.add(sock, peer)) {
                Ok(()) => {}
                Err(error) if is_temporary(&error) => return, // that was the last
                Err(error) => {
                    // It may still be in the queue: do not spin on it, but serve the others.
                    warn!("accept: {error}");
                    self.pausing = true;
                    return;
                }
            }
        }
    }

    fn add(&mut self, sock: TcpStream, peer: SocketAddr) -> io::Result<()> {
        info!("Connection from {peer}");
        sock.set_nonblocking(true)?;
        self.accepted += 1;
        let asked = Event::readable(self.accepted);
        // SAFETY: a connection is deleted from the poller before it is closed.
        unsafe { self.poller.add_with_mode(&sock, asked, mode(&self.poller)) }?;
        let unsent = VecDeque::new();
        let conn = Conn { sock, peer, unsent, ended: false, asked, active: self.now };
        self.conns.insert(self.accepted, conn);
        Ok(())
    }

    fn echo(&mut self, event: Event) {
        let Some(conn) = self.conns.get_mut(&event.key) else { return };
        conn.active = self.now;
        match conn.turn(event, &mut self.buffer, &self.poller) {
            Ok(false) => return,
            Ok(true) => info!("Client closed {}", conn.peer),
            Err(error) => warn!("Client lost {}: {error}", conn.peer),
        }
        self.close(event.key);
    }

    fn close(&mut self, key: usize) {
        if let Some(conn) = self.conns.remove(&key) {
            let _ = self.poller.delete(&conn.sock); // it will not be asked about any more
        }
    }

    fn close_silent(&mut self) {
        let Some(silence) = self.limits.idle_timeout else { return };
        self.conns.retain(|_, conn| {
            let mut is_silent = self.now.duration_since(conn.active) >= silence;
            if is_silent && conn.takes_more(&self.poller) {
                (conn.active, is_silent) = (self.now, false);
            }
            if is_silent {
                warn!("Client lost {}: silent for {silence:?}", conn.peer);
                let _ = self.poller.delete(&conn.sock);
            }
            !is_silent
        });
    }
}

/// A client, in a few bytes while it is silent.
struct Conn {
    sock: TcpStream,
    peer: SocketAddr,
    /// What is still to be sent to it.
    unsent: VecDeque<u8>,
    /// Whether its FIN has come.
    ended: bool,
    /// What the selector is asked about it.
    asked: Event,
    /// When it moved last.
    active: Instant,
}

impl Conn {
    /// Sends what waits, and receives while there is more and room for it; says whether that was all.
    fn turn(&mut self, event: Event, buffer: &mut [u8], poller: &Poller) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            self.send(&[])?;
        }
        let mut is_more = event.readable;
        for _ in 0..IN_A_ROW {
            if !is_more || !self.has_room() {
                break;
            }
            match self.sock.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(n) => {
                    debug!("{n} bytes: {}", buffer[..n].escape_ascii());
                    self.send(&buffer[..n])?;
                    is_more = n == buffer.len(); // to try costs one call, a turn of the poller five
                }
                Err(error) if is_temporary(&error) => is_more = false,
                Err(error) => return Err(error),
            }
        }
        if self.ended && self.unsent.is_empty() {
            return Ok(true);
        }
        let interest = Event::new(event.key, self.has_room(), !self.unsent.is_empty());
        ask(poller, &self.sock, interest, &mut self.asked)?;
        Ok(false)
    }

    /// Whether more may be received: it has not ended, and not too much is still to be sent.
    fn has_room(&self) -> bool {
        !self.ended && self.unsent.len() < HIGH_WATER
    }

    /// Whether more can be sent to it by now. Who reads slowly makes room without an event: epoll
    /// tells of room only when a third of the send buffer is free.
    fn takes_more(&mut self, poller: &Poller) -> bool {
        let waiting = self.unsent.len();
        let turned = self.turn(Event::writable(self.asked.key), &mut [], poller);
        turned.is_ok() && self.unsent.len() < waiting
    }

    /// Sends what there is room for, the oldest first. The rest waits until the socket is writable:
    /// `write_all` would fail there, and forget how far it came.
    fn send(&mut self, data: &[u8]) -> io::Result<()> {
        let none_waits = self.unsent.is_empty();
        let oldest = if none_waits { data } else { self.unsent.as_slices().0 };
        let sent = match self.sock.write(oldest) {
            Err(error) if is_temporary(&error) => 0,
            result => result?,
        };
        if none_waits {
            self.unsent.extend(&data[sent..]);
        } else {
            self.unsent.extend(data);
            self.unsent.drain(..sent);
        }
        if self.unsent.is_empty() {
            self.unsent.shrink_to_fit(); // who is silent needs no memory
        }
        Ok(())
    }
}

/// Asks the selector about a socket. What is level-triggered stays asked, other events come once.
fn ask(poller: &Poller, sock: impl AsSource, next: Event, asked: &mut Event) -> io::Result<()> {
    if next != *asked || mode(poller) == PollMode::Oneshot {
        poller.modify_with_mode(sock, next, mode(poller))?;
        *asked = next;
    }
    Ok(())
}

fn mode(poller: &Poller) -> PollMode {
    if poller.supports_level() { PollMode::Level } else { PollMode::Oneshot }
}

/// Whether a call has only to be made again: being ready is a hint, not a promise.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
