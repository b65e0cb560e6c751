//! An echo server: whatever a client sends goes back to it, until the client sends a FIN.
//! Still wrong, and the reason for part 3: it serves one client at a time. The others are
//! connected (the system did that) but nobody accepts them before the first has gone.
//!
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p echocli -- localhost:10007`

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use common::args::ServerArgs;
use common::exit;
use log::{debug, info, warn};

fn main() -> ExitCode {
    let args = ServerArgs::parse(clap::command!(), "localhost:10007");
    exit::finish(serve(&args))
}

fn serve(args: &ServerArgs) -> io::Result<()> {
    let mut listener = args.start()?;
    loop {
        match listener.accept() {
            Ok((conn, peer)) => {
                info!("Connection from {peer}");
                match echo(conn, args.buffer) {
                    Ok(()) => info!("Client closed {peer}"),
                    Err(error) => warn!("Client lost {peer}: {error}"),
                }
            }
            Err(error) => {
                // Out of descriptors, say: the client stays in the queue, so do not spin on it.
                warn!("accept: {error}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn echo(mut conn: TcpStream, buffer_size: usize) -> io::Result<()> {
    conn.set_nodelay(true)?; // short answers go out at once, not after the ACK of the one before
    let mut buffer = vec![0; buffer_size];
    loop {
        match conn.read(&mut buffer) {
            Ok(0) => return Ok(()), // the client's FIN; dropping conn sends ours
            Ok(n) => {
                debug!("{n} bytes: {}", buffer[..n].escape_ascii());
                conn.write_all(&buffer[..n])?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
