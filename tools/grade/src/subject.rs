//! What is graded: a command with placeholders.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// A part of a command that the grader fills in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{host}`: the address of the server, without brackets.
    Host,
    /// `{port}`: its port.
    Port,
    /// `{addr}`: both, as `HOST:PORT`, an IPv6 address in brackets.
    Addr,
    /// `{count}`: how many messages to send.
    Count,
    /// `{length}`: how many bytes in each.
    Length,
    /// `{text}`: the first message, without its newline, for a program that is given it as an
    /// argument.
    Text,
    /// `{timeout}`: seconds to wait for a silent server.
    Timeout,
    /// `{json}`: becomes `--json` where the report is asked for, and nothing elsewhere.
    Json,
}

impl Placeholder {
    /// All of them, with their words.
    pub const ALL: [(&str, Placeholder); 8] = [
        ("{host}", Placeholder::Host),
        ("{port}", Placeholder::Port),
        ("{addr}", Placeholder::Addr),
        ("{count}", Placeholder::Count),
        ("{length}", Placeholder::Length),
        ("{text}", Placeholder::Text),
        ("{timeout}", Placeholder::Timeout),
        ("{json}", Placeholder::Json),
    ];

    fn word(self) -> &'static str {
        Placeholder::ALL.iter().find(|(_, each)| *each == self).map_or("", |(word, _)| word)
    }

    /// Why a check is skipped for a command without it.
    pub fn missing(self) -> &'static str {
        match self {
            Placeholder::Count => "the command has no {count}",
            Placeholder::Length => "the command has no {length}",
            Placeholder::Json => "the command has no {json}: only for programs with --json",
            _ => "the command does not say where to connect",
        }
    }
}

/// A program under test and how to call it.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Its name in the results.
    pub name: String,
    /// The program and its arguments, with placeholders.
    pub command: Vec<String>,
    /// The client that is tried with it, of the same form, where a suite wants a pair; empty if the
    /// grader is the client itself.
    pub client: Vec<String>,
    /// Whether the pair is known to speak lines, so that the grader can be one of its clients.
    pub lines: bool,
    /// Whether the messages are fed to its standard input, as to `nc`, instead of being made by
    /// itself as `{count}` and `{length}` say.
    pub fed: bool,
    /// Bytes that the program sends before each message: its type and its length, say.
    pub header: usize,
    /// What is to be known about it, for the results.
    pub remark: Option<String>,
}

/// What the placeholders stand for in one run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The server.
    pub server: SocketAddr,
    /// Messages.
    pub count: usize,
    /// Bytes in each.
    pub length: usize,
    /// When to give up a silent server.
    pub timeout: Duration,
    /// Whether the JSON report is wanted.
    pub json: bool,
}

impl Subject {
    /// Whether the command can be told what `placeholder` stands for.
    pub fn takes(&self, placeholder: Placeholder) -> bool {
        let fed = self.fed && matches!(placeholder, Placeholder::Count | Placeholder::Length);
        let as_text = placeholder == Placeholder::Length && self.takes(Placeholder::Text);
        fed || as_text || self.command.iter().any(|part| part.contains(placeholder.word()))
    }

    /// Whether the command, and the client's, says where to connect, or to listen: the host may be a
    /// matter of course.
    pub fn is_addressed(&self) -> bool {
        let is_addressed = |parts: &[String]| {
            let has = |each: Placeholder| parts.iter().any(|part| part.contains(each.word()));
            has(Placeholder::Port) || has(Placeholder::Addr)
        };
        is_addressed(&self.command) && (self.client.is_empty() || is_addressed(&self.client))
    }

    /// The command for one run.
    pub fn command(&self, run: &Run) -> Command {
        filled(&self.command, run)
    }
}

/// The command that `parts` are with their placeholders filled in for `run`.
pub fn filled(parts: &[String], run: &Run) -> Command {
    let mut parts = parts.iter().filter_map(|part| fill(part, run));
    let mut command = Command::new(parts.next().unwrap_or_default());
    command.args(parts);
    command
}

/// `part` with its placeholders filled in; `None` if nothing is left of it.
fn fill(part: &str, run: &Run) -> Option<String> {
    let mut filled = part.to_owned();
    for (word, placeholder) in Placeholder::ALL {
        let value = match placeholder {
            Placeholder::Host => run.server.ip().to_string(),
            Placeholder::Port => run.server.port().to_string(),
            Placeholder::Addr => run.server.to_string(),
            Placeholder::Count => run.count.to_string(),
            Placeholder::Length => run.length.to_string(),
            Placeholder::Text => {
                String::from_utf8_lossy(&messages(1, run.length.max(6))).trim_end().to_owned()
            }
            Placeholder::Timeout => run.timeout.as_secs_f64().to_string(),
            Placeholder::Json if run.json => "--json".to_owned(),
            Placeholder::Json => String::new(),
        };
        filled = filled.replace(word, &value);
    }
    (!filled.is_empty() || part.is_empty()).then_some(filled)
}

/// `count` messages of `length` bytes, as the lecture's generator makes them.
pub fn messages(count: usize, length: usize) -> Vec<u8> {
    (1..=count)
        .flat_map(|n| format!("{n:05}{:a<width$}\n", "", width = length - 6).into_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(command: &[&str], fed: bool) -> Subject {
        let command = command.iter().map(|part| part.to_string()).collect();
        Subject { name: "test".to_owned(), command, fed, ..Subject::default() }
    }

    #[test]
    fn placeholders_are_filled_in() {
        let subject = subject(&["cli", "{addr}", "-n{count}", "{json}", "{host}", "x"], false);
        let mut run = Run {
            server: "[::1]:7".parse().unwrap(),
            count: 3,
            length: 10,
            timeout: Duration::from_millis(500),
            json: false,
        };
        let shown = |run: &Run| format!("{:?}", subject.command(run));
        assert_eq!(shown(&run), r#""cli" "[::1]:7" "-n3" "::1" "x""#);
        run.json = true;
        assert_eq!(shown(&run), r#""cli" "[::1]:7" "-n3" "--json" "::1" "x""#);
    }

    #[test]
    fn a_sentence_can_be_an_argument() {
        let subject = subject(&["cli", "{addr}", "{text}"], false);
        let server = "127.0.0.1:7".parse().unwrap();
        let run = Run { server, count: 1, length: 10, timeout: Duration::ZERO, json: false };
        assert_eq!(format!("{:?}", subject.command(&run)), r#""cli" "127.0.0.1:7" "00001aaaa""#);
        assert!(subject.takes(Placeholder::Length) && !subject.takes(Placeholder::Count));
        subject.command(&Run { length: 0, ..run }); // a server's run: no sentence is meant
    }

    #[test]
    fn what_is_fed_needs_no_count() {
        assert!(!subject(&["nc"], false).takes(Placeholder::Count));
        assert!(subject(&["nc"], true).takes(Placeholder::Count));
        assert!(!subject(&["nc", "{host}"], true).is_addressed());
        assert!(subject(&["nc", "{host}", "{port}"], true).is_addressed());
        assert_eq!(messages(2, 8), b"00001aa\n00002aa\n");
    }
}
