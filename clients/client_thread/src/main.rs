//! An echo client that sends and receives at the same time: a thread for each direction.
//! It shows two streams that do not wait for each other, whatever the server's order. How each came
//! to its end crosses a channel, so that the first is heard at once. Still wrong: a blocked thread
//! cannot be called off, only left behind. `client_select` repairs it.
//!
//! `cargo run -q -p echoserv` in terminal 1, `cargo run -q -p client_thread -- localhost:10007` in 2

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::args::ClientArgs;
use common::message::{Batch, Messages};
use common::report::Report;
use common::{exit, net};
use crossbeam_channel::{Receiver, bounded};

/// Bytes that one write sends, and that one read may return.
const PIECE: usize = 64 * 1024;
/// Bytes that sending may be ahead, while something comes back: more would only fill the buffers of
/// both systems, and the report with them.
const AHEAD: u64 = 512 * 1024;
/// How long a sender that is so far ahead waits, if nothing comes back.
const MOMENT: Duration = Duration::from_millis(10);
/// How often somebody looks whether bytes still move.
const WAKE_UP: Duration = Duration::from_secs(1);

/// What the two threads work with.
struct Shared {
    sock: TcpStream,
    progress: Mutex<Progress>,
    /// Tells the sender when something has been received.
    news: Condvar,
}

/// What has become of the messages, and when a byte was sent and received last.
struct Progress {
    report: Report,
    sent: Instant,
    received: Instant,
}

/// How a direction came to its end.
enum End {
    Sent(io::Result<()>),
    Received(io::Result<()>),
}

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
    sock.set_read_timeout(None)?; // one direction may wait as long as the other goes on
    sock.set_write_timeout(None)?;
    let now = Instant::now();
    let progress = Mutex::new(Progress { report: report.clone(), sent: now, received: now });
    let shared = Arc::new(Shared { sock, progress, news: Condvar::new() });
    let (sending, ends) = bounded(2);
    let (receiving, sender, receiver) = (sending.clone(), shared.clone(), shared.clone());
    thread::Builder::new().spawn(move || sending.send(End::Sent(sender.send(messages))))?;
    thread::Builder::new().spawn(move || receiving.send(End::Received(receiver.receive())))?;
    let result = shared.wait(&ends, silence);
    report.clone_from(&shared.progress().report);
    result
}

impl Shared {
    /// Waits until all is received, or a thread fails, or both are stuck. No thread is joined: it may
    /// be blocked for ever, by the server or by standard input, and ends with the program.
    fn wait(&self, ends: &Receiver<End>, silence: Duration) -> io::Result<()> {
        let mut finished = false;
        loop {
            match ends.recv_timeout(WAKE_UP.min(silence / 4)) {
                Ok(End::Sent(result)) => {
                    result.and_then(|()| self.sock.shutdown(Shutdown::Write))?; // sends a FIN
                    finished = true;
                }
                Ok(End::Received(Ok(()))) if !finished => return Err(exit::left_early()),
                Ok(End::Received(result)) => return result,
                Err(_) if self.progress().idle() < silence => {}
                Err(_) if !finished && self.progress().outstanding() == 0 => {}
                Err(_) => return Err(exit::silent()),
            }
        }
    }

    /// Reports messages before they go out: their echo may be back before the write returns.
    fn send(&self, mut messages: Messages) -> io::Result<()> {
        let mut batch = Batch::default();
        while messages.fill(&mut batch, PIECE)? {
            let mut progress = self.progress();
            let wait = self.news.wait_timeout_while(progress, MOMENT, Progress::is_far_ahead);
            progress = wait.unwrap_or_else(PoisonError::into_inner).0;
            batch.messages().for_each(|message| progress.report.sent(message));
            drop(progress);
            for piece in batch.data.chunks(PIECE) {
                (&self.sock).write_all(piece)?;
                self.progress().sent = Instant::now();
            }
        }
        Ok(())
    }

    fn receive(&self) -> io::Result<()> {
        let mut data = vec![0; PIECE];
        loop {
            match (&self.sock).read(&mut data) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    let mut progress = self.progress();
                    progress.report.received(&data[..n]);
                    progress.received = Instant::now();
                    self.news.notify_one();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn idle(&self) -> Duration {
        self.sent.max(self.received).elapsed()
    }

    fn outstanding(&self) -> u64 {
        let (sent, received) = self.report.totals();
        sent.saturating_sub(received)
    }

    fn is_far_ahead(&mut self) -> bool {
        self.outstanding() > AHEAD && self.received.elapsed() < MOMENT
    }
}
