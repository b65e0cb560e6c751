//! Events as lines of JSON, one object each, and back.
//!
//! `{"at_us":312,"connection":1,"direction":"to-server","kind":"data","offset":0,"length":6,
//! "preview":"hello\n"}`: `at_us` are microseconds, and each character of `preview` is one byte
//! (Latin-1, in Python `preview.encode("latin-1")`).

use std::io::{self, BufRead, ErrorKind, Read, Write};

use crate::event::Event;

/// The longest line that is read: longer than any that is written.
const LONGEST_LINE: u64 = 1 << 20;

/// Writes each event as a line.
///
/// # Errors
/// As of `to`.
pub fn write(events: &[Event], mut to: impl Write) -> io::Result<()> {
    for event in events {
        serde_json::to_writer(&mut to, event)?;
        to.write_all(b"\n")?;
    }
    Ok(())
}

/// Reads what [`write()`] has written. Empty lines are passed over.
///
/// # Errors
/// As of `from`; `InvalidData` for a line that is no event, with its number.
pub fn read(mut from: impl BufRead) -> io::Result<Vec<Event>> {
    let mut events = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let event = serde_json::from_slice(&line).map_err(|error| {
            io::Error::new(ErrorKind::InvalidData, format!("line {number} is no event: {error}"))
        })?;
        events.push(event);
    }
    Ok(events)
}
