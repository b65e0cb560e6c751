//! An uppercase server over TCP that is right but for the one thing that its name says.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{self, ExitCode};
use std::thread;
use std::time::Duration;

/// The things that can be wrong; with `right` nothing is.
pub const NAMES: &[&str] = &[
    "right",
    "answers-each-piece-alone",
    "changes-the-alphabet",
    "dies-of-a-reset",
    "drops-a-long-line",
    "never-closes",
    "one-at-a-time",
    "resets-after-the-answer",
    "serves-once",
    "waits-for-a-newline",
];

/// `mutants upper-tcp NAME HOST:PORT`.
pub fn main(name: &'static str, args: &[String]) -> ExitCode {
    let [addr, ..] = args else { return ExitCode::from(2) };
    match serve(name, addr) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(name: &'static str, addr: &str) -> io::Result<()> {
    let listener = TcpListener::bind(addr)?;
    loop {
        let (conn, _) = listener.accept()?;
        let serve = move || {
            let result = upper(name, &conn).and_then(|()| close(name, conn));
            if result.is_err() && name == "dies-of-a-reset" {
                process::exit(1);
            }
        };
        let served = thread::Builder::new().spawn(serve)?;
        if matches!(name, "one-at-a-time" | "serves-once") {
            let _ = served.join();
        }
        if name == "serves-once" {
            return Ok(());
        }
    }
}

fn upper(name: &str, mut conn: &TcpStream) -> io::Result<()> {
    let (mut sentence, mut buffer) = (Vec::new(), [0; 1024]);
    let mut fin = false;
    while !fin && !sentence.contains(&b'\n') {
        match conn.read(&mut buffer) {
            Ok(n) => {
                fin = n == 0;
                sentence.extend_from_slice(&buffer[..n]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        match name {
            "answers-each-piece-alone" => break,
            "drops-a-long-line" if sentence.len() > 64 * 1024 => return Ok(()),
            "waits-for-a-newline" if fin => return Ok(()),
            _ => {}
        }
    }
    if let Some(end) = sentence.iter().position(|byte| *byte == b'\n') {
        sentence.truncate(end + 1);
    }
    let answer = match name {
        "changes-the-alphabet" => String::from_utf8_lossy(&sentence).to_uppercase().into_bytes(),
        _ => sentence.to_ascii_uppercase(),
    };
    conn.write_all(&answer)
}

/// Closes after a FIN and a short look for more input, which would make the close an RST.
fn close(name: &str, conn: TcpStream) -> io::Result<()> {
    match name {
        "never-closes" => {
            std::mem::forget(conn);
            return Ok(());
        }
        "resets-after-the-answer" => return Ok(()),
        _ => {}
    }
    conn.shutdown(Shutdown::Write)?;
    conn.set_read_timeout(Some(Duration::from_millis(100)))?;
    let _ = io::copy(&mut conn.take(64 * 1024), &mut io::sink());
    Ok(())
}
