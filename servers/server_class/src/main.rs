//! An echo server on a little framework: `TcpServer` accepts, starts a thread per connection and
//! looks after errors; a `Handler` is one service, and knows nothing of all that.
//! It shows what all servers of part 3 share, and how little a service adds: `--service upper`.
//! Still wrong: the framework decides on threads. `server_select` shows the other decision.
//!
//! `cargo run -q -p server_class` in terminal 1, `cargo run -q -p clients -- :10007 5` in 2

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueEnum};
use common::args::{Limits, ServerArgs};
use common::exit;
use common::net::Listener;
use log::{debug, info, warn};

/// Bytes of a thread's stack: there may be ten thousand of them, and the system's 2 MiB are slower.
const STACK: usize = 64 * 1024;

// The argument that the other servers have not.
#[derive(Args)]
struct More {
    /// What is done for a client
    #[arg(long, value_enum, default_value_t = Service::Echo)]
    service: Service,
    #[command(flatten)]
    limits: Limits,
}

#[derive(Clone, Copy, ValueEnum)]
enum Service {
    /// Everything comes back as it is
    Echo,
    /// Everything comes back in upper case (ASCII)
    Upper,
}

fn main() -> ExitCode {
    let (args, More { service, limits }) =
        ServerArgs::parse_with(clap::command!(), "localhost:10007");
    exit::finish(serve(&args, service, limits))
}

fn serve(args: &ServerArgs, service: Service, limits: Limits) -> io::Result<()> {
    let handler = match service {
        Service::Echo => || Box::new(Echo) as Box<dyn Handler>,
        Service::Upper => || Box::new(Upper) as Box<dyn Handler>,
    };
    TcpServer { listener: args.start()?, buffer_size: args.buffer, limits, handler }.serve_forever()
}

struct Echo;

impl Handler for Echo {
    fn handle(&mut self, rfile: &mut dyn BufRead, wfile: &mut dyn Write) -> io::Result<()> {
        each_piece(rfile, |data| wfile.write_all(data))
    }
}

struct Upper;

impl Handler for Upper {
    fn handle(&mut self, rfile: &mut dyn BufRead, wfile: &mut dyn Write) -> io::Result<()> {
        each_piece(rfile, |data| wfile.write_all(&data.to_ascii_uppercase()))
    }
}

/// Hands on what comes, as it comes, to the client's FIN.
fn each_piece(
    rfile: &mut dyn BufRead,
    mut answer: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let data = match rfile.fill_buf() {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        };
        if data.is_empty() {
            return Ok(());
        }
        debug!("{} bytes: {}", data.len(), data.escape_ascii());
        answer(data)?;
        let n = data.len();
        rfile.consume(n);
    }
}

/// A service: there is a handler of its own for each connection.
trait Handler {
    /// Comes before the first byte.
    fn setup(&mut self, conn: &TcpStream) -> io::Result<()> {
        conn.set_nodelay(true) // short answers go out at once, not after the ACK of the one before
    }

    /// The conversation: `rfile` is buffered, what is written to `wfile` is sent at once.
    fn handle(&mut self, rfile: &mut dyn BufRead, wfile: &mut dyn Write) -> io::Result<()>;

    /// Comes last, whatever has happened; then the connection is closed.
    fn finish(&mut self) {}
}

/// A server for any handler: what all the servers of this part have in common.
struct TcpServer {
    listener: Listener,
    buffer_size: usize,
    limits: Limits,
    handler: fn() -> Box<dyn Handler>,
}

impl TcpServer {
    fn serve_forever(&mut self) -> io::Result<()> {
        let (server, clients) = (thread::current(), Arc::new(())); // each client has a copy of both
        loop {
            while Arc::strong_count(&clients) > self.limits.max_clients {
                thread::park(); // until a thread that ends wakes us; newcomers wait in the queue
            }
            match self.listener.accept() {
                Ok((conn, peer)) => {
                    let (server, client) = (server.clone(), Arc::clone(&clients));
                    let (handler, buffer_size) = (self.handler, self.buffer_size);
                    let silence = self.limits.idle_timeout;
                    let serve_client = move || {
                        info!("Connection from {peer}");
                        match process(conn, buffer_size, silence, handler()) {
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
}

/// Serves one client by a handler of its own.
fn process(
    conn: TcpStream,
    buffer_size: usize,
    silence: Option<Duration>,
    mut handler: Box<dyn Handler>,
) -> io::Result<()> {
    conn.set_read_timeout(silence)?;
    conn.set_write_timeout(silence)?;
    let mut rfile = BufReader::with_capacity(buffer_size, &conn);
    let result = handler.setup(&conn).and_then(|()| handler.handle(&mut rfile, &mut &conn));
    handler.finish();
    result
}
