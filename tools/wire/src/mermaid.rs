//! The ladder as a Mermaid sequence diagram, for Markdown files.

use std::fmt::Write;

use crate::event::{Direction, Event, Kind};
use crate::story::{self, Row, Story};
use crate::text;

/// Events drawn of each connection: the first and the last ones.
const ROWS: usize = 40;
/// Connections drawn: Mermaid refuses texts that are too long.
const CONNECTIONS: usize = 8;
/// Characters of a payload on an arrow.
const COLUMNS: usize = 40;

/// Draws each connection, one after the other in the same diagram; at most eight of them.
pub fn draw(events: &[Event]) -> String {
    let connections = story::by_connection(events);
    let mut diagram =
        "sequenceDiagram\n    participant C as client\n    participant S as server\n".to_owned();
    for (number, events) in connections.iter().take(CONNECTIONS) {
        let story = Story::of(events.iter().copied());
        let headline = escape(&format!("connection {number}: {}", story.headline()));
        let _ = writeln!(diagram, "    note over C,S: {headline}");
        for row in story::rows(events, ROWS) {
            let line = match row {
                Row::Event(event) => arrow(event, &story),
                Row::Silence(pause) => over(&format!("{} of silence", text::about(pause))),
                Row::LeftOut(events, bytes) => over(&story::left_out(events, bytes)),
            };
            let _ = writeln!(diagram, "    {line}");
        }
    }
    let more = connections.len().saturating_sub(CONNECTIONS);
    if more > 0 {
        let _ = writeln!(diagram, "    {}", over(&text::counted(more as u64, "more connection")));
    }
    diagram
}

fn over(words: &str) -> String {
    format!("note over C,S: {}", escape(&format!("… {words} …")))
}

fn arrow(event: &Event, story: &Story) -> String {
    let (main, rest) = story::label(event, story, COLUMNS);
    let words = escape(format!("{main} {rest}").trim());
    let (from, to) = match event.direction {
        Direction::ToServer => ('C', 'S'),
        Direction::ToClient => ('S', 'C'),
    };
    match event.kind {
        Kind::Note { .. } | Kind::Fault { .. } | Kind::Exit { .. } => {
            format!("note over {from}: {words}")
        }
        Kind::Reset | Kind::Refused | Kind::Timeout | Kind::Lost { .. } | Kind::Stall => {
            format!("{from}-x{to}: {words}")
        }
        Kind::Fin => format!("{from}-){to}: {words}"),
        Kind::Connect | Kind::Accept => format!("{from}-->>{to}: {words}"),
        _ => format!("{from}->>{to}: {words}"),
    }
}

/// Everything that Mermaid, or the HTML it makes, could take for markup becomes a numbered
/// character: `#35;` is `#`.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' ' | '.' | ',' | '(' | ')' | '-' | '=' | '…' => safe.push(c),
            _ if c.is_alphanumeric() => safe.push(c),
            _ if c.is_control() => safe.push('\u{fffd}'),
            _ => {
                let _ = write!(safe, "#{};", c as u32);
            }
        }
    }
    safe
}
