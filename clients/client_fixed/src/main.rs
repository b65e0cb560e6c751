//! An echo client whose messages have an agreed length: it receives exactly as much as it sent.
//! It shows the lecture's `MySocket`: a receive returns what is there, so it is repeated until the
//! message is whole. Still wrong: in turns (`client_thread` repairs it), and both sides must know
//! every length beforehand (`client_prefix` sends it along).
//!
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p client_fixed -- localhost:10007`

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;

use common::args::ClientArgs;
use common::message::Messages;
use common::report::Report;
use common::{exit, net};

fn main() -> ExitCode {
    let args = ClientArgs::parse(clap::command!(), 20, 2000);
    let mut report = Report::new(&args.target.server);
    let result = args
        .messages()
        .and_then(|messages| echo(net::connect(&args.target)?, messages, &mut report));
    report.finish(&args, result)
}

fn echo(mut sock: TcpStream, messages: Messages, report: &mut Report) -> io::Result<()> {
    for message in messages {
        let message = message?;
        report.sent(&message);
        sock.write_all(&message)?;
        receive_exactly(&mut sock, &mut vec![0; message.len()], report)?;
    }
    sock.shutdown(Shutdown::Write)?; // sends a FIN: the server reads 0, and we can still receive
    while receive(&mut sock, &mut [0; 2048], report)? > 0 {}
    Ok(())
}

/// Receives until `data` is full, in however many pieces it comes.
fn receive_exactly(sock: &mut TcpStream, data: &mut [u8], report: &mut Report) -> io::Result<()> {
    let mut received = 0;
    while received < data.len() {
        match receive(sock, &mut data[received..], report)? {
            0 => return Err(exit::left_early()),
            n => received += n,
        }
    }
    Ok(())
}

/// Receives once; 0 bytes are the end of the stream. Tried again when a signal interrupts it: on a
/// socket with a time-out, Ctrl+Z and `fg` do (signal(7)).
fn receive(sock: &mut TcpStream, data: &mut [u8], report: &mut Report) -> io::Result<usize> {
    let n = loop {
        match sock.read(data) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    report.received(&data[..n])?;
    Ok(n)
}
