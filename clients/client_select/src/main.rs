//! An echo client that sends and receives at the same time in one thread.
//! It shows a socket that never blocks and, when neither direction moves, a selector that waits for
//! both. Interest follows state: who asks for room without having something to send is woken for
//! ever. Still wrong: only the socket is waited for; a slow `--file -` stops both directions.
//!
//! `cargo run -q -p echoserv` in terminal 1, `cargo run -q -p client_select -- localhost:10007` in 2
#![expect(unsafe_code, reason = "a poller may not outlive the sockets in it")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::args::ClientArgs;
use common::message::Messages;
use common::report::Report;
use common::{exit, net};
use polling::{Event, Events, Poller};

/// Bytes that one read may return, and that messages are collected to before they are sent.
const CHUNK: usize = 64 * 1024;
/// Bytes that sending may be ahead while something comes back: more would only fill the buffers of
/// both systems, which is slower (measured: by a third).
const AHEAD: u64 = 512 * 1024;
/// How long a sender that is so far ahead waits, if nothing comes back.
const MOMENT: Duration = Duration::from_millis(10);
/// The longest wait: on some systems only a program that is awake hears of a signal.
const WAKE_UP: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = ClientArgs::parse(clap::command!(), 100, 2000);
    let mut report = Report::new(&args.target.server);
    let result = args
        .messages()
        .and_then(|messages| echo(net::connect(&args.target)?, messages, &mut report));
    report.finish(&args, result)
}

fn echo(sock: TcpStream, messages: Messages, report: &mut Report) -> io::Result<()> {
    let silence = sock.read_timeout()?.unwrap_or(Duration::MAX); // a non-blocking read has none
    sock.set_nonblocking(true)?;
    let poller = Poller::new()?;
    // SAFETY: `sock` is deleted from the poller before it is closed.
    unsafe { poller.add(&sock, Event::none(0)) }?;
    let client = Client {
        sock: &sock,
        messages,
        sent: 0,
        heard: Instant::now(),
        progress: Instant::now(),
        finished: false,
        report,
    };
    let result = client.run(&poller, silence);
    poller.delete(&sock)?;
    result
}

/// The state that a blocking client keeps in the place where it is blocked.
struct Client<'a> {
    sock: &'a TcpStream,
    messages: Messages,
    /// How many bytes of those gathered have been sent.
    sent: usize,
    /// When something was received last, and when anything moved.
    heard: Instant,
    progress: Instant,
    /// Whether the last message and the FIN have gone.
    finished: bool,
    report: &'a mut Report,
}

impl Client<'_> {
    fn run(mut self, poller: &Poller, silence: Duration) -> io::Result<()> {
        let (mut events, mut buffer) = (Events::new(), vec![0; CHUNK]);
        loop {
            let received = self.receive(&mut buffer)?;
            if received == Some(0) {
                return if self.finished { Ok(()) } else { Err(exit::left_early()) };
            }
            let pause = self.prepare()?;
            let sent = self.has_unsent() && self.send()?;
            if sent || received.is_some() {
                self.progress = Instant::now();
                continue; // there may be more: to try costs one call, a turn of the poller five
            }
            poller.modify(self.sock, Event::new(0, true, self.has_unsent()))?;
            events.clear();
            poller.wait(&mut events, Some(pause.min(silence)))?;
            let (sent, received) = self.report.totals();
            if self.progress.elapsed() >= silence && (self.finished || sent > received) {
                return Err(exit::silent());
            }
        }
    }

    /// When all before them have gone, takes the messages that are there; after the last one sends a
    /// FIN. Returns how long the next may be waited for.
    fn prepare(&mut self) -> io::Result<Duration> {
        let pause = self.messages.due_in();
        if self.has_unsent() || self.finished || !pause.is_zero() {
            return Ok(if pause.is_zero() { WAKE_UP } else { pause.min(WAKE_UP) });
        }
        let (sent, received) = self.report.totals();
        if sent > received + AHEAD && self.heard.elapsed() < MOMENT {
            return Ok(MOMENT);
        }
        self.messages.gather(CHUNK)?;
        self.report.sent_messages(self.messages.known());
        self.sent = 0;
        if !self.has_unsent() {
            (self.finished, self.progress) = (true, Instant::now());
            self.sock.shutdown(Shutdown::Write)?; // sends a FIN: the server reads 0
        }
        Ok(WAKE_UP)
    }

    fn has_unsent(&self) -> bool {
        self.sent < self.messages.gathered().len()
    }

    /// Sends what there is room for; says whether anything went. The rest is sent when the socket is
    /// writable again: `write_all` would fail there, and forget how far it came.
    fn send(&mut self) -> io::Result<bool> {
        let unsent = &self.messages.gathered()[self.sent..];
        match self.sock.write(&unsent[..unsent.len().min(CHUNK)]) {
            Ok(n) => {
                self.sent += n;
                Ok(true)
            }
            Err(error) if is_temporary(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Receives what is there, if anything is; says how much, with 0 for the end of the stream.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.sock.read(buffer) {
            Ok(n) => {
                self.heard = Instant::now();
                self.report.received(&buffer[..n])?;
                Ok(Some(n))
            }
            Err(error) if is_temporary(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a read or write has only to be tried again: being ready is a hint, not a promise.
fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
