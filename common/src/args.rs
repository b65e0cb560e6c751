//! The arguments that all clients, and all servers, have in common.
//!
//! The defaults are the lecture's, program by program, so each program passes its own; it also
//! passes [`clap::command!`], which takes name, version and description from its `Cargo.toml`.

use std::io;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Command, FromArgMatches};

use crate::addr::HostPort;
use crate::message::Messages;
use crate::net::Listener;
use crate::{exit, net, output};

/// Which server a client connects to, and how long it waits for it.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Server to connect to; `[::1]:7` for IPv6, `:7` for this machine
    #[arg(value_name = "HOST:PORT", value_parser = HostPort::of_server)]
    pub server: HostPort,
    /// Give up connecting, or waiting on a silent server, after so many seconds
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
}

impl Target {
    /// Parses the command line of a chat client: its server is `HOST:PORT`, or two words, `HOST PORT`.
    /// Bad arguments end the program here: a message on stderr and status 2.
    pub fn parse_chat(program: Command) -> Self {
        let (mut target, server) =
            parse_words::<Self>(augment::<Self>(program), "server", HostPort::of_server);
        target.server = server;
        target
    }
}

/// The arguments of a client that sends messages and reports what came back.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// The server, and how long to wait for it.
    #[command(flatten)]
    pub target: Target,
    /// Number of messages
    #[arg(short = 'n', long, value_name = "N")]
    pub count: u64,
    /// Bytes in each message: its number, a's, and a newline
    #[arg(short, long, value_name = "BYTES", value_parser = bytes)]
    pub length: usize,
    /// Send the lines of FILE instead; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Wait so many milliseconds before each message
    #[arg(short, long, value_name = "MS", default_value = "0", value_parser = milliseconds)]
    pub delay: Duration,
    /// Report the totals and the verdict only
    #[arg(short, long)]
    pub quiet: bool,
    /// Report as one JSON object
    #[arg(long)]
    pub json: bool,
}

impl ClientArgs {
    /// Parses the command line of a client whose lecture sends `count` messages of `length` bytes.
    /// Bad arguments end the program here: a message on stderr and status 2.
    pub fn parse(program: Command, count: u64, length: usize) -> Self {
        Self::parse_with::<NoMore>(program, count, length).0
    }

    /// As [`ClientArgs::parse`], for a program with arguments of its own as well.
    pub fn parse_with<More: Args>(program: Command, count: u64, length: usize) -> (Self, More) {
        let command = default(augment::<Both<Self, More>>(program), "count", count.to_string());
        let command = default(command, "length", length.to_string());
        let Both { args, more }: Both<Self, More> = parse(command.clone());
        let shortest = Messages::shortest(args.count);
        if args.file.is_none() && args.length < shortest {
            let why = format!("--length must be at least {shortest}: a number and a newline");
            end(command, ErrorKind::ValueValidation, why);
        }
        (args, more)
    }

    /// The messages that these arguments ask for.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn messages(&self) -> io::Result<Messages> {
        let messages = match &self.file {
            Some(file) => Messages::lines_of(file)?,
            None => Messages::new(self.count, self.length),
        };
        Ok(messages.each_after(self.delay))
    }
}

#[derive(Args)]
struct Both<Known: Args, More: Args> {
    #[command(flatten)]
    args: Known,
    #[command(flatten)]
    more: More,
}

#[derive(Args)]
struct NoMore {}

/// The arguments of a server.
#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// Address to listen on; :PORT is every interface, port 0 lets the system choose
    #[arg(value_name = "HOST:PORT")]
    pub here: HostPort,
    /// Bytes that one read may return
    #[arg(short, long, value_name = "BYTES", default_value = "1024", value_parser = bytes)]
    pub buffer: usize,
    /// Connections that may wait to be accepted (listen(2))
    #[arg(long, value_name = "N", default_value = "5")]
    pub backlog: u32,
}

impl ServerArgs {
    /// Parses the command line of a server that listens at `here` unless told otherwise.
    /// Bad arguments end the program here: a message on stderr and status 2.
    pub fn parse(program: Command, here: &str) -> Self {
        Self::parse_with::<NoMore>(program, here).0
    }

    /// As [`ServerArgs::parse`], for a program with arguments of its own as well.
    pub fn parse_with<More: Args>(program: Command, here: &str) -> (Self, More) {
        let command = default(augment::<Both<Self, More>>(program), "here", here.to_owned());
        let Both { args, more }: Both<Self, More> = parse(command);
        (args, more)
    }

