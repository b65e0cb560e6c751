//! The grader is graded: each mutant is caught by the checks meant for it and by no other, each
//! check catches a mutant, and every lecture program comes out as its `Cargo.toml` says.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use grade::check::{self, Checked, Graded, Outcome};
use grade::{mutants, show, workspace};

/// The tables in the repository; the results must be the same.
const TABLES: &str = include_str!("../tables.md");

/// What was said of the checks that failed, for the reader of a failed test.
fn reasons(graded: &Graded) -> Vec<String> {
    let reason = |checked: &Checked| match &checked.outcome {
        Outcome::Failed(failure) => Some(format!("{}: {failure:?}", checked.check.id)),
        _ => None,
    };
    graded.checked.iter().filter_map(reason).collect()
}

/// The ids of the checks that failed; anything inconclusive is a fault of the grader.
fn failed(graded: &Graded) -> BTreeSet<&str> {
    for checked in &graded.checked {
        if let Outcome::Inconclusive(why) = &checked.outcome {
            panic!("{}, {}: {why}", graded.name, checked.check.id);
        }
    }
    graded.failed().into_iter().collect()
}

#[test]
fn each_mutant_is_caught_by_the_checks_meant_for_it() {
    let subjects = mutants::subjects();
    let graded = check::grade(&subjects, &[], |_, _| ());
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for (graded, (mutant, _)) in graded.iter().zip(mutants::all()) {
        let (failed, meant): (_, BTreeSet<&str>) =
            (failed(graded), mutant.fails.iter().copied().collect());
        if failed != meant {
            wrong.push(format!(
                "{}: meant for {meant:?}, caught by {:?}",
                mutant.name,
                reasons(graded)
            ));
        }
        used.extend(failed.into_iter().map(|id| (graded.suite.name, id)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(TABLES.contains(&show::tables(&graded)), "cargo run -p grade -- --tables");
    for suite in check::SUITES {
        for check in suite.checks {
            let caught = used.contains(&(suite.name, check.id));
            assert!(caught, "{}, {}: catches no mutant", suite.name, check.id);
        }
    }
}

#[test]
fn every_lecture_program_comes_out_as_it_says() {
    let programs = workspace::programs().unwrap();
    let graded = check::grade(&workspace::subjects().unwrap(), &[], |_, _| ());
    let mut wrong = Vec::new();
    for (graded, program) in graded.iter().zip(&programs) {
        let meant: BTreeSet<&str> = program.fails.iter().map(String::as_str).collect();
        let failed = failed(graded);
        if failed != meant {
            wrong.push(format!("{}: says {meant:?}, fails {:?}", program.name, reasons(graded)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(TABLES.contains(&show::tables(&graded)), "cargo run -p grade -- --tables");
}
