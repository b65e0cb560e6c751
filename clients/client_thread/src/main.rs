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
    received: Condvar,
}

/// What has become of the messages; when a byte moved last, and when one was received.
struct Progress {
    report: Report,
    last: Instant,
    heard: Instant,
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
    let progress = Mutex::new(Progress {
        report: report.clone(),
        last: Instant::now(),
        heard: Instant::now(),
    });
    let shared = Arc::new(Shared { sock, progress, received: Condvar::new() });
    let (sending, ends) = bounded(2);
    let (receiving, sender, receiver) = (sending.clone(), shared.clone(), shared.clone());
    thread::Builder::new().spawn(move || sending.send(End::Sent(sender.send(messages))))?;
    thread::Builder::new().spawn(move || receiving.send(End::Received(receiver.receive())))?;
    let result = shared.wait(&ends, silence);
    report.clone_from(&shared.progress().report);
    result
}

impl Shared {
    /// Waits until all is received, one of the threads fails, or both are stuck: a stuck thread
    /// cannot be joined, but the program can end without it.
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
                Err(_) if self.progress().last.elapsed() < silence => {}
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
            let wait = self.received.wait_timeout_while(progress, MOMENT, Progress::is_far_ahead);
            progress = wait.unwrap_or_else(PoisonError::into_inner).0;
            batch.messages().for_each(|message| progress.report.sent(message));
            drop(progress);
            for piece in batch.data.chunks(PIECE) {
                (&self.sock).write_all(piece)?;
                self.progress().last = Instant::now();
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
                    progress.heard = Instant::now();
                    progress.last = progress.heard;
                    self.received.notify_one();
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
    fn outstanding(&self) -> u64 {
        let (sent, received) = self.report.totals();
        sent.saturating_sub(received)
    }

    fn is_far_ahead(&mut self) -> bool {
        self.outstanding() > AHEAD && self.heard.elapsed() < MOMENT
    }
}
