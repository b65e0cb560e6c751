//! The uppercase server over UDP: every datagram is answered in upper case, to where it came from.
//! One socket serves all clients: there is no connection, no accept, and nobody to wait for.
//! A datagram comes whole or not at all; what is longer than the buffer is cut, and logged.
//!
//! terminal 1: `cargo run -q -p udp_upper_server`
//! terminal 2: `cargo run -q -p udp_upper_client -- localhost:12000`

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use common::addr::HostPort;
use common::{exit, net, output};
use log::{debug, warn};

/// How a receive ends that has only to be tried again. (Windows: `ConnectionReset`.)
const PASSING: [ErrorKind; 3] =
    [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::Interrupted];

/// Answers every datagram in upper case
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address to receive at; :PORT is every interface, port 0 lets the system choose
    #[arg(value_name = "HOST:PORT", default_value = "localhost:12000")]
    here: HostPort,
    /// Bytes taken of one datagram; the rest of a longer one is lost
    #[arg(short, long, value_name = "BYTES", default_value = "65507")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    buffer: u16,
}

fn main() -> ExitCode {
    exit::finish(serve(&Args::parse()))
}

fn serve(args: &Args) -> io::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    exit::on_signal("")?;
    let sock = net::datagrams_at(&args.here)?;
    let started = format!("Server started: {}\n", sock.local_addr()?);
    output::print(started + "The server is ready to receive\n")?;
    let longest = usize::from(args.buffer);
    let mut buffer = vec![0; longest + 1]; // a datagram that fills the one byte more was cut
    loop {
        match sock.recv_from(&mut buffer) {
            Ok((n, client)) => {
                if n > longest {
                    let client = net::canonical(client);
                    warn!("A datagram from {client} was cut to {longest} bytes");
                }
                answer(&sock, &mut buffer[..n.min(longest)], client);
            }
            // What became of an earlier answer, whose client has gone; or a signal.
            Err(error) if PASSING.contains(&error.kind()) => debug!("receive: {error}"),
            Err(error) => {
                warn!("receive: {error}");
                thread::sleep(Duration::from_millis(100)); // do not spin on it
            }
        }
    }
}

fn answer(sock: &UdpSocket, message: &mut [u8], client: SocketAddr) {
    let shown = net::canonical(client);
    debug!("{} bytes from {shown}: {}", message.len(), message.escape_ascii());
    message.make_ascii_uppercase();
    if let Err(error) = sock.send_to(message, client) {
        warn!("No answer to {shown}: {error}");
    }
}
