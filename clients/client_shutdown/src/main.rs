//! An echo client that sends a FIN after its last message and then receives to the server's FIN.
//! It shows the half-close, the cause of what `client_wrong` loses: close ends both directions, and
//! what still arrives is thrown away; shutdown ends only ours. Still wrong: it sends and receives in
//! turns, so a server that answers only at the end stops both. `client_thread` repairs it.
//!
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p client_shutdown -- localhost:10007`

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
        if receive(&mut sock, report)? == 0 {
            return Err(exit::left_early());
        }
    }
    sock.shutdown(Shutdown::Write)?; // sends a FIN: the server reads 0, and we can still receive
    while receive(&mut sock, report)? > 0 {}
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
