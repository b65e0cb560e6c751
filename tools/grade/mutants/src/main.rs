//! Programs with exactly one thing wrong, to grade the grader with: `mutants SUITE NAME ARGUMENT…`.

mod chat;
mod echo_client;
mod upper_udp;

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
        "upper-udp-server" if upper_udp::SERVERS.contains(&&**name) => {
            upper_udp::server(name, args)
        }
        "upper-udp-client" if upper_udp::CLIENTS.contains(&&**name) => {
            upper_udp::client(name, args)
        }
        _ => ExitCode::from(2),
    }
}
