//! Gets one page from a web server: one HTTP/1.0 request, then everything up to the server's FIN.
//! It shows a protocol on top of the stream: lines up to an empty one, then a body that ends where
//! the connection ends. Still wrong: a connection for every page, as in the web of 1996.
//!
//! terminal 1: `python3 -m http.server 8000`
//! terminal 2: `cargo run -q -p webget -- localhost:8000 /labs.md`

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;

use clap::Parser;
use common::args::Target;
use common::{exit, net, output};

/// The longest head of an answer in bytes: one without end must not fill the memory.
const LONGEST_HEAD: u64 = 64 * 1024;

/// Gets one page from a web server and prints it
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    target: Target,
    /// Page to get
    #[arg(default_value = "/", value_parser = path)]
    path: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit::finish(net::connect(&args.target).and_then(|sock| get(&sock, &args)))
}

/// A path as it may stand in a request: a space or a line end there would end it.
fn path(text: &str) -> Result<String, String> {
    let wanted = "a path begins with / and has no spaces; other characters are %XX";
    let is_path = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_path.then(|| text.to_owned()).ok_or_else(|| wanted.to_owned())
}

fn get(mut sock: &TcpStream, Args { target, path }: &Args) -> io::Result<()> {
    sock.write_all(format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", target.server).as_bytes())?;
    let mut rfile = BufReader::new(sock);
    let head = receive_head(rfile.by_ref().take(LONGEST_HEAD))?;
    let is_whole = head.last().is_some_and(String::is_empty);
    let received = if is_whole { receive_body(rfile)? } else { 0 };
    let length = head.iter().find_map(|line| content_length(line));
    let status = head.first().map_or("nothing", String::as_str);
    match status.strip_prefix("HTTP/").and_then(|rest| rest.split(' ').nth(1)?.parse().ok()) {
        Some(_) if !is_whole => Err(exit::not_so("the head of the answer has no end")),
        Some(_) if length.is_some_and(|length| received < length) => Err(exit::left_early()),
        Some(100..400) => Ok(()),
        _ => Err(exit::not_so(format!("the server answers {status}"))),
    }
}

/// Receives the head of the answer: the status line and the other lines up to an empty one, which
/// is the last, if it comes.
fn receive_head(rfile: impl BufRead) -> io::Result<Vec<String>> {
    let mut head = Vec::new();
    for line in rfile.split(b'\n') {
        head.push(output::safe_line(&line?));
        if head.last().is_some_and(String::is_empty) {
            break;
        }
    }
    Ok(head)
}

fn content_length(line: &str) -> Option<u64> {
    let (name, value) = line.split_once(':')?;
    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
}

/// Receives the rest, up to the server's FIN, and prints it; returns the number of bytes.
fn receive_body(mut rfile: impl Read) -> io::Result<u64> {
    let (mut data, mut received) = ([0; 8192], 0);
    loop {
        match rfile.read(&mut data) {
            Ok(0) => return Ok(received),
            Ok(n) => {
                output::print(&data[..n])?;
                received += n as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
