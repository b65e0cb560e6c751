//! The suite for uppercase clients over UDP (lecture part 5): the grader is the server, and the
//! network that loses, doubles and forges.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use wire::event::{Connection, Direction, Kind};

use crate::check::{Check, Mutant, Stop, Suite};
use crate::subject::{Placeholder, Run};
use crate::trial::udp::{Came, Datagrams};
use crate::trial::{Ended, PATIENCE, START, Trial, fail};

/// The suite for uppercase clients over UDP.
pub static SUITE: Suite = Suite {
    name: "upper-udp-client",
    checks: &[
        Check {
            id: "answer",
            points: 2,
            meaning: "a server that answers: each answer is printed, once and in order, status 0",
            needs: &[],
            run: answer,
        },
        Check { id: "ipv6", points: 1, meaning: "the same on [::1]", needs: &[], run: ipv6 },
        Check {
            id: "long",
            points: 1,
            meaning: "a sentence of 8000 bytes: its answer is not cut",
            needs: &[Placeholder::Length],
            run: long,
        },
        Check {
            id: "lost-request",
            points: 3,
            meaning: "the first datagram of each sentence is lost: it is sent again",
            needs: &[],
            run: lost_request,
        },
        Check {
            id: "lost-answer",
            points: 2,
            meaning: "two answers in a row are lost: it is asked a third time",
            needs: &[],
            run: lost_answer,
        },
        Check {
            id: "duplicate",
            points: 2,
            meaning: "each answer comes twice: none is taken for that of the next sentence",
            needs: &[],
            run: duplicate,
        },
        Check {
            id: "late",
            points: 2,
            meaning: "the answer to an earlier try comes when the next sentence has been sent",
            needs: &[],
            run: late,
        },
        Check {
            id: "stranger",
            points: 2,
            meaning: "another host answers first: only the server is believed",
            needs: &[],
            run: stranger,
        },
        Check {
            id: "other-port",
            points: 2,
            meaning: "the right host answers from another port: only the server is believed",
            needs: &[],
            run: other_port,
        },
        Check {
            id: "truncated",
            points: 1,
            meaning: "half an answer: it is not taken for a whole one",
            needs: &[],
            run: truncated,
        },
        Check {
            id: "dead-port",
            points: 1,
            meaning: "nobody is there (ICMP port unreachable): a clear error, non-zero, at once",
            needs: &[],
            run: dead_port,
        },
        Check {
            id: "silent",
            points: 2,
            meaning: "a server that never answers: gives up in bounded time, without CPU",
            needs: &[],
            run: silent,
        },
    ],
    options: &["--timeout", "{timeout}", "--retries", "3", "{addr}", "{text}"],
    mutant_options: &["{addr}", "{count}", "{length}", "{timeout}"],
    mutant_client: &[],
    hints: &[],
    mutants: MUTANTS,
};

const MUTANTS: &[Mutant] = &[
    Mutant { name: "right", fails: &[] },
    Mutant { name: "believes-anybody", fails: &["stranger", "other-port", "dead-port"] },
    Mutant { name: "busy-waits", fails: &["silent"] },
    Mutant { name: "checks-the-host-only", fails: &["other-port", "dead-port"] },
    Mutant { name: "checks-the-port-only", fails: &["stranger", "dead-port"] },
    Mutant { name: "ends-on-a-wrong-answer", fails: &["duplicate", "late"] },
    Mutant {
        name: "fails-in-spite",
        fails: &[
            "answer",
            "ipv6",
            "long",
            "lost-request",
            "lost-answer",
            "duplicate",
            "late",
            "stranger",
            "other-port",
        ],
    },
    Mutant { name: "ignores-a-dead-port", fails: &["dead-port"] },
    Mutant { name: "ipv4-only", fails: &["ipv6"] },
    Mutant { name: "lecture-buffer", fails: &["long"] },
    Mutant { name: "never-retries", fails: &["lost-request", "lost-answer"] },
    Mutant { name: "no-timeout", fails: &["lost-request", "lost-answer", "silent"] },
    Mutant { name: "panics-at-a-dead-port", fails: &["dead-port"] },
    Mutant { name: "retries-for-ever", fails: &["silent"] },
    Mutant { name: "retries-once", fails: &["lost-answer"] },
    Mutant { name: "says-nothing", fails: &["dead-port", "silent"] },
    Mutant { name: "succeeds-at-a-dead-port", fails: &["dead-port"] },
    Mutant { name: "succeeds-unanswered", fails: &["silent"] },
    Mutant { name: "takes-any-answer", fails: &["duplicate", "late", "truncated"] },
    Mutant { name: "takes-half-an-answer", fails: &["truncated"] },
];

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// A time-out that a right program never needs.
const LONG: Duration = Duration::from_secs(10);
/// A time-out that the check waits for.
const SHORT: Duration = Duration::from_millis(200);
/// The same where only the second of two tries is answered: also on a loaded machine in time.
const TWO_TRIES: Duration = Duration::from_millis(400);
/// Longer than the time-outs of most programs that cannot be told theirs.
const WITHOUT_PLACEHOLDER: Duration = Duration::from_secs(6);
/// No sentence is asked for so often.
const MOST_TRIES: usize = 100;

