//! Many echo clients at once in one thread, and how fast the server answers them.
//! It shows that ten thousand connections need no ten thousand threads: each is a little state, and
//! a selector tells which of them can go on. Still wrong: it measures round trips, so each client
//! takes turns with the server; the state of `client_select` does not.
//!
//! `cargo run -q -p echoserv` in terminal 1, `cargo run -q -p clients_select -- :10007 3` in 2
#![expect(unsafe_code, reason = "a poller may not outlive the sockets in it")]

use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use common::args::ClientArgs;
use common::message::Messages;
use common::report::Report;
use common::{exit, net, output};
use polling::{Event, Events, Poller};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that are being set up at once: more would overrun the server's queue (listen(2)),
/// and a SYN that is dropped there is only sent again after a second.
const CONNECTING: usize = 64;
/// The longest wait, and the time after which every client is looked after.
const WAKE_UP: Duration = Duration::from_secs(1);

// The arguments that one client has not.
#[derive(Args)]
struct More {
    /// Number of clients
    #[arg(value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
}

fn main() -> ExitCode {
    let (args, More { clients }) = ClientArgs::parse_with(clap::command!(), 20, 2000);
    match prepare(&args, clients).and_then(|first| run(&args, clients as usize, first)) {
        Ok((clients, load)) => finish(&args, &clients, load),
        Err(error) => Report::new(&args.target.server).finish(&args, Err(error)),
    }
}

/// Checks what can be checked beforehand, and connects the first client: to which of the server's
/// addresses the others must connect is known then.
fn prepare(args: &ClientArgs, clients: u32) -> io::Result<TcpStream> {
    if clients > 1 && args.file.as_ref().is_some_and(|file| file.as_os_str() == "-") {
        return Err(exit::unusable("standard input can feed one client only"));
    }
    args.messages()?;
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
        let wanted = 16 + u64::from(clients) * if args.file.is_some() { 2 } else { 1 };
        let (soft, hard) = getrlimit(RLIMIT_NOFILE)?;
        if soft < wanted && setrlimit(RLIMIT_NOFILE, wanted, hard.max(wanted)).is_err() {
            let why = "descriptors are needed, and no more are allowed (ulimit -Hn) than";
            return Err(exit::unusable(format!("{wanted} {why} {hard}")));
        }
    }
    net::connect(&args.target)
}

/// Runs `count` clients to their end.
fn run(args: &ClientArgs, count: usize, first: TcpStream) -> io::Result<(Vec<Client>, Load)> {
    let addr = first.peer_addr()?;
    first.set_nonblocking(true)?;
    let mut clients = Vec::new(); // declared before the poller: closed after it
    let (poller, mut events, mut load) = (Poller::new()?, Events::new(), Load::new(Instant::now()));
    clients.push(Client::new(args, (first, Ok(())), &poller, 0)?);
    while load.ended < count {
        while clients.len() < count && clients.len() < load.decided + CONNECTING {
            clients.push(Client::new(args, connect(addr)?, &poller, clients.len())?);
        }
        events.clear();
        poller.wait(&mut events, Some(load.look_at.saturating_duration_since(Instant::now())))?;
        for event in events.iter() {
            clients[event.key].turn(Some(event), event.key, &poller, &mut load);
        }
        if Instant::now() >= load.look_at {
            load.look_at = Instant::now() + WAKE_UP.min(args.target.timeout);
            for (key, client) in clients.iter_mut().enumerate() {
                client.look_after(key, args.target.timeout, &poller, &mut load);
            }
            progress(load.ended, count);
        }
    }
    Ok((clients, load))
}

/// Begins to connect, which is decided when the socket is writable, and not before. An error here
/// is only "in progress", or the reason why the socket will turn out not to be connected.
fn connect(addr: SocketAddr) -> io::Result<(TcpStream, io::Result<()>)> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let begun = socket.connect(&addr.into());
    Ok((socket.into(), begun))
}

/// What a client is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    /// Sends a message, waits for it to come back, or for the next to be due.
    Talking,
    /// Has sent its FIN and waits for the server's.
    Finishing,
    Ended,
}

