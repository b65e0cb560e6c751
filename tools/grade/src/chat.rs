//! The suite for chats (lecture part 3): a server with its clients, or with the grader as clients.
//!
//! With clients it is judged from what the programs read and print, so that any wire format passes.

mod line;
mod room;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::thread;

use harness::Signal;

use crate::check::{Check, Mutant, Stop, Suite};
use crate::hang::{self, Transport};
use crate::trial::{Trial, fail, has_trace};
use line::{Line, online};
use room::{Door, Participant, QUIET, Room, quoted};

/// The suite for chats.
pub static SUITE: Suite = Suite {
    name: "chat",
    checks: &[
        Check {
            id: "transcript",
            points: 3,
            meaning: "two come, speak and leave: the server and the clients print the transcript",
            needs: &[],
            run: transcript,
        },
        Check {
            id: "counts",
            points: 3,
            meaning: "50 come and leave at once: everybody is told the same, and it adds up",
            needs: &[],
            run: counts,
        },
        Check {
            id: "framing",
            points: 2,
            meaning: "three lines in one piece, one line in three: four lines",
            needs: &[],
            run: framing,
        },
        Check {
            id: "tearing",
            points: 3,
            meaning: "20 speak at once: every line arrives whole, once, in its speaker's order",
            needs: &[],
            run: tearing,
        },
        Check {
            id: "slow-reader",
            points: 3,
            meaning: "one does not read: nobody waits for it, and it is dropped in the end",
            needs: &[],
            run: slow_reader,
        },
        Check {
            id: "reset",
            points: 2,
            meaning: "an RST at every moment: it counts as leaving, the others are told",
            needs: &[],
            run: reset,
        },
        Check {
            id: "long-line",
            points: 2,
            meaning: "a line of 60 kB arrives; one without end is refused with a reason",
            needs: &[],
            run: long_line,
        },
        Check {
            id: "binary",
            points: 1,
            meaning: "bytes that are not UTF-8, a character in two pieces: shown safely",
            needs: &[],
            run: binary,
        },
        Check {
            id: "escape",
            points: 2,
            meaning: "control characters of a neighbour never reach a terminal",
            needs: &[],
            run: escape,
        },
        Check {
            id: "interrupt-server",
            points: 2,
            meaning: "Ctrl+C at the server: exit, status 0, nothing left open, the port free again",
            needs: &[],
            run: interrupt_server,
        },
        Check {
            id: "interrupt-client",
            points: 2,
            meaning: "Ctrl+C at a client: exit, status 0, the others are told",
            needs: &[],
            run: interrupt_client,
        },
        Check {
            id: "server-ends",
            points: 2,
            meaning: "the server ends: so does the client, at once, and says why",
            needs: &[],
            run: server_ends,
        },
    ],
    options: &["{addr}"],
    mutant_options: &["server", "{addr}"],
    mutant_client: &["client", "{addr}"],
    hints: &[],
    mutants: MUTANTS,
};

const MUTANTS: &[Mutant] = &[
    Mutant { name: "right", fails: &[] },
    Mutant { name: "broadcasts-under-a-lock", fails: &["slow-reader"] },
    Mutant { name: "counts-racily", fails: &["counts"] },
    Mutant { name: "counts-without-the-newcomer", fails: &["transcript", "counts"] },
    Mutant { name: "cuts-characters", fails: &["binary"] },
    Mutant { name: "dies-of-a-reset", fails: &["reset"] },
    Mutant { name: "drops-in-silence", fails: &["slow-reader"] },
    Mutant { name: "keeps-its-port", fails: &["interrupt-server"] },
    Mutant {
        name: "loses-the-leave-notice",
        fails: &["transcript", "counts", "slow-reader", "reset"],
    },
    Mutant {
        name: "merges-notices",
        fails: &["transcript", "counts", "slow-reader", "reset", "long-line"],
    },
    Mutant {
        name: "one-read-is-one-line",
        fails: &["framing", "tearing", "slow-reader", "long-line", "binary"],
    },
    Mutant { name: "passes-escape-sequences", fails: &["escape"] },
    Mutant { name: "prints-no-exit", fails: &["interrupt-server"] },
    Mutant { name: "refuses-without-a-reason", fails: &["long-line"] },
    Mutant { name: "resets-are-not-leaving", fails: &["reset"] },
    Mutant { name: "says-users-for-one", fails: &["transcript"] },
    Mutant { name: "tears-lines", fails: &["tearing"] },
    Mutant { name: "throws-out-who-is-not-utf8", fails: &["binary"] },
    Mutant { name: "unbounded-line", fails: &["long-line"] },
    Mutant { name: "unbounded-queue", fails: &["slow-reader"] },
    Mutant { name: "client-right", fails: &[] },
    Mutant { name: "client-ends-without-a-word", fails: &["server-ends"] },
    Mutant { name: "client-prints-empty-lines", fails: &["server-ends"] },
    Mutant { name: "client-says-no-exit", fails: &["interrupt-client"] },
    Mutant { name: "client-waits-for-its-input", fails: &["server-ends"] },
];

