//! The uppercase client over UDP that gets its answer: what is lost is sent again, after a time-out
//! that doubles. Its socket is connected: only the server's datagrams are received, and a dead port
//! is reported. An answer that is not this sentence's is a late or a doubled one of an earlier.
//! Two equal sentences in a row cannot be told apart, nor need they be: their answers are equal.
//! terminal 1: `cargo run -q -p udp_upper_server`
//! terminal 2: `cargo run -q -p udp_upper_client_retry -- localhost:12000`

use std::io::{self, ErrorKind, IsTerminal};
use std::iter;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use common::addr::HostPort;
use common::args::seconds;
use common::message::Messages;
use common::{exit, net, output};

/// No datagram is longer: its length is a number of 16 bits.
const LONGEST: usize = 65_535;

/// How a receive ends that has only to be tried again: its time is over (Windows: `TimedOut`), or a
/// signal came.
const PASSING: [ErrorKind; 3] =
    [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];

/// Sends each sentence as a datagram, again and again, until it is answered
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Server to send to; `[::1]:7` for IPv6, `:7` for this machine
    #[arg(value_name = "HOST:PORT", value_parser = HostPort::of_server)]
    server: HostPort,
    /// The sentence [default: each line of the file]
    #[arg(value_name = "TEXT")]
    text: Vec<String>,
    /// Send the lines of FILE; - is standard input
    #[arg(short, long, value_name = "FILE", default_value = "-", conflicts_with = "text")]
    file: PathBuf,
    /// Send again after so many seconds, then after twice as many, up to 8 times as many
    #[arg(long, value_name = "SECS", default_value = "0.1", value_parser = seconds)]
    timeout: Duration,
    /// Send again at most so often
    #[arg(long, value_name = "N", default_value = "15")]
    retries: u32,
}

fn main() -> ExitCode {
    exit::finish(run(&Args::parse()))
}

fn run(args: &Args) -> io::Result<()> {
    let (sock, server) = net::datagrams_to(&args.server)?;
    sock.connect(server)?; // sends nothing: from now on nobody else's datagrams come in
    for message in input(args)? {
        let message = message?;
        let message = message.strip_suffix(b"\n").unwrap_or(&message);
        let answer = ask(&sock, args, message).map_err(exit::about(server))?;
        output::print([&answer[..], b"\n"].concat())?;
    }
    Ok(())
}

/// The sentences: the arguments as one, or each line of the file.
fn input(args: &Args) -> io::Result<Box<dyn Iterator<Item = io::Result<Vec<u8>>>>> {
    if !args.text.is_empty() {
        return Ok(Box::new(iter::once(Ok(args.text.join(" ").into_bytes()))));
    }
    if args.file == Path::new("-") && io::stdin().is_terminal() {
        output::print("Input lowercase sentence: ")?;
    }
    Ok(Box::new(Messages::lines_of(&args.file)?))
}

fn ask(sock: &UdpSocket, args: &Args, message: &[u8]) -> io::Result<Vec<u8>> {
    let (wanted, mut buffer) = (message.to_ascii_uppercase(), vec![0; LONGEST]);
    for attempt in 0..=args.retries {
        sock.send(message)?;
        let end = Instant::now() + args.timeout * (1 << attempt.min(3));
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            sock.set_read_timeout(Some(left.max(Duration::from_millis(1))))?; // 0 is refused
            match sock.recv(&mut buffer) {
                Ok(n) if buffer[..n] == wanted => return Ok(buffer[..n].to_vec()),
                Ok(_) => {} // late, doubled or cut: the right one may still come
                Err(error) if PASSING.contains(&error.kind()) => {}
                Err(error) => return Err(error), // nobody is there: ICMP port unreachable
            }
        }
    }
    Err(exit::not_so("the server has not answered"))
}
