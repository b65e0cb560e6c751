//! An echo client that sends and receives at the same time: a second thread does the sending.
//! It shows two streams that do not wait for each other, whatever the server's order; how the
//! sending came to its end crosses a channel. Still wrong: a blocked thread cannot be called off,
//! only left behind, so nobody joins the one that can wait for ever. `client_select` repairs it.
//!
//! `cargo run -q -p echoserv` in terminal 1, `cargo run -q -p client_thread -- localhost:10007` in 2

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::args::ClientArgs;
use common::message::Messages;
use common::report::Report;
use common::{exit, net};
use crossbeam_channel::{Receiver, bounded};
use socket2::SockRef;

/// Bytes that one read may return.
const CHUNK: usize = 64 * 1024;
/// Bytes that messages are collected to before they are sent: with short pieces the threads and the
/// server wake each other more often (measured: with 64 KiB it is slower by a tenth).
const PIECE: usize = 256 * 1024;
/// Bytes of messages that the system may hold, up to twice as many: far ahead of the echo, what is
/// sent only fills buffers, which is slower (measured: by a sixth). On a way of 100 ms it is too few
/// for more than some 2 MB/s.
const AHEAD: usize = 128 * 1024;

fn main() -> ExitCode {
    let args = ClientArgs::parse(clap::command!(), 100, 2000);
    let mut report = Report::new(&args.target.server);
    let result = args
        .messages()
        .and_then(|messages| echo(net::connect(&args.target)?, messages, &mut report));
    report.finish(&args, result)
}

fn echo(sock: TcpStream, messages: Messages, report: &mut Report) -> io::Result<()> {
    let silence = sock.read_timeout()?.unwrap_or(Duration::MAX);
    sock.set_read_timeout(Some(silence / 4))?; // to look whether the other direction goes on
    sock.set_write_timeout(None)?;
    SockRef::from(&sock).set_send_buffer_size(AHEAD)?;
    let report_now = Mutex::new(report.clone());
    let client = Arc::new(Client { sock, report: report_now, taken: AtomicUsize::new(0) });
    let (sender, (end, ended)) = (client.clone(), bounded(1));
    thread::Builder::new().spawn(move || {
        let result = sender.send(messages);
        let how = if result.is_ok() { Shutdown::Write } else { Shutdown::Both };
        let _ = end.send(result); // nobody listens any more: the receiver was first
        let _ = sender.sock.shutdown(how); // a FIN; Both: and the receiver reads 0, too
    })?;
    let result = client.receive(&ended, silence);
    report.clone_from(&client.report());
    result
}

/// What the threads share.
struct Client {
    sock: TcpStream,
    report: Mutex<Report>,
    /// Pieces that the system has taken to be sent.
    taken: AtomicUsize,
}

impl Client {
    fn send(&self, mut messages: Messages) -> io::Result<()> {
        loop {
            messages.gather(PIECE)?;
            self.report().sent_messages(messages.known());
            if messages.gathered().is_empty() {
                return Ok(());
            }
            for piece in messages.gathered().chunks(PIECE) {
                (&self.sock).write_all(piece)?;
                self.taken.fetch_add(1, Relaxed);
            }
        }
    }

    /// Receives to the end of the stream, or until nothing moves any more in either direction.
    fn receive(&self, ended: &Receiver<io::Result<()>>, silence: Duration) -> io::Result<()> {
        let (mut buffer, mut seen, mut since) = (vec![0; CHUNK], (0, 0), Instant::now());
        loop {
            match (&self.sock).read(&mut buffer) {
                Ok(0) => return ended.try_recv().unwrap_or_else(|_| Err(exit::left_early())),
                Ok(n) => self.report().received(&buffer[..n])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    let (sent, received) = self.report().totals();
                    let is_our_turn = ended.is_empty() && sent == received;
                    let moved = (self.taken.load(Relaxed), received);
                    if is_our_turn || moved != seen {
                        (seen, since) = (moved, Instant::now());
                    } else if since.elapsed() >= silence {
                        return Err(exit::silent());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
