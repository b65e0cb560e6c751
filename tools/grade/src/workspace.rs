//! The programs of this workspace, and what their `Cargo.toml` says of them.

use std::io;
use std::process::Command;

use serde_json::Value;

use crate::check::{self, Suite};
use crate::subject::Subject;

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
    let fails = lab["fails"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Some(Program {
        name: package["name"].as_str()?.to_owned(),
        suite: lab["suite"].as_str()?.to_owned(),
        fails: fails.map(str::to_owned).collect(),
        repaired_by: lab["repaired-by"].as_str().map(str::to_owned),
        fed: lab["input"] == "stdin",
        header: lab["header"].as_u64().unwrap_or(0) as usize,
    })
}

/// Every one of [`programs`], built, with the suite that grades it.
///
/// # Errors
/// As [`programs`]; a suite is not known.
pub fn subjects() -> io::Result<Vec<(Subject, &'static Suite)>> {
    let programs = programs()?;
    let folder = harness::build(programs.iter().map(|program| &*program.name));
    let subject = |program: &Program| {
        let suite = check::suite(&program.suite);
        let unknown = || io::Error::other(format!("{}: no suite {}", program.name, program.suite));
        Ok((program.subject(&folder), suite.ok_or_else(unknown)?))
    };
    programs.iter().map(subject).collect()
}

impl Program {
    /// How the program in `folder` is called, by the contract of the programs.
    pub fn subject(&self, folder: &std::path::Path) -> Subject {
        let mut command = vec![folder.join(&self.name).display().to_string()];
        let options: &[&str] = match self.fed {
            true => &["--timeout", "{timeout}", "{addr}"],
            false => {
                &["--timeout", "{timeout}", "-n", "{count}", "-l", "{length}", "{json}", "{addr}"]
            }
        };
        command.extend(options.iter().map(|option| option.to_string()));
        let remark = self.remark();
        Subject { name: self.name.clone(), command, fed: self.fed, header: self.header, remark }
    }

    /// That what it fails is its lesson.
    fn remark(&self) -> Option<String> {
        let repair = self.repaired_by.as_ref().map(|name| format!(" ({name} repairs it)"));
        let lesson = format!("Its lesson is to fail {}", self.fails.join(", "));
        (!self.fails.is_empty()).then(|| format!("{lesson}{}.", repair.unwrap_or_default()))
    }
}
