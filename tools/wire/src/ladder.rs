//! The ladder for a terminal: time on the left, two lifelines, an arrow per event.

use std::collections::BTreeMap;
use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use crate::event::{Direction, Event, Kind};
use crate::story::{self, Row, SILENCE, Story};
use crate::text;

/// How a ladder is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// With colours (ANSI escape sequences).
    pub color: bool,
    /// Columns of a line; at least 60.
    pub width: usize,
    /// Events drawn of each connection, about; those in the middle of a longer one are left out.
    pub rows: usize,
}

impl Default for Style {
    /// 80 columns without colours, everything drawn.
    fn default() -> Self {
        Style { color: false, width: 80, rows: usize::MAX }
    }
}

const BLUE: &str = "36";
const YELLOW: &str = "33";
const MAGENTA: &str = "1;35";
const RED: &str = "1;31";
const BOLD: &str = "1";
const DIM: &str = "2";

/// Columns before the client's lifeline: the time.
const MARGIN: usize = 13;

/// Draws the ladder of each connection, one after the other.
pub fn draw(events: &[Event], style: &Style) -> String {
    let mut drawing = String::new();
    for (number, events) in story::by_connection(events) {
        let story = Story::of(events.iter().copied());
        if !drawing.is_empty() {
            drawing.push('\n');
        }
        drawing += &style.paint(BOLD, &format!("connection {number}"));
        drawing.push('\n');
        drawing += &style.head();
        for row in story::rows(&events, style.rows) {
            drawing += &match row {
                Row::Event(event) => style.line(&story, event),
                Row::Silence(pause) => style.silence(pause),
                Row::LeftOut(events, bytes) => style.gap(&story::left_out(events, bytes)),
            };
        }
        drawing += &style.foot(&story);
    }
    drawing
}

/// A ladder that grows while things happen. Lines of several connections alternate, each with its
/// number.
#[derive(Debug)]
pub struct Live {
    style: Style,
    stories: BTreeMap<u32, Story>,
    last: Option<(u32, Duration)>,
}

/// Connections of a live ladder; past that the oldest is forgotten.
const OPEN: usize = 1000;

impl Live {
    /// A ladder without lines.
    pub fn new(style: Style) -> Self {
        Live { style, stories: BTreeMap::new(), last: None }
    }

    /// The lines that `event` adds.
    pub fn add(&mut self, event: &Event) -> String {
        let number = event.connection;
        let mut lines = String::new();
        if self.stories.len() >= OPEN {
            self.stories.pop_first();
        }
        let story = self.stories.entry(number).or_default();
        let is_new = story.span.is_none();
        let pause = story.span.map_or(Duration::ZERO, |(_, last)| event.at.saturating_sub(last));
        story.add(event);
        if self.last.is_none_or(|(last, _)| last != number) {
            let what = if is_new { "" } else { ", continued" };
            lines += &self.style.paint(BOLD, &format!("connection {number}{what}"));
            lines.push('\n');
        }
        if is_new {
            lines += &self.style.head();
        }
        self.last = Some((number, event.at));
        if event.kind == Kind::Over {
            lines += &self.style.foot(story);
            lines.push('\n');
            self.stories.remove(&number);
            self.last = None;
            return lines;
        }
        if pause >= SILENCE {
            lines += &self.style.silence(pause);
        }
        lines += &self.style.line(story, event);
        lines
    }

    /// A line about events that were not shown.
    pub fn left_out(&self, events: u64, bytes: [u64; 2]) -> String {
        self.style.gap(&story::left_out(events, bytes))
    }
}

impl Style {
    fn paint(&self, color: &str, text: &str) -> String {
        if self.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Columns between the lifelines.
    fn inner(&self) -> usize {
        self.width.max(60) - MARGIN - 2
    }

    fn head(&self) -> String {
        let names = format!("{:MARGIN$}client{:>width$}", "", "server", width = self.inner() - 4);
        format!("{}\n", self.paint(BOLD, &names))
    }

    fn foot(&self, story: &Story) -> String {
        let headline = self.paint(BOLD, &story.headline());
        format!("{:MARGIN$}{headline}\n{:MARGIN$}{}\n", "", "", self.paint(DIM, &story.detail()))
    }

    fn silence(&self, pause: Duration) -> String {
        self.gap(&format!("{} of silence", text::about(pause)))
    }

    fn gap(&self, text: &str) -> String {
        let text = format!("… {} …", cut(text, self.inner() - 4));
        let line = format!("{text:^width$}", width = self.inner());
        format!("{:MARGIN$}┊{}┊\n", "", self.paint(DIM, &line))
    }

    fn line(&self, story: &Story, event: &Event) -> String {
        let at = story.since_start(event.at);
        let time = self.paint(DIM, &format!("{:>width$} ", text::time(at), width = MARGIN - 1));
        let inner = self.inner();
        let (main, rest) = story::label(event, story, inner - 8);
        let words = [main, rest].into_iter().filter(|part| !part.is_empty());
        let words = cut(&words.collect::<Vec<_>>().join("  "), inner - 8);
        let room = inner - words.width();
        let to_server = event.direction == Direction::ToServer;
        let (color, stroke, point) = match event.kind {
            Kind::Fin => (MAGENTA, '═', if to_server { '▶' } else { '◀' }),
            Kind::Reset => (RED, '━', '✖'),
            Kind::Refused | Kind::Timeout => (RED, '─', '✖'),
            Kind::Lost { .. } | Kind::Stall => (RED, '╌', '✖'),
            _ if to_server => (BLUE, '─', '▶'),
            _ => (YELLOW, '─', '◀'),
        };
        let fill = |n: usize| stroke.to_string().repeat(n);
        let drawn = match event.kind {
            Kind::Fault { .. } | Kind::Note { .. } | Kind::Exit { .. } => {
                let color = if matches!(event.kind, Kind::Note { .. }) { DIM } else { RED };
                let (left, right) = if to_server { (1, room - 1) } else { (room - 1, 1) };
                let text = format!("{}{words}{}", " ".repeat(left), " ".repeat(right));
                self.paint(color, &text)
            }
            // It starts, and does not arrive.
            Kind::Lost { .. } | Kind::Stall if to_server => {
                let arrow = format!("{} {words} {}{point}", fill(2), fill(room / 2 - 5));
                let gap = " ".repeat(inner - arrow.width());
                self.paint(color, &arrow) + &gap
            }
            Kind::Lost { .. } | Kind::Stall => {
                let arrow = format!("{point}{} {words} {}", fill(room / 2 - 5), fill(2));
                " ".repeat(inner - arrow.width()) + &self.paint(color, &arrow)
            }
            _ if to_server => {
                self.paint(color, &format!("{} {words} {}{point}", fill(2), fill(room - 5)))
            }
            _ => self.paint(color, &format!("{point}{} {words} {}", fill(room - 5), fill(2))),
        };
        format!("{time}│{drawn}│\n")
    }
}

/// The beginning of `text`, at most so many columns.
fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut shown = String::new();
    for c in text.chars() {
        if shown.width() + c.to_string().width() + 1 > columns {
            break;
        }
        shown.push(c);
    }
    shown + "…"
}
