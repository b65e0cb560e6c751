//! The suite for echo servers (lecture part 3): the grader is the clients.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use harness::Signal;
use rustix::event::PollFlags;

use crate::check::{Check, Mutant, Stop, Suite};
use crate::client::{
    ask, because, connect, connect_with, finish, hear, same, say, server_ended, start, wrong,
};
use crate::facts::{Architecture, Facts};
use crate::hang::{self, Transport};
use crate::peer::{Incoming, Peer, Sent};
use crate::trial::{PATIENCE, Trial, fail};

/// The suite for echo servers.
pub static SUITE: Suite = Suite {
    name: "echo-server",
    checks: &[
        Check {
            id: "echo",
            points: 2,
            meaning: "20 messages, each comes back; a FIN for a FIN; the next client as well",
            needs: &[],
            run: echo,
        },
        Check {
            id: "half-close",
            points: 2,
            meaning: "8 MiB and a FIN before anything is read: everything comes back, then a FIN",
            needs: &[],
            run: half_close,
        },
        Check {
            id: "binary",
            points: 1,
            meaning: "bytes of every value, characters cut in two: they come back as they are",
            needs: &[],
            run: binary,
        },
        Check {
            id: "full-duplex",
            points: 2,
            meaning: "64 MiB both ways at once, in bounded memory",
            needs: &[],
            run: full_duplex,
        },
        Check {
            id: "concurrent",
            points: 2,
            meaning: "5 clients, the first silent, the last served first",
            needs: &[],
            run: concurrent,
        },
        Check {
            id: "many",
            points: 1,
            meaning: "1000 clients at once, served in reverse",
            needs: &[],
            run: many,
        },
        Check {
            id: "hog",
            points: 2,
            meaning: "one sends and never reads, one reads a byte now and then: the others are \
                      unharmed, memory is bounded, no CPU",
            needs: &[],
            run: hog,
        },
        Check {
            id: "reset",
            points: 2,
            meaning: "RSTs at every moment: the others are unharmed, the server serves on",
            needs: &[],
            run: reset,
        },
        Check {
            id: "descriptors",
            points: 1,
            meaning: "more clients than descriptors: newcomers wait or are closed, nobody is \
                      forgotten, no CPU",
            needs: &[],
            run: descriptors,
        },
        Check {
            id: "churn",
            points: 2,
            meaning: "1000 clients in turn: no descriptor, thread, zombie or memory is left over",
            needs: &[],
            run: churn,
        },
        Check {
            id: "idle",
            points: 1,
            meaning: "100 silent clients: no CPU",
            needs: &[],
            run: idle,
        },
        Check {
            id: "interrupt",
            points: 1,
            meaning: "SIGINT and SIGTERM: ends at once with its children, status 0",
            needs: &[],
            run: interrupt,
        },
        Check {
            id: "restart",
            points: 1,
            meaning: "again on the same port at once, with connections in TIME_WAIT",
            needs: &[],
            run: restart,
        },
    ],
    options: &["{addr}"],
    mutant_options: &["{addr}"],
    mutant_client: &[],
    hints: &[],
    mutants: MUTANTS,
};

/// Of a server that is not there.
const ALL: &[&str] = &[
    "echo",
    "half-close",
    "binary",
    "full-duplex",
    "concurrent",
    "many",
    "hog",
    "reset",
    "descriptors",
    "churn",
    "idle",
    "interrupt",
    "restart",
];

