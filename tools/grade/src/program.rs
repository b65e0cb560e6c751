//! The program `grade`.

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use grade::check::{self, Graded, Outcome, SUITES, Suite};
use grade::subject::Subject;
use grade::{mutants, show, workspace};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use wire::ladder::Style;

/// All checks passed.
const PASSED: u8 = 0;
/// Some failed.
const FAILED: u8 = 1;
/// Bad arguments.
const USAGE: u8 = 2;
/// None failed, and of some the grader could not tell.
const INCONCLUSIVE: u8 = 3;
/// A fault of the grader itself (sysexits(3): EX_SOFTWARE).
const FAULT: u8 = 70;

/// Rows of a ladder: of a longer one the middle is left out.
const ROWS: usize = 18;

/// Checks programs from outside, tells the wrong from the right ones, and says why
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Placeholders in COMMAND: {host} {port} {addr}, the server; {count} {length}, the messages to send; \
{text}, the first of them; {timeout}, seconds to wait for a silent server; {json}, becomes --json where a report is wanted.

Exit status: 0 all passed, 1 some failed, 2 usage, 3 inconclusive, 70 a fault of the grader."
)]
struct Args {
    /// Programs of this workspace; those that have a suite
    #[arg(value_name = "PACKAGE", conflicts_with = "program")]
    packages: Vec<String>,
    /// Suite for COMMAND
    #[arg(long, requires = "program")]
    suite: Option<String>,
    /// COMMAND as one argument, split as a shell does
    #[arg(long, value_name = "COMMAND", requires = "suite", group = "program")]
    server: Option<String>,
    /// The client that belongs to the server, of the same form; without it the grader is the client
    #[arg(long, value_name = "COMMAND", requires = "program")]
    client: Option<String>,
    /// Only these checks
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    only: Vec<String>,
    /// COMMAND takes its messages from standard input, as nc does
    #[arg(long, requires = "program")]
    stdin: bool,
    /// COMMAND sends so many bytes before each message: its length, say
    #[arg(long, value_name = "BYTES", default_value = "0", requires = "program")]
    header: u16,
    /// Results as one JSON object
    #[arg(long)]
    json: bool,
    /// Lists the suites and their checks
    #[arg(long, exclusive = true)]
    list: bool,
    /// Grades every program of this workspace and every mutant, and prints the tables
    #[arg(long, exclusive = true)]
    tables: bool,
    /// A program in any language, with placeholders
    #[arg(last = true, requires = "suite", group = "program")]
    command: Vec<String>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let args = Args::parse();
    heed_interrupts();
    let status = panic::catch_unwind(|| run(&args)).unwrap_or(Ok(FAULT));
    ExitCode::from(status.unwrap_or_else(|(status, why)| {
        let _ = writeln!(io::stderr(), "error: {why}");
        status
    }))
}

/// Ends the programs under test, each in a group of its own, before the grader is ended by Ctrl+C or
/// `kill`. A script that starts the grader in the background lets it ignore SIGINT, and they would
/// inherit that: what is handled is not inherited.
fn heed_interrupts() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    let end = move || {
        for signal in &mut signals {
            harness::kill_all();
            let _ = emulate_default_handler(signal);
        }
    };
    let _ = thread::Builder::new().spawn(end); // as good as can be
}

type Failed = (u8, String);

fn fault(error: io::Error) -> Failed {
    (FAULT, error.to_string())
}

fn run(args: &Args) -> Result<u8, Failed> {
    if args.list {
        return print(&list()).map(|()| PASSED);
    }
    if args.tables {
        return print(&tables().map_err(fault)?).map(|()| PASSED);
    }
    let subjects = subjects(args)?;
    let known = |id: &String| {
        let mut checks = subjects.iter().flat_map(|(_, suite)| suite.checks);
        checks.any(|check| check.id == id)
    };
    if let Some(id) = args.only.iter().find(|id| !known(id)) {
        return Err((USAGE, format!("no check is called {id}; grade --list shows them")));
    }
    let graded = check::grade(&subjects, &args.only, progress);
    let color = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print(&match args.json {
        true => format!("{:#}\n", show::json(&graded)),
        false => show::text(&graded, &Style { color, rows: ROWS, ..Style::default() }),
    })?;
    Ok(status(&graded))
}

