//! The grader's end of a connection: every byte, FIN and RST that it sees or sends is recorded.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};
use wire::event::{Connection, Direction, Kind};

use crate::check::Stop;
use crate::hang;
use crate::trial::in_time;

/// The grader's end of a connection with a program under test.
pub struct Peer {
    /// Bytes received so far.
    pub received: u64,
    /// Bytes sent so far.
    pub sent: u64,
    /// The process group of the program.
    program: u32,
    /// When its trial is over.
    deadline: Instant,
    sock: TcpStream,
    wire: Connection,
    /// Where the program is, seen from the grader.
    outward: Direction,
    was_reset: bool,
}

/// What came in.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// So many bytes, at the start of the buffer.
    Data(usize),
    /// The program's FIN.
    Fin,
    /// The program's RST.
    Reset,
    /// Nothing, in the time there was.
    Silence,
}

/// What became of bytes that were to be sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent {
    /// They are in the send buffer.
    All,
    /// The program's RST came instead.
    Reset,
    /// For so long a time the program has read nothing; the send buffer is full.
    Stuck,
}

impl Peer {
    /// The server's end of the accepted connection `sock` with the program of process group
    /// `program`, whose trial ends at `deadline`, recorded in `wire`.
    ///
    /// # Errors
    /// The socket cannot be set up.
    pub fn new(
        (program, deadline): (u32, Instant),
        sock: TcpStream,
        wire: Connection,
    ) -> io::Result<Self> {
        Self::of((program, deadline), sock, wire, Direction::ToClient)
    }

    /// The client's end of a connection to `server`, the program of process group `program`, whose
    /// trial ends at `deadline`, recorded in `wire`, with a receive buffer of `buffer` bytes, or as
    /// the system has it.
    ///
    /// # Errors
    /// The server cannot be connected to, or not within `within`.
    pub fn connect(
        (program, deadline): (u32, Instant),
        server: SocketAddr,
        buffer: Option<usize>,
        within: Duration,
        wire: Connection,
    ) -> io::Result<Self> {
        let sock = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
        if let Some(buffer) = buffer {
            sock.set_recv_buffer_size(buffer)?; // before the window is told
        }
        sock.connect_timeout(&server.into(), within)?;
        Self::of((program, deadline), sock.into(), wire, Direction::ToServer)
    }

    fn of(
        (program, deadline): (u32, Instant),
        sock: TcpStream,
        wire: Connection,
        outward: Direction,
    ) -> io::Result<Self> {
        sock.set_nodelay(true)?; // a byte written alone goes out alone
        sock.set_nonblocking(true)?; // so that a wait can be measured: see `ready`
        wire.record(Direction::ToServer, Kind::Connect);
        wire.record(Direction::ToClient, Kind::Accept);
        Ok(Peer { received: 0, sent: 0, program, deadline, sock, wire, outward, was_reset: false })
    }

    /// Makes the send buffer `size` bytes small.
    ///
    /// # Errors
    /// The option cannot be set.
    pub fn set_send_buffer(&self, size: usize) -> io::Result<()> {
        SockRef::from(&self.sock).set_send_buffer_size(size)
    }

