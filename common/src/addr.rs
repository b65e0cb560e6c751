//! Where a server is: `HOST:PORT`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A host and a port, as typed: `np.hufs.ac.kr:7`, `127.0.0.1:7`, `[::1]:7`, `:7`.
///
/// Only the form is checked here; a name is looked up when the socket is opened. An IPv6 address
/// stands in brackets (RFC 3986 section 3.2.2), since `::1:7` could be read in two ways.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name or an address without brackets; empty for `:PORT`, which is every interface for a
    /// server.
    pub host: String,
    /// The port; 0 lets the system choose one for a server.
    pub port: u16,
}

impl HostPort {
    /// Parses the address of a server to connect to: as [`FromStr`], but `:PORT` is localhost, and
    /// nobody listens on port 0.
    ///
    /// # Errors
    /// One sentence that says what is wrong with the form.
    pub fn of_server(text: &str) -> Result<Self, String> {
        match text.parse::<HostPort>()? {
            HostPort { port: 0, .. } => Err("nobody listens on port 0".to_owned()),
            HostPort { host, port } if host.is_empty() => {
                Ok(HostPort { host: "localhost".to_owned(), port })
            }
            server => Ok(server),
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => return Err("no port: HOST:PORT is wanted".to_owned()),
        };
        Ok(HostPort { host: parse_host(host)?, port: parse_port(port)? })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Parses a host: a name, an IPv4 address, an IPv6 address in brackets, or nothing.
///
/// # Errors
/// One sentence that says what is wrong with the form.
pub fn parse_host(text: &str) -> Result<String, String> {
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("a bracket is not closed")?;
        let (address, zone) = inner.split_once('%').unwrap_or((inner, "0"));
        if address.parse::<Ipv6Addr>().is_err() || !is_name(zone) {
            return Err(format!("'{inner}' is not an IPv6 address"));
        }
        return Ok(inner.to_owned());
    }
    if text.contains("//") {
        return Err("a URL: only its HOST:PORT is wanted".to_owned());
    }
    if text.contains(':') {
        return Err("an IPv6 address stands in brackets, as in [::1]:7".to_owned());
    }
    if !text.is_empty() && !is_name(text) {
        return Err(format!("'{text}' is not a host name"));
    }
    Ok(text.to_owned())
}

/// Whether `text` can be a host name, so far as that can be told without asking a name server.
fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    !text.is_empty() && text.chars().all(is_part)
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| text.parse().ok())
        .flatten()
        .ok_or_else(|| format!("'{text}' is not a port: a number from 0 to 65535 is wanted"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms_that_hold() {
        for (text, host, port) in [
            ("localhost:7", "localhost", 7),
            ("127.0.0.1:10007", "127.0.0.1", 10007),
            ("[::1]:7", "::1", 7),
            ("[fe80::1%eth0]:7", "fe80::1%eth0", 7),
            (":7", "", 7),
            ("xn--9n2bp8q.example:65535", "xn--9n2bp8q.example", 65535),
            ("대한민국.example:0", "대한민국.example", 0),
        ] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!(parsed, HostPort { host: host.to_owned(), port });
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn forms_that_do_not_hold() {
        for (text, why) in [
            ("", "no port"),
            ("localhost", "no port"),
            ("localhost:", "'' is not a port"),
            ("localhost:70000", "'70000' is not a port"),
            ("localhost:+7", "'+7' is not a port"),
            ("localhost:echo", "'echo' is not a port"),
            ("::1:7", "brackets"),
            ("::1", "brackets"),
            ("[::1]", "no port"),
            ("[::1:7", "not closed"),
            ("[localhost]:7", "not an IPv6 address"),
            ("[]:7", "not an IPv6 address"),
            ("http://localhost:7", "URL"),
            ("local host:7", "not a host name"),
            ("local\0host:7", "not a host name"),
        ] {
            let error = text.parse::<HostPort>().unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
        assert!(HostPort::of_server("localhost:0").unwrap_err().contains("port 0"));
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_to_the_same(
            host in "([a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z]{1,4}){0,2})?",
            address in any::<std::net::IpAddr>(),
            port in any::<u16>(),
        ) {
            for host in [host, address.to_string()] {
                let there = HostPort { host, port };
                prop_assert_eq!(there.to_string().parse::<HostPort>(), Ok(there));
            }
        }

        #[test]
        fn any_text_is_taken_or_refused_in_one_line(text in "\\PC{0,20}") {
            match text.parse::<HostPort>() {
                Ok(there) => prop_assert_eq!(there.to_string().parse(), Ok(there)),
                Err(error) => prop_assert!(!error.is_empty() && !error.contains('\n')),
            }
        }
    }
}
