//! `client_makefile` as a type: its stream, its reader and its report are one value with a `run`.
//! It shows what a client is made of, so that a program can have several (`clients`), and another
//! kind of client is another `run`. Still wrong: in turns, and lines only.
//! `client_thread` repairs the one, `client_fixed` and `client_prefix` the other.
//!
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p client_class -- localhost:10007`

use std::io::{self, BufRead, BufReader, Read, Write};
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
    Client::new(&sock, report).run(messages)
}

/// A client and all that belongs to it: two of them share nothing.
struct Client<'a> {
    sock: &'a TcpStream,
    rfile: BufReader<&'a TcpStream>,
    report: &'a mut Report,
}

impl<'a> Client<'a> {
    fn new(sock: &'a TcpStream, report: &'a mut Report) -> Self {
        Client { sock, rfile: BufReader::new(sock), report }
    }

    fn run(mut self, messages: Messages) -> io::Result<()> {
        for message in messages {
            let message = message?;
            self.report.sent(&message);
            self.sock.write_all(&message)?; // whole: no buffer that would have to be flushed
            if self.receive(message.len())? == 0 {
                return Err(exit::left_early());
            }
        }
        self.sock.shutdown(Shutdown::Write)?; // sends a FIN: the server reads 0, and we can still receive
        while self.receive(2048)? > 0 {}
        Ok(())
    }

    /// Receives one line, of at most `length` bytes: one without end must not fill the memory.
    fn receive(&mut self, length: usize) -> io::Result<usize> {
        let mut line = Vec::new();
        let rfile = self.rfile.by_ref();
        let result = rfile.take(length as u64).read_until(b'\n', &mut line);
        self.report.received(&line)?; // also what came before an error
        result
    }
}
