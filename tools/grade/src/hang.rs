//! Who waits for what: a hang explained from Linux's `/proc` (proc(5)); elsewhere nothing is known.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The system calls that a network program waits in.
#[cfg(target_arch = "x86_64")]
const CALLS: &[(u32, &str)] = &[
    (0, "read"),
    (1, "write"),
    (7, "poll"),
    (20, "writev"),
    (23, "select"),
    (35, "nanosleep"),
    (42, "connect"),
    (43, "accept"),
    (44, "sendto"),
    (45, "recvfrom"),
    (46, "sendmsg"),
    (47, "recvmsg"),
    (61, "wait4"),
    (202, "futex"),
    (230, "clock_nanosleep"),
    (232, "epoll_wait"),
    (270, "pselect6"),
    (271, "ppoll"),
    (281, "epoll_pwait"),
];
/// The system calls that a network program waits in.
#[cfg(not(target_arch = "x86_64"))] // the numbers of arm64 and riscv64
const CALLS: &[(u32, &str)] = &[
    (22, "epoll_pwait"),
    (63, "read"),
    (64, "write"),
    (72, "pselect6"),
    (73, "ppoll"),
    (98, "futex"),
    (101, "nanosleep"),
    (115, "clock_nanosleep"),
    (202, "accept"),
    (203, "connect"),
    (206, "sendto"),
    (207, "recvfrom"),
    (211, "sendmsg"),
    (212, "recvmsg"),
    (260, "wait4"),
];

/// What each thread of process `pid` does, in words.
pub fn doing(pid: u32) -> Option<String> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let call = fs::read_to_string(task.ok()?.path().join("syscall")).ok()?;
        threads.push(match call.split(" ").next()?.trim().parse::<u32>() {
            Ok(number) => {
                let name = CALLS.iter().find(|(each, _)| *each == number);
                let name =
                    name.map_or(format!("system call {number}"), |(_, name)| name.to_string());
                format!("waits in {name}")
            }
            Err(_) => "is running".to_owned(),
        });
    }
    threads.sort();
    match &threads[..] {
        [] => None,
        [one] => Some(format!("the program {one}")),
        _ => Some(format!("of the program's threads, one {}", threads.join(", one "))),
    }
}

/// The time that the threads of process group `group` have run, or waited for a CPU to run on
/// (`schedstat`): what a busy program uses up also on a loaded machine, and a waiting one does not.
pub fn busy_time(group: u32) -> Option<Duration> {
    let mut total = 0;
    for pid in processes(group)? {
        // A process or thread that has just ended is busy no more.
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let times = stat.split(' ').take(2).flat_map(str::parse::<u64>);
            total += times.sum::<u64>();
        }
    }
    Some(Duration::from_nanos(total))
}

/// The processes of process group `group`, zombies too: a program and its children.
pub fn processes(group: u32) -> Option<Vec<u32>> {
    let is_of_group = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name in parentheses may hold anything; state, parent and group follow it.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(2).is_some_and(|found| found == group.to_string())
    };
    let names = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.file_name());
    let pids = names.filter_map(|name| name.to_str()?.parse().ok());
    Some(pids.filter(is_of_group).collect())
}

/// What lies in the queues of a connection, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Sent by the client, not yet acknowledged by the server's system.
    pub client_unsent: u64,
    /// Arrived at the client, not read by it.
    pub client_unread: u64,
    /// Sent by the server, not yet acknowledged by the client's system.
    pub server_unsent: u64,
    /// Arrived at the server, not read by it.
    pub server_unread: u64,
}

impl fmt::Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Queues { client_unsent, client_unread, server_unsent, server_unread } = self;
        write!(f, "the client has {client_unsent} bytes unsent and {client_unread} unread, ")?;
        write!(f, "the server {server_unsent} unsent and {server_unread} unread")
    }
}

/// What lies in the queues of the connection between `client` and `server` on this machine.
pub fn queues(client: SocketAddr, server: SocketAddr) -> Option<Queues> {
    let table = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let table: String = table.into_iter().flatten().collect();
    let (client_unsent, client_unread) = row(&table, client.port(), server.port())?;
    let (server_unsent, server_unread) = row(&table, server.port(), client.port())?;
    Some(Queues { client_unsent, client_unread, server_unsent, server_unread })
}

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Whether a socket listens on (UDP: is bound to) `port` of this machine.
///
/// # Errors
/// The system does not tell.
pub fn is_open(port: u16, transport: Transport) -> io::Result<bool> {
    let (tables, state) = match transport {
        Transport::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], "0A"),
        Transport::Udp => (["/proc/net/udp", "/proc/net/udp6"], "07"),
    };
    let port = format!(":{port:04X}");
    let is_it = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|own| own.ends_with(&port)) && fields.nth(1) == Some(state)
    };
    for table in tables {
        match fs::read_to_string(table) {
            Ok(table) if table.lines().any(is_it) => return Ok(true),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {} // no IPv6 on this machine
        }
    }
    Ok(false)
}

/// The send and the receive queue of the socket with these ports, from `/proc/net/tcp`.
fn row(table: &str, own: u16, peer: u16) -> Option<(u64, u64)> {
    let (own, peer) = (format!(":{own:04X}"), format!(":{peer:04X}"));
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_it = fields.next()?.ends_with(&own) && fields.next()?.ends_with(&peer);
        let (send, receive) = fields.nth(1)?.split_once(':')?;
        let number = |hex| u64::from_str_radix(hex, 16).ok();
        is_it.then_some((number(send)?, number(receive)?))
    })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    #[test]
    fn unread_bytes_are_seen() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(host).unwrap();
            let server = listener.local_addr().unwrap();
            let mut sock = TcpStream::connect(server).unwrap();
            let _conn = listener.accept().unwrap();
            sock.write_all(&[0; 1234]).unwrap();
            let queues = queues(sock.local_addr().unwrap(), server).unwrap();
            assert_eq!((queues.server_unread, queues.client_unread), (1234, 0));
        }
    }

    #[test]
    fn an_open_port_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_open(port, Transport::Tcp).unwrap());
        drop(listener);
        assert!(!is_open(port, Transport::Tcp).unwrap());
        let sock = std::net::UdpSocket::bind("[::1]:0").unwrap();
        assert!(is_open(sock.local_addr().unwrap().port(), Transport::Udp).unwrap());
    }

    #[test]
    fn a_waiting_process_is_explained() {
        let mut process = harness::Process::spawn(&mut Command::new("cat")).unwrap();
        let waits = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5)); // until it has started
            doing(process.pid).filter(|doing| doing.contains("waits"))
        });
        assert_eq!(waits.as_deref(), Some("the program waits in read"));
        assert!(busy_time(process.pid).unwrap() < Duration::from_secs(1));
        assert_eq!(processes(process.pid).unwrap(), [process.pid]);
        drop(process.stdin.take());
        assert!(process.wait(harness::LIMIT).unwrap().success());
    }
}
