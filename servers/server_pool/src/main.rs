//! An echo server with a fixed number of threads, each of which serves one client after another.
//! It shows that memory and switching are bounded however many clients come, and what that costs:
//! when all workers are busy a few connections wait in the channel, the others in the queue of
//! listen(2). Still wrong: a client that does nothing keeps a worker. `server_select` repairs it.
//!
//! `cargo run -q -p server_pool` in terminal 1, `cargo run -q -p clients -- :10007 20` in 2

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Args, value_parser};
use common::args::ServerArgs;
use common::exit;
use crossbeam_channel::{Receiver, bounded};
use log::{debug, info, warn};

// The argument that the other servers have not.
#[derive(Args)]
struct More {
    /// Threads, and so clients served at once
    #[arg(long, value_name = "N", default_value = "16")]
    #[arg(value_parser = value_parser!(u16).range(1..))]
    workers: u16,
}

fn main() -> ExitCode {
    let (args, More { workers }) = ServerArgs::parse_with(clap::command!(), "localhost:10007");
    exit::finish(serve(&args, workers))
}

fn serve(args: &ServerArgs, workers: u16) -> io::Result<()> {
    let (sender, conns) = bounded(workers.into());
    for n in 1..=workers {
        let (conns, buffer_size) = (conns.clone(), args.buffer);
        let thread = thread::Builder::new().name(format!("worker {n}"));
        thread.spawn(move || work(&conns, buffer_size))?;
    }
    let mut listener = args.start()?;
    loop {
        match listener.accept() {
            Ok(accepted) => sender.send(accepted).map_err(io::Error::other)?, // waits for room
            Err(error) => {
                // Out of descriptors, say: the client stays in the queue, so do not spin on it.
                warn!("accept: {error}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Serves one client after another, for as long as the server lives.
fn work(conns: &Receiver<(TcpStream, SocketAddr)>, buffer_size: usize) {
    for (conn, peer) in conns {
        info!("Connection from {peer}");
        match echo(conn, buffer_size) {
            Ok(()) => info!("Client closed {peer}"),
            Err(error) => warn!("Client lost {peer}: {error}"),
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
