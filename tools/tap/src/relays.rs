//! Accepts, connects, and hands both sockets to a relay.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use common::addr::HostPort;
use common::args::Target;
use common::{exit, net};
use log::{info, warn};
use wire::event::{Connection, Direction, Kind, Recorder};
use wire::relay::{self, Faults};

use crate::End;
use crate::pictures::Shared;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// How long the door stays shut when there is no descriptor, or no thread, for one more.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of stack for a relay, which calls nothing deep.
const STACK: usize = 256 * 1024;

/// The socket that clients come to, and the target.
pub enum Relays {
    Tcp(TcpListener, Target),
    Udp(UdpSocket, SocketAddr),
}

/// Opens the socket that clients come to.
///
/// # Errors
/// The address cannot be used, or is the target's. For datagrams also: the target's name is not
/// known.
pub fn open(listen: &HostPort, target: &Target, udp: bool) -> io::Result<Relays> {
    if !udp {
        let listener = net::listen(listen, BACKLOG)?;
        let here = listener.local_addr()?;
        if target.server.port == here.port() {
            // A name that is not known is told to each connection: the target may come later.
            refuse_self(here, &net::addresses(&target.server).unwrap_or_default())?;
        }
        return Ok(Relays::Tcp(listener, target.clone()));
    }
    // Nobody answers a datagram that goes to the wrong address of a name: the lecture's localhost
    // is 127.0.0.1.
    let mut targets = net::addresses(&target.server)?;
    targets.sort_by_key(SocketAddr::is_ipv6);
    let sock = net::datagrams_at(listen)?;
    refuse_self(sock.local_addr()?, &targets[..1])?;
    Ok(Relays::Udp(sock, targets[0]))
}

/// Who relays to itself has each connection make one more, and each datagram come again, for ever.
fn refuse_self(here: SocketAddr, targets: &[SocketAddr]) -> io::Result<()> {
    match targets.iter().find(|target| is_reached(here, **target)) {
        Some(target) => Err(exit::unusable(format!("the target {target} is the tap itself"))),
        None => Ok(()),
    }
}

/// Whether what goes to `target` comes to a socket at `here`.
fn is_reached(here: SocketAddr, target: SocketAddr) -> bool {
    let [own, ip] = [here, target].map(|addr| addr.ip().to_canonical());
    // [::] receives what comes over IPv4, too; to send to 0.0.0.0 is to send to this machine.
    let is_any = own.is_unspecified() && (here.is_ipv6() || ip.is_ipv4());
    let is_mine = own == ip
        || is_any && UdpSocket::bind((ip, 0)).is_ok()
        || ip.is_unspecified() && own.is_loopback();
    here.port() == target.port() && is_mine
}

impl Relays {
    /// Where clients come to.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        match self {
            Relays::Tcp(listener, _) => listener.local_addr(),
            Relays::Udp(sock, _) => sock.local_addr(),
        }
    }

    /// Serves clients from now on.
    pub fn start(
        self,
        faults: Faults,
        recorder: &Recorder,
        pictures: &Shared,
        end: Sender<End>,
    ) -> io::Result<()> {
        let (recorder, pictures) = (recorder.clone(), pictures.clone());
        let serve = move || match self {
            Relays::Tcp(listener, target) => {
                let door = Door { target, faults, recorder, pictures };
                door.serve(&listener);
            }
            Relays::Udp(sock, target) => {
                let tell = |number, client| match client {
                    Some(client) => info!("connection {number}: {client}"),
                    None => {
                        info!("connection {number} is over");
                        pictures.ended();
                    }
                };
                if let Err(error) = relay::udp(&sock, target, &faults, &recorder, None, &tell) {
                    let _ = end.send(End::Failed(error));
                }
            }
        };
        thread::Builder::new().name("door".to_owned()).spawn(serve).map(drop)
    }
}

/// What every connection needs.
struct Door {
    target: Target,
    faults: Faults,
    recorder: Recorder,
    pictures: Shared,
}

impl Door {
    fn serve(self, listener: &TcpListener) {
        let door = Arc::new(self);
        let mut shut = false;
        loop {
            match listener.accept() {
                Ok((conn, peer)) => {
                    shut = false;
                    door.clone().let_in(conn, peer);
                }
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors, say: the client stays in the queue until there is one.
                    if !shut {
                        warn!("accept: {error}; clients wait until that has passed");
                    }
                    shut = true;
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    fn let_in(self: Arc<Self>, conn: TcpStream, peer: SocketAddr) {
        let connection = self.recorder.connection();
        let peer = net::canonical(peer);
        let text = format!("{peer} -> {}", self.target.server);
        let both = [Kind::Connect, Kind::Note { text }];
        connection.record_all(both.map(|kind| (Direction::ToServer, kind)));
        info!("connection {}: {peer}", connection.number());
        let here = connection.clone();
        let run = move || {
            self.relay(conn, &here);
            self.pictures.ended();
        };
        let name = format!("connection {}", connection.number());
        if let Err(error) = thread::Builder::new().name(name).stack_size(STACK).spawn(run) {
            warn!("connection {}: no thread for it: {error}", connection.number());
            connection.note(Direction::ToClient, format!("no thread for it: {error}"));
            connection.record(Direction::ToServer, Kind::Over);
            thread::sleep(PAUSE);
        }
    }

    fn relay(&self, conn: TcpStream, connection: &Connection) {
        let number = connection.number();
        match net::connect(&self.target) {
            Ok(server) => {
                connection.record(Direction::ToClient, Kind::Accept);
                if let Err(error) = relay::tcp(conn, server, &self.faults, connection, None) {
                    warn!("connection {number}: {error}");
                }
            }
            Err(error) => {
                warn!("connection {number}: {error}");
                let kind = match error.kind() {
                    ErrorKind::ConnectionRefused => Kind::Refused,
                    ErrorKind::TimedOut => Kind::Timeout,
                    _ => Kind::Note { text: error.to_string() },
                };
                connection.record(Direction::ToClient, kind);
                relay::reset(conn);
                connection.record(Direction::ToServer, Kind::Over);
            }
        }
        info!("connection {number} is over");
    }
}
