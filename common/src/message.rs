//! The messages that a client sends: made, or the lines of a file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::mem;
use std::ops::RangeInclusive;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::exit;
use crate::report::Message;

/// The longest message taken from a file. A line without end must not fill the memory, so a longer
/// one is sent as several messages; the bytes are the same.
pub const LONGEST_LINE: u64 = 64 * 1024;

/// The messages of one run, in order: an iterator, since a long run must not fill the memory.
pub struct Messages {
    source: Source,
    delay: Duration,
    /// When the next message is due; `None` without a delay.
    due: Option<Instant>,
    /// The messages taken last, and as a report keeps them.
    gathered: Vec<u8>,
    known: Vec<Message>,
}

enum Source {
    /// Made: their numbers, and the bytes in each.
    Made { numbers: RangeInclusive<u64>, length: usize },
    /// The lines of a file.
    Lines(BufReader<Box<dyn Read + Send>>),
}

impl Messages {
    /// `count` messages of exactly `length` bytes: a number counting from 1, zero-padded to five
    /// digits, then `a`s, then a newline (lecture part 2, `msg.py`). `length` must be at least
    /// [`Messages::shortest`].
    pub fn new(count: u64, length: usize) -> Self {
        Messages::of(Source::Made { numbers: 1..=count, length })
    }

    fn of(source: Source) -> Self {
        let (gathered, known) = (Vec::new(), Vec::new());
        Messages { source, delay: Duration::ZERO, due: None, gathered, known }
    }

    /// The length of the shortest message that holds the number of each of `count` messages.
    pub fn shortest(count: u64) -> usize {
        format!("{count:05}\n").len()
    }

    /// The lines of `file`, each with its newline if it has one; `-` is standard input.
    ///
    /// # Errors
    /// The file cannot be opened or is a directory.
    pub fn lines_of(file: &Path) -> io::Result<Self> {
        let source: Box<dyn Read + Send> = match file.to_str() {
            Some("-") => Box::new(io::stdin()),
            _ => Box::new(open(file)?),
        };
        Ok(Messages::of(Source::Lines(BufReader::new(source))))
    }

    /// The same messages, with a pause before each.
    pub fn each_after(self, delay: Duration) -> Self {
        let due = (!delay.is_zero()).then(|| Instant::now() + delay);
        Messages { delay, due, ..self }
    }

    /// How long [`Messages::next`] would sleep: for a program that has other things to wait for.
    pub fn due_in(&self) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()))
    }

    /// Whether the next message is there at once. If not, what was written before must not lie in a
    /// buffer meanwhile.
    fn is_ready(&self) -> bool {
        match &self.source {
            _ if self.due.is_some() => false,
            Source::Made { .. } => true,
            Source::Lines(reader) => reader.buffer().contains(&b'\n'),
        }
    }

    /// Takes the next messages, the first when it is due, then those that are there at once, until
    /// they are `enough` bytes. See [`Messages::gathered`].
    ///
    /// # Errors
    /// The file cannot be read; status 1.
    pub fn gather(&mut self, enough: usize) -> io::Result<()> {
        self.known.clear();
        let mut end = 0;
        while end < enough && (end == 0 || self.is_ready()) {
            let start = end;
            let known = match &mut self.source {
                Source::Made { numbers, length } => {
                    let Some(number) = numbers.next() else { break };
                    end += *length;
                    if self.gathered.len() < end {
                        self.gathered.resize(end - 1, b'a');
                        self.gathered.push(b'\n');
                    } // or only the number, which never becomes shorter, is another
                    let mut digits = itoa::Buffer::new();
                    let digits = digits.format(number); // `write!` took a fifth of a client's time
                    let zeros = 5_usize.saturating_sub(digits.len());
                    let number = &mut self.gathered[start..start + zeros + digits.len()];
                    number[..zeros].fill(b'0');
                    number[zeros..].copy_from_slice(digits.as_bytes());
                    Message::run(number, b'a', b'\n', *length)
                }
                Source::Lines(reader) => {
                    self.gathered.truncate(start);
                    let line = reader.take(LONGEST_LINE).read_until(b'\n', &mut self.gathered);
                    match line.map_err(exit::local("reading messages"))? {
                        0 => break,
                        n => end += n,
                    }
                    None
                }
            };
            if self.due.is_some() {
                thread::sleep(self.due_in());
                let last =
                    matches!(&self.source, Source::Made { numbers, .. } if numbers.is_empty());
                self.due = (!last).then(|| Instant::now() + self.delay);
            }
            self.known.push(known.unwrap_or_else(|| Message::new(&self.gathered[start..end])));
        }
        self.gathered.truncate(end);
        Ok(())
    }

    /// The bytes of the messages that [`Messages::gather`] took last; none are the end.
    pub fn gathered(&self) -> &[u8] {
        &self.gathered
    }

    /// The same messages for a report, once.
    pub fn known(&mut self) -> impl Iterator<Item = Message> {
        self.known.drain(..)
    }
}