/// Skips a check of the client where there is none.
fn skip_without_clients(door: &Door) -> Result<(), Stop> {
    match door.has_clients() {
        true => Ok(()),
        false => Err(Stop::Skipped("there is no --client to judge".to_owned())),
    }
}

/// The name that the server printed for the first who came.
fn first_name(room: &mut Room<'_, '_>) -> Result<String, Stop> {
    let printed = room.printed(2);
    let names = printed.iter().find_map(|line| match Line::of(line) {
        Line::Entered(name, _) => Some(name.to_owned()),
        _ => None,
    });
    let seen = printed.iter().map(|line| quoted(line)).collect::<Vec<_>>().join(", ");
    let why = "The server does not print who entered.";
    let expected = "New user IP:PORT entered (1 user online)";
    names.ok_or_else(|| room.failure("E_TRANSCRIPT", why, expected, seen))
}

/// A transcript that grows: somebody's lines as they must be.
struct Script {
    whose: &'static str,
    lines: Vec<String>,
}

impl Script {
    /// Compares with what was `seen`, as far as the transcript goes, or to the `end`.
    fn compare(&self, room: &mut Room<'_, '_>, seen: &[Vec<u8>], end: bool) -> Result<(), Stop> {
        let mut seen = seen.iter().map(Vec::as_slice);
        for (n, wanted) in self.lines.iter().enumerate() {
            let got = seen.next();
            if got != Some(wanted.as_bytes()) {
                let why = format!("Line {} of {} is not as in the transcript.", n + 1, self.whose);
                let seen = got.map_or("nothing".to_owned(), quoted);
                return Err(room.failure("E_TRANSCRIPT", why, format!("{wanted:?}"), seen));
            }
        }
        match seen.find(|line| end && Line::of(line) != Line::Exit) {
            None => Ok(()),
            Some(more) => {
                let why = format!("There is more than the transcript in {}.", self.whose);
                Err(room.failure("E_TRANSCRIPT", why, "no more lines", quoted(more)))
            }
        }
    }
}

/// Waits until `who` has as many lines as `script`, and compares.
fn follow(room: &mut Room<'_, '_>, who: &Participant, script: &Script) -> Result<(), Stop> {
    who.ear.wait(|lines| lines.len() >= script.lines.len());
    script.compare(room, &who.ear.lines(), false)
}

