//! The ladder as a picture: one SVG file without scripts, for light and dark pages.

use std::fmt::Write;

use crate::event::{Direction, Event, Kind};
use crate::story::{self, Row, Story};
use crate::text::{self, xml};

/// Events drawn of each connection: the first and the last ones.
const ROWS: usize = 45;
/// Connections drawn in one picture.
pub(crate) const CONNECTIONS: usize = 50;

const WIDTH: u32 = 1000;
const CLIENT: u32 = 250;
const SERVER: u32 = 810;
const MIDDLE: u32 = (CLIENT + SERVER) / 2;
const ROW: u32 = 42;
const LOW_ROW: u32 = 34;
/// Height of headline, details and the names of the peers.
const TOP: u32 = 150;
/// Characters that fit between the lifelines.
const COLUMNS: usize = 56;

/// Colours and fonts. Lines and words are told apart by more than their colour.
const STYLE: &str = "\
.wire { --paper: #ffffff; --ink: #1b1f24; --dim: #57606a; --line: #8c959f;\
 --to-server: #0550ae; --to-client: #8a4600; --fin: #8250df; --rst: #cf222e; --first: #fff1c2 }\
@media (prefers-color-scheme: dark) {\
.wire { --paper: #0d1117; --ink: #e6edf3; --dim: #9da7b3; --line: #6e7681;\
 --to-server: #79c0ff; --to-client: #f0b060; --fin: #d2a8ff; --rst: #ff7b72; --first: #4d3800 }}\
.wire text { font: 17px system-ui, 'DejaVu Sans', sans-serif; fill: var(--ink) }\
.wire .paper { fill: var(--paper) }\
.wire .headline { font-size: 25px; font-weight: 700 }\
.wire .dim, .wire .time { fill: var(--dim) }\
.wire .time { font-size: 15px; text-anchor: end }\
.wire .mid { text-anchor: middle } .wire .end { text-anchor: end }\
.wire .bytes { font: 15px ui-monospace, 'DejaVu Sans Mono', monospace; fill: var(--dim) }\
.wire .name { font-size: 19px; font-weight: 700; text-anchor: middle }\
.wire .box { fill: var(--paper); stroke: var(--line); stroke-width: 2 }\
.wire .box.first { fill: var(--first); stroke: var(--ink); stroke-width: 3 }\
.wire .flag { fill: var(--first); stroke: var(--ink); stroke-width: 2 }\
.wire .flagged { font-weight: 700; text-anchor: middle }\
.wire .life { stroke: var(--line); stroke-width: 4 } .wire .half { stroke-dasharray: 3 7 }\
.wire .arrow { fill: none; stroke-width: 2.5; stroke: currentColor }\
.wire .head { fill: currentColor; stroke: none } .wire .word { font-weight: 700; fill: currentColor }\
.wire .to-server { color: var(--to-server) } .wire .to-client { color: var(--to-client) }\
.wire .fin { color: var(--fin) } .wire .rst { color: var(--rst) } .wire .plain { color: var(--dim) }\
.wire .fin .arrow, .wire .rst .arrow { stroke-width: 5 } .wire .lost .arrow { stroke-dasharray: 6 6 }\
.wire .cross { fill: none; stroke: currentColor; stroke-width: 5 }";

/// Draws each connection, one below the other; at most 50 of them, and of each the first and the
/// last events.
pub fn draw(events: &[Event]) -> String {
    let connections = story::by_connection(events);
    let mut body = String::new();
    let mut height = 0;
    for (number, events) in connections.iter().take(CONNECTIONS) {
        let (drawing, high) = ladder(*number, events);
        let _ = write!(body, "<g transform=\"translate(0 {height})\">\n{drawing}</g>\n");
        height += high;
    }
    let more = connections.len().saturating_sub(CONNECTIONS);
    if more > 0 {
        let note = text::counted(more as u64, "more connection");
        let _ =
            writeln!(body, "<text class=\"dim\" x=\"24\" y=\"{}\">… {note}</text>", height + 24);
        height += 48;
    }
    if connections.is_empty() {
        height = 60;
        body += "<text class=\"dim\" x=\"24\" y=\"36\">no connection yet</text>\n";
    }
    frame(height, &body)
}

/// Draws one connection as a picture of its own.
pub(crate) fn one(number: u32, events: &[&Event]) -> String {
    let (body, height) = ladder(number, events);
    frame(height, &body)
}

fn frame(height: u32, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"wire\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n{body}</svg>\n"
    )
}

/// The drawing of one connection, and its height.
fn ladder(number: u32, events: &[&Event]) -> (String, u32) {
    let story = Story::of(events.iter().copied());
    let mut picture = Picture { story: &story, out: String::new(), y: TOP, sides: [Side::Open; 2] };
    picture.head(number);
    for row in story::rows(events, ROWS) {
        match row {
            Row::Event(event) => picture.event(event),
            Row::Silence(pause) => picture.gap(&format!("{} of silence", text::about(pause))),
            Row::LeftOut(events, bytes) => picture.gap(&story::left_out(events, bytes)),
        }
    }
    picture.lifelines(20);
    (picture.out, picture.y + 30)
}

