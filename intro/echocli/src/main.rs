//! An echo client: what is typed goes to the server, what comes back is printed, byte for byte.
//! It takes turns: having sent n bytes it receives until n bytes are back, in however many pieces.
//! Still wrong: while it waits for you to type it does not hear the server; `client_thread` does.
//!
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p echocli -- localhost:10007`

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;

use clap::Parser;
use common::args::Target;
use common::report::Report;
use common::{exit, net, output};

/// Sends standard input to an echo server and prints what comes back
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    target: Target,
    /// Report on stderr what was sent and received
    #[arg(long)]
    report: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut report = Report::new(&args.target.server);
    let result = net::connect(&args.target).and_then(|sock| echo(&sock, &mut report));
    if args.report && !report.is_void(result.as_ref().err()) {
        let _ = write!(io::stderr(), "{report}");
    }
    if result.is_ok() && report.totals() == (0, 0) {
        let _ = writeln!(io::stderr(), "note: standard input was empty: nothing was sent");
    }
    exit::finish(result.and_then(|()| report.judge()))
}

fn echo(mut sock: &TcpStream, report: &mut Report) -> io::Result<()> {
    let mut stdin = io::stdin().lock();
    loop {
        // One line when typed, otherwise what is there, so that a line without end is no trouble.
        let message = stdin.fill_buf().map_err(exit::local("standard input"))?;
        if message.is_empty() {
            break;
        }
        report.sent(message);
        sock.write_all(message)?;
        let n = message.len();
        if receive(sock.take(n as u64), report)? < n {
            return Err(exit::left_early());
        }
        stdin.consume(n);
    }
    sock.shutdown(Shutdown::Write)?; // a FIN: the server reads its end of file and ends, too
    receive(sock.take(u64::MAX), report).map(|_| ())
}

/// Prints what comes in until the end of `incoming`; returns the number of bytes.
fn receive(mut incoming: io::Take<&TcpStream>, report: &mut Report) -> io::Result<usize> {
    let (mut buffer, mut received) = ([0; 8192], 0);
    loop {
        match incoming.read(&mut buffer) {
            Ok(0) => return Ok(received),
            Ok(n) => {
                output::print(&buffer[..n])?;
                report.received(&buffer[..n])?;
                received += n;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
