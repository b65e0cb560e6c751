//! An echo client that sends and receives at the same time: a thread for each direction.
//! It shows two streams that do not wait for each other, whatever the server's order. How each came
//! to its end crosses a channel, so that the first is heard at once. Still wrong: a blocked thread
//! cannot be called off, only left behind. `client_select` repairs it.
//!
//! `cargo run -q -p echoserv` in terminal 1, `cargo run -q -p client_thread -- localhost:10007` in 2

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::args::ClientArgs;
use common::message::Messages;
use common::report::Report;
use common::{exit, net};
use crossbeam_channel::{Receiver, bounded};

/// Bytes that messages are collected to before they are sent, and that one read may return.
const PIECE: usize = 64 * 1024;

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
    let client = Arc::new(Client { sock, report: Mutex::new(report.clone()) });
    let (sending, ends) = bounded(2);
    let (receiving, sender, receiver) = (sending.clone(), client.clone(), client.clone());
    thread::Builder::new().spawn(move || sending.send(End::Sent(sender.send(messages))))?;
    thread::Builder::new().spawn(move || receiving.send(End::Received(receiver.receive())))?;
    let result = client.wait(&ends, silence);
    report.clone_from(&client.report());
    result
}

/// What the threads share.
struct Client {
    sock: TcpStream,
    report: Mutex<Report>,
}

impl Client {
    /// Waits until all is received, a thread fails, or nothing moves any more. No thread is joined: it
    /// may be blocked for ever, by the server or by standard input, and ends with the program.
    fn wait(&self, ends: &Receiver<End>, silence: Duration) -> io::Result<()> {
        let (mut finished, mut seen, mut since) = (false, (0, 0), Instant::now());
        loop {
            match ends.recv_timeout(silence / 4) {
                Ok(End::Sent(result)) => {
                    result.and_then(|()| self.sock.shutdown(Shutdown::Write))?; // sends a FIN
                    finished = true;
                }
                Ok(End::Received(Ok(()))) if !finished => return Err(exit::left_early()),
                Ok(End::Received(result)) => return result,
                Err(_) => {
                    let (sent, received) = self.report().totals();
                    if (sent, received) != seen || (!finished && sent == received) {
                        (seen, since) = ((sent, received), Instant::now());
                    } else if since.elapsed() >= silence {
                        return Err(exit::silent());
                    }
                }
            }
        }
    }

    fn send(&self, mut messages: Messages) -> io::Result<()> {
        let (mut data, mut more) = (Vec::new(), true);
        while more {
            let start = data.len();
            more = messages.append(&mut data)?;
            self.report().sent(&data[start..]);
            if !more || data.len() >= PIECE || !messages.is_ready() {
                (&self.sock).write_all(&data)?; // nothing is kept back while we wait for the next one
                data.clear();
            }
        }
        Ok(())
    }

    fn receive(&self) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            match (&self.sock).read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => self.report().received(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