/// What a lifeline looks like.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    /// Sends and receives.
    Open,
    /// Has sent its FIN: only receives.
    Half,
    /// Is gone.
    Gone,
}

struct Picture<'s> {
    story: &'s Story,
    out: String,
    y: u32,
    sides: [Side; 2],
}

impl Picture<'_> {
    fn put(&mut self, markup: std::fmt::Arguments<'_>) {
        let _ = self.out.write_fmt(markup);
        self.out.push('\n');
    }

    fn head(&mut self, number: u32) {
        let (headline, detail) = (xml(&self.story.headline()), xml(&self.story.detail()));
        self.put(format_args!("<text class=\"headline\" x=\"24\" y=\"42\">{headline}</text>"));
        let detail = format!("connection {number}: {detail}");
        self.put(format_args!("<text class=\"dim\" x=\"24\" y=\"72\">{detail}</text>"));
        let first = self.story.closer();
        let sides = [(CLIENT, Direction::ToServer), (SERVER, Direction::ToClient)];
        for (x, direction) in sides {
            let class = if first == Some(direction) { "box first" } else { "box" };
            let (left, name) = (x - 60, direction.sender());
            self.put(format_args!(
                "<rect class=\"{class}\" x=\"{left}\" y=\"94\" width=\"120\" height=\"38\" rx=\"6\"/>\
                 <text class=\"name\" x=\"{x}\" y=\"120\">{name}</text>"
            ));
        }
        self.y = 132;
        self.lifelines(TOP - 132);
    }

    /// Draws both lifelines a little further down.
    fn lifelines(&mut self, height: u32) {
        let (top, bottom) = (self.y, self.y + height);
        for (side, x) in self.sides.into_iter().zip([CLIENT, SERVER]) {
            let class = match side {
                Side::Open => "life",
                Side::Half => "life half",
                Side::Gone => continue,
            };
            self.put(format_args!(
                "<line class=\"{class}\" x1=\"{x}\" y1=\"{top}\" x2=\"{x}\" y2=\"{bottom}\"/>"
            ));
        }
        self.y = bottom;
    }

    /// A place where nothing is drawn: silence, or events that are left out.
    fn gap(&mut self, words: &str) {
        let (top, bottom) = (self.y, self.y + LOW_ROW);
        for x in [CLIENT, SERVER] {
            self.put(format_args!(
                "<line class=\"life\" stroke-dasharray=\"2 5\" opacity=\".6\" x1=\"{x}\" \
                 y1=\"{top}\" x2=\"{x}\" y2=\"{bottom}\"/>"
            ));
        }
        let (y, words) = (top + 22, xml(words));
        self.put(format_args!(
            "<text class=\"dim mid\" x=\"{MIDDLE}\" y=\"{y}\">… {words} …</text>"
        ));
        self.y = bottom;
    }

    fn event(&mut self, event: &Event) {
        let is_remark =
            matches!(event.kind, Kind::Fault { .. } | Kind::Note { .. } | Kind::Exit { .. });
        let height = if is_remark { LOW_ROW } else { ROW };
        let top = self.y;
        self.lifelines(height);
        let base = top + height - 10;
        let time = text::time(self.story.since_start(event.at));
        let hover = xml(&self.hover(event));
        self.put(format_args!("<g class=\"{}\"><title>{hover}</title>", class_of(event)));
        let y = base + 5;
        self.put(format_args!("<text class=\"time\" x=\"100\" y=\"{y}\">{time}</text>"));
        if is_remark {
            self.remark(event, base);
        } else {
            self.arrow(event, base);
        }
        self.out += "</g>\n";
        self.flag(event, base);
        self.change_sides(event, base);
    }

    /// What is shown when the pointer rests on an event.
    fn hover(&self, event: &Event) -> String {
        let at = text::time(self.story.since_start(event.at));
        let way = format!("{} to {}", event.direction.sender(), event.direction.receiver());
        match &event.kind {
            Kind::Data { offset, length, preview } => {
                let last = offset.saturating_add(*length).saturating_sub(1);
                let bytes = text::bytes(*length);
                let shown = text::quoted(preview, *length, 300);
                format!("{at}, {way}: {bytes}, offset {offset} to {last}\n{shown}")
            }
            _ => {
                let (main, rest) = story::label(event, self.story, 300);
                format!("{at}, {way}: {main} {rest}")
            }
        }
    }

    fn remark(&mut self, event: &Event, y: u32) {
        let (main, rest) = story::label(event, self.story, COLUMNS);
        let words = xml(&shorten(&format!("{main} {rest}"), COLUMNS + 6));
        let (x, anchor) = match event.direction {
            Direction::ToServer => (CLIENT + 16, ""),
            Direction::ToClient => (SERVER - 16, " end"),
        };
        let word = if matches!(event.kind, Kind::Note { .. }) { "dim" } else { "word" };
        self.put(format_args!("<text class=\"{word}{anchor}\" x=\"{x}\" y=\"{y}\">{words}</text>"));
    }

    fn arrow(&mut self, event: &Event, y: u32) {
        let to_server = event.direction == Direction::ToServer;
        let (from, to) = if to_server { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        let sign: i32 = if to_server { 1 } else { -1 };
        let at = |x: u32, by: i32| x.cast_signed() + sign * by;
        let (start, mut end) = (at(from, 4), at(to, -4));
        let crossed = matches!(
            event.kind,
            Kind::Reset | Kind::Refused | Kind::Timeout | Kind::Lost { .. } | Kind::Stall
        );
        if matches!(event.kind, Kind::Lost { .. } | Kind::Stall) {
            end = at(MIDDLE, 130); // it does not arrive
        }
        let stop = end - sign * 10;
        self.put(format_args!("<path class=\"arrow\" d=\"M{start} {y}H{stop}\"/>"));
        if crossed {
            let (left, right, top, bottom) = (end - 11, end + 3, y - 8, y + 8);
            self.put(format_args!(
                "<path class=\"cross\" d=\"M{left} {top}L{right} {bottom}M{right} {top}L{left} {bottom}\"/>"
            ));
        } else {
            let (back, top, bottom) = (end - sign * 15, y - 8, y + 8);
            self.put(format_args!(
                "<path class=\"head\" d=\"M{end} {y}L{back} {top}V{bottom}Z\"/>"
            ));
        }
        let (main, rest) = story::label(event, self.story, COLUMNS);
        let (main, rest) = (xml(&main), xml(&shorten(&rest, COLUMNS)));
        let (x, above) = (MIDDLE, y - 9);
        let class = if matches!(event.kind, Kind::Data { .. }) { "bytes" } else { "dim" };
        self.put(format_args!(
            "<text class=\"mid\" x=\"{x}\" y=\"{above}\"><tspan class=\"word\">{main}</tspan> \
             <tspan class=\"{class}\">{rest}</tspan></text>"
        ));
    }

    /// Marks the end that came first, beside the lifeline of the one who made it.
    fn flag(&mut self, event: &Event, y: u32) {
        let Some(first) = self.story.first() else {
            return;
        };
        let drawn = self.sides.iter().any(|&side| side != Side::Open);
        if drawn || event.direction != first.direction || event.kind != first.kind {
            return;
        }
        let words = match (&first.made, &first.kind) {
            (Some(_), _) => "by the network",
            (None, Kind::Fin | Kind::Reset) => "closes first",
            _ => return,
        };
        let (tip, edge, far) = match event.direction {
            Direction::ToServer => (CLIENT - 8, CLIENT - 20, CLIENT - 140),
            Direction::ToClient => (SERVER + 8, SERVER + 20, SERVER + 140),
        };
        let (top, bottom, middle, text) = (y - 16, y + 16, edge.midpoint(far), y + 6);
        self.put(format_args!(
            "<path class=\"flag\" d=\"M{tip} {y}L{edge} {top}H{far}V{bottom}H{edge}Z\"/>\
             <text class=\"flagged\" x=\"{middle}\" y=\"{text}\">{words}</text>"
        ));
    }

    fn change_sides(&mut self, event: &Event, y: u32) {
        let one = event.direction.index();
        match event.kind {
            Kind::Fin if self.sides[one] == Side::Open => {
                self.sides[one] = Side::Half;
                if self.sides == [Side::Half; 2] {
                    self.end_of(0, y, "fin");
                    self.end_of(1, y, "fin");
                }
            }
            Kind::Reset => {
                for side in 0..2 {
                    if self.sides[side] != Side::Gone {
                        self.end_of(side, y, "rst");
                    }
                }
            }
            _ => {}
        }
    }

    /// Ends a lifeline with a bar.
    fn end_of(&mut self, side: usize, y: u32, class: &str) {
        self.sides[side] = Side::Gone;
        let (x, y) = ([CLIENT, SERVER][side], y + 14);
        let (left, right) = (x - 16, x + 16);
        self.put(format_args!("<path class=\"cross {class}\" d=\"M{left} {y}H{right}\"/>"));
    }
}

fn class_of(event: &Event) -> &'static str {
    match event.kind {
        Kind::Fin => "fin",
        Kind::Reset | Kind::Refused | Kind::Timeout | Kind::Fault { .. } => "rst",
        Kind::Lost { .. } | Kind::Stall => "rst lost",
        Kind::Note { .. } => "plain",
        _ if event.direction == Direction::ToServer => "to-server",
        _ => "to-client",
    }
}

fn shorten(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns - 1).chain(['…']).collect()
}
