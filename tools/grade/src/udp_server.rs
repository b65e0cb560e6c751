//! The suite for uppercase servers over UDP (lecture part 5): the grader is their clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use harness::Signal;
use wire::event::Direction;

use crate::check::{Check, Mutant, Stop, Suite};
use crate::hang::Transport;
use crate::trial::udp::{Came, Datagrams};
use crate::trial::{PATIENCE, Trial, fail};

/// The suite for uppercase servers over UDP.
pub static SUITE: Suite = Suite {
    name: "upper-udp-server",
    checks: &[
        Check {
            id: "upper",
            points: 2,
            meaning: "each datagram comes back in upper case, from the address that was asked",
            needs: &[],
            run: upper,
        },
        Check { id: "ipv6", points: 1, meaning: "the same on [::1]", needs: &[], run: ipv6 },
        Check {
            id: "empty",
            points: 1,
            meaning: "0 bytes are a datagram: it is answered, and so is the next",
            needs: &[],
            run: empty,
        },
        Check {
            id: "largest",
            points: 2,
            meaning: "a datagram of 65507 bytes is answered whole",
            needs: &[],
            run: largest,
        },
        Check {
            id: "clients",
            points: 2,
            meaning: "30 clients at once, interleaved: each gets its own answers",
            needs: &[],
            run: clients,
        },
        Check {
            id: "binary",
            points: 1,
            meaning: "all 256 bytes: a to z change, and nothing else",
            needs: &[],
            run: binary,
        },
        Check {
            id: "unreachable",
            points: 2,
            meaning: "clients that are gone when the answer comes: the others are served on",
            needs: &[],
            run: unreachable,
        },
        Check {
            id: "idle",
            points: 1,
            meaning: "no CPU while nothing comes",
            needs: &[],
            run: idle,
        },
        Check {
            id: "interrupt",
            points: 1,
            meaning: "ends on SIGINT with status 0; its port is free",
            needs: &[],
            run: interrupt,
        },
    ],
    options: &["{addr}"],
    mutant_options: &["{addr}"],
    mutant_client: &[],
    hints: &[],
    mutants: MUTANTS,
};

const MUTANTS: &[Mutant] = &[
    Mutant { name: "right", fails: &[] },
    Mutant { name: "answers-from-another-port", fails: ANSWERED },
    Mutant { name: "answers-the-first-client", fails: &["clients", "unreachable"] },
    Mutant { name: "busy-waits", fails: &["idle"] },
    Mutant { name: "dies-of-a-dead-client", fails: &["unreachable"] },
    Mutant { name: "echoes", fails: &["upper", "ipv6", "largest", "clients", "binary"] },
    Mutant { name: "ends-on-empty", fails: &["empty"] },
    Mutant { name: "ignores-empty", fails: &["empty"] },
    Mutant { name: "ignores-interrupt", fails: &["interrupt"] },
    Mutant { name: "interrupted-is-an-error", fails: &["interrupt"] },
    Mutant { name: "ipv4-only", fails: &["ipv6"] },
    Mutant { name: "lecture-buffer", fails: &["largest"] },
    Mutant { name: "text-only", fails: &["binary"] },
];

/// What fails if nothing is answered as it should be.
const ANSWERED: &[&str] =
    &["upper", "ipv6", "empty", "largest", "clients", "binary", "unreachable", "idle", "interrupt"];

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// Bytes of the longest datagram over IPv4: 65 535 less the headers of IP and UDP.
const LARGEST: usize = 65_507;

/// A client, recorded on its own.
fn client(trial: &Trial<'_>, host: IpAddr) -> Result<Datagrams, Stop> {
    Ok(trial.datagrams(host, Direction::ToServer, trial.connection())?)
}

/// Sends `message` and takes its answer.
fn ask(
    trial: &mut Trial<'_>,
    sock: &Datagrams,
    server: SocketAddr,
    message: &[u8],
) -> Result<(), Stop> {
    sock.send(message, server)?;
    answered(trial, sock, server, message)
}

/// Takes the answer to `message`, which must be the right one.
fn answered(
    trial: &mut Trial<'_>,
    sock: &Datagrams,
    server: SocketAddr,
    message: &[u8],
) -> Result<(), Stop> {
    let wanted = message.to_ascii_uppercase();
    let expected = format!("{} bytes: {}", wanted.len(), shown(&wanted));
    let (answer, from) = match trial.receive(sock, PATIENCE)? {
        Came::Datagram(answer, from) => (answer, from),
        Came::Gone => {
            let why = "The server has ended, though nobody told it to.";
            let ended = trial.end(PATIENCE)?.summary();
            return Err(fail("E_UDP_SERVER_ENDED", why, "it answers on, for ever", ended));
        }
        Came::Silence => {
            let why = format!("A datagram of {} bytes was not answered.", message.len());
            let seen = format!("nothing in {PATIENCE:?}; {}", trial.doing());
            return Err(fail("E_UDP_NO_ANSWER", why, expected, seen));
        }
    };
    sock.received(&answer);
    let seen = format!("{} bytes: {}", answer.len(), shown(&answer));
    if from != server {
        let why = "The answer comes from another address than the one that was asked: \
                   a client with a connected socket never sees it.";
        return Err(fail("E_UDP_SOURCE", why, format!("from {server}"), format!("from {from}")));
    }
    if answer.len() < wanted.len() && wanted.starts_with(&answer) {
        let why = "The datagram was cut: what the buffer had no room for is lost.";
        return Err(fail("E_UDP_CUT", why, expected, seen));
    }
    if answer != wanted {
        let why = "The answer is not the datagram in upper case.";
        return Err(fail("E_UDP_WRONG_ANSWER", why, expected, seen));
    }
    Ok(())
}