const MUTANTS: &[Mutant] = &[
    Mutant { name: "right", fails: &[] },
    Mutant { name: "closes-at-the-fin", fails: &["half-close"] },
    Mutant { name: "dies-of-a-broken-pipe", fails: &["reset"] },
    Mutant { name: "dies-of-a-reset", fails: &["reset"] },
    Mutant { name: "drops-an-unfinished-line", fails: &["half-close"] },
    Mutant { name: "ends-without-descriptors", fails: &["descriptors"] },
    Mutant { name: "fork-leaves-a-child", fails: &["interrupt"] },
    Mutant { name: "fork-leaves-zombies", fails: &["churn"] },
    Mutant { name: "fork-right", fails: &[] },
    Mutant { name: "goes-to-the-background", fails: ALL },
    Mutant { name: "ignores-sigterm", fails: &["interrupt"] },
    Mutant { name: "keeps-every-client", fails: &["churn"] },
    Mutant { name: "keeps-everything", fails: &["full-duplex"] },
    Mutant { name: "leaks-descriptors", fails: &["descriptors", "churn"] },
    Mutant { name: "leaks-threads", fails: &["churn"] },
    Mutant { name: "leaves-a-daemon", fails: &["interrupt"] },
    Mutant { name: "listens-elsewhere", fails: ALL },
    Mutant {
        name: "never-closes",
        fails: &[
            "echo",
            "half-close",
            "binary",
            "full-duplex",
            "reset",
            "descriptors",
            "churn",
            "restart",
        ],
    },
    Mutant { name: "no-reuseaddr", fails: &["restart"] },
    Mutant {
        name: "one-answer-per-client",
        fails: &[
            "echo",
            "half-close",
            "binary",
            "full-duplex",
            "many",
            "hog",
            "reset",
            "descriptors",
            "idle",
        ],
    },
    Mutant { name: "poses-as-threaded", fails: &["concurrent", "many", "hog"] },
    Mutant { name: "select-blocks-in-a-write", fails: &["hog"] },
    Mutant { name: "select-drops-all-on-an-error", fails: &["reset"] },
    Mutant { name: "select-ignores-short-writes", fails: &["half-close", "full-duplex"] },
    Mutant { name: "select-never-rests", fails: &["hog", "descriptors", "idle"] },
    Mutant { name: "select-polls-with-a-nap", fails: &["hog", "descriptors", "idle"] },
    Mutant { name: "select-right", fails: &[] },
    Mutant { name: "select-spins-on-a-full-buffer", fails: &["hog"] },
    Mutant { name: "select-unbounded", fails: &["hog"] },
    Mutant { name: "sixteen-at-once", fails: &["many"] },
    Mutant { name: "spins-without-descriptors", fails: &["descriptors"] },
    Mutant { name: "text-not-bytes", fails: &["binary"] },
    Mutant { name: "unhandled-signals", fails: &["interrupt"] },
];

/// What a client says that only wants to know whether it is served.
const HELLO: &[u8] = b"hello, is anybody there?\n";

/// A silence in which nothing is decided: who is quiet for so long is taken to wait.
const QUIET: Duration = Duration::from_millis(150);

/// What a server may hold in memory for clients that do not read, in KiB.
const MOST_MEMORY: u64 = 48 * 1024;

/// How often the grader looks for what nothing tells it of.
const LOOK: Duration = Duration::from_millis(10);

/// Bytes to be sent: lines of text, in which nothing can be lost or doubled unseen.
static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let byte = |n| if n % LINE == LINE - 1 { b'\n' } else { b'a' + (n % PERIOD % 23) as u8 };
    (0..PERIOD + CHUNK).map(byte).collect()
});
const LINE: usize = 997;
const PERIOD: usize = LINE * 23;
const CHUNK: usize = 64 * 1024;

/// At most [`CHUNK`] bytes of the text from `offset` on, which ends before `total`.
fn text(offset: u64, total: u64) -> &'static [u8] {
    let at = (offset % PERIOD as u64) as usize;
    let len = (total - offset).min(CHUNK as u64) as usize;
    &TEXT[at..at + len]
}

/// Says hello and is answered.
fn greet(trial: &mut Trial<'_>, peer: &mut Peer) -> Result<(), Stop> {
    ask(trial, peer, HELLO, HELLO)
}

/// A new client comes, is served, and leaves.
fn visit(trial: &mut Trial<'_>, server: SocketAddr) -> Result<(), Stop> {
    let mut peer = connect(trial, server)?;
    greet(trial, &mut peer)?;
    finish(trial, &mut peer)
}

fn echo(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = start(trial)?;
    for _ in 0..2 {
        let mut peer = connect(trial, server)?;
        for n in 0..20 {
            let message = text(n * LINE as u64, u64::MAX);
            ask(trial, &mut peer, &message[..LINE], &message[..LINE])?;
        }
        finish(trial, &mut peer)?;
    }
    Ok(())
}

fn binary(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = start(trial)?;
    let mut peer = connect(trial, server)?;
    let every: Vec<u8> = (0..=255).rev().cycle().take(1000).chain(*b"\r\n").collect();
    let korean = "에코 서버\n".as_bytes();
    ask(trial, &mut peer, &every, &every)?;
    for piece in [&korean[..4], &korean[4..]] {
        say(trial, &mut peer, piece)?;
        thread::sleep(Duration::from_millis(20)); // the pieces are to be read apart
    }
    hear(trial, &mut peer, korean)?;
    finish(trial, &mut peer)
}

