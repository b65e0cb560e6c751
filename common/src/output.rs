//! Standard output, without a panic on a closed pipe and without silence on a full disk.

use std::io::{self, Write};

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