/// The beginning of `message` for a person.
fn shown(message: &[u8]) -> String {
    let first = message[..message.len().min(40)].escape_ascii();
    format!("{first}{}", if message.len() > 40 { "…" } else { "" })
}

fn upper(trial: &mut Trial<'_>) -> Result<(), Stop> {
    upper_on(trial, V4)
}

fn ipv6(trial: &mut Trial<'_>) -> Result<(), Stop> {
    if UdpSocket::bind((V6, 0)).is_err() {
        return Err(Stop::Skipped("this machine has no IPv6".to_owned()));
    }
    upper_on(trial, V6)
}

fn upper_on(trial: &mut Trial<'_>, host: IpAddr) -> Result<(), Stop> {
    let server = trial.serve(host, Transport::Udp)?;
    let sock = client(trial, host)?;
    for message in ["hello", "the quick brown fox, 42 times", "ALREADY", "a line\n", "x"] {
        ask(trial, &sock, server, message.as_bytes())?;
    }
    Ok(())
}

fn empty(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = trial.serve(V4, Transport::Udp)?;
    let sock = client(trial, V4)?;
    ask(trial, &sock, server, b"")?;
    ask(trial, &sock, server, b"2")
}

fn largest(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = trial.serve(V4, Transport::Udp)?;
    let sock = client(trial, V4)?;
    for length in [1472, 2049, LARGEST] {
        let message: Vec<u8> = (0..length).map(|n| b'a' + (n % 23) as u8).collect();
        ask(trial, &sock, server, &message)?;
    }
    Ok(())
}

fn clients(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const CLIENTS: usize = 30;
    let server = trial.serve(V4, Transport::Udp)?;
    let clients: Vec<_> = (0..CLIENTS).map(|_| client(trial, V4)).collect::<Result<_, _>>()?;
    for round in 0..3 {
        let message = |n: usize| format!("client {n}, round {round}").into_bytes();
        for (n, sock) in clients.iter().enumerate() {
            sock.send(&message(n), server)?;
        }
        for (n, sock) in clients.iter().enumerate().rev() {
            answered(trial, sock, server, &message(n))?;
        }
    }
    Ok(())
}

fn binary(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = trial.serve(V4, Transport::Udp)?;
    let sock = client(trial, V4)?;
    let all: Vec<u8> = (0..=255).collect();
    ask(trial, &sock, server, &all)?;
    ask(trial, &sock, server, b"\0\r\n\xff")
}

fn unreachable(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = trial.serve(V4, Transport::Udp)?;
    let sock = client(trial, V4)?;
    for _ in 0..5 {
        for _ in 0..5 {
            client(trial, V4)?.send_and_leave(b"GONE", server, sock.addr()?)?;
        }
        ask(trial, &sock, server, b"STILL THERE")?;
    }
    Ok(())
}

fn idle(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = trial.serve(V4, Transport::Udp)?;
    let sock = client(trial, V4)?;
    for message in [&b"1"[..], b"2"] {
        ask(trial, &sock, server, message)?;
        if let Some(seen) = trial.is_busy() {
            let why = "The server uses the CPU while there is nothing to do.";
            return Err(fail("E_BUSY_WAIT", why, "it waits", seen));
        }
    }
    Ok(())
}

fn interrupt(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = trial.serve(V4, Transport::Udp)?;
    let sock = client(trial, V4)?;
    ask(trial, &sock, server, b"READY")?;
    trial.process()?.signal_alone(Signal::INT);
    let wrong = |why, seen| Err(fail("E_UDP_INTERRUPT", why, "it ends at once, status 0", seen));
    match trial.end(PATIENCE) {
        Err(Stop::Failed(failure)) => wrong("SIGINT does not end the server.", failure.seen),
        Err(stop) => Err(stop),
        Ok(ended) if !ended.status.success() => {
            wrong("Told to end, the server ends with an error.", ended.summary())
        }
        Ok(_) if UdpSocket::bind(server).is_err() => {
            wrong("The server has ended and its port is still in use.", server.to_string())
        }
        Ok(_) => Ok(()),
    }
}
