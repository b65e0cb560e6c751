//! The first socket program: `socket`, `connect`, `send`, `recv`, `close`, one by one, with the
//! socket's own and its peer's address after each step.
//! Still wrong: one `recv` may return a part of the reply; `echocli` reads on until all is there.
//!
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p first_client -- localhost:10007`

use std::io::{self, Read};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::builder::NonEmptyStringValueParser;
use common::args::Target;
use common::{exit, net, output};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Sends TEXT to an echo server and receives once, showing each step of the socket API
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    target: Target,
    /// Text to send
    #[arg(default_value = "Hello, 대한민국!", value_parser = NonEmptyStringValueParser::new())]
    text: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit::finish(open(&args.target).and_then(|sock| exchange(sock, &args.text)))
}

/// Tries the server's addresses in turn.
fn open(Target { server, timeout }: &Target) -> io::Result<Socket> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in net::addresses(server)? {
        match connect(addr, *timeout) {
            Err(error) => last = error,
            connected => return connected,
        }
    }
    Err(last)
}

/// A socket is made for one family, IPv4 or IPv6: for another address another one is needed.
fn connect(addr: SocketAddr, timeout: Duration) -> io::Result<Socket> {
    let sock = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    show("socket", &sock, "")?;
    sock.connect_timeout(&addr.into(), timeout)
        .map_err(|error| io::Error::new(error.kind(), format!("connect to {addr}: {error}")))?;
    show("connect", &sock, "")?;
    sock.set_read_timeout(Some(timeout))?;
    Ok(sock)
}

fn exchange(mut sock: Socket, text: &str) -> io::Result<()> {
    let message = text.as_bytes();
    let n_sent = sock.send(message)?; // into the send buffer: nobody has received it yet
    show("send", &sock, &format!("{n_sent} bytes, {} characters", text.chars().count()))?;

    let mut buffer = [0; 1024];
    let n = sock.read(&mut buffer)?; // recv: socket2 calls it read() where the buffer is filled
    show("recv", &sock, &format!("{n} bytes: {}", String::from_utf8_lossy(&buffer[..n])))?;
    if buffer[..n] != *message {
        return Err(exit::not_so("the reply is not the message, or only a part of it"));
    }
    drop(sock); // close(): sends a FIN
    output::print("close    the system sends the rest, then a FIN\n")
}

fn show(step: &str, sock: &Socket, what: &str) -> io::Result<()> {
    let name = |addr: io::Result<SockAddr>| -> Option<SocketAddr> { addr.ok()?.as_socket() };
    let own = name(sock.local_addr()).map_or("none".to_owned(), |addr| addr.to_string());
    let peer = name(sock.peer_addr()).map_or("none".to_owned(), |addr| addr.to_string());
    output::print(format!("{step:<8} own {own}, peer {peer}  {what}\n"))
}
