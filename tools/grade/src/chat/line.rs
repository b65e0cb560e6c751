//! What a line of a chat says.

use std::net::IpAddr;

/// One line, as the course's transcripts have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'l> {
    /// `Connected to the chat server (N users online)`.
    Welcome(usize),
    /// `New user IP:PORT entered (N users online)`.
    Entered(&'l str, usize),
    /// `The user IP:PORT left (N users online)`.
    Left(&'l str, usize),
    /// `[You] text`.
    You(&'l str),
    /// `[IP:PORT] text`.
    Said(&'l str, &'l str),
    /// Nothing visible, or the `exit` of a program that was interrupted.
    Exit,
    /// Anything else; bytes that are not UTF-8 too.
    Other,
}

impl<'l> Line<'l> {
    /// What `bytes` say. Whether it is `user` or `users` is left to the check of the transcript.
    pub fn of(bytes: &'l [u8]) -> Self {
        let Ok(text) = str::from_utf8(bytes) else { return Line::Other };
        let known = Self::notice(text).or_else(|| {
            let (name, said) = text.strip_prefix('[')?.split_once("] ")?;
            match name {
                "You" => Some(Line::You(said)),
                _ => is_address(name).then_some(Line::Said(name, said)),
            }
        });
        let is_exit = matches!(text.trim(), "" | "exit");
        known.unwrap_or(if is_exit { Line::Exit } else { Line::Other })
    }

    fn notice(text: &'l str) -> Option<Self> {
        let (what, online) = text.split_once(" (")?;
        let (count, unit) = online.split_once(' ')?;
        let count = count.parse().ok()?;
        if !matches!(unit, "user online)" | "users online)") {
            return None;
        }
        let name = |start, end| {
            let name: &str = what.strip_prefix(start)?.strip_suffix(end)?;
            is_address(name).then_some(name)
        };
        match what {
            "Connected to the chat server" => Some(Line::Welcome(count)),
            _ => name("New user ", " entered")
                .map(|name| Line::Entered(name, count))
                .or_else(|| Some(Line::Left(name("The user ", " left")?, count))),
        }
    }
}

/// Whether `name` is `IP:PORT`, brackets or not around an IPv6 address.
fn is_address(name: &str) -> bool {
    let (host, port) = name.rsplit_once(':').unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok() && port.parse::<u16>().is_ok()
}

/// `N users online`, as the transcripts have it: `user` for 0 and 1.
pub fn online(count: usize) -> String {
    format!("({count} user{} online)", if count < 2 { "" } else { "s" })
}

/// `bytes` without what a client moves the cursor with before a line: it replaces what was typed.
pub fn shown(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    loop {
        let is_parameter = |byte: &&u8| byte.is_ascii_digit();
        rest = match rest {
            [b'\r', after @ ..] => after,
            [0x1b, b'[', after @ ..] => {
                let after = &after[after.iter().take_while(is_parameter).count()..];
                match after {
                    [b'A' | b'F' | b'G' | b'J' | b'K', after @ ..] => after,
                    _ => return rest,
                }
            }
            _ => return rest,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_transcripts_are_known() {
        for (text, line) in [
            ("Connected to the chat server (1 user online)", Line::Welcome(1)),
            ("New user 127.0.0.1:4 entered (2 users online)", Line::Entered("127.0.0.1:4", 2)),
            ("The user [::1]:4 left (0 user online)", Line::Left("[::1]:4", 0)),
            ("[You] Hello (1 user online)", Line::You("Hello (1 user online)")),
            ("[127.0.0.1:4] [You] x", Line::Said("127.0.0.1:4", "[You] x")),
            ("exit", Line::Exit),
            ("", Line::Exit),
            ("[127.0.0.1:4][127.0.0.1:5] x", Line::Other),
            ("New user 127.0.0.1:4 entered (2 users online)[You] x", Line::Other),
            ("New user x entered (2 users online)", Line::Other),
        ] {
            assert_eq!(Line::of(text.as_bytes()), line, "{text}");
        }
        assert_eq!(Line::of(b"[You] \xff"), Line::Other);
        assert_eq!([online(0), online(2)], ["(0 user online)", "(2 users online)"]);
    }

    #[test]
    fn a_replaced_line_is_what_is_to_be_seen() {
        assert_eq!(shown(b"\x1b[1A\x1b[K\r[You] x"), b"[You] x");
        assert_eq!(shown(b"\x1b[31m[1] x"), b"\x1b[31m[1] x");
        assert_eq!(shown(b"[You] \x1b[K"), b"[You] \x1b[K");
    }
}
