//! The suite for echo clients (lecture part 2): the grader is the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::thread;
use std::time::Duration;

use crate::check::{Check, Mutant, Stop, Suite};
use crate::peer::{Incoming, Peer, Sent};
use crate::subject::{Placeholder, Run};
use crate::trial::{Ended, PATIENCE, START, Trial, fail};

/// The suite for echo clients.
pub static SUITE: Suite = Suite {
    name: "echo-client",
    checks: &[
        Check {
            id: "echo",
            points: 2,
            meaning: "a server that echoes well: every byte comes back, no RST either way, status 0",
            needs: &[],
            run: echo,
        },
        Check { id: "ipv6", points: 1, meaning: "the same on [::1]", needs: &[], run: ipv6 },
        Check {
            id: "dribble",
            points: 2,
            meaning: "an echo one byte at a time: every byte is waited for",
            needs: &[],
            run: dribble,
        },
        Check {
            id: "late-tail",
            points: 3,
            meaning: "the last bytes come late: they are waited for",
            needs: &[Placeholder::Count, Placeholder::Length],
            run: late_tail,
        },
        Check {
            id: "after-eof",
            points: 2,
            meaning: "a server that reads to the end of file, then answers everything: no deadlock",
            needs: &[Placeholder::Count, Placeholder::Length],
            run: after_eof,
        },
        Check {
            id: "backpressure",
            points: 2,
            meaning: "64 MiB, small buffers, a server that does not read while it has unsent data: \
                      no deadlock, less than 64 MiB of memory",
            needs: &[Placeholder::Count, Placeholder::Length],
            run: backpressure,
        },
        Check {
            id: "early-close",
            points: 2,
            meaning: "a FIN in the middle: ends at once, non-zero, and says so",
            needs: &[Placeholder::Count, Placeholder::Length],
            run: early_close,
        },
        Check {
            id: "reset",
            points: 1,
            meaning: "an RST in the middle: ends at once, non-zero, says so and does not crash",
            needs: &[Placeholder::Count, Placeholder::Length],
            run: reset,
        },
        Check {
            id: "corrupt",
            points: 2,
            meaning: "one byte flipped, one too many, one missing: noticed, non-zero",
            needs: &[Placeholder::Count, Placeholder::Length],
            run: corrupt,
        },
        Check {
            id: "silent",
            points: 1,
            meaning: "a server that never answers: gives up after its time-out, without CPU",
            needs: &[],
            run: silent,
        },
        Check {
            id: "refused",
            points: 1,
            meaning: "nobody listens: a clear error, non-zero, at once",
            needs: &[],
            run: refused,
        },
        Check {
            id: "report",
            points: 1,
            meaning: "the JSON report agrees with what crossed the wire",
            needs: &[Placeholder::Json],
            run: report,
        },
    ],
    options: &["--timeout", "{timeout}", "-n", "{count}", "-l", "{length}", "{json}", "{addr}"],
    mutant_options: &["{addr}", "{count}", "{length}", "{timeout}", "{json}"],
    mutant_client: &[],
    hints: &[],
    mutants: MUTANTS,
};

/// Whatever goes wrong after everything went well.
const AT_THE_END: &[&str] =
    &["echo", "ipv6", "dribble", "late-tail", "after-eof", "backpressure", "report"];

