//! Programs with exactly one thing wrong, to grade the grader with: `mutants NAME ARGUMENT…`.

mod echo_client;

use std::env::args;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = args().skip(1).collect();
    match args.split_first() {
        Some((name, args)) if echo_client::NAMES.contains(&&**name) => {
            echo_client::main(name, args)
        }
        _ => ExitCode::from(2),
    }
}
