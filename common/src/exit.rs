//! How a program ends: exit statuses, and errors told in one line.

use std::error::Error;
use std::fmt;
#[cfg(unix)]
use std::fs::File;
use std::io::{self, IsTerminal, Write};
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(not(unix))]
use std::process;
use std::process::ExitCode;

#[cfg(unix)]
use nix::unistd::alarm;
#[cfg(unix)]
use signal_hook::consts::{SIGALRM, SIGINT, SIGTERM};
#[cfg(unix)]
use signal_hook::low_level;

#[cfg(not(unix))]
use crate::output;

/// Every byte came back; a server was told to stop.
pub const OK: u8 = 0;
/// Not so: bytes are missing or differ, the server left early, or a result could not be written.
pub const NOT_SO: u8 = 1;
/// The program was called with arguments or input that it cannot use (clap ends with the same).
pub const USAGE: u8 = 2;
/// The network failed: not found, refused, reset, timed out, address in use.
pub const NETWORK: u8 = 3;

/// Ends a program: `error: …` on stderr if there is an error, and the status that belongs to it.
pub fn finish(result: io::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::from(OK) };
    let _ = writeln!(io::stderr(), "error: {}", text(&error)); // stderr closed: no reason to panic
    ExitCode::from(status(&error))
}

/// The text of `error` for a person. A read or write that ran into its time-out is reported by
/// Unix as `WouldBlock`, "resource temporarily unavailable", which says nothing to anybody; a write
/// to a server that has closed is a "broken pipe".
pub fn text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock => silent().to_string(),
        io::ErrorKind::NotConnected => "the server reset the connection".to_owned(),
        io::ErrorKind::BrokenPipe if error.get_ref().is_none() => left_early().to_string(),
        _ => error.to_string(),
    }
}

/// The exit status for `error`: a failure is the network's unless it says otherwise.
pub fn status(error: &io::Error) -> u8 {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Failure>()) {
        Some(failure) => failure.status,
        None if error.kind() == io::ErrorKind::BrokenPipe => NOT_SO,
        None => NETWORK,
    }
}

/// Not every byte came back as it should, with what happened instead; status 1.
pub fn not_so(why: impl fmt::Display) -> io::Error {
    Failure::error(NOT_SO, io::ErrorKind::InvalidData, why)
}

/// The server ended the connection although bytes were still to come; status 1.
pub fn left_early() -> io::Error {
    Failure::error(NOT_SO, io::ErrorKind::UnexpectedEof, "the server closed the connection early")
}

/// The server neither sent nor received anything for as long as the time-out; status 3.
pub fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "timed out: the server is silent")
}

/// Input that cannot be used, with the reason; status 2.
pub fn unusable(why: impl fmt::Display) -> io::Error {
    Failure::error(USAGE, io::ErrorKind::InvalidInput, why)
}

/// Reading standard input or writing standard output failed, which is not the network's fault;
/// `what` names the stream; status 1.
pub fn local(what: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| Failure::error(NOT_SO, error.kind(), format_args!("{what}: {error}"))
}

/// The last words of a chat program for [`on_signal`]: `exit` on a line of its own, also behind the
/// `^C` that a terminal shows.
pub fn farewell() -> &'static str {
    if is_terminal() { "\nexit\n" } else { "exit\n" }
}

/// Whether a person sits there: standard input and standard output are terminals.
pub fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Ends the program with status 0 on SIGINT and SIGTERM, also when it was started with `&` by a
/// script, which has SIGINT ignored; the last words are `farewell`, on stdout. Where nobody takes
/// them (a full pipe, Ctrl+S), it ends a second later without them. The system closes its sockets.
/// On Windows: on Ctrl+C.
///
/// # Errors
/// The handler cannot be set up.
#[cfg_attr(unix, expect(unsafe_code, reason = "a signal handler"))]
pub fn on_signal(farewell: &'static str) -> io::Result<()> {
    #[cfg(unix)]
    for signal in [SIGINT, SIGTERM, SIGALRM] {
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let end = move || {
            if signal != SIGALRM && !farewell.is_empty() {
                alarm::set(1); // ends the write, which may wait for ever
                let _ = (&stdout).write_all(farewell.as_bytes()); // nobody listens any more: so be it
            }
            low_level::exit(OK.into())
        };
        // SAFETY: all that the handler does is alarm(2), write(2) and _exit(2), which are
        // async-signal-safe.
        unsafe { low_level::register(signal, end) }?;
    }
    #[cfg(not(unix))]
    ctrlc::set_handler(move || {
        let _ = output::print(farewell);
        process::exit(OK.into())
    })
    .map_err(io::Error::other)?;
    Ok(())
}

/// Names what an error is about, such as the address that was asked; its status stays.
pub fn about(what: impl fmt::Display) -> impl Fn(io::Error) -> io::Error {
    move |error| {
        Failure::error(status(&error), error.kind(), format_args!("{what}: {}", text(&error)))
    }
}

/// An error's text together with the exit status it leads to.
#[derive(Debug)]
struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    fn error(status: u8, kind: io::ErrorKind, text: impl fmt::Display) -> io::Error {
        io::Error::new(kind, Failure { status, text: text.to_string() })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_status() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(status(&full()), NETWORK);
        assert_eq!(status(&local("standard output")(full())), NOT_SO);
        assert_eq!(status(&left_early()), NOT_SO);
        let late = io::Error::from(io::ErrorKind::BrokenPipe); // of a socket
        assert_eq!((status(&late), text(&late)), (NOT_SO, left_early().to_string()));
        assert_eq!(status(&unusable("no sentence")), USAGE);
    }

    #[test]
    fn context_keeps_the_kind_and_names_the_stream() {
        let error = local("standard output")(io::ErrorKind::BrokenPipe.into());
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(error.to_string(), "standard output: broken pipe");
        for (error, status_of_it) in [(silent(), NETWORK), (not_so("different"), NOT_SO)] {
            let told = format!("127.0.0.1:7: {error}");
            let error = about("127.0.0.1:7")(error);
            assert_eq!((status(&error), text(&error)), (status_of_it, told));
        }
    }
}
