//! Programs with exactly one thing wrong, to grade the grader with: `mutants SUITE NAME ARGUMENT…`.

mod chat;
mod echo_client;

use std::env::args;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = args().skip(1).collect();
    let [suite, name, args @ ..] = &args[..] else { return ExitCode::from(2) };
    match &**suite {
        "echo-client" if echo_client::NAMES.contains(&&**name) => echo_client::main(name, args),
        "chat" => match chat::NAMES.iter().find(|known| *known == name) {
            Some(name) => chat::main(name, args),
            None => ExitCode::from(2),
        },
        _ => ExitCode::from(2),
    }
}
