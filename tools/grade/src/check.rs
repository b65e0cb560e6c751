//! Checks and what comes out of them.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wire::event::{Event, Recorder};

use crate::facts::Architecture;
use crate::subject::{Placeholder, Subject};
use crate::trial::Trial;

/// A suite: checks that apply to one kind of program.
pub struct Suite {
    /// Its name, as in `--suite` and in `[package.metadata.lab]`.
    pub name: &'static str,
    /// Its checks, in the order in which they are shown.
    pub checks: &'static [Check],
    /// The arguments of a lecture program of this kind, with placeholders.
    pub options: &'static [&'static str],
    /// The arguments of a mutant, after its name.
    pub mutant_options: &'static [&'static str],
    /// The arguments of a mutant whose name begins with `client-` as the client of a pair.
    pub mutant_client: &'static [&'static str],
    /// What to do about a failure, where the general hint does not fit: its code, the hint.
    pub hints: &'static [(&'static str, &'static str)],
    /// The mutants: each is caught by the checks meant for it, and by no other.
    pub mutants: &'static [Mutant],
}

/// The suites there are.
pub const SUITES: [&Suite; 6] = [
    &crate::echo_client::SUITE,
    &crate::echo_server::SUITE,
    &crate::chat::SUITE,
    &crate::upper_tcp::SUITE,
    &crate::udp_server::SUITE,
    &crate::udp_client::SUITE,
];

/// The suite called `name`.
pub fn suite(name: &str) -> Option<&'static Suite> {
    SUITES.into_iter().find(|suite| suite.name == name)
}

/// A program of `tools/grade/mutants`.
pub struct Mutant {
    /// What is wrong with it; `right` is right.
    pub name: &'static str,
    /// The checks meant for it: these and no others fail.
    pub fails: &'static [&'static str],
}