fn transcript(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let mut room = Room::open(trial)?;
    let script = |whose| Script { whose, lines: Vec::new() };
    let (mut server, mut one, mut two) =
        (script("the server"), script("the first client"), script("the second client"));
    server.lines.push(format!("Chat Server started on port {}.", room.door.server.port()));
    let printed = room.printed(1);
    server.compare(&mut room, &printed, false)?;

    let mut a = room.join()?;
    one.lines.push(format!("Connected to the chat server {}", online(1)));
    follow(&mut room, &a, &one)?;
    let a_name = first_name(&mut room)?;
    server.lines.push(format!("New user {a_name} entered {}", online(1)));

    a.say(b"Hello\n")?;
    one.lines.push("[You] Hello".to_owned());
    server.lines.push(format!("[{a_name}] Hello"));
    follow(&mut room, &a, &one)?;

    let (mut b, b_name) = room.join_before(&a, Door::join)?;
    two.lines.push(format!("Connected to the chat server {}", online(2)));
    for script in [&mut server, &mut one] {
        script.lines.push(format!("New user {b_name} entered {}", online(2)));
    }
    for (speaker, text) in [(1, "World"), (0, "안녕하세요, 여러분"), (1, "[You] (1 user online)")]
    {
        let who = if speaker == 0 { &mut a } else { &mut b };
        who.say(format!("{text}\n").as_bytes())?;
        let name = if speaker == 0 { &a_name } else { &b_name };
        let as_heard = format!("[{name}] {text}");
        let scripts = [&mut one, &mut two];
        scripts[speaker].lines.push(format!("[You] {text}"));
        scripts[1 - speaker].lines.push(as_heard.clone());
        server.lines.push(as_heard);
        follow(&mut room, &a, &one)?;
        follow(&mut room, &b, &two)?;
    }

    let heard = b.leave();
    two.compare(&mut room, &heard.lines(), true)?;
    for script in [&mut server, &mut one] {
        script.lines.push(format!("The user {b_name} left {}", online(1)));
    }
    follow(&mut room, &a, &one)?;
    let heard = a.leave();
    one.compare(&mut room, &heard.lines(), true)?;
    server.lines.push(format!("The user {a_name} left {}", online(0)));
    let printed = room.printed(server.lines.len());
    server.compare(&mut room, &printed, true)
}

/// Runs `jobs` at once, each in a thread.
fn at_once<T: Send>(
    jobs: impl IntoIterator<Item = impl FnOnce() -> T + Send>,
) -> io::Result<Vec<T>> {
    thread::scope(|scope| {
        let spawn = |job| thread::Builder::new().spawn_scoped(scope, job);
        let threads: Vec<_> = jobs.into_iter().map(spawn).collect();
        let join = |thread: io::Result<thread::ScopedJoinHandle<'_, T>>| {
            thread?.join().map_err(|_| io::Error::other("a thread of the grader panicked"))
        };
        threads.into_iter().map(join).collect()
    })
}

/// Who comes or leaves in one wave.
enum Move {
    Join,
    Leave(Participant),
}

fn counts(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const WAVE: usize = 25;
    let mut room = Room::open(trial)?;
    let observer = room.join()?;
    let (mut all_heard, mut present) = (Vec::new(), Vec::new());
    // 25 come; 25 more come while the first leave; those leave.
    for coming in [WAVE, WAVE, 0] {
        let mut moves: Vec<_> = present.drain(..).map(Move::Leave).collect();
        moves.extend((0..coming).map(|_| Move::Join));
        let door = &room.door;
        let moved = at_once(moves.into_iter().map(|each| {
            move || match each {
                Move::Join => door.join().map(|newcomer| (Some(newcomer), None)),
                Move::Leave(who) => {
                    let heard = who.ear.lines(); // what comes on top of its exit does not count
                    who.leave();
                    Ok((None, Some(heard)))
                }
            }
        }))?;
        for moved in moved {
            let (newcomer, heard) = moved.map_err(|stop| room.blame(stop))?;
            present.extend(newcomer);
            all_heard.extend(heard);
        }
    }
    add_up(&mut room, &observer, &all_heard)
}

