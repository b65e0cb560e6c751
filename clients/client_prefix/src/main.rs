//! An echo client that sends a type and a length before each message, and receives them back.
//! It shows how messages of any length and any bytes travel on a stream: the receiver knows how much
//! to wait for, and refuses an absurd length before it makes room for it. Still wrong: in turns
//! (`client_thread` repairs it).
//!
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p client_prefix -- localhost:10007`

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;

use common::args::ClientArgs;
use common::message::Messages;
use common::report::Report;
use common::{exit, net};

/// The type of a frame that holds a message.
const MESSAGE: u8 = b'M';
/// The longest message in bytes: more is taken for an error, not for a length.
const LONGEST: u32 = 16 << 20;

fn main() -> ExitCode {
    let args = ClientArgs::parse(clap::command!(), 20, 2000);
    let mut report = Report::new(&args.target.server);
    let result = args
        .messages()
        .and_then(|messages| echo(net::connect(&args.target)?, messages, &mut report));
    report.finish(&args, result)
}

fn echo(mut sock: TcpStream, messages: Messages, report: &mut Report) -> io::Result<()> {
    for message in messages {
        let message = message?;
        let length = u32::try_from(message.len()).ok().filter(|length| *length <= LONGEST);
        let length = length.ok_or_else(|| exit::unusable("a message too long for a frame"))?;
        let frame = [&[MESSAGE], &length.to_be_bytes()[..], &message].concat();
        report.sent(&frame);
        sock.write_all(&frame)?; // at once: a second small write would wait for an ACK (Nagle)
        receive_frame(&mut sock, report)?;
    }
    sock.shutdown(Shutdown::Write)?; // sends a FIN: the server reads 0, and we can still receive
    while receive(&mut sock, &mut [0; 2048], report)? > 0 {}
    Ok(())
}

/// Receives one frame: the type, the length as four bytes in network order, the message. An absurd
/// length is refused before there is room made for so many bytes.
fn receive_frame(sock: &mut TcpStream, report: &mut Report) -> io::Result<()> {
    let mut header = [0; 5];
    receive_exactly(sock, &mut header, report)?;
    let [kind, length @ ..] = header;
    let length = u32::from_be_bytes(length);
    if kind != MESSAGE || length > LONGEST {
        return Err(exit::not_so(format!("refused: a frame of type {kind:#04x}, {length} bytes")));
    }
    receive_exactly(sock, &mut vec![0; length as usize], report)
}

/// Receives until `data` is full, in however many pieces it comes.
fn receive_exactly(sock: &mut TcpStream, data: &mut [u8], report: &mut Report) -> io::Result<()> {
    let mut received = 0;
    while received < data.len() {
        match receive(sock, &mut data[received..], report)? {
            0 => return Err(exit::left_early()),
            n => received += n,
        }
    }
    Ok(())
}

/// Receives once; 0 bytes are the end of the stream. Tried again when a signal interrupts it: on a
/// socket with a time-out, Ctrl+Z and `fg` do (signal(7)).
fn receive(sock: &mut TcpStream, data: &mut [u8], report: &mut Report) -> io::Result<usize> {
    let n = loop {
        match sock.read(data) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    report.received(&data[..n])?;
    Ok(n)
}
