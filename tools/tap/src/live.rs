//! The ladder on standard output, while things happen.

use std::env;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::mpsc::{Receiver, Sender, sync_channel};
use std::thread;
use std::time::Duration;

use common::exit;
use wire::event::{Event, Kind, Recorder};
use wire::ladder::{Live, Style};

use crate::End;

/// Events that may wait to be drawn.
const WAITING: usize = 4096;
/// Pieces of data that are drawn at once, and so many more in each second: of a flood nobody reads
/// every line, and drawing it would slow it down. All other events are drawn.
const BURST: f64 = 500.0;
const PER_SECOND: f64 = 50.0;
/// How long the end of tap waits for the last lines.
const PATIENCE: Duration = Duration::from_secs(2);

/// Colours if stdout is a terminal and the user has nothing against them (`NO_COLOR`).
pub fn style() -> Style {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    let color = io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb;
    Style { color, ..Style::default() }
}

/// The thread that draws.
pub struct Ladder(Receiver<()>);

impl Ladder {
    /// Waits until everything is drawn, but not for ever: stdout may be a pipe that nobody reads.
    pub fn finish(self) {
        let _ = self.0.recv_timeout(PATIENCE);
    }
}

/// Draws what `recorder` sees from now on.
pub fn start(recorder: &Recorder, end: Sender<End>) -> io::Result<Ladder> {
    let events = recorder.observe(WAITING);
    let (sender, done) = sync_channel(1);
    let draw = move || {
        if let Err(error) = draw(events)
            && error.kind() != ErrorKind::BrokenPipe
        {
            let _ = end.send(End::Failed(exit::local("standard output")(error)));
        }
        let _ = sender.send(());
    };
    thread::Builder::new().name("ladder".to_owned()).spawn(draw)?;
    Ok(Ladder(done))
}

fn draw(events: impl Iterator<Item = Event>) -> io::Result<()> {
    let mut ladder = Live::new(style());
    let (mut allowed, mut last) = (BURST, Duration::ZERO);
    let (mut hidden, mut hidden_bytes) = (0, [0; 2]);
    for event in events {
        allowed = (allowed + (event.at - last).as_secs_f64() * PER_SECOND).min(BURST);
        last = event.at;
        let is_data = matches!(event.kind, Kind::Data { .. } | Kind::LeftOut { .. });
        if is_data && allowed < 1.0 {
            let bytes = event.kind.bytes(event.direction);
            hidden_bytes = [hidden_bytes[0] + bytes[0], hidden_bytes[1] + bytes[1]];
            hidden += match event.kind {
                Kind::LeftOut { events, .. } => events,
                _ => 1,
            };
            continue;
        }
        let mut lines = String::new();
        if hidden > 0 {
            lines += &ladder.left_out(hidden, hidden_bytes);
            (hidden, hidden_bytes) = (0, [0; 2]);
        }
        allowed -= f64::from(u8::from(is_data));
        lines += &ladder.add(&event);
        let mut stdout = io::stdout();
        stdout.write_all(lines.as_bytes())?;
        stdout.flush()?;
    }
    Ok(())
}