/// Whether everybody was told the same, one step at a time.
fn add_up(
    room: &mut Room<'_, '_>,
    observer: &Participant,
    all_heard: &[Vec<Vec<u8>>],
) -> Result<(), Stop> {
    let notices = 2 * all_heard.len();
    if !observer.ear.wait(|lines| lines.len() > notices) {
        let why = "Not everybody who came and left was told of.";
        let seen = format!("{} notices, the last: {}", observer.ear.count() - 1, observer.last());
        return Err(room.failure("E_NOTICE", why, format!("{notices} notices"), seen));
    }
    let told = observer.ear.lines();
    let (last, mut entered) = steps(room, "a client", &told)?;
    if last != 1 {
        let seen = observer.last();
        return Err(room.failure("E_COUNT", "All have left but one.", online(1), seen));
    }
    let mut welcomes = Vec::new();
    for lines in all_heard {
        steps(room, "a client", lines)?;
        welcomes.extend(lines.first().and_then(|line| match Line::of(line) {
            Line::Welcome(count) => Some(count),
            _ => None,
        }));
    }
    welcomes.sort_unstable();
    entered.sort_unstable();
    if welcomes != entered {
        let why = "The newcomers are told other counts than those who see them come.";
        let seen = format!("the newcomers {welcomes:?}, the others {entered:?}");
        return Err(room.failure("E_COUNT", why, "the newcomer is counted, too", seen));
    }
    let printed = room.printed(notices + 2);
    steps(room, "the server", printed.get(1..).unwrap_or_default()).map(|_| ())
}

/// Follows the counts of `lines`, each one more or one less than the one before; returns the last
/// one, and those with which somebody entered.
fn steps(
    room: &mut Room<'_, '_>,
    whose: &str,
    lines: &[Vec<u8>],
) -> Result<(usize, Vec<usize>), Stop> {
    let (mut online, mut entered, mut before) = (None, Vec::new(), "nothing".to_owned());
    for line in lines {
        let (expected, count) = match (Line::of(line), online) {
            (Line::Welcome(count), None) => (count, count),
            (Line::Entered(_, count), _) => (online.unwrap_or(0) + 1, count),
            (Line::Left(_, count), Some(online)) => (usize::saturating_sub(online, 1), count),
            (Line::Exit, _) => continue,
            _ => {
                let why = format!("Among the notices of {whose} is a line that is none.");
                let expected = "one notice in each line, first that of having entered";
                return Err(room.failure("E_NOTICE", why, expected, quoted(line)));
            }
        };
        if count != expected {
            let why = format!("The counts of {whose} are not of one order of events.");
            let expected = format!("{expected} online after {before}");
            return Err(room.failure("E_COUNT", why, expected, quoted(line)));
        }
        online = Some(count);
        before = quoted(line);
        if let Line::Entered(..) = Line::of(line) {
            entered.push(count);
        }
    }
    Ok((online.unwrap_or(0), entered))
}

fn framing(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let mut room = Room::open(trial)?;
    let listener = room.join()?;
    let (mut speaker, name) = room.join_before(&listener, Door::join)?;
    let from = listener.ear.count();
    speaker.say(b"one\ntwo\nthree\n")?;
    for piece in ["fo", "ur", "\n"] {
        speaker.let_be_read();
        speaker.say(piece.as_bytes())?;
    }
    let expected = ["one", "two", "three", "four"].map(|text| format!("[{name}] {text}"));
    listener.ear.wait(|lines| lines.len() >= from + expected.len());
    let lines = listener.ear.lines();
    let same = lines[from..].iter().map(Vec::as_slice).eq(expected.iter().map(String::as_bytes));
    if same {
        return Ok(());
    }
    let why = "What comes in one piece is taken for one line.";
    let seen = lines[from..].iter().map(|line| quoted(line)).collect::<Vec<_>>().join(", ");
    Err(room.failure("E_FRAMING", why, format!("{expected:?}"), seen))
}

/// Speakers of the check `tearing`.
const SPEAKERS: usize = 20;
/// Lines of each.
const LINES: usize = 500;

/// What speaker `who` says in its line `n`.
fn said(who: usize, n: usize) -> String {
    format!("{who:02} {n:03} {}", &"the quick brown fox"[..n % 20])
}