/// A client and all that belongs to it.
struct Client {
    sock: TcpStream,
    state: State,
    messages: Messages,
    /// The message on its way, how much of it has been sent, and how much is back.
    message: Vec<u8>,
    sent: usize,
    back: usize,
    /// When it set out, and when a byte moved last.
    start: Instant,
    progress: Instant,
    report: Report,
    result: io::Result<()>,
}

impl Client {
    fn new(
        args: &ClientArgs,
        (sock, result): (TcpStream, io::Result<()>),
        poller: &Poller,
        key: usize,
    ) -> io::Result<Self> {
        let client = Client {
            sock,
            state: State::Connecting,
            messages: args.messages()?,
            message: Vec::new(),
            sent: 0,
            back: 0,
            start: Instant::now(),
            progress: Instant::now(),
            report: Report::new(&args.target.server),
            result,
        };
        // SAFETY: a socket lives longer than the poller it is in, see run().
        unsafe { poller.add(&client.sock, Event::writable(key)) }?;
        Ok(client)
    }

    /// Does what `event` allows, or what is due without one, and says what it waits for next.
    fn turn(&mut self, event: Option<Event>, key: usize, poller: &Poller, load: &mut Load) {
        let result = self.step(event, load).and_then(|()| match self.state {
            State::Ended => Ok(()),
            _ => poller.modify(&self.sock, Event::new(key, true, self.sent < self.message.len())),
        });
        if result.is_err() || self.state == State::Ended {
            self.end(result, poller, load);
        }
    }

    fn end(&mut self, result: io::Result<()>, poller: &Poller, load: &mut Load) {
        let _ = poller.delete(&self.sock); // it will not be asked about any more
        let result = result.and_then(|()| self.report.judge());
        load.decided += usize::from(self.state == State::Connecting);
        load.ended += 1;
        (self.state, self.result) = (State::Ended, result);
    }

    fn step(&mut self, event: Option<Event>, load: &mut Load) -> io::Result<()> {
        if let Some(event) = event {
            self.progress = Instant::now();
            if self.state == State::Connecting {
                self.connected()?;
                load.connected();
            }
            if event.readable {
                self.receive(load)?;
            }
        }
        if self.state == State::Talking && self.message.is_empty() {
            self.next_message(load)?;
        }
        self.send()
    }

    /// Whether the socket is connected: it is not because it is writable.
    fn connected(&mut self) -> io::Result<()> {
        if let Some(error) = self.sock.take_error()? {
            return Err(error);
        }
        let begun = mem::replace(&mut self.result, Ok(()));
        self.sock.peer_addr().map_err(|error| begun.err().unwrap_or(error))?;
        self.state = State::Talking;
        Ok(())
    }

    /// Takes the next message if it is due; after the last one sends a FIN.
    fn next_message(&mut self, load: &mut Load) -> io::Result<()> {
        let pause = self.messages.due_in();
        if !pause.is_zero() {
            load.look_at = load.look_at.min(Instant::now() + pause);
            return Ok(());
        }
        self.progress = Instant::now(); // however long the pause was
        match self.messages.next() {
            Some(message) => {
                self.message = message?;
                self.report.sent(&self.message);
                (self.sent, self.back, self.start) = (0, 0, Instant::now());
            }
            None => {
                self.state = State::Finishing;
                self.sock.shutdown(Shutdown::Write)?;
            }
        }
        Ok(())
    }