fn print(text: &str) -> Result<(), Failed> {
    let mut stdout = io::stdout();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| (FAULT, format!("standard output: {error}")))
}

/// What is to be graded, by what.
fn subjects(args: &Args) -> Result<Vec<(Subject, &'static Suite)>, Failed> {
    let suite = |name: &str| {
        let names = || SUITES.map(|suite| suite.name).join(", ");
        check::suite(name)
            .ok_or_else(|| (USAGE, format!("no suite {name}; there are: {}", names())))
    };
    if let Some(name) = &args.suite {
        let suite = suite(name)?;
        let words = |command: &String| {
            let open = || (USAGE, format!("a quote is left open in {command}"));
            shlex::split(command).ok_or_else(open)
        };
        let command = args.server.as_ref().map_or(Ok(args.command.clone()), words)?;
        let client = args.client.as_ref().map_or(Ok(Vec::new()), words)?;
        let file = Path::new(command.first().map_or("", String::as_str)).file_name();
        let subject = Subject {
            name: file.unwrap_or_default().to_string_lossy().into_owned(),
            command,
            client,
            fed: args.stdin,
            header: args.header.into(),
            ..Subject::default()
        };
        if !subject.is_addressed() {
            return Err((
                USAGE,
                "COMMAND needs {addr}, or {port} with or without {host}".to_owned(),
            ));
        }
        return Ok(vec![(subject, suite)]);
    }
    if args.packages.is_empty() {
        return Err((USAGE, "name a PACKAGE, or --suite S -- COMMAND; see --help".to_owned()));
    }
    let programs = workspace::programs().map_err(fault)?;
    let mut wanted = Vec::new();
    for name in &args.packages {
        let program = programs.iter().find(|program| program.name == *name);
        wanted.push(program.ok_or_else(|| {
            (USAGE, format!("no program called {name} has a suite in this workspace"))
        })?);
    }
    let built = workspace::build(wanted.iter().copied());
    let folder = built.map_err(|error| (USAGE, error.to_string()))?;
    let subject = |program: &&workspace::Program| {
        let suite = suite(&program.suite)?;
        Ok((program.subject(suite, &folder), suite))
    };
    wanted.iter().map(subject).collect()
}

fn tables() -> io::Result<String> {
    let mut shown = String::from("# What the checks say of every program\n");
    for (title, subjects) in [
        ("The programs of the lab", workspace::subjects()?),
        ("Programs with one thing wrong", mutants::subjects()),
    ] {
        let graded = check::grade(&subjects, &[], progress);
        shown += &format!("\n## {title}\n\n{}", show::tables(&graded));
    }
    Ok(shown)
}

/// Counts the checks on a terminal, and leaves nothing behind.
fn progress(done: usize, of: usize) {
    if io::stderr().is_terminal() {
        let end = if done == of { "\r\x1b[K" } else { "" };
        let _ = write!(io::stderr(), "\r{done} of {of} checks{end}");
    }
}

fn status(graded: &[Graded]) -> u8 {
    let any = |what: fn(&Outcome) -> bool| {
        graded.iter().flat_map(|program| &program.checked).any(|checked| what(&checked.outcome))
    };
    if any(|outcome| matches!(outcome, Outcome::Failed(_))) {
        FAILED
    } else if any(|outcome| matches!(outcome, Outcome::Inconclusive(_))) {
        INCONCLUSIVE
    } else {
        PASSED
    }
}

fn list() -> String {
    let mut shown = String::new();
    for suite in SUITES {
        shown += &format!("{}\n", suite.name);
        for check in suite.checks {
            shown += &format!("  {:<17}{:>2}  {}\n", check.id, check.points, check.meaning);
        }
    }
    shown
}
