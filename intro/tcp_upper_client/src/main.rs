//! The uppercase client over TCP: connects, sends one sentence, prints the answer.
//! A stream has no message boundaries: the FIN (half-close) says that the sentence ends, and the
//! server's FIN that the answer does. The UDP client sends and receives one datagram instead.
//!
//! terminal 1: `cargo run -q -p tcp_upper_server`
//! terminal 2: `cargo run -q -p tcp_upper_client -- localhost:12000`

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;

use clap::Parser;
use common::args::Target;
use common::{exit, net, output};

/// The longest sentence in bytes: it is sent as a whole before any of the answer is received.
const LONGEST: u64 = 64 * 1024;

/// Sends a line of standard input to the server and prints it as it comes back
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    target: Target,
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit::finish(net::connect(&args.target).and_then(run))
}

fn run(sock: TcpStream) -> io::Result<()> {
    let sentence = input()?;
    let mut answer = ask(sock, &sentence)?;
    if answer.len() < sentence.len() {
        return Err(exit::left_early());
    }
    if answer != sentence.to_ascii_uppercase() {
        return Err(exit::not_so("the answer is not the sentence in upper case"));
    }
    if !answer.ends_with(b"\n") {
        answer.push(b'\n');
    }
    output::print([b"From Server: ", &answer[..]].concat())
}

/// One line of standard input, with its newline if it has one.
fn input() -> io::Result<Vec<u8>> {
    if io::stdin().is_terminal() {
        output::print("Input lowercase sentence: ")?;
    }
    let mut sentence = Vec::new();
    let mut stdin = io::stdin().lock().take(LONGEST + 1);
    stdin.read_until(b'\n', &mut sentence).map_err(exit::local("standard input"))?;
    match sentence.len() as u64 {
        0 => Err(exit::unusable("standard input holds no sentence")),
        1..=LONGEST => Ok(sentence),
        _ => Err(exit::unusable(format!("a sentence of at most {LONGEST} bytes is wanted"))),
    }
}

fn ask(mut sock: TcpStream, sentence: &[u8]) -> io::Result<Vec<u8>> {
    sock.write_all(sentence)?;
    sock.shutdown(Shutdown::Write)?; // a FIN: the sentence ends here
    let mut answer = Vec::new();
    sock.take(LONGEST + 1).read_to_end(&mut answer)?;
    Ok(answer)
}