/// What the program has sent so far.
struct Talk {
    server: Datagrams,
    client: SocketAddr,
    /// The sentences, in order.
    sentences: Vec<Vec<u8>>,
    /// How often the last of them was sent.
    tries: usize,
    /// What the program waits for, if it neither sent anything nor ended.
    waits: Option<String>,
}

/// Why it is the server's turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// A datagram has come: a new sentence, or another try of the last one.
    Sent,
    /// Nothing has come for long.
    Silence,
}

impl Talk {
    fn number(&self) -> usize {
        self.sentences.len()
    }

    fn is_first(&self) -> bool {
        self.number() == 1
    }

    fn sentence(&self) -> &[u8] {
        self.sentences.last().map_or(&[], Vec::as_slice)
    }

    fn right_answer(&self) -> Vec<u8> {
        self.sentence().to_ascii_uppercase()
    }

    /// Takes the last sentence and answers it.
    fn answer(&self) -> Result<(), Stop> {
        self.server.received(self.sentence());
        Ok(self.server.send(&self.right_answer(), self.client)?)
    }
}

/// Three short sentences for the server `server`.
fn run_at(server: SocketAddr, timeout: Duration) -> Run {
    Run { server, count: 3, length: 20, timeout, json: false }
}

/// How long a program that is not over may be silent.
fn patience(trial: &Trial<'_>) -> Duration {
    if trial.takes(Placeholder::Timeout) { PATIENCE } else { WITHOUT_PLACEHOLDER }
}

