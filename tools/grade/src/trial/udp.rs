//! Datagrams to and from a program under test.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use harness::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wire::event::{Connection, Direction, Kind};

use super::{Trial, in_time};
use crate::check::Stop;
use crate::hang;

/// The longest datagram there can be, and one byte.
const LONGEST: usize = 65_536;

/// A socket of the grader for datagrams, whose traffic is recorded.
pub struct Datagrams {
    sock: UdpSocket,
    wire: Connection,
    /// Where the program is, seen from the grader.
    outward: Direction,
}

/// What came in.
#[derive(Debug)]
pub enum Came {
    /// A datagram, and from whom.
    Datagram(Vec<u8>, SocketAddr),
    /// The program has ended, and all that it had sent has come.
    Gone,
    /// Nothing, in the time there was.
    Silence,
}

impl Trial<'_> {
    /// A connection to record in.
    pub fn connection(&self) -> Connection {
        self.recorder.connection()
    }

    /// A socket for datagrams on a free port of `host`, to a program in the direction `outward`,
    /// recorded in `wire`.
    ///
    /// # Errors
    /// There is no such address on this machine.
    pub fn datagrams(
        &self,
        host: IpAddr,
        outward: Direction,
        wire: Connection,
    ) -> io::Result<Datagrams> {
        Datagrams::at((host, 0).into(), outward, wire)
    }

    /// Receives a datagram, waiting for `within`, or longer if the program is only late.
    ///
    /// # Errors
    /// The system's; the program was never started; the trial is over.
    pub fn receive(&mut self, from: &Datagrams, within: Duration) -> Result<Came, Stop> {
        match self.look(from, within)? {
            Came::Datagram(..) => {
                let mut buffer = vec![0; LONGEST];
                let (n, peer) = from.sock.recv_from(&mut buffer)?;
                buffer.truncate(n);
                Ok(Came::Datagram(buffer, peer))
            }
            other => Ok(other),
        }
    }

    /// As [`Trial::receive`], and leaves the datagram where it is (its bytes are not returned).
    ///
    /// # Errors
    /// As [`Trial::receive`].
    pub fn look(&mut self, from: &Datagrams, within: Duration) -> Result<Came, Stop> {
        in_time(self.deadline)?;
        let process = self.process()?;
        let came = hang::patiently(process.pid, within, |within| came(process, from, within))?;
        Ok(came.unwrap_or(Came::Silence))
    }

    /// What the program does, in words, where the system tells.
    pub fn doing(&self) -> String {
        let doing = self.process.as_ref().and_then(|process| hang::doing(process.pid));
        doing.unwrap_or("it is still running".to_owned())
    }
}

impl Datagrams {
    /// A socket at `addr`.
    ///
    /// # Errors
    /// It is in use, or none of this machine.
    pub fn at(addr: SocketAddr, outward: Direction, wire: Connection) -> io::Result<Self> {
        let sock = UdpSocket::bind(addr)?;
        sock.set_nonblocking(true)?; // a datagram may be gone when it is looked for
        Ok(Datagrams { sock, wire, outward })
    }

    /// Where it is.
    ///
    /// # Errors
    /// The system's.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.sock.local_addr()
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&self, message: &[u8], to: SocketAddr) -> io::Result<()> {
        self.sock.send_to(message, to)?;
        self.wire.data(self.outward, message);
        Ok(())
    }

    /// Sends a datagram, but takes none from there, or from anybody but `other`: who answers finds
    /// that nobody is there (ICMP port unreachable).
    ///
    /// # Errors
    /// The system's.
    pub fn send_and_leave(
        &self,
        message: &[u8],
        to: SocketAddr,
        other: SocketAddr,
    ) -> io::Result<()> {
        self.sock.connect(other)?;
        self.send(message, to)?;
        self.wire.record(self.outward.back(), Kind::Refused);
        Ok(())
    }

    /// Records that a datagram of the program was received.
    pub fn received(&self, message: &[u8]) {
        self.wire.data(self.outward.back(), message);
    }

    /// Records that a datagram, which the program sent or should have received, is lost.
    pub fn lost(&self, message: &[u8], direction: Direction) {
        self.wire.record(direction, Kind::Lost { length: message.len() as u64 });
    }

    /// Records a remark beside the grader's lifeline.
    pub fn note(&self, text: &str) {
        self.wire.note(self.outward, text);
    }
}

/// What comes in `within`, if anything does.
fn came(process: &Process, from: &Datagrams, within: Duration) -> io::Result<Option<Came>> {
    let end = Instant::now() + within;
    loop {
        let mut fds = [
            PollFd::new(&from.sock, PollFlags::IN),
            PollFd::new(&process.gone, PollFlags::IN | PollFlags::HUP),
        ];
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => return Ok(None),
            Err(rustix::io::Errno::INTR) => continue,
            result => result.map_err(io::Error::from)?,
        };
        // What it had sent before its end comes first; a wrong checksum would leave nothing.
        return match from.sock.peek_from(&mut [0; 1]) {
            Ok((_, peer)) => Ok(Some(Came::Datagram(Vec::new(), peer))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if fds[1].revents().is_empty() {
                    continue;
                }
                Ok(Some(Came::Gone))
            }
            Err(error) => Err(error),
        };
    }
}
