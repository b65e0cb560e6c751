//! An echo client that sends and receives at the same time: a thread for each direction.
//! It shows two streams that do not wait for each other, whatever the server's order. What the
//! threads do crosses a channel to a third, which alone reports, and alone tells what is silence.
//! Still wrong: a blocked thread cannot be called off, only left behind. `client_select` repairs it.
//!
//! `cargo run -q -p echoserv` in terminal 1, `cargo run -q -p client_thread -- localhost:10007` in 2

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use common::args::ClientArgs;
use common::message::Messages;
use common::report::Report;
use common::{exit, net};
use crossbeam_channel::{Sender, bounded};

/// Bytes that one write sends, and that one read may return.
const PIECE: usize = 64 * 1024;

/// What a thread does or has done.
enum Step {
    /// Sends these messages, from now on.
    Sends(Vec<Vec<u8>>),
    /// Has sent a piece of them.
    Sent,
    /// Has sent all there are, or has failed.
    SentAll(io::Result<()>),
    /// Has received these bytes.
    Received(Vec<u8>),
    /// Has received the server's FIN, or has failed.
    ReceivedAll(io::Result<()>),
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
    sock.set_read_timeout(None)?; // silence in one direction may be right, for however long
    sock.set_write_timeout(None)?;
    let (sending, steps) = bounded(8); // whoever is ahead waits: memory stays bounded
    let (outgoing, incoming) = (sock.try_clone()?, sock.try_clone()?);
    let receiving = sending.clone();
    let send = move || sending.send(Step::SentAll(send(outgoing, messages, &sending)));
    let receive = move || receiving.send(Step::ReceivedAll(receive(incoming, &receiving)));
    thread::Builder::new().name("send".to_owned()).spawn(send)?;
    thread::Builder::new().name("receive".to_owned()).spawn(receive)?;
    let mut finished = false;
    loop {
        match steps.recv_timeout(silence) {
            Ok(Step::Sends(messages)) => messages.iter().for_each(|message| report.sent(message)),
            Ok(Step::Sent) => {}
            Ok(Step::SentAll(result)) => {
                result.and_then(|()| sock.shutdown(Shutdown::Write))?; // a FIN
                finished = true;
            }
            Ok(Step::Received(data)) => report.received(&data),
            Ok(Step::ReceivedAll(Ok(()))) if !finished => return Err(exit::left_early()),
            Ok(Step::ReceivedAll(result)) => return result,
            Err(_) if !finished && report.totals().0 == report.totals().1 => {} // ours, not theirs
            Err(_) => return Err(exit::silent()),
        }
    }
}

/// Tells of messages before they go out: their echo may be back before the write returns.
fn send(mut sock: TcpStream, mut messages: Messages, steps: &Sender<Step>) -> io::Result<()> {
    while let Some(messages) = messages.batch(PIECE) {
        let messages = messages?;
        let data = messages.concat();
        steps.send(Step::Sends(messages)).map_err(io::Error::other)?;
        for piece in data.chunks(PIECE) {
            sock.write_all(piece)?;
            steps.send(Step::Sent).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn receive(mut sock: TcpStream, steps: &Sender<Step>) -> io::Result<()> {
    let mut data = vec![0; PIECE];
    loop {
        match sock.read(&mut data)? {
            0 => return Ok(()),
            n => steps.send(Step::Received(data[..n].to_vec())).map_err(io::Error::other)?,
        }
    }
}