/// Starts the program and lets `serve` do what the server and the network do, whenever it is their
/// turn, until the program ends or waits in vain. `serve` tells whether it has done anything.
fn talk(
    trial: &mut Trial<'_>,
    server: Datagrams,
    run: &Run,
    mut serve: impl FnMut(&mut Trial<'_>, &Talk, Moment) -> Result<bool, Stop>,
) -> Result<Talk, Stop> {
    trial.start(run)?;
    let client = run.server; // until it is known
    let mut talk = Talk { server, client, sentences: Vec::new(), tries: 0, waits: None };
    loop {
        let within = if talk.sentences.is_empty() { START } else { patience(trial) };
        match trial.receive(&talk.server, within)? {
            Came::Datagram(sentence, client) => {
                talk.client = client;
                talk.tries += 1;
                if sentence != talk.sentence() {
                    talk.sentences.push(sentence);
                    talk.tries = 1;
                }
                if talk.sentence().is_empty() {
                    let why = "The program sent an empty datagram: it was given no sentence.";
                    let seen = "0 bytes; its sentences can be fed to it with --stdin";
                    return Err(fail("E_UDP_NO_DATAGRAM", why, "its sentence, as text", seen));
                }
                if talk.tries > MOST_TRIES || talk.number() > run.count {
                    let why = "The program does not stop sending.";
                    let seen =
                        format!("{} sentences, the last {} times", talk.number(), talk.tries);
                    return Err(fail("E_UDP_NO_TIMEOUT", why, "it gives up", seen));
                }
                serve(trial, &talk, Moment::Sent)?;
            }
            Came::Gone => break,
            Came::Silence if talk.sentences.is_empty() => break,
            Came::Silence => {
                let waits = trial.doing();
                if !serve(trial, &talk, Moment::Silence)? {
                    talk.waits = Some(waits);
                    break;
                }
            }
        }
    }
    if talk.sentences.is_empty() {
        let seen = match trial.end(Duration::ZERO) {
            Ok(ended) => ended.summary(),
            Err(_) => trial.doing(),
        };
        let why = "The program sent nothing to the server it was given.";
        return Err(fail("E_UDP_NO_DATAGRAM", why, "a datagram to that host and port", seen));
    }
    Ok(talk)
}

/// The end of a program whose every sentence was answered in the end.
fn ends_well(trial: &mut Trial<'_>, talk: &Talk, run: &Run) -> Result<(), Stop> {
    if let Some(waits) = &talk.waits {
        let why = "Every sentence was answered, and the program waits on.";
        return Err(fail("E_HANG", why, "it prints the answer and ends", waits));
    }
    let ended = trial.end(PATIENCE)?;
    if ended.crashed() {
        return Err(fail("E_CRASHED", "The program crashed.", "status 0", ended.summary()));
    }
    printed(&ended, talk)?;
    if !ended.status.success() {
        let why = "Every sentence was answered and yet the program says it failed.";
        return Err(fail("E_EXIT_STATUS", why, "status 0", ended.summary()));
    }
    if ![1, run.count].contains(&talk.number()) {
        let why = "The program did not send all of its sentences.";
        let expected = format!("one sentence, or each of {} lines", run.count);
        return Err(fail("E_UDP_LINES", why, expected, talk.number().to_string()));
    }
    Ok(())
}

/// Whether the program has printed each answer, once and in order, whatever else it printed.
fn printed(ended: &Ended, talk: &Talk) -> Result<(), Stop> {
    let answers: Vec<_> = talk
        .sentences
        .iter()
        .map(|sentence| String::from_utf8_lossy(&sentence.to_ascii_uppercase()).trim().to_owned())
        .collect();
    let found = |(n, answer): (usize, &String)| {
        let found = ended.stdout.match_indices(answer.as_str());
        found.map(|(at, _)| (at, n)).collect::<Vec<_>>()
    };
    let mut found: Vec<_> = answers.iter().enumerate().flat_map(found).collect();
    found.sort_unstable();
    if found.iter().map(|(_, n)| *n).eq(0..answers.len()) {
        return Ok(());
    }
    let first = |text: &str| text.chars().take(200).collect::<String>();
    let why = "The answers are not what was printed: one is missing, or was taken for another's.";
    let seen = format!("{:?}; {}", first(&ended.stdout), ended.summary());
    Err(fail("E_UDP_WRONG_PRINTED", why, format!("{:?}", first(&answers.join("\n"))), seen))
}

/// The server's socket on `host`.
fn server(trial: &Trial<'_>, host: IpAddr) -> Result<(Datagrams, Run), Stop> {
    let server = trial.datagrams(host, Direction::ToClient, trial.connection())?;
    let run = run_at(server.addr()?, LONG);
    Ok((server, run))
}

fn answer(trial: &mut Trial<'_>) -> Result<(), Stop> {
    answer_on(trial, V4, 20)
}

fn ipv6(trial: &mut Trial<'_>) -> Result<(), Stop> {
    if UdpSocket::bind((V6, 0)).is_err() {
        return Err(Stop::Skipped("this machine has no IPv6".to_owned()));
    }
    answer_on(trial, V6, 20)
}

fn long(trial: &mut Trial<'_>) -> Result<(), Stop> {
    answer_on(trial, V4, 8000)
}

fn answer_on(trial: &mut Trial<'_>, host: IpAddr, length: usize) -> Result<(), Stop> {
    let (server, run) = server(trial, host)?;
    let run = Run { length, ..run };
    let talk = talk(trial, server, &run, |_, talk, moment| {
        if moment == Moment::Sent {
            talk.answer()?;
        }
        Ok(false)
    })?;
    ends_well(trial, &talk, &run)
}

fn lost_request(trial: &mut Trial<'_>) -> Result<(), Stop> {
    lost(trial, |talk| talk.tries > 1, Direction::ToServer)
}

fn lost_answer(trial: &mut Trial<'_>) -> Result<(), Stop> {
    lost(trial, |talk| !talk.is_first() || talk.tries > 2, Direction::ToClient)
}

/// A network that lets through only what `arrives`; the rest is lost in `direction`.
fn lost(
    trial: &mut Trial<'_>,
    arrives: fn(&Talk) -> bool,
    direction: Direction,
) -> Result<(), Stop> {
    let (server, run) = server(trial, V4)?;
    let run = Run { timeout: TWO_TRIES, ..run };
    let mut answered = 0;
    let talk = talk(trial, server, &run, |_, talk, moment| {
        if moment == Moment::Silence {
            return Ok(false);
        }
        if arrives(talk) {
            answered = talk.number();
            talk.answer()?;
        } else if direction == Direction::ToServer {
            talk.server.lost(talk.sentence(), direction);
        } else {
            talk.server.received(talk.sentence());
            talk.server.lost(&talk.right_answer(), direction);
        }
        Ok(true)
    })?;
    if answered == talk.number() {
        return ends_well(trial, &talk, &run);
    }
    let times = if talk.tries == 1 { "once" } else { "twice" };
    let what = if direction == Direction::ToServer { "A datagram" } else { "An answer" };
    let (why, seen) = match talk.waits {
        Some(waits) => {
            (format!("{what} was lost, and the program waits for an answer for ever."), waits)
        }
        None => {
            let why = format!("{what} was lost, and the program gave up: it sent {times} only.");
            (why, trial.end(PATIENCE)?.summary())
        }
    };
    Err(fail("E_UDP_NO_RETRY", why, "it sends the sentence again, after a time-out", seen))
}

/// Why a check that needs a second sentence does not apply.
fn needs_a_second(talk: &Talk) -> Result<(), Stop> {
    match talk.number() {
        1 => Err(Stop::Skipped("the program sends one sentence only".to_owned())),
        _ => Ok(()),
    }
}

fn duplicate(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let (server, run) = server(trial, V4)?;
    let talk = talk(trial, server, &run, |_, talk, moment| {
        if moment == Moment::Sent {
            talk.answer()?;
            talk.server.note("the network doubles it");
            talk.server.send(&talk.right_answer(), talk.client)?;
        }
        Ok(false)
    })?;
    ends_well(trial, &talk, &run)?;
    needs_a_second(&talk)
}

fn late(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let (server, run) = server(trial, V4)?;
    let run = Run { timeout: SHORT, ..run };
    let mut patient = false;
    let talk = talk(trial, server, &run, |_, talk, moment| {
        match moment {
            Moment::Sent if talk.is_first() && talk.tries == 1 && run.count > 1 => {
                talk.server.note("the answer to this one is late");
                talk.server.received(talk.sentence());
            }
            Moment::Sent => {
                if talk.number() == 2 && talk.tries == 1 {
                    talk.server.note("only now, the answer to the first sentence");
                    talk.server.send(&talk.sentences[0].to_ascii_uppercase(), talk.client)?;
                }
                talk.answer()?;
            }
            // It does not try again, which is another check's: here it is only patient.
            Moment::Silence if talk.is_first() && talk.tries == 1 && !patient => {
                patient = true;
                talk.server.send(&talk.right_answer(), talk.client)?;
                return Ok(true);
            }
            Moment::Silence => {}
        }
        Ok(false)
    })?;
    let gave_up = talk.is_first() && talk.tries == 1 && talk.waits.is_none() && !patient;
    if gave_up {
        return Err(Stop::Skipped("the program makes one try only".to_owned()));
    }
    ends_well(trial, &talk, &run)?;
    needs_a_second(&talk)
}

fn stranger(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let (server, run) = server(trial, V4)?;
    let other = SocketAddr::from(([127, 0, 0, 2], run.server.port()));
    let stranger = match Datagrams::at(other, Direction::ToClient, trial.connection()) {
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            return Err(Stop::Skipped(format!("{} is no address of this machine", other.ip())));
        }
        stranger => stranger?,
    };
    forged(trial, server, &run, &stranger)
}