const MUTANTS: &[Mutant] = &[
    Mutant { name: "right", fails: &[] },
    Mutant { name: "accepts-early-eof", fails: &["early-close"] },
    Mutant { name: "busy-waits", fails: &["silent"] },
    Mutant { name: "compares-trimmed-lines", fails: &["corrupt"] },
    Mutant { name: "counts-only", fails: &["corrupt"] },
    Mutant { name: "ends-with-a-reset", fails: AT_THE_END },
    Mutant { name: "fails-in-spite", fails: AT_THE_END },
    Mutant { name: "gives-up-on-a-late-tail", fails: &["late-tail"] },
    Mutant { name: "ignores-short-writes", fails: &["backpressure"] },
    Mutant {
        name: "ignores-the-port",
        fails: &[
            "echo",
            "ipv6",
            "dribble",
            "late-tail",
            "after-eof",
            "backpressure",
            "early-close",
            "reset",
            "corrupt",
            "silent",
            "report",
        ],
    },
    Mutant { name: "ipv4-only", fails: &["ipv6"] },
    Mutant { name: "keeps-everything", fails: &["backpressure"] },
    Mutant { name: "keeps-everything-and-leaves", fails: &["after-eof", "backpressure"] },
    Mutant { name: "leaves-a-child", fails: &["echo"] },
    Mutant { name: "leaves-a-daemon", fails: &["echo"] },
    Mutant { name: "lies-in-the-report", fails: &["report"] },
    Mutant { name: "never-half-closes", fails: &["after-eof"] },
    Mutant { name: "no-timeout", fails: &["silent"] },
    Mutant {
        name: "one-read-per-message",
        fails: &["dribble", "late-tail", "after-eof", "backpressure"],
    },
    Mutant { name: "panics-on-reset", fails: &["reset"] },
    Mutant { name: "retries-for-ever", fails: &["refused"] },
    Mutant { name: "says-nothing", fails: &["early-close", "reset", "silent", "refused"] },
    Mutant {
        name: "sends-for-ever",
        fails: &[
            "echo",
            "ipv6",
            "dribble",
            "late-tail",
            "after-eof",
            "backpressure",
            "corrupt",
            "silent",
            "report",
        ],
    },
    Mutant { name: "sends-too-little", fails: AT_THE_END },
    Mutant { name: "succeeds-when-refused", fails: &["refused"] },
    Mutant { name: "succeeds-when-reset", fails: &["reset"] },
    Mutant { name: "waits-out-an-early-eof", fails: &["early-close"] },
    Mutant { name: "writes-before-reading", fails: &["backpressure"] },
];

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Messages of a run, unless the check is about many.
const COUNT: usize = 20;
/// Bytes in each.
const LENGTH: usize = 1000;
/// A time-out that a right program never needs.
const LONG: Duration = Duration::from_secs(10);
/// A time-out that the check waits for.
const SHORT: Duration = Duration::from_secs(1);

/// A run against `listener`.
fn run_at(listener: &TcpListener, timeout: Duration) -> Result<Run, Stop> {
    let server = listener.local_addr()?;
    Ok(Run { server, count: COUNT, length: LENGTH, timeout, json: false })
}

/// Starts the program as `run` says and accepts its connection.
fn connect(trial: &mut Trial<'_>, listener: &TcpListener, run: &Run) -> Result<Peer, Stop> {
    trial.start(run)?;
    trial.accept(listener)
}

/// Sends `data` back. An RST is found by the next receive.
fn send(trial: &Trial<'_>, peer: &mut Peer, data: &[u8]) -> Result<(), Stop> {
    match peer.send(data, PATIENCE)? {
        Sent::All | Sent::Reset => Ok(()),
        Sent::Stuck => Err(fail(
            "E_DEADLOCK",
            "The program sends on without receiving: all buffers are full and both sides wait.",
            "it receives while it sends",
            trial.explain(peer),
        )),
    }
}

/// The end of a program whose every byte was or is on its way back.
fn ends_well(
    trial: &mut Trial<'_>,
    peer: &mut Peer,
    end: Incoming,
    run: &Run,
) -> Result<Ended, Stop> {
    if end == Incoming::Silence {
        let sent_all = peer.received >= trial.total(run);
        let (code, why) = match sent_all {
            true => ("E_NO_HALF_CLOSE", "The program has everything back and does not close."),
            false => ("E_HANG", "The program neither sends on nor closes."),
        };
        return Err(fail(code, why, "a FIN after the last message", trial.waited()));
    }
    peer.fin();
    let ended = trial.end(PATIENCE)?;
    if peer.was_reset() {
        let why = "The program closed its socket before it had received everything: \
                   what was still on its way is lost, and the server gets an RST.";
        let expected = format!("it receives {} bytes and the FIN, then closes", trial.total(run));
        return Err(fail("E_CLOSED_WITH_UNREAD_DATA", why, expected, ended.summary()));
    }
    if ended.crashed() {
        return Err(fail("E_CRASHED", "The program crashed.", "status 0", ended.summary()));
    }
    if trial.knows_total() && peer.received != trial.total(run) {
        let (code, why) = match peer.received < trial.total(run) {
            true => ("E_SENT_TOO_LITTLE", "The program closed before it had sent everything."),
            false => ("E_SENT_TOO_MUCH", "The program sent more than it was asked to."),
        };
        let seen = format!("{} bytes; {}", peer.received, ended.summary());
        return Err(fail(code, why, format!("{} bytes", trial.total(run)), seen));
    }
    if !ended.status.success() {
        let why = "Every byte came back and yet the program says it failed.";
        return Err(fail("E_EXIT_STATUS", why, "status 0", ended.summary()));
    }
    Ok(ended)
}