fn tearing(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// Lines that each says before it waits until all have heard all: a chat may drop who falls
    /// far behind.
    const BURST: usize = 10;
    let mut room = Room::open(trial)?;
    let mut speakers = vec![room.join()?];
    while speakers.len() < SPEAKERS {
        let (newcomer, _) = room.join_before(&speakers[0], Door::join)?;
        speakers.push(newcomer);
    }
    for n in (0..LINES).step_by(BURST) {
        for (who, speaker) in speakers.iter_mut().enumerate() {
            let burst: String = (n..n + BURST).map(|n| said(who, n) + "\n").collect();
            speaker.say(burst.as_bytes())?;
        }
        for (who, listener) in speakers.iter().enumerate() {
            // Its own welcome, and those who came after it.
            let lines = SPEAKERS - who + (n + BURST) * SPEAKERS;
            if !listener.ear.wait(|heard| heard.len() >= lines) {
                whole(&mut room, listener, who)?;
                let seen = format!("{} lines, the last: {}", listener.ear.count(), listener.last());
                let why = "Lines are lost when 20 speak at once.";
                return Err(room.failure("E_LOST_LINE", why, format!("{lines} lines"), seen));
            }
        }
    }
    for (who, listener) in speakers.iter().enumerate() {
        whole(&mut room, listener, who)?;
    }
    Ok(())
}

/// Whether every line that `listener`, who is speaker number `own`, has heard is whole, and in the
/// order in which it was said.
fn whole(room: &mut Room<'_, '_>, listener: &Participant, own: usize) -> Result<(), Stop> {
    let mut next = [0; SPEAKERS];
    let mut names: HashMap<String, usize> = HashMap::new();
    for line in listener.ear.lines() {
        let text = match Line::of(&line) {
            Line::Welcome(_) | Line::Entered(..) => continue,
            Line::You(text) | Line::Said(_, text) => text,
            _ => return Err(torn(room, &line)),
        };
        let who = text.get(..2).and_then(|who| who.parse().ok()).unwrap_or(SPEAKERS);
        if who >= SPEAKERS || (who == own) != matches!(Line::of(&line), Line::You(_)) {
            return Err(torn(room, &line));
        }
        if let Line::Said(name, _) = Line::of(&line)
            && *names.entry(name.to_owned()).or_insert(who) != who
        {
            return Err(torn(room, &line)); // somebody else's prefix
        }
        if text != said(who, next[who]) {
            let is_whole = (0..LINES).any(|n| text == said(who, n));
            if !is_whole {
                return Err(torn(room, &line));
            }
            let why = "A speaker's lines arrive in another order, twice, or not at all.";
            let expected = format!("{:?}", said(who, next[who]));
            return Err(room.failure("E_LOST_LINE", why, expected, quoted(&line)));
        }
        next[who] += 1;
    }
    Ok(())
}

fn torn(room: &mut Room<'_, '_>, line: &[u8]) -> Stop {
    let why = "Lines of different speakers are mixed, or prefix and text do not belong together.";
    room.failure("E_TORN_LINE", why, "[IP:PORT] text, or [You] text", quoted(line))
}

fn slow_reader(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// Bytes in each line.
    const LENGTH: usize = 8 * 1024;
    /// Lines before the speaker waits until they were heard.
    const BURST: usize = 32;
    /// When a queue is taken to grow for ever. The systems' buffers take 4 MiB or so.
    const MOST: usize = 24 << 20;
    let mut room = Room::open(trial)?;
    let listener = room.join()?;
    let (mut speaker, _) = room.join_before(&listener, Door::join)?;
    let (_deaf, name) = room.join_before(&listener, Door::join_deaf)?;
    let line = format!("{:a<1$}\n", "", LENGTH - 1);
    let is_told = |lines: &[Vec<u8>]| {
        lines.iter().any(|line| matches!(Line::of(line), Line::Left(left, _) if left == name))
    };
    let (mut next, mut dropped, mut said) = ([0; 2], false, 0);
    while !dropped && said * LENGTH < MOST {
        speaker.say(line.repeat(BURST).as_bytes())?;
        said += BURST;
        for (who, next) in [&listener, &speaker].into_iter().zip(&mut next) {
            let mut heard = said - BURST;
            let all = who.ear.wait(|lines| {
                heard += lines[*next..].iter().filter(|line| line.len() > LENGTH).count();
                dropped |= is_told(&lines[*next..]);
                *next = lines.len();
                heard >= said
            });
            if !all {
                let why = "One client does not read, and the others wait for it.";
                let seen = format!("{heard} of {said} lines; the last: {}", who.last());
                return Err(room.failure("E_SLOW_READER", why, "what is said is heard", seen));
            }
        }
    }
    if !dropped {
        let mib = (said * LENGTH) >> 20;
        let memory = room.trial.peak_memory().map(|kib| format!("{} MiB of memory", kib >> 10));
        let memory = memory.unwrap_or_default();
        let why = "A client that never reads is kept for ever, or dropped without a notice.";
        let expected = format!("The user {name} left (2 users online)");
        let seen = format!("no notice after {mib} MiB; {memory} in the server");
        return Err(room.failure("E_QUEUE", why, expected, seen));
    }
    let why = "After a slow client was dropped the others cannot chat.";
    room.still_serves(&mut speaker, &listener, why)
}