/// One check.
pub struct Check {
    /// Its name within the suite.
    pub id: &'static str,
    /// What it is worth.
    pub points: u32,
    /// What the peer does and what the program must do, in one line.
    pub meaning: &'static str,
    /// What the command must be told; without it the check is skipped.
    pub needs: &'static [Placeholder],
    /// Runs it.
    pub run: fn(&mut Trial<'_>) -> Result<(), Stop>,
}

/// Why a check stopped before it passed.
#[derive(Debug)]
pub enum Stop {
    /// The program is wrong.
    Failed(Failure),
    /// The check does not apply; with the reason.
    Skipped(String),
    /// The grader could not tell; with its own trouble.
    Inconclusive(String),
}

impl From<io::Error> for Stop {
    /// An error of a socket or a process that the grader itself needs.
    fn from(error: io::Error) -> Self {
        Stop::Inconclusive(format!("the grader's own trouble: {error}"))
    }
}

/// What a wrong program did.
#[derive(Clone, Debug)]
pub struct Failure {
    /// A stable code, such as `E_CLOSED_WITH_UNREAD_DATA`.
    pub code: &'static str,
    /// One sentence.
    pub why: String,
    /// What a right program does.
    pub expected: String,
    /// What was seen instead.
    pub seen: String,
}

/// Every code with its hint: what to do about it, and the place in `labs.md`.
const HINTS: &[(&str, &str)] = &[
    (
        "E_NOT_LISTENING",
        "bind to the host and the port of the command line, and listen (labs.md 1.3)",
    ),
    ("E_BACKGROUND", "stay in the foreground until you are told to end (labs.md 3.1)"),
    ("E_NO_CONNECTION", "connect to the host and the port of the command line (labs.md 1.2)"),
    ("E_CLOSED_WITH_UNREAD_DATA", "half-close, then read to the end of file (labs.md 2.2)"),
    ("E_SENT_TOO_LITTLE", "write until everything is written (labs.md 1.11)"),
    ("E_SENT_TOO_MUCH", "send the messages that were asked for, and no others (labs.md 2.1)"),
    ("E_TOO_LONG", "stop when all is said, and do not sleep between reads (labs.md 2.1)"),
    ("E_NO_HALF_CLOSE", "shutdown(SHUT_WR) after the last message (labs.md 2.2)"),
    ("E_DEADLOCK", "receive while you send: two threads or one selector (labs.md 2.3, 2.5)"),
    ("E_HANG", "end when the server has ended, or is silent for too long (labs.md 2.3)"),
    ("E_NO_TIMEOUT", "bound every wait by a time-out (labs.md 2.3)"),
    ("E_BUSY_WAIT", "wait for readiness instead of asking again and again (labs.md 2.6)"),
    ("E_MEMORY", "keep only what is outstanding, not all that was sent (labs.md 2.5)"),
    ("E_SUCCESS_IN_SPITE", "exit with a status other than 0 (labs.md 2.2)"),
    ("E_CORRUPTION_UNNOTICED", "compare the bytes, not their number (labs.md 2.2)"),
    ("E_NO_MESSAGE", "say on stderr what went wrong (labs.md 2.2)"),
    ("E_CRASHED", "handle the error: a peer may fail at any moment (labs.md 2.2)"),
    ("E_TOO_LATE", "look for the end of file wherever you read (labs.md 2.2)"),
    ("E_KEEPS_TRYING", "a refused connection is an answer: say so, and end (labs.md 1.9)"),
    ("E_EXIT_STATUS", "exit with 0 when every byte came back (labs.md 2.2)"),
    ("E_LEFT_CHILD", "end your child processes, and wait for them, before you end (labs.md 3.2)"),
    ("E_REPORT", "report the bytes that were sent and received (labs.md 2.2)"),
    ("E_TRANSCRIPT", "say it in the very words of the transcript, a line each (labs.md 3.7)"),
    ("E_NOTICE", "tell everybody who comes and who leaves, one line each (labs.md 3.7)"),
    ("E_COUNT", "count, and tell the count, under one lock (labs.md 3.7)"),
    ("E_FRAMING", "a line ends at its newline, not at the end of a read (labs.md 3.7)"),
    ("E_LOST_LINE", "one queue for each client, and one writer for each queue (labs.md 3.7)"),
    ("E_TORN_LINE", "queue prefix and text as one line (labs.md 3.7)"),
    ("E_SLOW_READER", "never write to a socket while others wait for you (labs.md 3.7, 3.8)"),
    ("E_QUEUE", "bound each client's queue; drop who lets it fill, and say so (labs.md 3.7, 3.8)"),
    ("E_RESET", "an error of a connection is the end of it: tell the others (labs.md 3.7)"),
    ("E_LINE_LIMIT", "bound the bytes of a line; say why before you close (labs.md 3.7)"),
    ("E_NOT_UTF8", "decode whole lines, and replace what cannot be decoded (labs.md 3.7)"),
    ("E_ESCAPE", "replace control characters before you print or send them (labs.md 3.7)"),
    ("E_INTERRUPT", "handle SIGINT: print exit, end with status 0 (labs.md 3.7)"),
    ("E_STILL_OPEN", "close every socket, and end every process (labs.md 3.7)"),
    ("E_ENDLESS", "a read of 0 bytes is the end: say so, and end (labs.md 3.7)"),
    ("E_PRINTS_ON", "wait in a read, and print only what comes (labs.md 3.7)"),
    ("E_SERVER_GONE", "no client's behaviour ends a server (labs.md 3.7)"),
    (
        "E_UDP_NO_DATAGRAM",
        "send the sentence to the host and the port of the command line (labs.md 5.1)",
    ),
    ("E_UDP_LINES", "send each line as a datagram of its own (labs.md 5.2)"),
    ("E_UDP_NO_ANSWER", "answer every datagram, to the address it came from (labs.md 5.1)"),
    ("E_UDP_WRONG_ANSWER", "handle bytes: a to z change, and nothing else (labs.md 5.1)"),
    ("E_UDP_CUT", "give the receive a buffer for the longest datagram (labs.md 5.2)"),
    ("E_UDP_SOURCE", "answer by the socket that the datagram came in by (labs.md 5.6)"),
    ("E_UDP_SERVER_ENDED", "log the error of one datagram, and serve on (labs.md 5.5)"),
    ("E_UDP_INTERRUPT", "handle SIGINT: to end is what was asked for (labs.md 5.1)"),
    ("E_UDP_NO_RETRY", "set a time-out, and send again when it is over (labs.md 5.4)"),
    ("E_UDP_NO_TIMEOUT", "give up after some tries (labs.md 5.4)"),
    ("E_UDP_WRONG_PRINTED", "compare the answer with what was asked (labs.md 5.4)"),
    ("E_UDP_CUT_UNNOTICED", "compare the answer with what was asked (labs.md 5.4)"),
    ("E_UDP_DEAD_PORT", "connect the socket: then its calls fail where nobody is (labs.md 5.5)"),
    ("E_UDP_STRANGER", "connect the socket, or compare the sender's address (labs.md 5.6)"),
    ("E_NO_ANSWER", "answer what has arrived, and do not wait for more (labs.md 1.4)"),
    ("E_WRONG_ANSWER", "handle bytes: count them, write all of them, change none (labs.md 1.11)"),
    ("E_CLOSED_EARLY", "read to the client's FIN, answer everything, then close (labs.md 2.2)"),
    ("E_NOT_CLOSED", "close the connection when the end of file is read (labs.md 1.4)"),
    ("E_SERVER_ENDED", "drop the client whose call failed, and serve on (labs.md 3.5)"),
    ("E_ONE_AT_A_TIME", "serve each client by a thread, a process, a selector (labs.md 3.1)"),
    ("E_TOO_FEW", "do not bind a worker to a client for as long as it stays (labs.md 3.3)"),
    ("E_STARVED", "write to a client only what its socket takes now (labs.md 3.4)"),
    ("E_UNBOUNDED", "do not read from a client that does not read (labs.md 3.5)"),
    ("E_LOST_CLIENT", "out of descriptors, let newcomers wait or close them (labs.md 3.5)"),
    ("E_BUSY_ACCEPT", "pause when accept fails, or keep a descriptor in reserve (labs.md 3.5)"),
    ("E_LEAKED_DESCRIPTOR", "close every copy of a connection's socket (labs.md 3.2)"),
    ("E_LEAKED_THREAD", "let a thread end when its client has gone (labs.md 3.1)"),
    ("E_ZOMBIE", "wait for children that have ended, on SIGCHLD (labs.md 3.2)"),
    ("E_LEAKED_MEMORY", "forget a client that has gone (labs.md 3.1)"),
    ("E_IGNORES_SIGNAL", "end on SIGINT and on SIGTERM (labs.md 3.1)"),
    ("E_SIGNAL_STATUS", "handle SIGINT and SIGTERM: to end is what was asked for (labs.md 3.1)"),
    ("E_CHILD_SERVES_ON", "end the children as well (labs.md 3.2)"),
    ("E_NO_REUSEADDR", "set SO_REUSEADDR before bind (labs.md 3.1)"),
];

impl Failure {
    /// What to do about it where `suite` has found it, with the place in `labs.md`.
    pub fn hint(&self, suite: &Suite) -> &'static str {
        let mut hints = suite.hints.iter().chain(HINTS);
        hints.find(|(code, _)| *code == self.code).map_or("", |(_, hint)| hint)
    }
}

