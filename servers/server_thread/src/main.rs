//! An echo server with a thread per connection: no client waits for another.
//! It shows that what serves one client may stay as simple as in `echoserv`: it blocks, but only
//! its own thread does. Over `--max-clients` a newcomer waits in the queue until somebody leaves.
//! Still wrong: a client that does nothing costs a thread and its stack; see `server_select`.
//!
//! `cargo run -q -p server_thread` in terminal 1, `cargo run -q -p clients -- :10007 5` in 2

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::args::{Limits, ServerArgs};
use common::exit;
use log::{debug, info, warn};

/// Bytes of a thread's stack: there may be ten thousand of them, and the system's 2 MiB are slower.
const STACK: usize = 64 * 1024;

fn main() -> ExitCode {
    let (args, limits) = ServerArgs::parse_with(clap::command!(), "localhost:10007");
    exit::finish(serve(args, limits))
}

fn serve(args: ServerArgs, limits: Limits) -> io::Result<()> {
    let mut listener = args.start()?;
    let (server, clients) = (thread::current(), Arc::new(())); // each client has a copy of both
    loop {
        while Arc::strong_count(&clients) > limits.max_clients {
            thread::park(); // until a thread that ends wakes us; the newcomers wait in the queue
        }
        match listener.accept() {
            Ok((conn, peer)) => {
                let (server, client) = (server.clone(), Arc::clone(&clients));
                let serve_client = move || {
                    info!("Connection from {peer}");
                    match echo(conn, args.buffer, limits.idle_timeout) {
                        Ok(()) => info!("Client closed {peer}"),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            warn!("Client lost {peer}: silent for too long");
                        }
                        Err(error) => warn!("Client lost {peer}: {error}"),
                    }
                    drop(client);
                    server.unpark();
                };
                let thread = thread::Builder::new().name(peer.to_string()).stack_size(STACK);
                if let Err(error) = thread.spawn(serve_client) {
                    warn!("Client sent away {peer}: {error}"); // dropped: conn is closed
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

fn echo(mut conn: TcpStream, buffer_size: usize, silence: Option<Duration>) -> io::Result<()> {
    conn.set_nodelay(true)?; // short answers go out at once, not after the ACK of the one before
    conn.set_read_timeout(silence)?;
    conn.set_write_timeout(silence)?;
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