fn reset(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// What the bad neighbour says before it is gone: nothing, a line, half a line.
    const BEFORE: [&str; 3] = ["", "bye\n", "half a li"];
    const NOT_TOLD: (&str, &str) =
        ("E_RESET", "A client was reset, and the others are not told that it left.");
    let mut room = Room::open(trial)?;
    let mut witness = room.join()?;
    for before in BEFORE {
        let (mut hostile, name) = room.join_before(&witness, Door::join_hostile)?;
        hostile.say(before.as_bytes())?;
        hostile.crash(|| {
            witness.say(b"anybody there?\n")?;
            let_lie_unread(&name, room.door.server);
            Ok(())
        })?;
        let count = room.hears_of_leaving(&witness, &name, NOT_TOLD)?;
        if count != 1 {
            let (why, expected) = ("A client that was reset is still counted.", online(1));
            return Err(room.failure("E_RESET", why, expected, online(count)));
        }
    }
    let (mut newcomer, _) = room.join_before(&witness, Door::join)?;
    let why = "After a client was reset the others cannot chat.";
    room.still_serves(&mut newcomer, &witness, why)
}

/// Waits until something lies unread at the client that is called `name`, where the system tells.
fn let_lie_unread(name: &str, server: SocketAddr) {
    let Ok(client) = name.parse() else { return };
    room::look(|| hang::queues(client, server).map(|queues| queues.client_unread > 0));
}

fn long_line(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// A line that is long, and allowed.
    const LONG: usize = 60_000;
    /// The limit of a line.
    const LIMIT: usize = 64 * 1024;
    /// A line that is no line any more.
    const ENDLESS: usize = 4 << 20;
    let mut room = Room::open(trial)?;
    let mut listener = room.join()?;
    let (mut hostile, _) = room.join_before(&listener, Door::join_hostile)?;
    let long = "a".repeat(LONG);
    hostile.say(format!("{long}\n").as_bytes())?;
    let told = ("E_LINE_LIMIT", "A line of 60 kB does not arrive.", "the whole line");
    let at =
        room.hears(&listener, 0, told, |line| matches!(line, Line::Said(_, said) if said == long))?;

    // A client waits for the end of a line, too: it has to be told one.
    let endless = if room.door.speaks_lines() { ENDLESS } else { 4 * LIMIT };
    let before = hostile.ear.count();
    let piece = vec![b'b'; LIMIT];
    let mut taken = (0..endless / LIMIT).map(|_| hostile.say(&piece));
    if taken.all(|taken| matches!(taken, Ok(true))) && !room.door.speaks_lines() {
        hostile.say(b"\n")?;
    }
    let is_reason = |line: &Vec<u8>| Line::of(line) == Line::Other && line.len() < LIMIT;
    if !hostile.hears_or_complains(|lines| lines.iter().skip(before).any(is_reason)) {
        let (why, expected) =
            ("A line without end is not refused with a reason.", "one line that says why");
        return Err(room.failure("E_LINE_LIMIT", why, expected, hostile.last()));
    }
    if listener.ear.lines()[at + 1..].iter().any(|line| line.len() > LIMIT) {
        let why = "A line of more than 64 KiB is handed on.";
        return Err(room.failure("E_LINE_LIMIT", why, "it is refused", listener.last()));
    }
    drop(hostile);
    let (newcomer, _) = room.join_before(&listener, Door::join)?;
    let why = "After a line without end the others cannot chat.";
    room.still_serves(&mut listener, &newcomer, why)
}