impl Iterator for Messages {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.gather(1) {
            Ok(()) if self.gathered.is_empty() => None,
            result => Some(result.map(|()| mem::take(&mut self.gathered))),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let failed = |why: &dyn std::fmt::Display| exit::unusable(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|error| failed(&error))?;
    if file.metadata().map_err(|error| failed(&error))?.is_dir() {
        return Err(failed(&"is a directory"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn all(messages: Messages) -> Vec<Vec<u8>> {
        messages.map(|message| message.unwrap()).collect()
    }

    #[test]
    fn made_messages_are_the_lectures() {
        let messages = all(Messages::new(20, 2000));
        assert_eq!(messages.len(), 20);
        assert_eq!(messages[0][..8], *b"00001aaa");
        assert_eq!(messages[19][..8], *b"00020aaa");
        assert!(messages.iter().all(|message| message.len() == 2000 && message.ends_with(b"a\n")));
    }

    #[test]
    fn the_shortest_message_holds_its_number() {
        assert_eq!(all(Messages::new(2, Messages::shortest(2))), [b"00001\n", b"00002\n"]);
        let mut late = Messages::new(123_456, Messages::shortest(123_456));
        assert_eq!(late.nth(99_998).unwrap().unwrap(), b"99999a\n");
        assert_eq!(late.last().unwrap().unwrap(), b"123456\n");
    }

    #[test]
    fn lines_keep_every_byte() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let long = vec![b'x'; LONGEST_LINE as usize + 1];
        file.write_all(b"one\n\n\xff\xfe\n").unwrap();
        file.write_all(&long).unwrap();
        let lines = all(Messages::lines_of(file.path()).unwrap());
        assert_eq!(lines[..3], [&b"one\n"[..], b"\n", b"\xff\xfe\n"]);
        assert_eq!(lines[3..].concat(), long);
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn what_is_gathered_is_every_message_and_known_as_if_looked_at() {
        for count in [1, 7, 99_999, 10_u64.pow(15)] {
            for length in Messages::shortest(count + 9)..60 {
                let source = || Source::Made { numbers: count..=count + 9, length };
                let messages = || Messages::of(source());
                let (mut gathering, mut gathered, mut known) = (messages(), Vec::new(), Vec::new());
                while gathered.len() < 10 * length {
                    gathering.gather(2 * length + 1).unwrap();
                    known.extend(gathering.known());
                    gathered.extend_from_slice(gathering.gathered());
                }
                let all = all(messages());
                assert_eq!(gathered, all.concat());
                assert!(known.into_iter().eq(all.iter().map(|message| Message::new(message))));
                gathering.gather(1).unwrap();
                assert_eq!(gathering.gathered(), b"");
            }
        }
    }

    #[test]
    fn a_directory_or_a_missing_file_is_named() {
        for path in [Path::new("/"), Path::new("/no/such/file")] {
            let error = Messages::lines_of(path).err().unwrap();
            assert_eq!(exit::status(&error), exit::USAGE);
            assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
        }
    }
}
