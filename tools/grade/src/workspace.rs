//! The programs of this workspace, and what their `Cargo.toml` says of them.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::check::{self, Suite};
use crate::subject::Subject;

/// The arguments of a client that takes its messages from standard input.
const FED: &[&str] = &["--timeout", "{timeout}", "{addr}"];

/// A lecture program with a suite, from `[package.metadata.lab]`.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its package.
    pub name: String,
    /// The suite whose checks apply.
    pub suite: String,
    /// The checks that it fails on purpose.
    pub fails: Vec<String>,
    /// The program that does not.
    pub repaired_by: Option<String>,
    /// The program that is its client, where a suite wants a pair.
    pub client: Option<String>,
    /// The arguments that it is called with, if not those of its suite.
    pub options: Vec<String>,
    /// Whether it takes its messages from standard input.
    pub fed: bool,
    /// Bytes that it sends before each message.
    pub header: usize,
}

/// The lecture programs that say which suite applies to them, by name.
///
/// # Errors
/// `cargo metadata` cannot be run or understood.
pub fn programs() -> io::Result<Vec<Program>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    let output = cargo.args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut programs: Vec<_> = packages.filter_map(program).collect();
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

fn program(package: &Value) -> Option<Program> {
    let lab = &package["metadata"]["lab"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let fails = lab["fails"].as_array().into_iter().flatten().filter_map(text);
    Some(Program {
        name: package["name"].as_str()?.to_owned(),
        suite: lab["suite"].as_str()?.to_owned(),
        fails: fails.collect(),
        repaired_by: lab["repaired-by"].as_str().map(str::to_owned),
        client: lab["client"].as_str().map(str::to_owned),
        options: lab["options"].as_array().into_iter().flatten().filter_map(text).collect(),
        fed: lab["input"] == "stdin",
        header: lab["header"].as_u64().unwrap_or(0) as usize,
    })
}

/// Builds `programs`, and the clients that go with them; returns the folder that they are in.
///
/// # Errors
/// They cannot be built; why is said on stderr by cargo.
pub fn build<'p>(programs: impl IntoIterator<Item = &'p Program>) -> io::Result<PathBuf> {
    let pair = |program: &'p Program| [Some(&program.name), program.client.as_ref()];
    harness::build(programs.into_iter().flat_map(pair).flatten().map(String::as_str))
}

/// Every one of [`programs`], built, with the suite that grades it.
///
/// # Errors
/// As [`programs`] and [`build`]; a suite is not known.
pub fn subjects() -> io::Result<Vec<(Subject, &'static Suite)>> {
    let programs = programs()?;
    let folder = build(&programs)?;
    let subject = |program: &Program| {
        let suite = check::suite(&program.suite);
        let unknown = || io::Error::other(format!("{}: no suite {}", program.name, program.suite));
        let suite = suite.ok_or_else(unknown)?;
        Ok((program.subject(suite, &folder), suite))
    };
    programs.iter().map(subject).collect()
}

impl Program {
    /// How the program in `folder` is called, by the contract of the programs.
    pub fn subject(&self, suite: &Suite, folder: &Path) -> Subject {
        let call = |name: &str, options: &[&str]| {
            let program = folder.join(name).display().to_string();
            [program].into_iter().chain(options.iter().map(|part| part.to_string())).collect()
        };
        let own: Vec<_> = self.options.iter().map(String::as_str).collect();
        let options = if self.fed { FED } else { suite.options };
        let options = if own.is_empty() { options } else { &own };
        Subject {
            name: self.name.clone(),
            command: call(&self.name, options),
            client: self.client.as_ref().map_or(Vec::new(), |name| call(name, &["{addr}"])),
            lines: self.client.is_some(), // ours do
            fed: self.fed,
            header: self.header,
            remark: self.remark(),
        }
    }

    /// That what it fails is its lesson.
    fn remark(&self) -> Option<String> {
        let repair = self.repaired_by.as_ref().map(|name| format!(" ({name} repairs it)"));
        let lesson = format!("Its lesson is to fail {}", self.fails.join(", "));
        (!self.fails.is_empty()).then(|| format!("{lesson}{}.", repair.unwrap_or_default()))
    }
}
