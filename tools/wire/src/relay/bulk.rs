//! Much data that nothing is to be done to: it goes from socket to socket by way of a pipe and
//! never through our memory (splice(2)). Linux only; elsewhere nothing is ever bulk.

use std::io;
use std::net::TcpStream;

#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

/// Bytes after which a direction is bulk; before that it is not worth a pipe.
pub(super) const FROM: u64 = 1 << 20;

/// A pipe that holds what was read and not yet written.
#[cfg(target_os = "linux")]
pub(super) struct Pipe {
    exit: OwnedFd,
    entry: OwnedFd,
}

#[cfg(target_os = "linux")]
impl Pipe {
    /// Bytes that a pipe takes, if so many are allowed (pipe(7): pipe-user-pages-soft), and that
    /// are moved in one call. Measured: twice as fast as with the usual 64 KiB.
    const MOST: usize = 1 << 20;

    /// A new pipe, unless there is no descriptor for it.
    pub(super) fn new() -> Option<Self> {
        use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
        let (exit, entry) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let _ = fcntl_setpipe_size(&entry, Self::MOST);
        Some(Pipe { exit, entry })
    }

    /// Moves bytes from a socket into the pipe; 0 is the end.
    pub(super) fn fill(&self, from: &TcpStream) -> io::Result<usize> {
        Self::splice(from, &self.entry, Self::MOST)
    }

    /// Moves at most so many bytes from the pipe into a socket.
    pub(super) fn drain(&self, to: &TcpStream, most: usize) -> io::Result<usize> {
        Self::splice(&self.exit, to, most)
    }

    fn splice(
        from: impl std::os::fd::AsFd,
        to: impl std::os::fd::AsFd,
        most: usize,
    ) -> io::Result<usize> {
        use rustix::pipe::{SpliceFlags, splice};
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        Ok(splice(from, None, to, None, most, flags)?)
    }
}

/// A pipe that cannot be.
#[cfg(not(target_os = "linux"))]
pub(super) enum Pipe {}

#[cfg(not(target_os = "linux"))]
impl Pipe {
    pub(super) fn new() -> Option<Self> {
        None
    }

    pub(super) fn fill(&self, _: &TcpStream) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn drain(&self, _: &TcpStream, _: usize) -> io::Result<usize> {
        match *self {}
    }
}
