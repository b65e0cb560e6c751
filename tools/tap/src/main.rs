//! Stands between any client and any server, spoils the connection in a precise and repeatable
//! way, and shows what crosses it: live as a ladder on stdout, and as pictures.
//!
//! terminal 1: `cargo run -q -p echoserv`
//! terminal 2: `cargo run -q -p tap -- localhost:10008 :10007 --to-client chunk=100,delay=20ms`
//! terminal 3: `cargo run -q -p echocli -- :10008`

mod live;
mod pictures;
mod relays;

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};

use clap::{CommandFactory, FromArgMatches, Parser, error::ErrorKind};
use common::addr::HostPort;
use common::args::Target;
use common::{exit, output};
use wire::event::Recorder;
use wire::fault::{Plan, WORDS};
use wire::relay::Faults;
use wire::{jsonl, ladder};

use crate::pictures::{Pictures, Shared};

/// Draws a recorded run: the ladder on stdout, or the pictures that are asked for
#[derive(Parser)]
#[command(name = "draw")]
struct Draw {
    /// What tap --json has written; - is standard input
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
    #[command(flatten)]
    pictures: Pictures,
}

/// Stands between a client and a server, spoils the connection, and draws what crosses it
#[derive(Parser)]
#[command(version, after_help = after_help(), subcommand_negates_reqs = true)]
#[command(args_conflicts_with_subcommands = true)]
#[command(mut_arg("server", |arg| arg.value_name("TARGET").help("Where the server is")))]
#[command(mut_arg("timeout", |arg| arg.help("Give up connecting to the server after so long")))]
struct Run {
    /// Where clients connect to; port 0 lets the system choose
    #[arg(value_name = "LISTEN")]
    listen: HostPort,
    #[command(flatten)]
    target: Target,
    /// Spoil what the client sends
    #[arg(long, value_name = "FAULTS")]
    to_server: Option<Plan>,
    /// Spoil what the server sends
    #[arg(long, value_name = "FAULTS")]
    to_client: Option<Plan>,
    /// Relay datagrams
    #[arg(long)]
    udp: bool,
    #[command(flatten)]
    pictures: Pictures,
    /// Repeat the chances of an earlier run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

fn after_help() -> String {
    let words = WORDS.map(|(word, what)| format!("  {word:<18} {what}\n")).concat();
    format!(
        "FAULTS are one or more of these, with commas between them:\n{words}\n\
         The first line on stdout ends in the address where tap really listens; the ladder follows. \
         Ctrl+C ends tap, with all pictures complete.\n\
         Exit status: 0 told to end; 1 a picture or stdout could not be written; 2 usage; \
         3 the address cannot be listened on."
    )
}

fn main() -> ExitCode {
    let mut command = Run::command().subcommand(Draw::command());
    let matches = command.get_matches_mut();
    let result = match matches.subcommand_matches("draw") {
        Some(matches) => Draw::from_arg_matches(matches).map(Draw::run),
        None => Run::from_arg_matches(&matches).map(Run::run),
    };
    exit::finish(result.unwrap_or_else(|error| error.format(&mut command).exit()))
}

impl Draw {
    fn run(self) -> io::Result<()> {
        let failed = |why: io::Error| exit::unusable(format!("{}: {why}", self.file.display()));
        let from: Box<dyn Read> = match self.file.to_str() {
            Some("-") => Box::new(io::stdin()),
            _ => Box::new(File::open(&self.file).map_err(failed)?),
        };
        let events = jsonl::read(BufReader::new(from)).map_err(failed)?;
        if self.pictures.is_none() {
            return output::print(ladder::draw(&events, &live::style()));
        }
        self.pictures.write(&events)
    }
}

/// Why tap ends.
enum End {
    /// It was told to.
    Told,
    /// It cannot go on.
    Failed(io::Error),
}

impl Run {
    fn run(self) -> io::Result<()> {
        let [to_server, to_client] =
            [&self.to_server, &self.to_client].map(|plan| plan.clone().unwrap_or_default());
        let fits = |plan: &Plan| if self.udp { plan.for_udp() } else { plan.for_tcp() };
        if let Err(error) = fits(&to_server).and_then(|()| fits(&to_client)) {
            Run::command().error(ErrorKind::ValueValidation, error).exit();
        }
        env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
        let is_random = to_server.is_random() || to_client.is_random();
        let seed = self.seed.unwrap_or_else(|| RandomState::new().hash_one(0) % 1_000_000);
        if is_random && self.seed.is_none() {
            let _ = writeln!(io::stderr(), "--seed {seed} repeats this run");
        }
        let faults = Faults { to_server, to_client, seed };

        let recorder = Recorder::new();
        let (sender, end) = mpsc::channel();
        tell_signals(sender.clone())?;
        let relays = relays::open(&self.listen, &self.target, self.udp)?;
        let pictures = Shared::start(self.pictures.clone(), recorder.clone())?;
        let ladder = live::start(&recorder, sender.clone())?;
        output::print(format!("Tap to {} started: {}\n", self.target.server, relays.addr()?))?;
        relays.start(faults, &recorder, &pictures, sender)?;

        let end = end.recv().unwrap_or(End::Told);
        recorder.dismiss_observer();
        ladder.finish();
        pictures.finish()?;
        match end {
            End::Told => Ok(()),
            End::Failed(error) => Err(error),
        }
    }
}

/// Tells when tap is to end: on SIGINT and SIGTERM, on Windows on Ctrl+C.
fn tell_signals(end: Sender<End>) -> io::Result<()> {
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let wait = move || signals.forever().next().map(|_| end.send(End::Told));
        std::thread::Builder::new().name("signals".to_owned()).spawn(wait)?;
        Ok(())
    }
    #[cfg(not(unix))]
    ctrlc::set_handler(move || drop(end.send(End::Told))).map_err(io::Error::other)
}
