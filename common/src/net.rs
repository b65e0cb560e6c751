//! Opening sockets: a connection to a server, a server's listening socket, sockets for datagrams.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::ops::Deref;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::addr::HostPort;
use crate::args::Target;

/// The addresses of `server` for a client, in the order the system gives; never empty.
///
/// # Errors
/// The name is not known, or has no address.
pub fn addresses(server: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let host = if server.host.is_empty() { "localhost" } else { &server.host };
    let failed =
        |e: io::Error| io::Error::new(e.kind(), format!("cannot find the host {host}: {e}"));
    let found: Vec<_> = (host, server.port).to_socket_addrs().map_err(failed)?.collect();
    if found.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(found)
}

/// Connects to the target's server, trying each of its addresses for at most the time-out. The
/// same time-out then bounds every read and every write: a silent server holds nobody for ever.
///
/// # Errors
/// The error of the address tried last, with all that were tried in its text.
pub fn connect(target: &Target) -> io::Result<TcpStream> {
    let Target { server, timeout } = target;
    let mut tried = Vec::new();
    let mut kind = io::ErrorKind::NotFound;
    for addr in addresses(server)? {
        match TcpStream::connect_timeout(&addr, *timeout).and_then(refuse_self) {
            Ok(sock) => {
                sock.set_read_timeout(Some(*timeout))?;
                sock.set_write_timeout(Some(*timeout))?;
                return Ok(sock);
            }
            Err(error) => {
                kind = error.kind();
                tried.push(format!("{addr}: {error}"));
            }
        }
    }
    Err(io::Error::new(kind, format!("cannot connect to {server} ({})", tried.join("; "))))
}

/// A client of a dead port on this machine may be given that very port as its own and so be
/// connected with itself (RFC 9293 section 3.5, simultaneous open): nobody listens there.
fn refuse_self(sock: TcpStream) -> io::Result<TcpStream> {
    if sock.local_addr()? == sock.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(sock)
}

/// The addresses that a server at `here` may listen on, best first: for `:PORT` every interface
/// (IPv6 and IPv4 in one socket, or IPv4 alone where there is no IPv6), for `localhost` and other
/// names IPv4 first, since the lecture's `localhost` is 127.0.0.1.
///
/// # Errors
/// The name is not known, or has no address.
pub fn listen_addresses(here: &HostPort) -> io::Result<Vec<SocketAddr>> {
    if here.host.is_empty() {
        return Ok(vec![([0u16; 8], here.port).into(), ([0u8; 4], here.port).into()]);
    }
    let mut found = addresses(here)?;
    found.sort_by_key(SocketAddr::is_ipv6);
    Ok(found)
}

/// Opens a listening socket at `here`, with a queue of `backlog` connections (listen(2)). The port
/// of a server that has just ended is free at once (SO_REUSEADDR).
///
/// # Errors
/// In use, no permission, not an address of this machine; the text names the address.
pub fn listen(here: &HostPort, backlog: u32) -> io::Result<TcpListener> {
    let socket = open(here, "listen on", |addr| {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        #[cfg(unix)] // on Windows the option would let another program take the port over
        socket.set_reuse_address(true)?;
        // What every connection inherits. The keepalive finds a client whose machine has vanished;
        // urgent data (RFC 6093 section 3.2) that were kept apart would wake a selector for ever.
        socket.set_tcp_keepalive(&KEEPALIVE)?;
        socket.set_out_of_band_inline(true)?;
        bind(&socket, addr)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(socket)
    })?;
    Ok(socket.into())
}

/// A peer is asked after a minute of silence whether it is still there, and then every ten seconds
/// (RFC 9293 section 3.8.4).
const KEEPALIVE: TcpKeepalive =
    TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(10));

/// Opens a server's socket for datagrams at `here`, with as much room for those that wait as the
/// system allows: where there is none, a datagram is lost.
///
/// # Errors
/// As [`listen`].
pub fn datagrams_at(here: &HostPort) -> io::Result<UdpSocket> {
    let socket = open(here, "receive at", |addr| {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER); // no more than allowed is no error
        bind(&socket, addr)?;
        Ok(socket)
    })?;
    Ok(socket.into())
}

/// The address of a peer for a person: an IPv4 client of a socket for both families goes by its IPv4
/// address. An answer to it still goes to the address as it came.
pub fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

const RECEIVE_BUFFER: usize = 4 << 20;