/// How much is sent before anything is read.
#[derive(Clone, Copy)]
struct Plan {
    total: u64,
    /// Bytes sent before anything is read: all that the system and the server will take.
    ahead: u64,
    /// Bytes that may be on their way later on.
    window: u64,
    /// Whether the FIN follows the last byte, and is not kept back until everything has come.
    fin: bool,
}

/// Sends text and receives it back, both at once.
fn pump(trial: &mut Trial<'_>, peer: &mut Peer, plan: Plan) -> Result<(), Stop> {
    let Plan { total, ahead, window, fin } = plan;
    let mut buffer = vec![0; CHUNK];
    let mut reads = false;
    while peer.received < total {
        if !reads && peer.sent >= ahead.min(total) {
            let end = Instant::now() + 7 * QUIET;
            while trial.is_running() && Instant::now() < end {
                thread::sleep(LOOK); // it still takes what was sent
            }
            reads = true;
        }
        let sends = peer.sent < total && (!reads || peer.sent - peer.received < window);
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::OUT, sends);
        wanted.set(PollFlags::IN, reads);
        let ready = match reads {
            true => peer.wait(wanted, PATIENCE)?,
            false if has_room(peer)? => wanted,
            false => {
                peer.note("nothing more is taken: now the client reads");
                reads = true;
                continue;
            }
        };
        let expected = format!("{total} bytes come back; {} have come", peer.received);
        if ready.is_empty() {
            return Err(wrong(trial, peer, &Incoming::Silence, &expected));
        }
        if ready.contains(PollFlags::OUT) {
            let data = text(peer.sent, total);
            if fin && peer.sent + data.len() as u64 == total {
                peer.hold_back_for_fin()?;
            }
            reads |= peer.send(data, Duration::ZERO)? == Sent::Reset;
            if peer.sent == total && fin {
                peer.fin();
            }
        }
        if ready.contains(PollFlags::IN) {
            let before = peer.received;
            match peer.receive(&mut buffer, Duration::ZERO)? {
                Incoming::Data(n) => same(text(before, total), &buffer[..n], before as usize)?,
                Incoming::Silence => {}
                end => return Err(wrong(trial, peer, &end, &expected)),
            }
        }
    }
    Ok(())
}

/// Waits until the server takes more from a client that does not read; whether it does.
fn has_room(peer: &Peer) -> Result<bool, Stop> {
    Ok(!peer.wait(PollFlags::OUT, 2 * QUIET)?.is_empty())
}

fn half_close(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const TOTAL: u64 = (8 << 20) + 5; // the last line is unfinished
    let server = start(trial)?;
    let mut peer = connect_with(trial, server, Some(CHUNK))?;
    pump(trial, &mut peer, Plan { total: TOTAL, ahead: TOTAL, window: TOTAL, fin: true })?;
    crate::client::fin(trial, &mut peer, "a FIN after the last byte")
}

fn full_duplex(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const MIB: u64 = 1 << 20;
    const TOTAL: u64 = (64 * MIB).next_multiple_of(LINE as u64); // a server may wait for a line
    let server = start(trial)?;
    let mut peer = connect(trial, server)?;
    greet(trial, &mut peer)?;
    let before = trial.facts();
    (peer.sent, peer.received) = (0, 0);
    pump(trial, &mut peer, Plan { total: TOTAL, ahead: 24 * MIB, window: 8 * MIB, fin: false })?;
    let why = "The server keeps in memory what it has long sent back.";
    bounded(trial, before, "E_UNBOUNDED", why, MOST_MEMORY)?;
    finish(trial, &mut peer)
}

/// Whether the server holds no more than `most` KiB of memory more than `before`.
fn bounded(
    trial: &Trial<'_>,
    before: Option<Facts>,
    code: &'static str,
    why: &str,
    most: u64,
) -> Result<(), Stop> {
    let (Some(before), Some(now)) = (before, trial.facts()) else { return Ok(()) };
    // What has a garbage collector is large from the start, and may become twice as large.
    let most = most + 2 * before.memory;
    if now.memory <= most {
        return Ok(());
    }
    let seen = format!("{} KiB, {} KiB before", now.memory, before.memory);
    Err(fail(code, why, format!("at most {most} KiB"), seen))
}

