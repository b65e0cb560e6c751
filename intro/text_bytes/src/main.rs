//! Text and bytes: what goes into a socket are bytes, so text is encoded first (UTF-8).
//! Shows the bytes of TEXT, a buffer of bytes that is changed, and a character cut in two.
//!
//! `cargo run -q -p text_bytes -- 'hello, 안녕'`

use std::process::ExitCode;

use clap::Parser;
use common::{exit, output};

/// Shows the bytes of a text, and what becomes of a character cut between two reads
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Text to encode
    #[arg(default_value = "hello, 안녕")]
    text: String,
}

fn main() -> ExitCode {
    let text = Args::parse().text;
    let mut shown = encoded(&text);
    shown.push_str(&changed(&text));
    shown.push_str(&cut(&text));
    exit::finish(output::print(shown))
}

/// The text as bytes: a literal, hex, how many, and how many for each character.
fn encoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut shown = format!("text        {text}\nbytes       {}\n", literal(bytes));
    shown += &format!("hex         {hex}\n");
    shown += &format!("length      {} bytes, {} characters\n", bytes.len(), text.chars().count());
    for length in 1..=4 {
        let same: String = text.chars().filter(|c| c.len_utf8() == length).collect();
        if !same.is_empty() {
            shown += &format!("{length} byte{} each {same}\n", if length == 1 { " " } else { "s" });
        }
    }
    shown
}

/// The lecture's `bytearray`: a buffer that can grow and change. The text itself cannot.
fn changed(text: &str) -> String {
    let mut buffer = text.as_bytes().to_vec();
    buffer.extend_from_slice(b"korea");
    buffer[0] = buffer[0].wrapping_add(1);
    format!(
        "\nchanged     {}\n            {}\n",
        literal(&buffer),
        String::from_utf8_lossy(&buffer)
    )
}

/// What a reader sees whose first read ends inside the last character of several bytes.
fn cut(text: &str) -> String {
    let Some((start, _)) = text.char_indices().rfind(|(_, c)| c.len_utf8() > 1) else {
        return "\ncut         no character here takes more than one byte\n".to_owned();
    };
    let (first, second) = text.as_bytes().split_at(start + 1);
    let mut shown = String::from("\n");
    for (name, part) in [("first read", first), ("second read", second)] {
        let decoded = match std::str::from_utf8(part) {
            Ok(text) => text.to_owned(),
            Err(error) => format!("{error}; lossy: {}", String::from_utf8_lossy(part)),
        };
        shown += &format!("{name:<11} {}\n            {decoded}\n", literal(part));
    }
    shown + &format!("both        {}\n", String::from_utf8_lossy(&[first, second].concat()))
}

fn literal(bytes: &[u8]) -> String {
    format!("b\"{}\"", bytes.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lectures_text() {
        let shown = encoded("hello, 안녕");
        assert!(shown.contains(r#"b"hello, \xec\x95\x88\xeb\x85\x95""#));
        assert!(shown.contains("hex         68656c6c6f2c20ec9588eb8595\n"));
        assert!(shown.contains("13 bytes, 9 characters"));
        assert!(shown.contains("3 bytes each 안녕"));
        assert!(changed("hello, 안녕").contains("iello, 안녕korea"));
    }

    #[test]
    fn a_cut_character_is_whole_again_in_both() {
        let shown = cut("hello, 안녕");
        assert!(shown.contains("incomplete utf-8 byte sequence from index 10"), "{shown}");
        assert!(shown.contains("invalid utf-8 sequence of 1 bytes from index 0"), "{shown}");
        assert!(shown.ends_with("both        hello, 안녕\n"), "{shown}");
    }

    #[test]
    fn any_text_will_do() {
        for text in ["", "\0", "plain", "é", "\u{10ffff}"] {
            let _ = (encoded(text), changed(text), cut(text));
        }
    }
}