fn echo(trial: &mut Trial<'_>) -> Result<(), Stop> {
    echo_on(trial, V4, false)?;
    trial.leaves_no_child()
}

fn ipv6(trial: &mut Trial<'_>) -> Result<(), Stop> {
    if trial.listen(V6, None).is_err() {
        return Err(Stop::Skipped("this machine has no IPv6".to_owned()));
    }
    echo_on(trial, V6, false).map(|_| ())
}

fn report(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let (ended, bytes) = echo_on(trial, V4, true)?;
    let seen =
        || format!("{bytes} bytes each way on the wire; it printed: {}", ended.stdout.trim());
    let wrong = |what: &str| {
        let why = format!("The report does not agree with what crossed the wire: {what}.");
        fail("E_REPORT", why, "rows, totals and verdict as on the wire", seen())
    };
    let Ok(report) = serde_json::from_str::<serde_json::Value>(&ended.stdout) else {
        return Err(wrong("it is not one JSON object"));
    };
    for direction in ["sent", "received"] {
        if report["totals"][direction] != bytes {
            return Err(wrong(&format!("totals.{direction}")));
        }
        let rows = report[direction].as_array().ok_or_else(|| wrong(direction))?;
        if rows.iter().filter_map(serde_json::Value::as_u64).sum::<u64>() != bytes {
            return Err(wrong(&format!("the rows of {direction}")));
        }
    }
    match (report["verdict"].as_str(), report["error"].is_null()) {
        (Some("all-back"), true) => Ok(()),
        _ => Err(wrong("verdict or error")),
    }
}

/// A server on `host` that echoes well; returns how the program ended and the bytes each way.
fn echo_on(trial: &mut Trial<'_>, host: IpAddr, json: bool) -> Result<(Ended, u64), Stop> {
    let listener = trial.listen(host, None)?;
    let run = Run { json, ..run_at(&listener, LONG)? };
    let mut peer = connect(trial, &listener, &run)?;
    let end = trial.receive_all(&mut peer, &run, send)?;
    let ended = ends_well(trial, &mut peer, end, &run)?;
    Ok((ended, peer.received))
}

fn dribble(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// How long a single byte stays alone: a program that takes it for the whole message goes on.
    const ALONE: Duration = Duration::from_millis(20);
    let listener = trial.listen(V4, None)?;
    let run = run_at(&listener, LONG)?;
    let mut peer = connect(trial, &listener, &run)?;
    let end = trial.receive_all(&mut peer, &run, |trial, peer, data| {
        send(trial, peer, &data[..1])?;
        thread::sleep(ALONE);
        data[1..].chunks(1).try_for_each(|byte| send(trial, peer, byte))
    })?;
    ends_well(trial, &mut peer, end, &run).map(|_| ())
}