fn binary(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let mut room = Room::open(trial)?;
    let mut listener = room.join()?;
    let (mut hostile, _) = room.join_before(&listener, Door::join_hostile)?;
    hostile.say(b"\xff\xfe caf\xc3\xa9 \xf0\x9f\n")?;
    let why = "A line with bytes that are not UTF-8 does not arrive, or not as UTF-8.";
    let told = ("E_NOT_UTF8", why, "the line, with something else in their place");
    room.hears(
        &listener,
        0,
        told,
        |line| matches!(line, Line::Said(_, text) if text.contains(" café ")),
    )?;
    hostile.say(&"한글".as_bytes()[..2])?;
    hostile.let_be_read();
    hostile.say(&"한글 in pieces\n".as_bytes()[2..])?;
    let told = ("E_NOT_UTF8", "A character that comes in two pieces is lost.", "한글 in pieces");
    room.hears(&listener, 0, told, |line| matches!(line, Line::Said(_, "한글 in pieces")))?;
    let why = "After bytes that are not UTF-8 the others cannot chat.";
    room.still_serves(&mut listener, &hostile, why)?;
    let printed = room.printed(6);
    match printed.iter().find(|line| str::from_utf8(line).is_err()) {
        None => Ok(()),
        Some(line) => {
            let why = "The server prints bytes that are not UTF-8.";
            Err(room.failure("E_NOT_UTF8", why, "UTF-8", format!("{line:x?}")))
        }
    }
}

fn escape(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// Clear the screen, ring, go back, begin the line anew; a CSI of one character (ECMA-48).
    const CONTROL: &str = "a\x1b[2J\x07\x08b\rc\x7fd\u{9b}31m end";
    let mut room = Room::open(trial)?;
    let listener = room.join()?;
    let (mut hostile, _) = room.join_before(&listener, Door::join_hostile)?;
    hostile.say(format!("{CONTROL}\n").as_bytes())?;
    let told = ("E_ESCAPE", "A line with control characters does not arrive.", "the rest of it");
    let is_end = |line: &Vec<u8>| String::from_utf8_lossy(line).ends_with(" end");
    for who in [&listener, &hostile] {
        if !who.ear.wait(|lines| lines.iter().any(is_end)) {
            return Err(room.failure(told.0, told.1, told.2, who.last()));
        }
    }
    let mut shown_to = vec![("a neighbour", listener.ear.lines())];
    shown_to.push(("the speaker", hostile.ear.lines()));
    shown_to.push(("the server's terminal", room.printed(4)));
    for (whose, lines) in shown_to {
        let is_raw = |line: &&Vec<u8>| {
            String::from_utf8_lossy(line).chars().any(|c| c.is_control() && c != '\t')
        };
        if let Some(line) = lines.iter().find(is_raw) {
            let why = format!("Control characters of a neighbour reach {whose}.");
            return Err(room.failure(
                "E_ESCAPE",
                why,
                "something else in their place",
                quoted(line),
            ));
        }
    }
    Ok(())
}

/// Whether the last visible line of `lines` is `exit`.
fn says_exit<'l>(lines: impl DoubleEndedIterator<Item = &'l [u8]>) -> bool {
    lines.rev().map(<[u8]>::trim_ascii).find(|line| !line.is_empty()) == Some(b"exit")
}

