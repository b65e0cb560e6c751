//! The grader as a client of a server under test: what it says, and what must come back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::check::Stop;
use crate::hang::Transport;
use crate::peer::{Incoming, Peer, Sent};
use crate::trial::{PATIENCE, Trial, fail};

/// Where servers under test listen.
pub const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long a server that has just broken a connection may take to be seen dead.
const DYING: Duration = Duration::from_millis(500);

/// Starts the server under test.
///
/// # Errors
/// As [`Trial::serve`].
pub fn start(trial: &mut Trial<'_>) -> Result<SocketAddr, Stop> {
    trial.serve(HOST, Transport::Tcp)
}

/// Connects to the server under test.
///
/// # Errors
/// There is no connection.
pub fn connect(trial: &mut Trial<'_>, server: SocketAddr) -> Result<Peer, Stop> {
    connect_with(trial, server, None)
}

/// As [`connect`], with a receive buffer of `buffer` bytes.
///
/// # Errors
/// As [`connect`].
pub fn connect_with(
    trial: &mut Trial<'_>,
    server: SocketAddr,
    buffer: Option<usize>,
) -> Result<Peer, Stop> {
    trial.connect(server, buffer).map_err(|stop| match stop {
        Stop::Failed(_) => server_ended(trial).unwrap_or(stop),
        stop => stop,
    })
}

/// Sends `question`, and waits for exactly `answer`.
///
/// # Errors
/// Anything else comes, or nothing.
pub fn ask(
    trial: &mut Trial<'_>,
    peer: &mut Peer,
    question: &[u8],
    answer: &[u8],
) -> Result<(), Stop> {
    say(trial, peer, question)?;
    hear(trial, peer, answer)
}

/// Sends `question`.
///
/// # Errors
/// It cannot be sent.
pub fn say(trial: &mut Trial<'_>, peer: &mut Peer, question: &[u8]) -> Result<(), Stop> {
    match peer.send(question, PATIENCE)? {
        Sent::All => Ok(()),
        Sent::Reset => Err(wrong(trial, peer, &Incoming::Reset, "it reads what is sent")),
        Sent::Stuck => Err(wrong(trial, peer, &Incoming::Silence, "it reads what is sent")),
    }
}

/// Waits for exactly `answer`.
///
/// # Errors
/// Anything else comes, or nothing.
pub fn hear(trial: &mut Trial<'_>, peer: &mut Peer, answer: &[u8]) -> Result<(), Stop> {
    let mut buffer = vec![0; 64 * 1024];
    let mut heard = 0;
    while heard < answer.len() {
        match peer.receive(&mut buffer, PATIENCE)? {
            Incoming::Data(n) => {
                same(&answer[heard..], &buffer[..n], heard)?;
                heard += n;
            }
            other => {
                let expected =
                    format!("an answer of {} bytes, of which {heard} have come", answer.len());
                return Err(wrong(trial, peer, &other, &expected));
            }
        }
    }
    Ok(())
}

/// Compares what came, after `before` bytes that were right, with what was `due`.
///
/// # Errors
/// It differs, or is more.
pub fn same(due: &[u8], came: &[u8], before: usize) -> Result<(), Stop> {
    if due.get(..came.len()) == Some(came) {
        return Ok(());
    }
    let at = came.iter().zip(due).position(|(came, due)| came != due);
    let at = at.unwrap_or(due.len().min(came.len()));
    let why = format!("The server's answer is wrong from byte {} on.", before + at);
    let shown = |bytes: &[u8]| {
        let rest = &bytes[at..];
        match rest.len() {
            0 => "nothing more".to_owned(),
            n => format!("\"{}\"", rest[..n.min(20)].escape_ascii()),
        }
    };
    Err(fail("E_WRONG_ANSWER", why, shown(due), shown(came)))
}

/// Sends a FIN and waits for the server's.
///
/// # Errors
/// Anything else comes, or nothing.
pub fn finish(trial: &mut Trial<'_>, peer: &mut Peer) -> Result<(), Stop> {
    peer.fin();
    fin(trial, peer, "a FIN from the server after the client's FIN")
}

/// Waits for the server's FIN.
///
/// # Errors
/// Anything else comes, or nothing.
pub fn fin(trial: &mut Trial<'_>, peer: &mut Peer, expected: &str) -> Result<(), Stop> {
    let mut buffer = [0; 1024];
    match peer.receive(&mut buffer, PATIENCE)? {
        Incoming::Fin => Ok(()),
        Incoming::Data(n) => same(&[], &buffer[..n], peer.received as usize - n),
        Incoming::Silence => {
            let why = "Everything is said, and the server does not close the connection.";
            Err(fail("E_NOT_CLOSED", why, expected, trial.explain(peer)))
        }
        Incoming::Reset => Err(wrong(trial, peer, &Incoming::Reset, expected)),
    }
}

/// What is wrong when, instead of what is `expected`, `came` comes.
pub fn wrong(trial: &mut Trial<'_>, peer: &Peer, came: &Incoming, expected: &str) -> Stop {
    if *came != Incoming::Silence
        && let Some(stop) = server_ended(trial)
    {
        return stop;
    }
    let (code, why, seen) = match came {
        Incoming::Silence => {
            let why = "The server does not answer a client.";
            ("E_NO_ANSWER", why, format!("nothing in {PATIENCE:?}; {}", trial.explain(peer)))
        }
        Incoming::Reset => {
            let why = "The server resets a connection of which everything is in order.";
            ("E_CLOSED_EARLY", why, "an RST".to_owned())
        }
        Incoming::Fin | Incoming::Data(_) => {
            let why = "The server closes a connection before it has answered everything.";
            ("E_CLOSED_EARLY", why, "a FIN".to_owned())
        }
    };
    fail(code, why, expected, seen)
}

/// That the server has ended, if it has.
pub fn server_ended(trial: &mut Trial<'_>) -> Option<Stop> {
    let ended = trial.has_ended(DYING)?;
    let why = "The server has ended; a server never stops by itself.";
    Some(fail("E_SERVER_ENDED", why, "it serves on", ended.last_words()))
}

/// `stop` with another name and another reason, if it is that a client was not answered.
pub fn because(stop: Stop, code: &'static str, why: &str) -> Stop {
    match stop {
        Stop::Failed(failure) if failure.code == "E_NO_ANSWER" => {
            fail(code, why, failure.expected, failure.seen)
        }
        stop => stop,
    }
}
