//! The uppercase server over TCP: the welcoming socket accepts a client and stays open; the
//! connection socket is for this client alone and is closed after one sentence.
//! TCP keeps no message boundaries: a sentence ends with its newline or the client's FIN, in
//! however many pieces it comes. Still wrong: one client at a time, as in `echoserv`.
//!
//! terminal 1: `cargo run -q -p tcp_upper_server`
//! terminal 2: `cargo run -q -p tcp_upper_client -- localhost:12000`

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use common::args::ServerArgs;
use common::exit;
use log::{debug, info, warn};

fn main() -> ExitCode {
    let args = ServerArgs::parse(clap::command!(), "localhost:12000");
    exit::finish(serve(&args))
}

fn serve(args: &ServerArgs) -> io::Result<()> {
    let mut listener = args.start()?;
    loop {
        match listener.accept() {
            Ok((conn, peer)) => {
                info!("Connection from {peer}");
                match upper(&conn, args.buffer).and_then(|()| close(conn)) {
                    Ok(()) => info!("Connection closed {peer}"),
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

fn upper(mut conn: &TcpStream, buffer_size: usize) -> io::Result<()> {
    conn.set_nodelay(true)?; // short answers go out at once, not after the ACK of the one before
    let mut buffer = vec![0; buffer_size];
    loop {
        let n = match conn.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let newline = buffer[..n].iter().position(|byte| *byte == b'\n');
        let sentence = &mut buffer[..newline.map_or(n, |at| at + 1)];
        debug!("{} bytes: {}", sentence.len(), sentence.escape_ascii());
        sentence.make_ascii_uppercase(); // the length stays: no other letters than a to z
        conn.write_all(sentence)?;
        if newline.is_some() {
            return Ok(());
        }
    }
}

/// Closes the connection after a FIN and a short look for more input: closing a socket with unread
/// input sends an RST, which destroys the answer on its way (RFC 9112 section 9.6).
fn close(conn: TcpStream) -> io::Result<()> {
    conn.shutdown(Shutdown::Write)?;
    conn.set_read_timeout(Some(Duration::from_millis(100)))?;
    let _ = io::copy(&mut conn.take(64 * 1024), &mut io::sink());
    Ok(())
}