/// How a check came out.
#[derive(Debug)]
pub enum Outcome {
    /// The program did what it must.
    Passed,
    /// It did not.
    Failed(Failure),
    /// The check does not apply, and why.
    Skipped(String),
    /// The grader could not tell, and why.
    Inconclusive(String),
}

/// A check that was made.
pub struct Checked {
    /// Which.
    pub check: &'static Check,
    /// How it came out.
    pub outcome: Outcome,
    /// What crossed the wire.
    pub events: Vec<Event>,
    /// How the program serves several clients, if this check shows it.
    pub architecture: Option<Architecture>,
    /// How long it took.
    pub took: Duration,
}

/// A program that was graded.
pub struct Graded {
    /// Its name.
    pub name: String,
    /// The suite.
    pub suite: &'static Suite,
    /// What is to be known about it.
    pub remark: Option<String>,
    /// What came out, in the order of the suite.
    pub checked: Vec<Checked>,
}

impl Graded {
    /// The ids of the checks that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = |checked: &&Checked| matches!(checked.outcome, Outcome::Failed(_));
        self.checked.iter().filter(failed).map(|checked| checked.check.id).collect()
    }

    /// How it serves several clients, if that was seen: to be known, not judged.
    pub fn architecture(&self) -> Option<&Architecture> {
        self.checked.iter().find_map(|checked| checked.architecture.as_ref())
    }

    /// Points reached, and points that could be reached: what was skipped does not count.
    pub fn points(&self) -> (u32, u32) {
        let sum = |counts: fn(&Outcome) -> bool| -> u32 {
            let counted = self.checked.iter().filter(|checked| counts(&checked.outcome));
            counted.map(|checked| checked.check.points).sum()
        };
        let passed = sum(|outcome| matches!(outcome, Outcome::Passed));
        (passed, sum(|outcome| !matches!(outcome, Outcome::Skipped(_))))
    }
}

