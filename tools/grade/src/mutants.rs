//! The mutants: programs with exactly one thing wrong, and the checks that are meant to find it.

use crate::check::{self, Suite};
use crate::subject::Subject;

/// A program of `tools/grade/mutants`.
pub struct Mutant {
    /// What is wrong with it; `right` is right.
    pub name: &'static str,
    /// The checks meant for it: these and no others fail.
    pub fails: &'static [&'static str],
}

/// Whatever goes wrong after everything went well.
const AT_THE_END: &[&str] =
    &["echo", "ipv6", "dribble", "late-tail", "after-eof", "backpressure", "report"];

/// All of them.
pub const ALL: &[Mutant] = &[
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
    Mutant { name: "leaves-a-child", fails: &["echo"] },
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
    Mutant { name: "sends-too-little", fails: AT_THE_END },
    Mutant { name: "succeeds-when-refused", fails: &["refused"] },
    Mutant { name: "succeeds-when-reset", fails: &["reset"] },
    Mutant { name: "waits-out-an-early-eof", fails: &["early-close"] },
    Mutant { name: "writes-before-reading", fails: &["backpressure"] },
];

/// The mutants, built, with the suite that grades them.
pub fn subjects() -> Vec<(Subject, &'static Suite)> {
    let program = harness::program("mutants").display().to_string();
    let subject = |mutant: &Mutant| {
        let options = ["{addr}", "{count}", "{length}", "{timeout}", "{json}"];
        let parts = [&*program, mutant.name].into_iter().chain(options);
        let command = parts.map(str::to_owned).collect();
        Subject { name: mutant.name.to_owned(), command, fed: false, header: 0, remark: None }
    };
    ALL.iter().map(|mutant| (subject(mutant), check::SUITES[0])).collect()
}
