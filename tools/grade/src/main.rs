//! Grades programs: `grade PACKAGE…` those of this workspace, `grade --suite S -- COMMAND` any.
//!
//! Exit status: 0 all checks passed, 1 some failed, 2 usage, 3 inconclusive, 70 a fault of the
//! grader itself.

use std::process::ExitCode;

#[cfg(unix)]
mod program;

#[cfg(unix)]
fn main() -> ExitCode {
    program::main()
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), b"error: grade runs on Unix only\n");
    ExitCode::from(70)
}