fn late_tail(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const TAIL: u64 = 100;
    const LATE: Duration = Duration::from_millis(500);
    let listener = trial.listen(V4, None)?;
    let run = run_at(&listener, LONG)?;
    let mut peer = connect(trial, &listener, &run)?;
    let (mut held, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let mut end = Incoming::Silence;
    while peer.received < trial.total(&run) {
        match peer.receive(&mut buffer, PATIENCE)? {
            Incoming::Data(n) => held.extend(&buffer[..n]),
            other => {
                end = other;
                break;
            }
        }
        let due = peer.received.min(trial.total(&run) - TAIL) - peer.sent;
        let now: Vec<u8> = held.drain(..due as usize).collect();
        send(trial, &mut peer, &now)?;
    }
    peer.note("the last bytes are late");
    thread::sleep(LATE);
    send(trial, &mut peer, &held)?;
    if end == Incoming::Silence {
        end = trial.receive_all(&mut peer, &run, send)?;
    }
    ends_well(trial, &mut peer, end, &run).map(|_| ())
}

fn after_eof(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let listener = trial.listen(V4, None)?;
    let run = run_at(&listener, SHORT)?;
    let mut peer = connect(trial, &listener, &run)?;
    let mut answer = Vec::new();
    let end = trial.receive_all(&mut peer, &run, |_, _, data| {
        answer.extend(data);
        Ok(())
    })?;
    if end != Incoming::Fin || peer.received < trial.total(&run) {
        let why = format!(
            "After {} of {} bytes the program waits for an answer, which comes only when it has \
             sent everything: both wait.",
            peer.received,
            trial.total(&run)
        );
        let expected = "it sends on, half-closes, then receives the answer";
        return Err(fail("E_DEADLOCK", why, expected, trial.waited()));
    }
    send(trial, &mut peer, &answer)?;
    ends_well(trial, &mut peer, end, &run).map(|_| ())
}

fn backpressure(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// Less than a message, so that a sender waits for its receiver again and again.
    const RECEIVE_BUFFER: usize = 4096;
    /// Room for one answer: a still smaller buffer waits for the delayed ACKs (40 ms each) of a
    /// program that takes turns.
    const SEND_BUFFER: usize = 32 * 1024;
    const MOST: u64 = 64 * 1024; // KiB
    /// Bytes between two looks at its memory.
    const OFTEN: u64 = 4 << 20;
    let listener = trial.listen(V4, Some(RECEIVE_BUFFER))?;
    let run = Run { count: 4096, length: 16 * 1024, ..run_at(&listener, LONG)? };
    let mut peer = connect(trial, &listener, &run)?;
    peer.set_send_buffer(SEND_BUFFER)?;
    let (mut memory, mut next) = (0, 0);
    let end = trial.receive_all(&mut peer, &run, |trial, peer, data| {
        // Now and then, and once more before it has the last bytes back and may end.
        if peer.received >= next {
            memory = memory.max(trial.peak_memory().unwrap_or_default());
            next = (peer.received + OFTEN).min(trial.total(&run));
        }
        send(trial, peer, data)
    })?;
    ends_well(trial, &mut peer, end, &run)?;
    if memory <= MOST {
        return Ok(());
    }
    Err(fail(
        "E_MEMORY",
        "The program holds what it has sent and received, however much that is.",
        format!("less than {MOST} KiB"),
        format!("{memory} KiB for {} KiB sent", trial.total(&run) / 1024),
    ))
}

fn early_close(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let listener = trial.listen(V4, None)?;
    let run = run_at(&listener, LONG)?;
    let mut peer = connect(trial, &listener, &run)?;
    let mut closed = false;
    let end = trial.receive_all(&mut peer, &run, |trial, peer, data| {
        if !closed {
            let left = (trial.total(&run) / 2 - peer.sent).min(data.len() as u64);
            send(trial, peer, &data[..left as usize])?;
            closed = peer.sent == trial.total(&run) / 2;
            if closed {
                peer.fin();
            }
        }
        Ok(())
    })?;
    if end == Incoming::Silence {
        let why = "The server has closed and the program goes on waiting for it.";
        return Err(fail("E_TOO_LATE", why, "it ends at once", trial.waited()));
    }
    trial.end(PATIENCE)?.badly("a server that closes in the middle")
}

fn reset(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let listener = trial.listen(V4, None)?;
    let run = run_at(&listener, LONG)?;
    let mut peer = connect(trial, &listener, &run)?;
    let mut buffer = vec![0; 64 * 1024];
    while peer.received < trial.total(&run) / 2 {
        match peer.receive(&mut buffer, PATIENCE)? {
            Incoming::Data(n) => {
                let left = (trial.total(&run) / 2 - peer.sent).min(n as u64);
                send(trial, &mut peer, &buffer[..left as usize])?;
            }
            _ => break,
        }
    }
    peer.reset()?;
    trial.end(PATIENCE)?.badly("an RST in the middle")
}

fn corrupt(trial: &mut Trial<'_>) -> Result<(), Stop> {
    type Spoil = fn(&mut Vec<u8>, usize);
    let flip: Spoil = |data, at| data[at - 7] ^= 1;
    let double: Spoil = |data, at| data.insert(at, b'\n');
    let remove: Spoil = |data, at| {
        data.remove(at - 7);
    };
    for (what, spoil) in [("flipped", flip), ("too many", double), ("missing", remove)] {
        let listener = trial.listen(V4, None)?;
        let run = run_at(&listener, SHORT)?;
        let mut peer = connect(trial, &listener, &run)?;
        let message = trial.message(&run);
        let spoiled = message * COUNT / 2; // where the message ends that is spoiled
        let (mut answer, mut done) = (Vec::new(), 0);
        // Up to the message to be spoiled, then this one as a whole, then the rest.
        let end = trial.receive_all(&mut peer, &run, |trial, peer, data| {
            answer.extend(data);
            let due = match spoiled.saturating_sub(done) {
                0 => answer.len(),
                left if left <= answer.len() => {
                    spoil(&mut answer, left);
                    done = spoiled;
                    answer.len()
                }
                left => answer.len().min(left.saturating_sub(message)),
            };
            done += if done < spoiled { due } else { 0 };
            let now: Vec<u8> = answer.drain(..due).collect();
            send(trial, peer, &now)
        })?;
        if end == Incoming::Silence {
            peer.note("the server ends what is not going on");
        }
        peer.fin();
        let ended = trial.end(PATIENCE)?;
        if ended.crashed() {
            let why = format!("The program crashed on one byte {what}.");
            return Err(fail("E_CRASHED", why, "a status other than 0", ended.summary()));
        }
        if ended.status.success() {
            let why = format!("One byte of the echo was {what}, and the program did not notice.");
            let expected = "the bytes are compared: a status other than 0";
            return Err(fail("E_CORRUPTION_UNNOTICED", why, expected, ended.summary()));
        }
    }
    Ok(())
}

fn silent(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// Longer than it takes to see whether the program is busy, also on a loaded machine.
    const TIMEOUT: Duration = Duration::from_secs(2);
    /// For a machine so loaded that this was over before anything was seen.
    const LONGER: Duration = Duration::from_secs(20);
    const WITHOUT_PLACEHOLDER: Duration = Duration::from_secs(15);
    let listener = trial.listen(V4, None)?;
    let mut run = run_at(&listener, TIMEOUT)?;
    let mut buffer = vec![0; 64 * 1024];
    let (_peer, waited, busy) = loop {
        let mut peer = connect(trial, &listener, &run)?;
        while let Incoming::Data(_) = peer.receive(&mut buffer, Duration::from_millis(100))? {
            trial.stops(&peer, &run)?;
        }
        let (waited, busy) = (trial.explain(&peer), trial.is_busy());
        let unseen = busy.is_none() && trial.has_ended(Duration::ZERO).is_some();
        if !unseen || run.timeout == LONGER {
            break (peer, waited, busy);
        }
        run.timeout = LONGER;
    };
    if let Some(seen) = busy {
        let why = "The program uses the CPU while there is nothing to do.";
        return Err(fail("E_BUSY_WAIT", why, "it waits", seen));
    }
    let placeholder = trial.takes(Placeholder::Timeout);
    let patience = if placeholder { run.timeout + PATIENCE } else { WITHOUT_PLACEHOLDER };
    match trial.end(patience) {
        Ok(ended) => ended.badly("a server that never answers"),
        Err(Stop::Failed(_)) => Err(fail(
            "E_NO_TIMEOUT",
            "The server never answers, and the program waits for ever.",
            format!("it gives up within {patience:?}"),
            waited,
        )),
        Err(stop) => Err(stop),
    }
}

fn refused(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let (_held, server) = trial.dead_port()?;
    // It cannot be seen when it tries first: it is given time to start, and none to give up.
    let timeout = 3 * START;
    trial.start(&Run { server, count: COUNT, length: LENGTH, timeout, json: false })?;
    trial.unconnected();
    match trial.end(START) {
        Err(Stop::Failed(failure)) => {
            let why = "Nobody listens, and the program goes on trying.";
            Err(fail("E_KEEPS_TRYING", why, "it ends at once", failure.seen))
        }
        Err(stop) => Err(stop),
        Ok(ended) => ended.badly("a refused connection"),
    }
}
