//! Results for a person and for a script.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wire::event::Event;
use wire::ladder::{self, Style};

use crate::check::{Checked, Graded, Outcome, SUITES, Suite};

/// The results for a person: a line for each check, then each failure with its ladder and, where
/// another program passed the same check, that one's ladder for comparison.
pub fn text(graded: &[Graded], style: &Style) -> String {
    let mut shown = String::new();
    for program in graded {
        let (points, of) = program.points();
        shown += &format!("{} ({}): {points} of {of} points\n", program.name, program.suite.name);
        for checked in &program.checked {
            shown += &line(checked, style);
        }
        if let Some(architecture) = program.architecture() {
            shown += &format!("  Seen in /proc: {architecture}.\n");
        }
        shown += &program.remark.as_ref().map_or(String::new(), |remark| format!("  {remark}\n"));
        shown.push('\n');
    }
    let all: Vec<_> = graded
        .iter()
        .flat_map(|program| program.checked.iter().map(move |c| (program, c)))
        .collect();
    let mut compared = Vec::new();
    for (program, checked) in &all {
        let Outcome::Failed(failure) = &checked.outcome else { continue };
        shown += &title(program, checked, failure.code, "1;31", style);
        shown += &format!("{}\n", failure.why);
        let rows = [
            ("expected", &*failure.expected),
            ("seen", &failure.seen),
            ("hint", failure.hint(program.suite)),
        ];
        for (name, value) in rows {
            shown += &format!("  {name:<9} {value}\n");
        }
        shown += &format!("{}\n", drawn(&checked.events, style));
        let check = (program.suite.name, checked.check.id);
        let passed = all.iter().find(|(program, checked)| {
            (program.suite.name, checked.check.id) == check
                && matches!(checked.outcome, Outcome::Passed)
        });
        if let Some((program, checked)) = passed
            && !compared.contains(&check)
        {
            compared.push(check);
            shown += &title(program, checked, "passed, for comparison", "1;32", style);
            shown += &format!("{}\n", drawn(&checked.events, style));
        }
    }
    shown
}

/// The ladder of what crossed the wire: of many connections, the first and the last few.
fn drawn(events: &[Event], style: &Style) -> String {
    const FEW: usize = 3;
    let connections: BTreeSet<_> = events.iter().map(|event| event.connection).collect();
    if connections.len() <= 2 * FEW {
        return ladder::draw(events, style);
    }
    let ends = connections.iter().take(FEW).chain(connections.iter().rev().take(FEW));
    let ends: BTreeSet<_> = ends.collect();
    let few: Vec<_> = events.iter().filter(|e| ends.contains(&e.connection)).cloned().collect();
    let ladder = ladder::draw(&few, style);
    format!(
        "{ladder}\nOf {} connections, the first and the last {FEW} are shown.\n",
        connections.len()
    )
}

fn title(program: &Graded, checked: &Checked, what: &str, color: &str, style: &Style) -> String {
    let title = format!("{}, {}: {what}", program.name, checked.check.id);
    format!("{}\n", paint(style, color, &title))
}

fn line(checked: &Checked, style: &Style) -> String {
    let (word, color, rest) = match &checked.outcome {
        Outcome::Passed => ("passed", "32", checked.check.meaning.to_owned()),
        Outcome::Failed(failure) => {
            ("FAILED", "1;31", format!("{}: {}", failure.code, failure.why))
        }
        Outcome::Skipped(why) => ("skipped", "2", why.clone()),
        Outcome::Inconclusive(why) => ("unclear", "33", why.clone()),
    };
    let word = paint(style, color, &format!("{word:<8}"));
    format!("  {word}{:<17}{:>2}  {rest}\n", checked.check.id, checked.check.points)
}

fn paint(style: &Style, color: &str, text: &str) -> String {
    if style.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A table in Markdown for each suite that was used, checks by programs: an x where a program
/// failed, a dash where a check does not apply.
pub fn tables(graded: &[Graded]) -> String {
    let is_used = |suite: &&Suite| graded.iter().any(|program| program.suite.name == suite.name);
    let tables: Vec<_> = SUITES.into_iter().filter(is_used).map(|s| table(s, graded)).collect();
    tables.join("\n")
}

fn table(suite: &Suite, graded: &[Graded]) -> String {
    let ids: Vec<_> = suite.checks.iter().map(|check| check.id).collect();
    let mut table = format!("| {} | {} |\n", suite.name, ids.join(" | "));
    table += &format!("|---|{}\n", ":-:|".repeat(ids.len()));
    for program in graded.iter().filter(|program| program.suite.name == suite.name) {
        let mark = |id: &&str| {
            let checked = program.checked.iter().find(|checked| checked.check.id == *id);
            match checked.map(|checked| &checked.outcome) {
                Some(Outcome::Passed) => "",
                Some(Outcome::Failed(_)) => "x",
                Some(Outcome::Inconclusive(_)) => "?",
                Some(Outcome::Skipped(_)) | None => "-",
            }
        };
        let marks: Vec<_> = ids.iter().map(mark).collect();
        table += &format!("| {} | {} |\n", program.name, marks.join(" | "));
    }
    table
}

/// The results for a script: one JSON object.
pub fn json(graded: &[Graded]) -> Value {
    let programs: Vec<Value> = graded
        .iter()
        .map(|program| {
            let (points, of) = program.points();
            let checks: Vec<Value> =
                program.checked.iter().map(|checked| check(program.suite, checked)).collect();
            json!({
                "program": program.name,
                "suite": program.suite.name,
                "points": points,
                "of": of,
                "architecture": program.architecture().map(|architecture| architecture.name),
                "checks": checks,
            })
        })
        .collect();
    json!({ "programs": programs })
}

fn check(suite: &Suite, checked: &Checked) -> Value {
    let (outcome, why) = match &checked.outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Failed(failure) => ("failed", Some(&failure.why)),
        Outcome::Skipped(why) => ("skipped", Some(why)),
        Outcome::Inconclusive(why) => ("inconclusive", Some(why)),
    };
    let mut value = json!({
        "id": checked.check.id,
        "points": checked.check.points,
        "outcome": outcome,
        "why": why,
        "seconds": checked.took.as_secs_f64(),
    });
    if let Outcome::Failed(failure) = &checked.outcome {
        value["code"] = failure.code.into();
        value["hint"] = failure.hint(suite).into();
        value["expected"] = failure.expected.as_str().into();
        value["seen"] = failure.seen.as_str().into();
        value["ladder"] = drawn(&checked.events, &Style { rows: 30, ..Style::default() }).into();
    }
    value
}