fn concurrent(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const CLIENTS: usize = 5;
    let server = start(trial)?;
    let before = trial.facts();
    let mut peers = Vec::new();
    for _ in 0..CLIENTS {
        peers.push(connect(trial, server)?);
    }
    let (silent, others) = peers.split_at_mut(1);
    let mut result = others.iter_mut().rev().try_for_each(|peer| greet(trial, peer));
    if let (Some(before), Some(now)) = (before, trial.facts()) {
        trial.architecture = Some(Architecture::seen(before, now, CLIENTS));
    }
    result = result.and_then(|()| greet(trial, &mut silent[0]));
    let why = "While one client is connected and silent, another is not served.";
    result.map_err(|stop| because(stop, "E_ONE_AT_A_TIME", why))
}

fn many(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const CLIENTS: usize = 1000;
    let server = start(trial)?;
    let mut peers = Vec::new();
    let too_few = |stop, n| {
        let why = format!("With {n} clients connected, the server does not serve one of them.");
        because(stop, "E_TOO_FEW", &why)
    };
    // Each is served before the next comes: the server's queue may be short (listen(2)).
    while peers.len() < CLIENTS {
        let mut peer = connect(trial, server)?;
        greet(trial, &mut peer).map_err(|stop| too_few(stop, peers.len() + 1))?;
        peers.push(peer);
    }
    for peer in peers.iter_mut().rev() {
        greet(trial, peer).map_err(|stop| too_few(stop, CLIENTS))?;
    }
    trial.kill()?;
    // By RSTs: a thousand connections in TIME_WAIT help nobody.
    Ok(peers.into_iter().try_for_each(Peer::reset)?)
}

fn hog(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const MOST: u64 = 80 << 20;
    let server = start(trial)?;
    let mut others = Vec::new();
    let mut first = connect(trial, server)?;
    greet(trial, &mut first)?; // what is made once is there from now on
    drop(first);
    let before = trial.facts();
    let mut never = connect_with(trial, server, Some(4096))?;
    stuff(&mut never, MOST)?;
    let mut slow = connect_with(trial, server, Some(4096))?;
    stuff(&mut slow, MOST)?;
    let why = "A client that does not read makes the server's memory grow.";
    bounded(trial, before, "E_UNBOUNDED", why, MOST_MEMORY)?;
    if let Some(seen) = trial.is_busy() {
        let why = "The server uses the CPU while a client does not read and nobody else speaks.";
        return Err(fail("E_BUSY_WAIT", why, "it waits until the client reads", seen));
    }
    for _ in 0..5 {
        let _ = slow.receive(&mut [0], Duration::ZERO)?; // a server may have dropped it
        let mut other = connect(trial, server)?;
        greet(trial, &mut other).map_err(|stop| {
            because(stop, "E_STARVED", "A client that does not read stops others.")
        })?;
        others.push(other);
    }
    for other in &mut others {
        greet(trial, other).map_err(|stop| {
            because(stop, "E_STARVED", "A client that does not read stops others.")
        })?;
    }
    Ok(())
}

/// Sends without reading, until nothing more is taken or `most` bytes are.
fn stuff(peer: &mut Peer, most: u64) -> Result<(), Stop> {
    while peer.sent < most
        && has_room(peer)?
        && peer.send(text(peer.sent, most), Duration::ZERO)? != Sent::Reset
    {}
    peer.note("the client does not read");
    Ok(())
}