    /// Sends what there is room for.
    fn send(&mut self) -> io::Result<()> {
        if self.sent < self.message.len() {
            match self.sock.write(&self.message[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives what is there. A message that is back as a whole has made its round trip.
    fn receive(&mut self, load: &mut Load) -> io::Result<()> {
        match self.sock.read(&mut load.buffer) {
            Ok(0) if self.state == State::Finishing => self.state = State::Ended,
            Ok(0) => return Err(exit::left_early()),
            Ok(n) => {
                self.report.received(&load.buffer[..n])?;
                self.back += n;
                if !self.message.is_empty() && self.back >= self.message.len() {
                    load.round_trip(self.start.elapsed());
                    self.message.clear();
                }
            }
            Err(error) if is_temporary(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Ends a client whose server is silent, and wakes one whose next message is due.
    fn look_after(&mut self, key: usize, silence: Duration, poller: &Poller, load: &mut Load) {
        match self.state {
            State::Ended => {}
            State::Talking if self.message.is_empty() => self.turn(None, key, poller, load),
            _ if self.progress.elapsed() < silence => {}
            _ => self.end(Err(exit::silent()), poller, load),
        }
    }
}

/// Whether a read or write has only to be tried again: being ready is a hint, not a promise.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// What is measured over all clients, and what they share.
struct Load {
    start: Instant,
    /// Clients that are connected or never will be, those that are, and when the last one was.
    decided: usize,
    connected: usize,
    connected_after: Duration,
    ended: usize,
    /// Round trips, when the last one ended, and how long the last million took.
    trips: usize,
    trips_after: Duration,
    took: Vec<Duration>,
    /// When to look after the clients that no event speaks of.
    look_at: Instant,
    buffer: Vec<u8>,
}

impl Load {
    fn new(start: Instant) -> Self {
        Load {
            start,
            decided: 0,
            connected: 0,
            connected_after: Duration::ZERO,
            ended: 0,
            trips: 0,
            trips_after: Duration::ZERO,
            took: Vec::new(),
            look_at: start,
            buffer: vec![0; 64 * 1024],
        }
    }

    fn connected(&mut self) {
        (self.decided, self.connected) = (self.decided + 1, self.connected + 1);
        self.connected_after = self.start.elapsed();
    }

    fn round_trip(&mut self, took: Duration) {
        match self.took.len() < 1_000_000 {
            true => self.took.push(took),
            false => self.took[self.trips % 1_000_000] = took,
        }
        (self.trips, self.trips_after) = (self.trips + 1, self.start.elapsed());
    }

    /// The figures, with their units in their names.
    fn json(mut self) -> serde_json::Value {
        self.took.sort_unstable();
        let took =
            |percent| self.took.get(self.took.len() * percent / 100).map(Duration::as_micros);
        let per_second =
            |n: usize, time: Duration| (n as f64 / time.as_secs_f64().max(1e-6)).round();
        json!({
            "connections": self.connected,
            "connections_per_second": per_second(self.connected, self.connected_after),
            "round_trips": self.trips,
            "round_trips_per_second": per_second(self.trips, self.trips_after),
            "p50_us": took(50).map(|us| us as u64),
            "p99_us": took(99).map(|us| us as u64),
        })
    }
}

/// Prints every client's report and the sum. The status is the worst of theirs.
fn finish(args: &ClientArgs, clients: &[Client], load: Load) -> ExitCode {
    let (mut text, mut status) = (String::new(), exit::OK);
    let (mut sent, mut received, mut complete) = (0, 0, 0);
    for (n, Client { report, result, .. }) in (1..).zip(clients) {
        if !args.quiet && !report.is_void(result.as_ref().err()) {
            text += &format!("client {n}\n{report}");
        }
        (sent, received) = (sent + report.totals().0, received + report.totals().1);
        match result {
            Ok(()) => complete += 1,
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: client {n}: {}", exit::text(error));
                status = status.max(exit::status(error));
            }
        }
    }
    text += &format!("all clients\ntotal ({sent}, {received})\n");
    text += &format!("verdict: every byte came back to {complete} of {} clients\n", clients.len());
    let load = load.json();
    if let Some(figures) = load.as_object() {
        figures.iter().for_each(|(name, value)| text += &format!("{name} {value}\n"));
    }
    if args.json {
        let reports: Vec<_> =
            clients.iter().map(|client| client.report.json(client.result.as_ref().err())).collect();
        let totals = json!({ "sent": sent, "received": received });
        let all =
            json!({ "clients": reports, "complete": complete, "totals": totals, "load": load });
        text = format!("{all}\n");
    }
    match output::print(text) {
        Ok(()) => ExitCode::from(status),
        error => exit::finish(error),
    }
}

/// Tells on a terminal how many clients have ended.
fn progress(ended: usize, clients: usize) {
    if io::stderr().is_terminal() {
        let end = if ended == clients { '\n' } else { '\r' };
        let _ = write!(io::stderr(), "{ended} of {clients} clients have ended{end}");
    }
}
