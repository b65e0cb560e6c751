//! The uppercase client over UDP: one datagram there, one back. No connection: the server's address
//! goes with the datagram, and nothing tells whether it arrived, or whether anybody is there.
//! Still wrong: it waits for ever for an answer that was lost, and believes any sender.
//! `udp_upper_client_retry` repairs it.
//! terminal 1: `cargo run -q -p udp_upper_server`
//! terminal 2: `cargo run -q -p udp_upper_client -- localhost:12000`

use std::io::{self, IsTerminal};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use common::addr::HostPort;
use common::message::Messages;
use common::{exit, net, output};

/// No datagram is longer: its length is a number of 16 bits.
const LONGEST: usize = 65_535;

/// Sends one sentence as a datagram and prints the datagram that comes back
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Server to send to; `[::1]:7` for IPv6, `:7` for this machine
    #[arg(value_name = "HOST:PORT", value_parser = HostPort::of_server)]
    server: HostPort,
    /// The sentence [default: a line of standard input]
    #[arg(value_name = "TEXT")]
    text: Vec<String>,
}

fn main() -> ExitCode {
    exit::finish(run(&Args::parse()))
}

fn run(args: &Args) -> io::Result<()> {
    let (sock, server) = net::datagrams_to(&args.server)?;
    let message = input(args)?;
    let message = message.strip_suffix(b"\n").unwrap_or(&message);
    let answer = ask(&sock, server, message).map_err(exit::about(server))?;
    output::print([&answer[..], b"\n"].concat())
}

/// The sentence: the arguments, or a line of standard input.
fn input(args: &Args) -> io::Result<Vec<u8>> {
    if !args.text.is_empty() {
        return Ok(args.text.join(" ").into_bytes());
    }
    if io::stdin().is_terminal() {
        output::print("Input lowercase sentence: ")?;
    }
    let line = Messages::lines_of(Path::new("-"))?.next();
    line.unwrap_or_else(|| Err(exit::unusable("standard input holds no sentence")))
}

fn ask(sock: &UdpSocket, server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    sock.send_to(message, server)?;
    let mut buffer = vec![0; LONGEST];
    let (n, _) = sock.recv_from(&mut buffer)?;
    buffer.truncate(n);
    Ok(buffer)
}
