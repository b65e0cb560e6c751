//! Addresses: every address that a name has, and what kind of port a port is.
//! A process on the Internet is identified by (host, port): here is what both are made of.
//!
//! `cargo run -q -p showaddr -- localhost:7`

use std::io;
use std::process::ExitCode;

use clap::Parser;
use common::addr::{HostPort, parse_host};
use common::{exit, net, output};

/// Shows the addresses of a host and the kind of a port
#[derive(Parser)]
#[command(version)]
struct Args {
    /// A host, or a host and a port; `[::1]` for IPv6
    #[arg(value_name = "HOST[:PORT]", value_parser = parse)]
    there: (String, Option<u16>),
}

fn parse(text: &str) -> Result<(String, Option<u16>), String> {
    match text.ends_with(']') || !text.contains(':') && !text.is_empty() {
        true => Ok((parse_host(text)?, None)),
        false => text.parse().map(|HostPort { host, port }| (host, Some(port))),
    }
}

/// Names of ports in the IANA registry that the course meets.
#[rustfmt::skip] // a table
const SERVICES: [(u16, &str); 15] = [
    (7, "echo"), (9, "discard"), (13, "daytime"), (19, "chargen"), (20, "ftp-data"), (21, "ftp"),
    (22, "ssh"), (23, "telnet"), (25, "smtp"), (53, "domain"), (80, "http"), (110, "pop3"),
    (123, "ntp"), (143, "imap"), (443, "https"),
];

fn main() -> ExitCode {
    let (host, port) = Args::parse().there;
    exit::finish(show(host, port))
}

fn show(host: String, port: Option<u16>) -> io::Result<()> {
    let there = HostPort { host, port: port.unwrap_or(0) };
    let mut shown = String::new();
    for addr in net::addresses(&there)? {
        let family = if addr.is_ipv4() { "IPv4" } else { "IPv6" };
        shown += &format!("address   {} ({family})\n", addr.ip());
    }
    if let Some(port) = port {
        shown += &format!("port      {port}: {}\n", kind(port));
        for (host, who) in [("", "every interface"), ("localhost", "this machine only")] {
            let here = HostPort { host: host.to_owned(), port };
            let first = net::listen_addresses(&here)?[0];
            shown += &format!("a server at {here} listens on {first}: {who}\n");
        }
    }
    output::print(shown)
}

/// The class of a port (RFC 6335 section 6), and its service where it has a known one.
fn kind(port: u16) -> String {
    let class = match port {
        0 => "the system chooses one",
        1..=1023 => "well-known",
        1024..=49151 => "registered",
        49152.. => "dynamic",
    };
    let service = SERVICES.iter().find(|(number, _)| *number == port);
    class.to_owned() + &service.map_or(String::new(), |(_, service)| format!(", {service}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_classes_and_names() {
        assert_eq!(kind(0), "the system chooses one");
        assert_eq!(kind(7), "well-known, echo");
        assert_eq!(kind(1023), "well-known");
        assert_eq!(kind(1024), "registered");
        assert_eq!(kind(49151), "registered");
        assert_eq!(kind(49152), "dynamic");
    }

    #[test]
    fn a_port_may_be_left_out() {
        assert_eq!(parse("localhost"), Ok(("localhost".to_owned(), None)));
        assert_eq!(parse("[::1]"), Ok(("::1".to_owned(), None)));
        assert_eq!(parse("[::1]:7"), Ok(("::1".to_owned(), Some(7))));
        assert_eq!(parse(":7"), Ok((String::new(), Some(7))));
        for text in ["", "::1", "::1:7", "localhost:", "a b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
