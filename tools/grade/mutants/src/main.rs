//! Programs with exactly one thing wrong, to grade the grader with: `mutants SUITE NAME ARGUMENT…`.

mod chat;
mod echo_client;
#[cfg(unix)]
mod echo_server;
#[cfg(unix)]
mod upper_tcp;
mod upper_udp;

use std::env::args;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = args().skip(1).collect();
    let [suite, name, args @ ..] = &args[..] else { return ExitCode::from(2) };
    let known = |names: &[&'static str]| names.iter().copied().find(|known| known == name);
    let ended = match &**suite {
        "echo-client" => known(echo_client::NAMES).map(|name| echo_client::main(name, args)),
        #[cfg(unix)]
        "echo-server" => known(echo_server::NAMES).map(|name| echo_server::main(name, args)),
        #[cfg(unix)]
        "upper-tcp" => known(upper_tcp::NAMES).map(|name| upper_tcp::main(name, args)),
        "chat" => known(chat::NAMES).map(|name| chat::main(name, args)),
        "upper-udp-server" => known(upper_udp::SERVERS).map(|name| upper_udp::server(name, args)),
        "upper-udp-client" => known(upper_udp::CLIENTS).map(|name| upper_udp::client(name, args)),
        _ => None,
    };
    ended.unwrap_or(ExitCode::from(2))
}