    /// The addresses of the connection: the client's, the server's.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        let (there, here) = (self.sock.peer_addr()?, self.sock.local_addr()?);
        Ok(if self.outward == Direction::ToClient { (there, here) } else { (here, there) })
    }

    /// Receives once, waiting for `within` (longer as [`Peer::wait`] does).
    ///
    /// # Errors
    /// The system's, other than the program's RST; the trial is over.
    pub fn receive(&mut self, buffer: &mut [u8], within: Duration) -> Result<Incoming, Stop> {
        in_time(self.deadline)?;
        if self.was_reset {
            return Ok(Incoming::Reset);
        }
        loop {
            if !self.ready(PollFlags::IN, within)? {
                return Ok(Incoming::Silence);
            }
            match self.sock.read(buffer) {
                Ok(0) => {
                    self.wire.record(self.outward.back(), Kind::Fin);
                    return Ok(Incoming::Fin);
                }
                Ok(n) => {
                    self.wire.data(self.outward.back(), &buffer[..n]);
                    self.received += n as u64;
                    return Ok(Incoming::Data(n));
                }
                Err(error) if is_passing(&error) => {}
                Err(error) if is_reset(&error) => {
                    self.reset_seen();
                    return Ok(Incoming::Reset);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the socket is ready as `wanted` says; whether it is.
    fn ready(&self, wanted: PollFlags, within: Duration) -> io::Result<bool> {
        Ok(!self.wait(wanted, within)?.is_empty())
    }

    /// Waits until the socket is ready for any of what is `wanted`, for `within`, or longer if the
    /// program is only late; for what it is. An RST is found by any call.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, wanted: PollFlags, within: Duration) -> io::Result<PollFlags> {
        let ready = hang::patiently(self.program, within, |within| self.poll(wanted, within))?;
        Ok(ready.unwrap_or(PollFlags::empty()))
    }

    fn poll(&self, wanted: PollFlags, within: Duration) -> io::Result<Option<PollFlags>> {
        let timeout = Timespec::try_from(within).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&self.sock, wanted)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => Ok(None),
            Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => {
                Ok(Some(wanted))
            }
            Ok(_) => Ok(Some(fds[0].revents())),
            Err(Errno::INTR) => Ok(Some(wanted)), // the call that follows tells
            Err(error) => Err(error.into()),
        }
    }

    /// Sends all of `data`, waiting for room for `within` at a time (longer as [`Peer::wait`] does).
    ///
    /// # Errors
    /// The system's, other than the program's RST; the trial is over.
    pub fn send(&mut self, mut data: &[u8], within: Duration) -> Result<Sent, Stop> {
        while !data.is_empty() {
            in_time(self.deadline)?;
            if self.was_reset {
                return Ok(Sent::Reset);
            }
            if !self.ready(PollFlags::OUT, within)? {
                return Ok(Sent::Stuck);
            }
            match self.sock.write(data) {
                Ok(n) => {
                    self.wire.data(self.outward, &data[..n]);
                    self.sent += n as u64;
                    data = &data[n..];
                }
                Err(error) if is_passing(&error) => {}
                Err(error) if is_reset(&error) => {
                    self.reset_seen();
                    return Ok(Sent::Reset);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Sent::All)
    }

    /// Lets the last bytes that are sent go out in one segment with the FIN, where the system can
    /// (tcp(7), `TCP_CORK`): who closes when a FIN comes has not answered them by then.
    ///
    /// # Errors
    /// The option cannot be set.
    pub fn hold_back_for_fin(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        SockRef::from(&self.sock).set_tcp_cork(true)?;
        Ok(())
    }

    /// Sends a FIN. That the connection is gone already is no matter.
    pub fn fin(&self) {
        if self.sock.shutdown(Shutdown::Write).is_ok() {
            self.wire.record(self.outward, Kind::Fin);
        }
    }

    /// Sends an RST and is gone.
    ///
    /// # Errors
    /// The option cannot be set.
    pub fn reset(self) -> io::Result<()> {
        SockRef::from(&self.sock).set_linger(Some(Duration::ZERO))?;
        self.wire.record(self.outward, Kind::Reset);
        Ok(())
    }

    /// Whether the client has sent an RST, also after its FIN: then it closed although bytes were
    /// unread or on their way.
    pub fn was_reset(&mut self) -> bool {
        if !self.was_reset && self.sock.take_error().is_ok_and(|error| error.is_some()) {
            self.reset_seen();
        }
        self.was_reset
    }

    /// Records a remark beside the server's lifeline.
    pub fn note(&self, text: &str) {
        self.wire.note(self.outward, text);
    }

    fn reset_seen(&mut self) {
        self.was_reset = true;
        self.wire.record(self.outward.back(), Kind::Reset);
    }
}

/// Whether it is worth trying again at once.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

/// How an RST shows in a call: as a reset, or as a broken pipe behind a FIN.
fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;
    use wire::event::Recorder;

    #[test]
    fn who_never_stops_sending_is_heard_up_to_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (sock, _) = listener.accept().unwrap();
        let endless = thread::spawn(move || while sender.write_all(&[0; 1024]).is_ok() {});
        let deadline = Instant::now() + Duration::from_millis(100);
        let wire = Recorder::new().connection();
        let mut peer = Peer::new((std::process::id(), deadline), sock, wire).unwrap();
        let end = loop {
            match peer.receive(&mut [0; 1024], Duration::from_secs(1)) {
                Ok(Incoming::Data(_)) => {}
                end => break end,
            }
        };
        assert!(
            matches!(&end, Err(Stop::Failed(failure)) if failure.code == "E_TOO_LONG"),
            "{end:?}"
        );
        assert!(peer.received > 0 && peer.send(b"x", Duration::ZERO).is_err());
        drop(peer);
        endless.join().unwrap();
    }
}
