//! An echo client that reads and writes its socket like a file: a line out, a line in.
//! It shows a buffered reader, which finds the end of a line in whatever pieces it comes, and a
//! buffered writer, which sends nothing before it is flushed. Still wrong: in turns, and lines only.
//! `client_thread` repairs the one, `client_fixed` and `client_prefix` the other.
//!
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p client_makefile -- localhost:10007`

use std::io::{self, BufRead, BufReader, BufWriter, Write};
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

fn echo(sock: TcpStream, messages: Messages, report: &mut Report) -> io::Result<()> {
    let mut rfile = BufReader::new(&sock);
    let mut wfile = BufWriter::new(&sock);
    for message in messages {
        let message = message?;
        report.sent(&message);
        wfile.write_all(&message)?;
        wfile.flush()?; // else the message stays in the buffer, and we wait for its echo for ever
        if receive(&mut rfile, message.len(), report)? == 0 {
            return Err(exit::left_early());
        }
    }
    sock.shutdown(Shutdown::Write)?; // sends a FIN: the server reads 0, and we can still receive
    while receive(&mut rfile, 2048, report)? > 0 {}
    Ok(())
}

/// Receives one line, of at most `length` bytes: one without end must not fill the memory.
fn receive(rfile: impl BufRead, length: usize, report: &mut Report) -> io::Result<usize> {
    let mut line = Vec::new();
    let result = rfile.take(length as u64).read_until(b'\n', &mut line);
    report.received(&line)?; // also what came before an error
    result
}
