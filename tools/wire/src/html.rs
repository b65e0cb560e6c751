//! The ladder and the exchanged bytes as one HTML file, without scripts.

use std::fmt::Write;

use crate::event::{Direction, Event, Kind};
use crate::story::{self, Story};
use crate::svg;
use crate::text::{self, xml};

/// Bytes of the exchange that are shown of each connection.
const SHOWN: usize = 32 * 1024;

const STYLE: &str = "\
:root { color-scheme: light dark; --to-server: #0550ae; --to-client: #8a4600; --back: #f6f8fa }\
@media (prefers-color-scheme: dark) {\
:root { --to-server: #79c0ff; --to-client: #f0b060; --back: #161b22 }}\
body { font: 17px/1.5 system-ui, 'DejaVu Sans', sans-serif; margin: 1.5rem auto; max-width: 1040px;\
 padding: 0 1rem }\
svg { max-width: 100%; height: auto } h2 { margin-bottom: 0 }\
pre { background: var(--back); padding: .7rem; overflow-x: auto; white-space: pre-wrap;\
 overflow-wrap: anywhere; font: 15px/1.4 ui-monospace, 'DejaVu Sans Mono', monospace }\
.hex { white-space: pre; overflow-wrap: normal }\
.s { color: var(--to-server) } .c { color: var(--to-client) }\
.s::before { content: '→\\a0' } .c::before { content: '←\\a0' } i { opacity: .7 }";

/// Draws each connection, at most 50 of them: the ladder, and what was exchanged as text and as
/// hexadecimal numbers, so far as the recorder has kept it.
pub fn draw(events: &[Event]) -> String {
    let connections = story::by_connection(events);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>What crossed the wire</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    );
    for (&number, events) in connections.iter().take(svg::CONNECTIONS) {
        page += &svg::one(number, events);
        page += &exchange(events);
    }
    let more = connections.len().saturating_sub(svg::CONNECTIONS);
    if more > 0 {
        let _ = writeln!(page, "<p>… {}</p>", text::counted(more as u64, "more connection"));
    }
    if connections.is_empty() {
        page += "<p>No connection yet.</p>\n";
    }
    page + "</body>\n</html>\n"
}

fn exchange(events: &[&Event]) -> String {
    let (mut as_text, mut as_hex, mut shown) = (String::new(), String::new(), 0);
    for event in events {
        let Kind::Data { offset, length, preview } = &event.kind else { continue };
        shown += preview.len();
        if shown > SHOWN {
            as_text += "<i>… and more</i>";
            as_hex += "<i>… and more</i>";
            break;
        }
        let class = if event.direction == Direction::ToServer { "s" } else { "c" };
        let mut words = xml(text::lines(preview).trim_end_matches('\n'));
        let mut dump = hex(*offset, preview);
        let hidden = length - (preview.len() as u64).min(*length);
        if hidden > 0 {
            let note = format!("<i>… {} not kept</i>", text::bytes(hidden));
            words += &note;
            dump += &format!("{note}\n");
        }
        let _ = writeln!(as_text, "<span class=\"{class}\">{words}</span>");
        let _ = write!(as_hex, "<span class=\"{class}\">{dump}</span>");
    }
    if as_text.is_empty() {
        return String::new();
    }
    let detail = xml(&Story::of(events.iter().copied()).detail());
    format!(
        "<p>What was exchanged, <span class=\"s\">to the server</span> and \
         <span class=\"c\">to the client</span>: {detail}.</p>\n<pre>{as_text}</pre>\n\
         <details><summary>the same in hexadecimal numbers</summary>\n\
         <pre class=\"hex\">{as_hex}</pre></details>\n"
    )
}

/// Sixteen bytes in each line: offset, hexadecimal numbers, text.
fn hex(offset: u64, bytes: &[u8]) -> String {
    let mut dump = String::new();
    for (row, bytes) in bytes.chunks(16).enumerate() {
        let numbers: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
        let visible =
            |&byte: &u8| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' };
        let shown: String = bytes.iter().map(visible).collect();
        let at = offset.saturating_add(16 * row as u64);
        let _ = writeln!(dump, "{at:08x}  {numbers:<48} {}", xml(&shown));
    }
    dump
}
