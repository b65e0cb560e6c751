//! An echo server with one thread: the selector tells which sockets are ready, and each is served
//! by its callback, which never waits. It shows that many clients need no threads. Still wrong: a
//! client's error is the server's, and `write_all` hopes that it will not block: a client that
//! resets, or does not read, ends the server for all. `server_select` repairs both.
//!
//! `cargo run -q -p server_select0` in terminal 1, `cargo run -q -p clients -- :10007 5` in 2
#![expect(unsafe_code, reason = "a poller may not outlive the sockets in it")]

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;

use common::args::ServerArgs;
use common::exit;
use common::net::Listener;
use log::{debug, info};
use polling::{Event, Events, Poller};

/// The key of the listening socket; the connections count from 1.
const LISTENER: usize = 0;

fn main() -> ExitCode {
    let args = ServerArgs::parse(clap::command!(), "localhost:10007");
    let in_the_systems_words = |error: io::Error| io::Error::other(error.to_string());
    exit::finish(serve(&args).map_err(in_the_systems_words))
}

fn serve(args: &ServerArgs) -> io::Result<()> {
    let listener = args.start()?;
    listener.set_nonblocking(true)?;
    let (poller, buffer, conns) = (Poller::new()?, vec![0; args.buffer], HashMap::new());
    // SAFETY: the fields of a server are dropped in their order, the poller last.
    unsafe { poller.add(&*listener, Event::readable(LISTENER)) }?;
    Server { listener, conns, accepted: 0, buffer, poller }.run()
}

/// The sockets, and the selector that watches them.
struct Server {
    listener: Listener,
    conns: HashMap<usize, (TcpStream, SocketAddr)>,
    /// How many there have been, which is the key of the last.
    accepted: usize,
    buffer: Vec<u8>,
    poller: Poller,
}

impl Server {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::new();
        loop {
            events.clear();
            self.poller.wait(&mut events, None)?;
            for event in events.iter() {
                match event.key {
                    LISTENER => self.accept()?,
                    key => self.echo(key)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let (conn, peer) = self.listener.accept()?;
        info!("Connection from {peer}");
        conn.set_nonblocking(true)?;
        conn.set_nodelay(true)?;
        self.accepted += 1;
        // SAFETY: a connection is deleted from the poller before it is closed.
        unsafe { self.poller.add(&conn, Event::readable(self.accepted)) }?;
        self.conns.insert(self.accepted, (conn, peer));
        self.poller.modify(&*self.listener, Event::readable(LISTENER)) // an event is reported once
    }

    fn echo(&mut self, key: usize) -> io::Result<()> {
        let Some((conn, peer)) = self.conns.get_mut(&key) else { return Ok(()) };
        let n = conn.read(&mut self.buffer)?;
        if n == 0 {
            info!("Client closed {peer}");
            self.poller.delete(&*conn)?;
            self.conns.remove(&key);
            return Ok(());
        }
        debug!("{n} bytes: {}", self.buffer[..n].escape_ascii());
        conn.write_all(&self.buffer[..n])?; // hope it won't block
        self.poller.modify(&*conn, Event::readable(key))
    }
}