/// Programs under test at the same time: mostly they wait for each other.
const AT_ONCE: usize = 8;

/// Grades each subject with the checks of its suite that `wanted` names (all, if it names none).
/// `progress` hears of each check as it is done.
pub fn grade(
    subjects: &[(Subject, &'static Suite)],
    wanted: &[String],
    progress: impl Fn(usize, usize) + Sync,
) -> Vec<Graded> {
    raise_limit();
    let is_wanted = |check: &&Check| wanted.is_empty() || wanted.iter().any(|id| id == check.id);
    let jobs: Vec<_> = subjects
        .iter()
        .enumerate()
        .flat_map(|(n, (_, suite))| suite.checks.iter().filter(is_wanted).map(move |c| (n, c)))
        .collect();
    let done = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(&(subject, check)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let checked = make(check, &subjects[subject].0);
            let mut done = done.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            done.push((subject, checked));
            progress(done.len(), jobs.len());
        }
    };
    thread::scope(|scope| {
        for _ in 1..AT_ONCE {
            let _ = thread::Builder::new().spawn_scoped(scope, work); // fewer will do
        }
        work();
    });
    let mut graded: Vec<_> = subjects
        .iter()
        .map(|(subject, suite)| Graded {
            name: subject.name.clone(),
            suite,
            remark: subject.remark.clone(),
            checked: Vec::new(),
        })
        .collect();
    for (subject, checked) in done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        graded[subject].checked.push(checked);
    }
    for graded in &mut graded {
        let place = |id| graded.suite.checks.iter().position(|check| check.id == id);
        graded.checked.sort_by_key(|checked| place(checked.check.id));
    }
    graded
}

/// Lets this process have as many descriptors as the system allows it: it is 1000 clients at once,
/// for several servers.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }); // or as it is
}

fn make(check: &'static Check, subject: &Subject) -> Checked {
    let started = Instant::now();
    let recorder = Recorder::new();
    let missing = check.needs.iter().find(|placeholder| !subject.takes(**placeholder));
    let mut trial = Trial::new(subject, recorder.clone());
    let result = match missing {
        Some(placeholder) => Err(Stop::Skipped(placeholder.missing().to_owned())),
        None => (check.run)(&mut trial).and_then(|()| trial.stays_in_foreground()),
    };
    let architecture = trial.architecture.take();
    drop(trial); // ends the program, which may hold much
    let outcome = match result {
        Ok(()) => Outcome::Passed,
        Err(Stop::Failed(failure)) => Outcome::Failed(failure),
        Err(Stop::Skipped(why)) => Outcome::Skipped(why),
        Err(Stop::Inconclusive(why)) => Outcome::Inconclusive(why),
    };
    let (events, took) = (recorder.events(), started.elapsed());
    Checked { check, outcome, events, architecture, took }
}
