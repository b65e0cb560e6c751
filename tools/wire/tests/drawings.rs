//! Drawings of any events: well-formed, bounded, and nothing in them but what is meant.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use proptest::prelude::*;
use wire::event::{Direction, Event, Kind};
use wire::ladder::{self, Live, Style};
use wire::{html, jsonl, mermaid, svg};

fn kind() -> impl Strategy<Value = Kind> {
    let text =
        || prop_oneof!["\\PC{0,40}", "[\\x00-\\x7f]{0,40}", Just("</title>]]>&<!--".to_owned())];
    let preview = proptest::collection::vec(any::<u8>(), 0..300);
    // A file may hold any number.
    let number = |usual: u64| prop_oneof![20 => 0..usual, 1 => Just(u64::MAX)];
    let data = (number(1 << 40), preview, number(3000)).prop_map(|(offset, preview, more)| {
        Kind::Data { offset, length: more.saturating_add(preview.len() as u64), preview }
    });
    prop_oneof![
        6 => data,
        1 => Just(Kind::Connect),
        1 => Just(Kind::Accept),
        1 => Just(Kind::Fin),
        1 => Just(Kind::Reset),
        1 => Just(Kind::Refused),
        1 => Just(Kind::Timeout),
        1 => Just(Kind::Stall),
        1 => Just(Kind::Over),
        1 => number(1 << 32).prop_map(|length| Kind::Lost { length }),
        1 => text().prop_map(|text| Kind::Fault { text }),
        1 => text().prop_map(|status| Kind::Exit { status }),
        1 => text().prop_map(|text| Kind::Note { text }),
        1 => (number(9), number(99)).prop_map(|(events, to_server)| {
            Kind::LeftOut { events, to_server, to_client: 0 }
        }),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (0..2_000_000u64, 1..4u32, any::<bool>(), kind());
    proptest::collection::vec(event, 0..120).prop_map(|events| {
        let mut at = Duration::ZERO;
        let make = |(micros, connection, to_server, kind)| {
            at += Duration::from_micros(micros);
            let direction = if to_server { Direction::ToServer } else { Direction::ToClient };
            Event { at, connection, direction, kind }
        };
        events.into_iter().map(make).collect()
    })
}

/// Checks that markup nests and that all that is not markup is plain text; returns the names of
/// the elements. HTML's elements without an end are listed.
fn elements(markup: &str) -> Vec<String> {
    const WITHOUT_END: [&str; 2] = ["meta", "!DOCTYPE"];
    let is_xml = |c: char| matches!(c, '\t' | '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    assert!(markup.chars().all(is_xml), "a character that XML does not know");
    let (mut open, mut seen, mut rest) = (Vec::<String>::new(), Vec::new(), markup);
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        assert!(!text.contains('>') || open.last().is_some_and(|name| name == "style"), "{text}");
        for entity in text.split('&').skip(1) {
            let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
            assert!(known.iter().any(|known| entity.starts_with(known)), "&{entity}");
        }
        let end = at + rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_owned();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        seen.push(name.clone());
        if !tag.ends_with('/') && !WITHOUT_END.contains(&&*name) {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0], "all elements end");
    seen
}

proptest! {
    #[test]
    fn pictures_are_well_formed(events in events()) {
        let allowed = ["svg", "style", "rect", "g", "text", "tspan", "title", "line", "path"];
        let picture = svg::draw(&events);
        prop_assert!(elements(&picture).iter().all(|name| allowed.contains(&&**name)));
        let page = html::draw(&events);
        prop_assert!(!elements(&page).iter().any(|name| name == "script"));
        prop_assert!(!picture.contains("script") && !picture.contains("http:/ "));
    }

    #[test]
    fn ladders_have_straight_edges_and_no_control_characters(events in events(), color: bool) {
        use unicode_width::UnicodeWidthStr;
        let drawn = ladder::draw(&events, &Style { color, ..Style::default() });
        for line in drawn.lines().filter(|line| line.contains(['│', '┊'])) {
            let plain = match color {
                true => line.split('\x1b').map(|part| part.split_once('m').map_or(part, |p| p.1)).collect(),
                false => line.to_owned(),
            };
            if !color {
                prop_assert_eq!(plain.width(), 80, "{}", plain);
                prop_assert!(!plain.chars().any(char::is_control), "{:?}", plain);
            }
        }
    }

    #[test]
    fn a_live_ladder_takes_the_same_events(events in events()) {
        let mut live = Live::new(Style::default());
        let drawn: String = events.iter().map(|event| live.add(event)).collect();
        prop_assert!(drawn.chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn mermaid_has_one_statement_in_each_line(events in events()) {
        let drawn = mermaid::draw(&events);
        for line in drawn.lines().skip(3) {
            let (head, words) = line.trim().split_once(": ").unwrap_or((line.trim().trim_end_matches(':'), ""));
            let known = ["note over", "C-", "S-"];
            prop_assert!(known.iter().any(|known| head.starts_with(known)), "{}", line);
            let plain = |c: char| c.is_alphanumeric() || " .,()-=…#;\u{fffd}".contains(c);
            prop_assert!(words.chars().all(plain), "{}", line);
            let coded = words.split('#').skip(1).all(|rest| {
                rest.split_once(';').is_some_and(|(code, _)| code.parse::<u32>().is_ok())
            });
            prop_assert!(coded && words.matches('#').count() == words.matches(';').count());
        }
        prop_assert!(drawn.len() < 40_000);
    }

    #[test]
    fn what_is_written_as_json_is_read_back(events in events()) {
        let mut lines = Vec::new();
        jsonl::write(&events, &mut lines).unwrap();
        prop_assert_eq!(jsonl::read(&lines[..]).unwrap(), events);
    }

    #[test]
    fn any_bytes_are_events_or_an_error_with_a_line(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = jsonl::read(&bytes[..]) {
            prop_assert!(error.to_string().starts_with("line "));
        }
    }
}

fn event(at: u64, direction: Direction, kind: Kind) -> Event {
    Event { at: Duration::from_millis(at), connection: 1, direction, kind }
}

fn data(length: u64) -> Kind {
    Kind::Data { offset: 0, length, preview: b"x".to_vec() }
}

/// Who closed first is the first thing that a picture says.
#[test]
fn headlines_tell_who_closed_first() {
    use Direction::{ToClient, ToServer};
    let fault = |word: &str| Kind::Fault { text: format!("{word}: as told") };
    for (ending, headline) in [
        (vec![], "The connection is still open"),
        (vec![(ToServer, Kind::Fin)], "The client closed first; the server is still open"),
        (
            vec![(ToServer, Kind::Fin), (ToClient, Kind::Fin)],
            "The client closed first, then the server: all in order",
        ),
        (
            vec![(ToServer, Kind::Fin), (ToClient, data(5)), (ToClient, Kind::Fin)],
            "The client closed first, but only half: the server could still answer",
        ),
        (
            vec![(ToServer, Kind::Fin), (ToClient, data(5)), (ToServer, Kind::Reset)],
            "The client closed first, too early: the server was still sending",
        ),
        (
            vec![
                (ToClient, Kind::Fin),
                (ToServer, data(5)),
                (ToServer, Kind::Fin),
                (ToClient, Kind::Reset),
            ],
            "The server closed first, too early: the client was still sending",
        ),
        (vec![(ToClient, Kind::Reset)], "The server closed first, abruptly: with a reset (RST)"),
        (
            vec![(ToClient, fault("fin-after=5")), (ToClient, Kind::Fin), (ToServer, Kind::Fin)],
            "The network closed first, not the server (fin-after=5)",
        ),
        (
            vec![
                (ToClient, fault("reset-after=5")),
                (ToClient, Kind::Reset),
                (ToServer, Kind::Reset),
            ],
            "The network closed first, not the server (reset-after=5)",
        ),
        (vec![(ToClient, Kind::Stall)], "Stalled: the client waits"),
        (vec![(ToClient, Kind::Refused)], "The server refused the connection"),
        (vec![(ToClient, Kind::Timeout)], "The server did not answer in time"),
    ] {
        let mut events = vec![event(0, ToServer, Kind::Connect), event(1, ToClient, Kind::Accept)];
        events.extend(ending.into_iter().map(|(direction, kind)| event(2, direction, kind)));
        for drawn in
            [ladder::draw(&events, &Style::default()), svg::draw(&events), html::draw(&events)]
        {
            assert!(drawn.contains(headline), "{headline}: {drawn}");
        }
    }
}

#[test]
fn what_came_too_late_does_not_count_as_arrived() {
    use Direction::{ToClient, ToServer};
    let steps =
        [(ToClient, data(10)), (ToServer, Kind::Fin), (ToClient, data(5)), (ToServer, Kind::Reset)];
    let events: Vec<_> = steps.into_iter().map(|(way, kind)| event(0, way, kind)).collect();
    assert!(svg::draw(&events).contains("10 bytes to the client, 5 more came too late"));
}

#[test]
fn silence_is_short_and_marked() {
    let events =
        [event(0, Direction::ToServer, Kind::Connect), event(2300, Direction::ToServer, Kind::Fin)];
    for drawn in
        [ladder::draw(&events, &Style::default()), svg::draw(&events), mermaid::draw(&events)]
    {
        assert!(drawn.contains("… 2.3 s of silence …"), "{drawn}");
    }
}

#[test]
fn long_runs_make_short_pictures() {
    let one = |n| event(n, Direction::ToServer, data(1));
    let events: Vec<_> = (0..100_000).map(one).collect();
    assert!(svg::draw(&events).len() < 50_000);
    assert!(svg::draw(&events).contains("99955 more events: 99955 bytes to the server"));
    assert!(html::draw(&events).len() < 4_000_000);
    let many: Vec<_> = (1..500).map(|n| Event { connection: n, ..one(0) }).collect();
    assert!(svg::draw(&many).contains("449 more connections"));
}