fn other_port(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let (server, run) = server(trial, V4)?;
    let stranger = trial.datagrams(V4, Direction::ToClient, trial.connection())?;
    forged(trial, server, &run, &stranger)
}

/// `stranger` answers before the server: with a forgery, and with the right answer.
fn forged(
    trial: &mut Trial<'_>,
    server: Datagrams,
    run: &Run,
    stranger: &Datagrams,
) -> Result<(), Stop> {
    const FORGERY: &str = "FORGED BY A STRANGER";
    /// Enough for a program to deal with what it was sent: it waits again, has sent something, or ended.
    const REST: Duration = Duration::from_millis(200);
    let from = stranger.addr()?;
    let fooled = |seen: String| {
        let why = format!("The program took the answer of {from}, whom it had not asked.");
        fail("E_UDP_STRANGER", why, format!("it waits for an answer from {}", run.server), seen)
    };
    let mut answered = false;
    let talk = talk(trial, server, run, |trial, talk, moment| {
        if moment == Moment::Silence {
            return Ok(false);
        }
        if talk.is_first() && talk.tries == 1 {
            talk.server.received(talk.sentence());
            stranger.note("a stranger answers");
            stranger.send(FORGERY.as_bytes(), talk.client)?;
            stranger.send(&talk.right_answer(), talk.client)?;
            match trial.look(&talk.server, REST)? {
                Came::Gone => return Err(fooled(trial.end(PATIENCE)?.summary())),
                Came::Datagram(..) => return Ok(true), // the next turn tells what it is
                Came::Silence => {}
            }
            talk.server.note("now the server answers");
        } else if !answered && !talk.is_first() {
            return Err(fooled("it goes on with the next sentence".to_owned()));
        } else {
            talk.server.received(talk.sentence());
        }
        answered = true;
        talk.server.send(&talk.right_answer(), talk.client)?;
        Ok(true)
    })?;
    if talk.waits.is_none() {
        let ended = trial.end(PATIENCE)?;
        if ended.stdout.contains(FORGERY) {
            return Err(fooled(format!("{:?}", ended.stdout)));
        }
    }
    ends_well(trial, &talk, run)
}

