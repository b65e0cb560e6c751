//! An echo client that receives once for each message it sends, and closes after the last one.
//! It shows that one send is not one receive: fewer bytes come back than were sent, now and then.
//! Still wrong, and here on purpose: what is on its way at the close is lost. `client_shutdown`
//! repairs it.
//!
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p client_wrong -- localhost:10007`

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;

use common::args::ClientArgs;
use common::message::Messages;
use common::report::Report;
use common::{exit, net};

fn main() -> ExitCode {
    let args = ClientArgs::parse(clap::command!(), 100, 1400);
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
        if receive(&mut sock, report)? == 0 {
            return Err(exit::left_early());
        }
    }
    Ok(())
}

/// Receives once; 0 bytes are the end of the stream. Tried again when a signal interrupts it: on a
/// socket with a time-out, Ctrl+Z and `fg` do (signal(7)).
fn receive(sock: &mut TcpStream, report: &mut Report) -> io::Result<usize> {
    let mut data = [0; 2048];
    let n = loop {
        match sock.read(&mut data) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    report.received(&data[..n])?;
    Ok(n)
}