    /// As [`ServerArgs::parse_with`], for a chat server: port 3333, 128 connections may wait to be
    /// accepted, and the address may also be two words, `HOST PORT`.
    pub fn parse_chat<More: Args>(program: Command) -> (Self, More) {
        let command =
            default(augment::<Both<Self, More>>(program), "here", "localhost:3333".into());
        let command = default(command, "backlog", "128".into());
        let (Both { mut args, more }, here): (Both<Self, More>, _) =
            parse_words(command, "here", str::parse);
        args.here = here;
        (args, more)
    }

    /// Starts the server, and prints its real address as the first line on stdout, before anybody
    /// is accepted.
    ///
    /// # Errors
    /// As [`ServerArgs::listen`]; stdout cannot be written.
    pub fn start(&self) -> io::Result<Listener> {
        let listener = self.listen("")?;
        output::print(format!("Server started: {}\n", listener.local_addr()?))?;
        Ok(listener)
    }

    /// Opens the log on stderr (`RUST_LOG`, by default `info`) and the listening socket. SIGINT and
    /// SIGTERM end the program with status 0 from now on, and with `farewell` on stdout.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn listen(&self, farewell: &'static str) -> io::Result<Listener> {
        let filter = env_logger::Env::default().default_filter_or("info");
        env_logger::Builder::from_env(filter).init();
        exit::on_signal(farewell)?;
        net::listen(&self.here, self.backlog).and_then(Listener::new)
    }
}

/// How many clients a server serves at once, and for how long a silent one.
#[derive(Args, Clone, Debug)]
pub struct Limits {
    /// Clients served at once
    #[arg(long, value_name = "N", default_value = "10000", value_parser = at_least_one)]
    pub max_clients: usize,
    /// Close a connection on which nothing has moved for so many seconds [default: never]
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub idle_timeout: Option<Duration>,
}

/// Adds the arguments, and keeps what the program says of itself.
fn augment<A: Args>(program: Command) -> Command {
    let about = program.get_about().cloned().unwrap_or_default();
    A::augment_args(program).about(about)
}

fn default(command: Command, name: &'static str, value: String) -> Command {
    command.mut_arg(name, |arg| arg.required(false).default_value(value))
}

fn parse<A: FromArgMatches>(mut command: Command) -> A {
    let matches = command.get_matches_mut();
    A::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// As [`parse`], where the address `name` may be two words; returns it as well, read by `address`.
/// The words are told apart from options by clap and joined only then.
fn parse_words<A: FromArgMatches>(
    command: Command,
    name: &'static str,
    address: impl Fn(&str) -> Result<HostPort, String>,
) -> (A, HostPort) {
    let any = |_: &str| Ok::<_, String>(HostPort { host: String::new(), port: 0 });
    let mut command = command.mut_arg(name, |arg| {
        arg.num_args(1..=2).value_names(["HOST:PORT | HOST PORT"]).value_parser(any)
    });
    let mut matches = command.get_matches_mut();
    let words = matches.get_raw(name).into_iter().flatten().map(|word| word.to_string_lossy());
    let words: Vec<_> = words.collect();
    let words = match &words[..] {
        [host, port] if host.parse::<Ipv6Addr>().is_ok() => format!("[{host}]:{port}"),
        words => words.join(":"),
    };
    let address = address(&words).unwrap_or_else(|why| {
        let why = format!("invalid address '{words}': {why}");
        end(command.clone(), ErrorKind::ValueValidation, why)
    });
    let args = A::from_arg_matches_mut(&mut matches);
    (args.unwrap_or_else(|error| error.format(&mut command).exit()), address)
}

fn end(mut command: Command, kind: ErrorKind, why: String) -> ! {
    command.error(kind, why).exit()
}

/// Parses a time-out in seconds; fractions are allowed, zero is not (no time to do anything in).
///
/// # Errors
/// What is wanted instead.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let wanted = "a number of seconds greater than 0 is wanted, such as 10 or 0.5";
    let seconds: f64 = text.parse().map_err(|_| wanted)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(timeout) if timeout >= Duration::from_millis(1) => Ok(timeout.min(A_YEAR)),
        _ => Err(wanted.to_owned()),
    }
}

/// As long as for ever to a person, and short enough for every system call.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn milliseconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_millis).map_err(|_| "milliseconds are wanted".to_owned())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "a number from 1 up is wanted".to_owned())
}

/// Parses a size in bytes: at least 1, and no more than there is room for, which is 1 GiB.
///
/// # Errors
/// What is wanted instead.
pub fn bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(size) if (1..=1 << 30).contains(&size) => Ok(size),
        _ => Err("a number of bytes from 1 to 1073741824 is wanted".to_owned()),
    }
}
