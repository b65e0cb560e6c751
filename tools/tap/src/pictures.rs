//! The picture files: complete at every moment, since each is replaced as a whole.

use std::fs::{self, File};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use common::exit;
use log::error;
use wire::event::{Event, Recorder};
use wire::{html, jsonl, mermaid, svg};

/// At the earliest so long after one drawing comes the next: many connections may end at once.
const PAUSE: Duration = Duration::from_millis(200);
/// The pictures are also drawn when there is something new and nothing has come for so long.
const QUIET: Duration = Duration::from_secs(1);
/// Descriptors kept for writing a picture when there are no others.
const RESERVE: usize = 4;

/// Where the pictures go.
#[derive(Args, Clone)]
pub struct Pictures {
    /// Draw the ladder as a picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Draw the ladder and the exchanged bytes as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Keep the events as lines of JSON, for tap draw
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the ladder as a Mermaid sequence diagram
    #[arg(long, value_name = "FILE")]
    mermaid: Option<PathBuf>,
}

impl Pictures {
    /// Whether none is wanted.
    pub fn is_none(&self) -> bool {
        [&self.svg, &self.html, &self.json, &self.mermaid].iter().all(|file| file.is_none())
    }

    /// Draws `events` into each file.
    ///
    /// # Errors
    /// A file cannot be written; the text names it; status 1.
    pub fn write(&self, events: &[Event]) -> io::Result<()> {
        let put = |file: &Option<PathBuf>, draw: &dyn Fn() -> Vec<u8>| match file {
            Some(file) => {
                let failed = |error| exit::local(&file.display().to_string())(error);
                replace(file, &draw()).map_err(failed)
            }
            None => Ok(()),
        };
        put(&self.svg, &|| svg::draw(events).into_bytes())?;
        put(&self.html, &|| html::draw(events).into_bytes())?;
        put(&self.mermaid, &|| mermaid::draw(events).into_bytes())?;
        put(&self.json, &|| {
            let mut lines = Vec::new();
            let _ = jsonl::write(events, &mut lines); // a Vec takes everything
            lines
        })
    }
}

/// Replaces a file as a whole: who opens it finds the old content or the new one.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    if fs::metadata(&file).is_ok_and(|data| !data.is_file()) {
        return fs::write(file, content); // a terminal, a pipe
    }
    let mut beside = file.clone().into_os_string();
    beside.push(".new");
    fs::write(&beside, content)
        .and_then(|()| fs::rename(&beside, &file))
        .inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// The pictures of a run, drawn anew when a connection has ended, and when it is quiet: a
/// connection may last for hours, and datagrams have no end.
#[derive(Clone)]
pub struct Shared {
    pictures: Pictures,
    recorder: Recorder,
    reserve: Arc<Mutex<Vec<File>>>,
    wake: SyncSender<()>,
}

impl Shared {
    /// Draws the first, empty pictures, so that a path that cannot be written is told at once.
    ///
    /// # Errors
    /// A file cannot be written; there is no thread to draw.
    pub fn start(pictures: Pictures, recorder: Recorder) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        let shared = Shared { pictures, recorder, reserve: Arc::default(), wake };
        shared.draw()?;
        if shared.pictures.is_none() {
            return Ok(shared);
        }
        let drawing = shared.clone();
        let draw = move || {
            let (mut drawn, mut seen) = (0, 0);
            loop {
                let is_woken = woken.recv_timeout(QUIET).is_ok();
                let total = drawing.recorder.total();
                let is_quiet = mem::replace(&mut seen, total) == total;
                if !is_woken && (!is_quiet || total == drawn) {
                    continue;
                }
                drawn = total;
                let start = Instant::now();
                if let Err(failed) = drawing.draw() {
                    error!("{failed}");
                }
                thread::sleep(PAUSE.max(3 * start.elapsed()));
            }
        };
        thread::Builder::new().name("pictures".to_owned()).spawn(draw)?;
        Ok(shared)
    }

    /// A connection has ended.
    pub fn ended(&self) {
        let _ = self.wake.try_send(()); // already woken: that drawing will show this end too
    }

    /// Draws the pictures for the last time.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn finish(&self) -> io::Result<()> {
        self.draw()
    }

    fn draw(&self) -> io::Result<()> {
        if self.pictures.is_none() {
            return Ok(());
        }
        let mut reserve = self.reserve.lock().unwrap_or_else(PoisonError::into_inner);
        let events = self.recorder.events(); // under the lock: the last drawing is the latest
        reserve.clear();
        let drawn = self.pictures.write(&events);
        reserve.extend((0..RESERVE).map_while(|_| File::open(std::env::current_exe().ok()?).ok()));
        drawn
    }
}
