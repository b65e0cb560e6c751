//! Prints the messages that the clients of this part send: a number, a's, and a newline.
//! It shows what goes into their sockets: bytes, which any program can send.
//!
//! alone:      `cargo run -q -p msg -- -n 3 -l 20`
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p msg | cargo run -q -p echocli -- localhost:10007`

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use common::args::bytes;
use common::message::Messages;
use common::{exit, output};

/// Prints the messages that the clients of the lecture send
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Number of messages
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    count: u64,
    /// Bytes in each message: its number, a's, and a newline
    #[arg(short, long, value_name = "BYTES", default_value_t = 2000, value_parser = bytes)]
    length: usize,
    /// Wait so many milliseconds before each message
    #[arg(short, long, value_name = "MS", default_value_t = 0)]
    delay: u64,
}

fn main() -> ExitCode {
    exit::finish(print(&Args::parse()))
}

fn print(args: &Args) -> io::Result<()> {
    let shortest = Messages::shortest(args.count);
    if args.length < shortest {
        let why = format!("--length must be at least {shortest}: a number and a newline");
        return Err(exit::unusable(why));
    }
    let messages = Messages::new(args.count, args.length);
    for message in messages.each_after(Duration::from_millis(args.delay)) {
        output::print(message?)?;
    }
    Ok(())
}