/// Opens a client's socket for datagrams to `server`; returns it with the server's address. Nothing
/// tells which address of a name somebody listens at: IPv4 comes first, as for the server.
///
/// # Errors
/// The name is not known, or has no address; the system's.
pub fn datagrams_to(server: &HostPort) -> io::Result<(UdpSocket, SocketAddr)> {
    let mut found = addresses(server)?;
    found.sort_by_key(SocketAddr::is_ipv6);
    let sock = match found[0] {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    Ok((sock, found[0]))
}

/// Opens a socket at the first address of `here` that this machine has; `what` it is for is said
/// in the error.
fn open<T>(
    here: &HostPort,
    what: &str,
    open_at: impl Fn(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in listen_addresses(here)? {
        match open_at(addr) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
        if matches!(last.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) {
            break; // the next address would only hide it; it helps where this one is not ours
        }
    }
    Err(io::Error::new(last.kind(), format!("cannot {what} {here}: {last}")))
}

fn bind(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    if addr.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?; // the default only on Linux
    }
    socket.bind(&addr.into())
}

/// A server's listening socket, and a descriptor in reserve. Out of descriptors, accept(2) fails
/// and the client stays in the queue, where it waits without a word and wakes a selector again and
/// again; with the reserve it is accepted and closed (libuv does the same).
#[derive(Debug)]
pub struct Listener {
    sock: TcpListener,
    reserve: Option<File>,
}

impl Listener {
    /// Wraps a listening socket.
    ///
    /// # Errors
    /// There is no descriptor left to keep in reserve.
    pub fn new(sock: TcpListener) -> io::Result<Self> {
        Ok(Listener { sock, reserve: Some(reserve()?) })
    }

    /// Accepts a connection, as [`TcpListener::accept`]; an IPv4 client of a socket for both families
    /// goes by its IPv4 address. Out of descriptors, sends clients away until one is free, nobody
    /// waits any more, or the reserve is gone, too.
    ///
    /// # Errors
    /// The system's; a server logs it, pauses and goes on.
    pub fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            // Another thread may have been quicker (malloc(3) opens a file now and then). Accepted
            // first, a client would keep the last descriptor, and all after it would wait.
            if self.reserve.is_none() {
                self.reserve = Some(reserve()?);
            }
            let accepted = match self.sock.accept() {
                Err(error) if is_out_of_descriptors(&error) => self.send_away(error)?,
                result => Some(result?),
            };
            if let Some((conn, peer)) = accepted {
                return Ok((conn, canonical(peer)));
            }
        }
    }

    /// Sends the next client away, unless there is a descriptor for it: accept(2) fails even if
    /// nobody waits, and when somebody comes, others may have left.
    fn send_away(&mut self, error: io::Error) -> io::Result<Option<(TcpStream, SocketAddr)>> {
        self.reserve = None;
        let accepted = self.sock.accept();
        self.reserve = reserve().ok();
        if self.reserve.is_some() {
            return accepted.map(Some);
        }
        accepted.map(|(_, peer)| {
            log::warn!("Client sent away {peer}: {error}");
            None // dropped, the connection leaves its descriptor to the reserve
        })
    }
}

impl Deref for Listener {
    type Target = TcpListener;

    fn deref(&self) -> &TcpListener {
        &self.sock
    }
}

fn reserve() -> io::Result<File> {
    File::open(if cfg!(windows) { "NUL" } else { "/dev/null" })
}

/// Whether it is EMFILE or ENFILE, which have no `ErrorKind`.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(23 | 24))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};

    fn to(server: &str) -> Target {
        Target { server: here(server), timeout: Duration::from_millis(200) }
    }

    fn here(text: &str) -> HostPort {
        text.parse().unwrap()
    }

    fn port_of(listener: &TcpListener) -> u16 {
        listener.local_addr().unwrap().port()
    }

    #[test]
    fn every_address_of_the_name_is_tried() {
        // localhost is often ::1 first, and here only 127.0.0.1 listens.
        let listener = listen(&here("127.0.0.1:0"), 5).unwrap();
        let mut sock = connect(&to(&format!(":{}", port_of(&listener)))).unwrap();
        let (mut conn, _) = listener.accept().unwrap();
        conn.write_all(b"x").unwrap();
        sock.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn every_interface_means_both_families() {
        let listener = listen(&here(":0"), 5).unwrap();
        for host in ["127.0.0.1", "[::1]"] {
            connect(&to(&format!("{host}:{}", port_of(&listener)))).unwrap();
        }
    }

    #[test]
    fn localhost_is_the_lectures() {
        let listener = listen(&here("localhost:0"), 5).unwrap();
        assert_eq!(listener.local_addr().unwrap().ip().to_string(), "127.0.0.1");
    }

    #[test]
    fn a_refused_connection_names_what_was_tried() {
        let listener = listen(&here("127.0.0.1:0"), 5).unwrap();
        let port = port_of(&listener);
        drop(listener);
        let error = connect(&to(&format!("127.0.0.1:{port}"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        let named = format!("127.0.0.1:{port} (127.0.0.1:{port}: Connection refused");
        assert!(error.to_string().contains(&named), "{error}");
    }

    #[test]
    fn an_unknown_host_is_named() {
        let error = connect(&to("no-such-host.invalid:7")).unwrap_err();
        assert!(error.to_string().starts_with("cannot find the host no-such-host.invalid: "));
    }

    #[test]
    fn an_address_in_use_is_an_error_even_if_another_of_the_name_is_free() {
        let listener = listen(&here("127.0.0.1:0"), 5).unwrap();
        let error = listen(&here(&format!("localhost:{}", port_of(&listener))), 5).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    #[cfg(target_os = "linux")] // a full queue drops the SYN there; elsewhere it may refuse
    fn an_unanswered_address_is_given_up() {
        let listener = listen(&here("127.0.0.1:0"), 0).unwrap();
        let server = to(&format!("127.0.0.1:{}", port_of(&listener)));
        let queued: Vec<_> = (0..4).map_while(|_| connect(&server).ok()).collect();
        assert!(queued.len() < 4, "the queue never filled");
        assert_eq!(connect(&server).unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let listener = listen(&here("127.0.0.1:0"), 5).unwrap();
        let server = to(&format!("127.0.0.1:{}", port_of(&listener)));
        let error = connect(&server).unwrap().read(&mut [0]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    }

    #[test]
    fn a_lost_reserve_is_taken_back_before_anyone_is_accepted() {
        let sock = listen(&here("localhost:0"), 1).unwrap();
        sock.set_nonblocking(true).unwrap();
        let mut listener = Listener { sock, reserve: None };
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(listener.reserve.is_some());
    }
}