fn reset(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const LONG: u64 = 1 << 20;
    type Moment = fn(&mut Trial<'_>, &mut Peer) -> Result<(), Stop>;
    let moments: &[(&str, Moment)] = &[
        ("at once", |_, _| Ok(())),
        ("after a message", |_, peer| peer.send(HELLO, PATIENCE).map(drop)),
        ("while the server waits", greet),
        ("in the middle of an answer", |_, peer| {
            stuff(peer, LONG)?;
            peer.receive(&mut [0; 1000], PATIENCE)?;
            Ok(())
        }),
        ("after a FIN", |_, peer| {
            stuff(peer, LONG)?;
            peer.fin();
            Ok(())
        }),
        ("while the server writes", |_, peer| stuff(peer, 24 * LONG)),
    ];
    let server = start(trial)?;
    for (when, moment) in moments {
        for _ in 0..2 {
            let mut peer = connect_with(trial, server, Some(4096))?;
            moment(trial, &mut peer)?;
            peer.reset()?;
            visit(trial, server).map_err(|stop| {
                because(stop, "E_SERVER_ENDED", &format!("After an RST {when} nobody is served."))
            })?;
        }
    }
    let mut witness = connect(trial, server)?;
    greet(trial, &mut witness)?;
    for (_, moment) in &moments[..2] {
        let mut peer = connect(trial, server)?;
        moment(trial, &mut peer)?;
        peer.reset()?;
        for _ in 0..3 {
            greet(trial, &mut witness)?; // a selector may hear it before it hears of the RST
        }
    }
    finish(trial, &mut witness)?;
    visit(trial, server)
}

/// What became of a newcomer.
enum Newcomer {
    Served(Peer),
    Closed,
    Waiting(Peer),
}

/// A client connects and says hello, and waits for the answer only for a while.
fn newcomer(trial: &mut Trial<'_>, server: SocketAddr, within: Duration) -> Result<Newcomer, Stop> {
    let mut peer = connect(trial, server)?;
    let sent = peer.send(HELLO, PATIENCE)?;
    let mut buffer = [0; HELLO.len()];
    Ok(match peer.receive(&mut buffer, within)? {
        Incoming::Data(n) => {
            hear(trial, &mut peer, &HELLO[n..])?;
            Newcomer::Served(peer)
        }
        Incoming::Silence if sent == Sent::All => Newcomer::Waiting(peer),
        _ => Newcomer::Closed,
    })
}

fn descriptors(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// Descriptors of the server; a large runtime does not even start with so few.
    const FEW: usize = 64;
    const MORE: usize = 256;
    /// A short queue of the system still takes so many.
    const WAITING: usize = 3;
    let mut limit = FEW;
    trial.limit_descriptors(limit);
    let mut started = start(trial);
    if matches!(started, Err(Stop::Failed(_))) {
        limit = MORE;
        trial.limit_descriptors(limit);
        started = start(trial);
    }
    let server = started?;
    let (mut served, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..limit + 16 {
        match newcomer(trial, server, QUIET)? {
            Newcomer::Served(peer) => served.push(peer),
            Newcomer::Closed => {}
            Newcomer::Waiting(peer) => waiting.push(peer),
        }
        if waiting.len() >= WAITING {
            break;
        }
    }
    if let Some(stop) = server_ended(trial) {
        return Err(stop);
    }
    if let Some(seen) = trial.is_busy() {
        let why = "Out of descriptors, the server uses the CPU to try again and again.";
        return Err(fail("E_BUSY_ACCEPT", why, "it waits, or sends newcomers away", seen));
    }
    for peer in &mut served {
        greet(trial, peer)?;
    }
    drop(served);
    let lost = "A client that came when there was no descriptor is not served when there is one.";
    for mut peer in waiting {
        let answered = hear(trial, &mut peer, HELLO);
        match answered.map_err(|stop| because(stop, "E_LOST_CLIENT", lost)) {
            Err(Stop::Failed(failure)) if failure.code == "E_CLOSED_EARLY" => {} // it was told
            result => result?,
        }
    }
    let end = Instant::now() + PATIENCE;
    loop {
        match newcomer(trial, server, PATIENCE)? {
            Newcomer::Served(_) => return Ok(()),
            // The server may not have seen yet that the others have left.
            Newcomer::Closed if Instant::now() < end => thread::sleep(LOOK),
            _ => return Err(fail("E_LOST_CLIENT", lost, "it is served", "it is not")),
        }
    }
}

fn churn(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const CLIENTS: usize = 1000;
    /// What a runtime needs of its own after some time.
    const THREADS: usize = 8;
    const FEW: usize = 2;
    /// In KiB; what has a garbage collector collects when it likes.
    const MEMORY: u64 = 16 * 1024;
    const GARBAGE: u64 = 4;
    let server = start(trial)?;
    for _ in 0..20 {
        visit(trial, server)?; // what is made once is there from now on
    }
    let before = trial.facts();
    for _ in 0..CLIENTS {
        visit(trial, server)?;
    }
    let Some(before) = before else { return Ok(()) };
    let end = Instant::now() + PATIENCE;
    let (mut left, mut now) = (None, before);
    while left.is_none() || Instant::now() < end {
        now = trial.facts().unwrap_or_default();
        left = [
            (
                now.descriptors > before.descriptors + FEW,
                "E_LEAKED_DESCRIPTOR",
                "a descriptor of each",
            ),
            (now.zombies > FEW, "E_ZOMBIE", "a zombie of each"),
            (
                now.processes + now.threads > before.processes + before.threads + THREADS,
                "E_LEAKED_THREAD",
                "a thread or a process of each",
            ),
            (
                now.memory > before.memory * (1 + GARBAGE) + MEMORY,
                "E_LEAKED_MEMORY",
                "memory of each",
            ),
        ]
        .into_iter()
        .find(|(is_left, ..)| *is_left);
        if left.is_none() {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    let (_, code, what) = left.unwrap_or_default();
    let why = format!("{CLIENTS} clients have come and gone, and {what} is left over.");
    Err(fail(code, why, before.to_string(), now.to_string()))
}

fn idle(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const CLIENTS: usize = 100;
    let server = start(trial)?;
    let mut silent = Vec::new();
    for _ in 0..CLIENTS {
        match newcomer(trial, server, QUIET)? {
            Newcomer::Served(peer) => silent.push(peer),
            Newcomer::Closed => {}
            // A server of one client at a time: no more would fit into its queue.
            Newcomer::Waiting(_) => break,
        }
    }
    if let Some(seen) = trial.is_busy() {
        let why = "The server uses the CPU while no client says anything.";
        return Err(fail("E_BUSY_WAIT", why, "it waits", seen));
    }
    silent.iter_mut().try_for_each(|peer| greet(trial, peer))
}

fn interrupt(trial: &mut Trial<'_>) -> Result<(), Stop> {
    for (name, signal) in [("SIGINT", Signal::INT), ("SIGTERM", Signal::TERM)] {
        let server = start(trial)?;
        let mut served = connect(trial, server)?;
        greet(trial, &mut served)?;
        let _silent = connect(trial, server)?;
        match trial.process()? {
            it if signal == Signal::INT => it.signal(signal), // Ctrl+C: to its children, too
            it => it.signal_alone(signal),
        }
        let ended = trial.end(PATIENCE).map_err(|stop| match stop {
            Stop::Failed(failure) => {
                let why = format!("The server does not end on {name}.");
                fail("E_IGNORES_SIGNAL", why, "it ends within 1s", failure.seen)
            }
            stop => stop,
        })?;
        if served.receive(&mut [0], PATIENCE)? == Incoming::Silence {
            let why = format!("After {name} a child of the server is left, and serves on.");
            let expected = "the connections are closed";
            return Err(fail("E_CHILD_SERVES_ON", why, expected, "a connection is still open"));
        }
        if !ended.status.success() {
            let why =
                format!("The server ends on {name}, as it should, and yet not with status 0.");
            return Err(fail("E_SIGNAL_STATUS", why, "status 0", ended.last_words()));
        }
        trial.leaves_no_child()?;
    }
    Ok(())
}

fn restart(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// On a loaded machine the client's FIN is sent twice, and the RST with which its system answers
    /// the second ACK ends the TIME_WAIT at once (RFC 1337).
    const TRIES: u32 = 4;
    let server = start(trial)?;
    for _ in 0..TRIES {
        let mut served = connect(trial, server)?;
        greet(trial, &mut served)?;
        trial.kill()?; // its system sends the first FIN
        served.note("the server was killed");
        let _ = served.receive(&mut [0], PATIENCE)?;
        drop(served);
        let was_there = comes_to_time_wait(server.port());
        trial.serve_at(server, Transport::Tcp).map_err(|stop| match stop {
            Stop::Failed(failure) => {
                let why = "The server cannot be started again while connections of its last run \
                           are in TIME_WAIT.";
                fail("E_NO_REUSEADDR", why, failure.expected, failure.seen)
            }
            stop => stop,
        })?;
        if was_there && hang::in_time_wait(server.port()) > 0 {
            return visit(trial, server);
        }
    }
    Err(Stop::Inconclusive("no connection came to TIME_WAIT".to_owned()))
}

fn comes_to_time_wait(port: u16) -> bool {
    let end = Instant::now() + PATIENCE;
    while hang::in_time_wait(port) == 0 {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}