fn truncated(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let (server, run) = server(trial, V4)?;
    let run = Run { timeout: SHORT, ..run };
    let mut whole = false;
    let talk = talk(trial, server, &run, |_, talk, moment| {
        let answer = talk.right_answer();
        match moment {
            Moment::Sent if talk.is_first() && talk.tries == 1 => {
                talk.server.received(talk.sentence());
                talk.server.note("the second half of the answer is cut off");
                talk.server.send(&answer[..answer.len() / 2], talk.client)?;
            }
            Moment::Sent => talk.answer()?,
            Moment::Silence if talk.is_first() && !whole => {
                whole = true;
                talk.server.send(&answer, talk.client)?;
                return Ok(true);
            }
            Moment::Silence => {}
        }
        Ok(false)
    })?;
    if talk.waits.is_none() {
        let ended = trial.end(PATIENCE)?;
        if !ended.status.success() {
            return ended.badly("half an answer");
        }
        if printed(&ended, &talk).is_err() {
            let why = "The program took half an answer for a whole one.";
            let expected = "it asks again, or says that something is missing";
            let seen = format!("{:?}; {}", ended.stdout, ended.summary());
            return Err(fail("E_UDP_CUT_UNNOTICED", why, expected, seen));
        }
    }
    ends_well(trial, &talk, &run)
}

fn dead_port(trial: &mut Trial<'_>) -> Result<(), Stop> {
    // A connected socket takes only its peer's datagrams: it holds the port, and nobody is there.
    let (other, held) = (UdpSocket::bind((V4, 0))?, UdpSocket::bind((V4, 0))?);
    held.connect(other.local_addr()?)?;
    // As nobody sees when it sends first, it is given time to start, and none to give up.
    trial.start(&run_at(held.local_addr()?, 3 * START))?;
    let wire: Connection = trial.connection();
    wire.note(Direction::ToServer, "a datagram to a port where nobody is");
    wire.record(Direction::ToClient, Kind::Refused);
    match trial.end(START) {
        Err(Stop::Failed(failure)) => {
            let why = "Nobody is there, the system knows it (ICMP port unreachable), and the \
                       program waits: only a connected socket is told.";
            Err(fail("E_UDP_DEAD_PORT", why, "it ends at once, with an error", failure.seen))
        }
        Err(stop) => Err(stop),
        Ok(ended) => ended.badly("a port where nobody is"),
    }
}

fn silent(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let (server, run) = server(trial, V4)?;
    let bound = 3 * PATIENCE; // a right program that is told its time-out needs 3 s
    let run = Run { timeout: SHORT, count: 1, ..run };
    let endless = |seen: String| {
        let why = "The server never answers, and the program does not give up.";
        fail("E_UDP_NO_TIMEOUT", why, format!("it ends within {bound:?}"), seen)
    };
    let mut first = None;
    let talk = talk(trial, server, &run, |trial, talk, moment| {
        if moment == Moment::Sent {
            talk.server.received(talk.sentence());
        }
        if first.is_none()
            && let Some(seen) = trial.is_busy()
        {
            let why = "The program uses the CPU while there is nothing to do.";
            return Err(fail("E_BUSY_WAIT", why, "it waits", seen));
        }
        let since = first.get_or_insert_with(Instant::now);
        // With few tries in all that time it is rather this machine that is slow.
        if since.elapsed() > if talk.tries > 6 { bound } else { 2 * bound } {
            return Err(endless(format!("the sentence was sent {} times", talk.tries)));
        }
        Ok(moment == Moment::Sent)
    })?;
    match talk.waits {
        Some(waits) => Err(endless(waits)),
        None => trial.end(PATIENCE)?.badly("a server that never answers"),
    }
}
