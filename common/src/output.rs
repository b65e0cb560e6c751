//! Standard output, without a panic on a closed pipe and without silence on a full disk.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::thread::Builder;

use crate::exit;

/// Writes `data` to standard output, and all the way out.
///
/// # Errors
/// Standard output cannot be written; status 1.
pub fn print(data: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout();
    let written = stdout.write_all(data.as_ref()).and_then(|()| stdout.flush());
    written.map_err(exit::local("standard output"))
}

/// Standard output for a server that must not wait for it: it may be as slow as any client.
pub struct Console {
    texts: Sender<Arc<str>>,
    /// Bytes that wait to be printed.
    waiting: Arc<AtomicUsize>,
}

impl Console {
    /// Bytes that may wait to be printed.
    const MOST: usize = 2 << 20;

    /// Starts the thread that prints.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start() -> io::Result<Self> {
        let ((texts, posted), waiting) = (mpsc::channel(), Arc::new(AtomicUsize::new(0)));
        let unprinted = waiting.clone();
        let print = move |text: Arc<str>| {
            unprinted.fetch_sub(text.len(), Relaxed);
            print(&*text).is_ok()
        };
        Builder::new().spawn(move || posted.into_iter().all(print))?;
        Ok(Console { texts, waiting })
    }

    /// Has `text` printed after those before it; not at all if nobody takes them and too much waits.
    pub fn post(&self, text: Arc<str>) {
        if self.waiting.load(Relaxed) < Self::MOST {
            self.waiting.fetch_add(text.len(), Relaxed);
            let _ = self.texts.send(text); // standard output is closed: so be it
        }
    }
}

/// A line that came over the network, without its end, safe to show on a terminal: what is not
/// UTF-8 as `\u{fffd}`, control characters as escapes (`\u{1b}`, `\t`), and those that turn the
/// direction of writing, too.
pub fn safe_line(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line); // of telnet, say
    let mut text = String::with_capacity(line.len());
    for c in String::from_utf8_lossy(line).chars() {
        match c {
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => text.extend(c.escape_unicode()),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        let text = "안녕 \u{1b}[2J\r\t\u{7f}\u{9b}A \u{202e}abc".as_bytes();
        let shown = r"안녕 \u{1b}[2J\r\t\u{7f}\u{9b}A \u{202e}abc";
        assert_eq!(safe_line(text), shown);
        assert_eq!(safe_line(b"\xff\xfea\xec\x95"), "\u{fffd}\u{fffd}a\u{fffd}");
        assert_eq!(safe_line(b"\r\n"), "");
        assert_eq!(safe_line(b"a\r\r\n\n"), "a\\r\\r\\n");
        for byte in 0..=255 {
            assert!(!safe_line(&[byte, b'x']).chars().any(char::is_control));
        }
    }
}
