//! Bytes, sizes and times as people read them, and as markup takes them.

use std::time::Duration;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Bytes as text in quotes, at most so many columns wide. Text in UTF-8 is shown as such, all
/// other bytes as `\n`, `\0`, `\xff`; an ellipsis tells that there is more, of `length` bytes.
pub fn quoted(bytes: &[u8], length: u64, columns: usize) -> String {
    let (mut shown, mut width, mut whole) = ("\"".to_owned(), 2, bytes.len() as u64 == length);
    for part in escaped(bytes) {
        let wide = part.width();
        if width + wide + 1 > columns {
            whole = false;
            break;
        }
        shown.push_str(&part);
        width += wide;
    }
    shown.push('"');
    if !whole {
        shown.push('…');
    }
    shown
}

/// Each character or byte in a form that neither moves the cursor nor can be taken for another.
fn escaped(bytes: &[u8]) -> impl Iterator<Item = String> {
    bytes.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(escape);
        let invalid = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
        valid.chain(invalid)
    })
}

fn escape(c: char) -> String {
    match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\0' => "\\0".to_owned(),
        '\\' => "\\\\".to_owned(),
        ' '..='~' => c.to_string(),
        _ if c.is_alphanumeric() && c.width().is_some_and(|width| width > 0) => c.to_string(),
        _ if c.is_ascii() => format!("\\x{:02x}", c as u32),
        _ => c.escape_unicode().to_string(),
    }
}

/// A remark in one line, whatever is in it.
pub fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { escape(c) } else { c.to_string() }).collect()
}

/// Bytes as text of several lines: as [`quoted`] shows them, but a newline is one.
pub fn lines(bytes: &[u8]) -> String {
    escaped(bytes).map(|part| if part == "\\n" { "\n".to_owned() } else { part }).collect()
}

/// So many bytes: `1 byte`, `1400 bytes`.
pub fn bytes(count: u64) -> String {
    counted(count, "byte")
}

/// So many things: `1 thing`, `2 things`.
pub fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A time: `0.31 ms`, `12.345 s`.
pub fn time(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.2} ms", time.as_secs_f64() * 1000.0),
        _ => format!("{:.3} s", time.as_secs_f64()),
    }
}

/// A time without the digits that do not matter: `230 ms`, `1.2 s`.
pub fn about(time: Duration) -> String {
    match time.as_millis() {
        0..1000 => format!("{} ms", time.as_millis()),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// Text as XML and HTML take it, in an element or an attribute. Characters that XML does not know
/// (XML 1.0, 2.2) become a replacement character.
pub fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\t' | '\n' => safe.push(c),
            _ if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            _ => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        let safe = "a&lt;b a=&quot;&#39;&quot;&gt;&amp;amp;\n\u{fffd}\u{fffd}";
        assert_eq!(xml("a<b a=\"'\">&amp;\n\0\u{ffff}"), safe);
    }

    #[test]
    fn bytes_are_shown_as_they_are_read() {
        for (bytes, shown) in [
            (&b"hello\n"[..], "\"hello\\n\""),
            (b"a\"b\\", "\"a\"b\\\\\""),
            (b"\x1b[31m\0\xff", "\"\\x1b[31m\\0\\xff\""),
            ("안녕".as_bytes(), "\"안녕\""),
            (&"안녕".as_bytes()[..4], "\"안\\xeb\""),
            ("\u{202e}x\u{301}".as_bytes(), "\"\\u{202e}x\\u{301}\""),
        ] {
            assert_eq!(quoted(bytes, bytes.len() as u64, 80), shown);
        }
        assert_eq!(quoted(b"abcdef", 6, 7), "\"abcd\"…");
        assert_eq!(quoted(b"abc", 1000, 80), "\"abc\"…");
        assert_eq!(quoted("안녕하세요".as_bytes(), 15, 9), "\"안녕하\"…");
    }
}
