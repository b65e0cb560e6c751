//! Programs with exactly one thing wrong, to grade the grader with: `mutants SUITE NAME ARGUMENT…`.

mod echo_client;

use std::env::args;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = args().skip(1).collect();
    let [suite, name, args @ ..] = &args[..] else { return ExitCode::from(2) };
    match &**suite {
        "echo-client" if echo_client::NAMES.contains(&&**name) => echo_client::main(name, args),
        _ => ExitCode::from(2),
    }
}
