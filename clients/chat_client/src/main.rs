//! A chat client: one thread sends the lines that are typed, another prints those that come.
//! It shows that talking and listening need not wait for each other. What comes may be hostile: no
//! byte of it commands the terminal. Still wrong: a line that comes while one is being typed takes
//! its place on the screen (it is sent as typed all the same).
//!
//! `cargo run -q -p chat_thread` in terminal 1, `cargo run -q -p chat_client -- localhost 3333` in 2

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;

use common::args::Target;
use common::{exit, net, output};

/// Bytes of a line that are handled at once: an endless line is not kept in memory.
const PIECE: u64 = 1 << 20;

fn main() -> ExitCode {
    exit::finish(chat(&Target::parse_chat(clap::command!())))
}

fn chat(target: &Target) -> io::Result<()> {
    let on_terminal = exit::is_terminal();
    exit::on_signal(exit::farewell())?;
    let sock = Arc::new(net::connect(target)?);
    sock.set_read_timeout(None)?; // in a chat nobody need say anything
    let (sender, (ending, ended)) = (sock.clone(), mpsc::channel());
    thread::Builder::new().spawn(move || {
        let result = send(&sender, on_terminal);
        let how = if result.is_ok() { Shutdown::Write } else { Shutdown::Both };
        let _ = ending.send(result); // before the FIN: the server's answer to it must find this done
        sender.shutdown(how)
    })?;
    // The sending thread is not waited for: the keyboard may keep it waiting for ever.
    match (receive(&sock, on_terminal), ended.try_recv()) {
        (Ok(()), Ok(Ok(()))) => Ok(()),
        (Err(error), _) | (Ok(()), Ok(Err(error))) if !is_end(&error) => Err(error),
        _ => Err(exit::not_so("the chat server has ended the connection")),
    }
}

/// Sends what is typed, to the end of standard input.
fn send(mut sock: &TcpStream, on_terminal: bool) -> io::Result<()> {
    let (mut stdin, mut line) = (io::stdin().lock(), Vec::new());
    while stdin
        .by_ref()
        .take(PIECE)
        .read_until(b'\n', &mut line)
        .map_err(exit::local("standard input"))?
        > 0
    {
        if on_terminal && line.ends_with(b"\n") {
            // The typed line goes; the server sends it back with [You] in front.
            output::print(format!("\x1b[{}A\r\x1b[J", rows(&line)))?;
        }
        sock.write_all(&line)?;
        line.clear();
    }
    Ok(())
}

/// Prints what comes, to the server's FIN.
fn receive(sock: &TcpStream, on_terminal: bool) -> io::Result<()> {
    let (mut sock, mut line) = (BufReader::new(sock), Vec::new());
    loop {
        match sock.by_ref().take(PIECE).read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Err(error) if line.is_empty() => return Err(error),
            _ => {}
        }
        let clean = if on_terminal { "\r\x1b[K" } else { "" }; // of what is being typed
        output::print(format!("{clean}{}\n", output::safe_line(&line)))?;
        line.clear();
    }
}

/// Whether the connection is gone, without or in spite of a FIN.
fn is_end(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    let kinds = [BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected];
    error.get_ref().is_none() && kinds.contains(&error.kind())
}

/// The rows of the terminal that `line` takes up.
#[cfg(unix)]
fn rows(line: &[u8]) -> usize {
    use unicode_width::UnicodeWidthChar;
    let size = rustix::termios::tcgetwinsize(io::stdout());
    let columns = size.map_or(0, |size| size.ws_col.into());
    let width = |c: char| c.width().unwrap_or(2); // ^A
    let text = String::from_utf8_lossy(line);
    let wide: usize = text.trim_end_matches('\n').chars().map(width).sum();
    if columns > 0 { wide.max(1).div_ceil(columns) } else { 1 }
}

#[cfg(not(unix))]
fn rows(_: &[u8]) -> usize {
    1
}