fn interrupt_server(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let mut room = Room::open(trial)?;
    let server = room.door.server;
    let present = [room.join()?, room.join()?];
    room.printed(3); // that they came: nothing else is left to be printed
    room.trial.process()?.signal(Signal::INT);
    let ended = room.trial.end(QUIET)?;
    if !ended.status.success() {
        let why = "The server does not end with status 0 when it is interrupted.";
        return Err(fail("E_INTERRUPT", why, "exit status: 0", ended.summary()));
    }
    if !says_exit(ended.stdout.as_bytes().split(|byte| *byte == b'\n')) {
        let why = "The server does not print exit when it is interrupted.";
        let last = ended.stdout.lines().next_back().unwrap_or_default();
        return Err(fail(
            "E_INTERRUPT",
            why,
            "exit, on a line of its own",
            quoted(last.as_bytes()),
        ));
    }
    let left =
        if room.trial.left_child()? { Some("a process".to_owned()) } else { held(server.port()) };
    if let Some(left) = left {
        let why = "The server has ended and left something behind.";
        return Err(fail("E_STILL_OPEN", why, "nothing is left listening or established", left));
    }
    drop(present);
    room.trial.serve_at(server, Transport::Tcp)?;
    room.join().map(|_| ())
}

/// A socket on `port` that still listens or is connected, in words.
fn held(port: u16) -> Option<String> {
    let port = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let is_held = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let own = fields.next()?;
        let state = match fields.nth(1)? {
            "01" => "established",
            "0A" => "listening",
            _ => return None,
        };
        own.ends_with(&port).then(|| format!("a socket that is {state}"))
    };
    tables.iter().flatten().flat_map(|table| table.lines()).find_map(is_held)
}

fn interrupt_client(trial: &mut Trial<'_>) -> Result<(), Stop> {
    const NOT_TOLD: (&str, &str) =
        ("E_NOTICE", "A client was interrupted, and the others are not told that it left.");
    let mut room = Room::open(trial)?;
    skip_without_clients(&room.door)?;
    let witness = room.join()?;
    let (mut client, name) = room.join_before(&witness, Door::join)?;
    client.signal(Signal::INT);
    let status = client.process().and_then(|process| process.wait(QUIET));
    let Some(status) = status else {
        let why = "The client does not end when it is interrupted.";
        return Err(room.failure("E_INTERRUPT", why, "it ends", "it is still running"));
    };
    client.ear.wait(|_| false);
    if !status.success() {
        let why = "The client does not end with status 0 when it is interrupted.";
        let seen = format!("{status}; {}", client.last());
        return Err(room.failure("E_INTERRUPT", why, "exit status: 0", seen));
    }
    if !says_exit(client.ear.lines().iter().map(Vec::as_slice)) {
        let why = "The client does not print exit when it is interrupted.";
        let expected = "exit, on a line of its own";
        return Err(room.failure("E_INTERRUPT", why, expected, client.last()));
    }
    room.hears_of_leaving(&witness, &name, NOT_TOLD).map(|_| ())
}

fn server_ends(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// Empty lines that may come before whatever a client says at its end.
    const BLANK: usize = 3;
    let mut room = Room::open(trial)?;
    skip_without_clients(&room.door)?;
    let mut client = room.join()?;
    let before = client.ear.count();
    room.trial.kill()?;
    let status = client.process().and_then(|process| process.wait(QUIET));
    let blank = |line: &&Vec<u8>| line.trim_ascii().is_empty();
    let lines = client.ear.lines();
    let lines = lines.get(before..).unwrap_or_default();
    if lines.iter().filter(blank).count() > BLANK {
        let why = "The server has ended, and the client prints empty lines.";
        return Err(fail("E_ENDLESS", why, "an end of file is the end", client.last()));
    }
    if status.is_none() {
        let why = "The server has ended, and the client goes on.";
        return Err(fail("E_ENDLESS", why, "it ends by itself", client.last()));
    }
    client.ear.wait(|_| false);
    let complaint = client.last_complaint();
    if has_trace(&complaint) {
        return Err(fail("E_ENDLESS", "The client crashed.", "it says why it ends", client.last()));
    }
    let lines = client.ear.lines();
    let speaks = |line: &Vec<u8>| Line::of(line) != Line::Exit;
    if complaint.trim().is_empty() && !lines.iter().skip(before).any(speaks) {
        let why = "The server has ended, and the client ends without a word.";
        return Err(fail("E_ENDLESS", why, "it says that the server has ended", client.last()));
    }
    Ok(())
}
