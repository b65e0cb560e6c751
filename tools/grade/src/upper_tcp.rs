//! The suite for uppercase servers over TCP: a sentence, its answer, and the connection is closed.

use std::thread;
use std::time::Duration;

use crate::check::{Check, Mutant, Stop, Suite};
use crate::client::{ask, because, connect, fin, hear, say, start};
use crate::trial::Trial;

/// The suite for uppercase servers over TCP.
pub static SUITE: Suite = Suite {
    name: "upper-tcp",
    checks: &[
        Check {
            id: "upper",
            points: 2,
            meaning: "a line comes back in upper case, then a FIN; 5 clients in turn",
            needs: &[],
            run: upper,
        },
        Check {
            id: "fin",
            points: 1,
            meaning: "a sentence without a newline, then a FIN: it is answered",
            needs: &[],
            run: ends_with_fin,
        },
        Check {
            id: "pieces",
            points: 2,
            meaning: "a line byte by byte: it is answered as a whole",
            needs: &[],
            run: pieces,
        },
        Check { id: "long", points: 1, meaning: "a line of 100 000 bytes", needs: &[], run: long },
        Check {
            id: "bytes",
            points: 1,
            meaning: "only a to z change, and not the number of bytes",
            needs: &[],
            run: bytes,
        },
        Check {
            id: "extra",
            points: 1,
            meaning: "more than a line: the first is answered, and no RST destroys the answer",
            needs: &[],
            run: extra,
        },
        Check {
            id: "reset",
            points: 1,
            meaning: "RSTs before and after the sentence: the server serves on",
            needs: &[],
            run: reset,
        },
        Check {
            id: "concurrent",
            points: 1,
            meaning: "the first client is silent: the second is served",
            needs: &[],
            run: concurrent,
        },
    ],
    options: &["{addr}"],
    mutant_options: &["{addr}"],
    mutant_client: &[],
    hints: &[
        (
            "E_CLOSED_EARLY",
            "read to the newline or the FIN, answer all of it, then close (labs.md 1.6)",
        ),
        ("E_NOT_CLOSED", "close the connection after the answer, not at the FIN (labs.md 1.6)"),
    ],
    mutants: MUTANTS,
};

const MUTANTS: &[Mutant] = &[
    Mutant { name: "right", fails: &[] },
    Mutant { name: "answers-each-piece-alone", fails: &["pieces", "long"] },
    Mutant { name: "changes-the-alphabet", fails: &["bytes"] },
    Mutant { name: "dies-of-a-reset", fails: &["reset"] },
    Mutant { name: "drops-a-long-line", fails: &["long"] },
    Mutant { name: "never-closes", fails: &["upper", "fin", "pieces", "long", "bytes", "extra"] },
    Mutant { name: "one-at-a-time", fails: &["concurrent"] },
    Mutant { name: "resets-after-the-answer", fails: &["extra"] },
    Mutant { name: "serves-once", fails: &["upper", "reset", "concurrent"] },
    Mutant { name: "waits-for-a-newline", fails: &["fin"] },
];

/// Asks one question of the server and sees the connection closed.
fn asks(trial: &mut Trial<'_>, question: &[u8], answer: &[u8]) -> Result<(), Stop> {
    let server = start(trial)?;
    let mut peer = connect(trial, server)?;
    ask(trial, &mut peer, question, answer)?;
    fin(trial, &mut peer, CLOSED)
}

const CLOSED: &str = "a FIN after the answer";

fn upper(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = start(trial)?;
    for n in 1..=5 {
        let mut peer = connect(trial, server)?;
        let question = format!("sentence {n}, in lower case.\n");
        ask(trial, &mut peer, question.as_bytes(), question.to_uppercase().as_bytes())?;
        fin(trial, &mut peer, CLOSED)?;
    }
    Ok(())
}

fn ends_with_fin(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = start(trial)?;
    let mut peer = connect(trial, server)?;
    say(trial, &mut peer, b"no newline")?;
    peer.fin();
    hear(trial, &mut peer, b"NO NEWLINE")?;
    fin(trial, &mut peer, CLOSED)
}

fn pieces(trial: &mut Trial<'_>) -> Result<(), Stop> {
    /// How long a byte stays alone: who takes it for the whole sentence has answered by then.
    const ALONE: Duration = Duration::from_millis(50);
    let server = start(trial)?;
    let mut peer = connect(trial, server)?;
    for byte in b"by and by\n".chunks(1) {
        say(trial, &mut peer, byte)?;
        thread::sleep(ALONE);
    }
    hear(trial, &mut peer, b"BY AND BY\n")?;
    fin(trial, &mut peer, CLOSED)
}

fn long(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let question: Vec<u8> = (b'a'..=b'z').cycle().take(99_999).chain(*b"\n").collect();
    asks(trial, &question, &question.to_ascii_uppercase())
}

fn bytes(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let question: Vec<u8> =
        "straße, 한글, 100 €, ".bytes().chain(128..=255).chain(*b"\0\t z\n").collect();
    asks(trial, &question, &question.to_ascii_uppercase())
}

fn extra(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let question = format!("the first line\n{}", "and others\n".repeat(2000));
    asks(trial, question.as_bytes(), b"THE FIRST LINE\n")
}

fn reset(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = start(trial)?;
    for question in [&b""[..], b"no newline", b"a line\n", b"lines\n and lines\n"] {
        for _ in 0..2 {
            let mut peer = connect(trial, server)?;
            say(trial, &mut peer, question)?;
            peer.reset()?;
            let mut next = connect(trial, server)?;
            ask(trial, &mut next, b"next\n", b"NEXT\n")?;
        }
    }
    Ok(())
}

fn concurrent(trial: &mut Trial<'_>) -> Result<(), Stop> {
    let server = start(trial)?;
    let mut silent = connect(trial, server)?;
    let mut second = connect(trial, server)?;
    let why = "While one client is connected and silent, another is not served.";
    ask(trial, &mut second, b"second\n", b"SECOND\n")
        .map_err(|stop| because(stop, "E_ONE_AT_A_TIME", why))?;
    ask(trial, &mut silent, b"first\n", b"FIRST\n")
}
