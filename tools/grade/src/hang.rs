//! Who waits for what: a hang explained from Linux's `/proc` (proc(5)); elsewhere nothing is known.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use harness::Stat;

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
    (288, "accept4"),
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
    (242, "accept4"),
    (260, "wait4"),
];

/// How much later than it should anything may be on a loaded machine.
const LATEST: Duration = Duration::from_secs(20);

/// The system call that each thread of process `pid` waits in, as far as it is known here.
pub fn calls(pid: u32) -> Vec<&'static str> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let numbers = tasks.filter_map(|task| {
        let call = fs::read_to_string(task.path().join("syscall")).ok()?;
        call.split(' ').next()?.parse::<u32>().ok()
    });
    let name = |number| CALLS.iter().find(|(each, _)| *each == number).map(|(_, name)| *name);
    numbers.filter_map(name).collect()
}

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
    let alike = |alike: &[String]| match alike {
        [one] => format!("one {one}"),
        _ => format!("{} times one {}", alike.len(), alike[0]),
    };
    match &threads[..] {
        [] => None,
        [one] => Some(format!("the program {one}")),
        _ => {
            let all: Vec<_> = threads.chunk_by(|a, b| a == b).map(alike).collect();
            Some(format!("of the program's threads, {}", all.join(", ")))
        }
    }
}

/// What a thread has done so far.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// When this was so: on a loaded machine it takes long to ask for all of a program.
    pub at: Instant,
    /// Time on a CPU.
    pub ran: Duration,
    /// Time in wait for a CPU.
    pub waited: Duration,
    /// Whether it runs now, or would if the machine were faster.
    pub runs: bool,
}

impl Work {
    /// How long a thread has waited for a CPU is told when it has one. What is known of one that wants
    /// one now goes back to when it began to wait: since the `last` look it has had one, or has waited
    /// for it, for so long.
    fn until_it_waits(&mut self, last: &Self) {
        let known = (self.ran + self.waited).saturating_sub(last.ran + last.waited);
        self.at = self.at.min(last.at + known);
    }
}

/// The threads of process group `group` and what they have done.
pub fn work(group: u32) -> Option<HashMap<u32, Work>> {
    let mut work = HashMap::new();
    for pid in processes(group)? {
        // A process or thread that has just ended is busy no more.
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let at = Instant::now();
            let times = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let mut times = times.split(' ').flat_map(str::parse).map(Duration::from_nanos);
            let thread = Work {
                at,
                ran: times.next().unwrap_or_default(),
                waited: times.next().unwrap_or_default(),
                runs: Stat::read(&task.path()).is_some_and(|stat| stat.runs()),
            };
            work.extend(task.file_name().to_str().and_then(|id| Some((id.parse().ok()?, thread))));
        }
    }
    Some(work)
}

/// The time that the threads of process group `group` have been on a CPU.
pub fn run_time(group: u32) -> Option<Duration> {
    work(group).map(|work| work.values().map(|thread| thread.ran).sum())
}

/// What the threads of a program did in some time.
struct Span {
    start: Instant,
    before: HashMap<u32, Work>,
    after: HashMap<u32, Work>,
    time: Duration,
    /// Whether the program has ended then.
    ended: bool,
}

impl Span {
    /// The time from now on until it `is_over`, or the program of process group `group` ends.
    fn of(group: u32, mut is_over: impl FnMut(&Span) -> bool) -> Option<Self> {
        const LOOK: Duration = Duration::from_millis(20);
        let (before, start) = (work(group)?, Instant::now());
        let (after, time) = (before.clone(), Duration::ZERO);
        let mut span = Span { start, before, after, time, ended: false };
        while !span.ended && !is_over(&span) {
            thread::sleep(LOOK);
            match work(group)? {
                work if work.is_empty() => span.ended = true,
                mut work => {
                    for (id, now) in &mut work {
                        if let Some(last) = span.after.get(id).filter(|_| now.runs) {
                            now.until_it_waits(last);
                        }
                    }
                    (span.after, span.time) = (work, start.elapsed());
                }
            }
        }
        Some(span)
    }

    /// Each thread's time on a CPU, and the time in which it had one or did not want one.
    fn times(&self) -> impl Iterator<Item = (Duration, Duration)> {
        let (ran, waited) = (Duration::ZERO, Duration::ZERO);
        let new = Work { at: self.start, ran, waited, runs: false };
        self.after.iter().map(move |(id, after)| {
            let before = self.before.get(id).unwrap_or(&new);
            let ran = after.ran.saturating_sub(before.ran);
            let waited = after.waited.saturating_sub(before.waited);
            (ran, (after.at - before.at).saturating_sub(waited).max(ran))
        })
    }

    fn ran(&self) -> Duration {
        self.times().map(|(ran, _)| ran).sum()
    }

    /// The time on a CPU as a share of that in which there was one.
    fn share(&self) -> f64 {
        let ran = self.times().filter(|(ran, _)| !ran.is_zero());
        ran.map(|(ran, of)| ran.as_secs_f64() / of.as_secs_f64()).sum()
    }

    /// Whether every thread had a CPU, or did not want one, for long enough to be told from one that is
    /// busy.
    fn tells(&self) -> bool {
        const ENOUGH: Duration = Duration::from_millis(80);
        self.times().all(|(_, of)| of >= ENOUGH)
    }

    /// Whether there was more to do than now and then a little. Who ends has to do that, too.
    fn is_busy(&self) -> bool {
        let (least, share) = if self.ended { (10, 0.5) } else { (4, 0.05) };
        self.ran() >= Duration::from_millis(least) && self.share() >= share
    }
}

/// Whether the program of process group `group` is busy while there is nothing to do, in words. On a
/// loaded machine it may be late with what there was to do: first it is let come to rest. Then only
/// the time counts in which it had a CPU, or could have had one: one that asks again and again gets
/// little, and one that has to do something waits long for it.
pub fn busy(group: u32) -> Option<String> {
    /// Who has run for so long and never rested is not late.
    const LATE: Duration = Duration::from_millis(200);
    const SILENCE: Duration = Duration::from_millis(400);
    /// Once may be the moment before the system wakes it.
    const RESTS: u32 = 2;
    let mut rests = 0;
    let mut span = Span::of(group, |span| {
        rests = if span.after.values().any(|thread| thread.runs) { 0 } else { rests + 1 };
        rests == RESTS || span.ran() > LATE || span.time > LATEST
    })?;
    // What is done once is not done in both.
    for _ in 0..2 {
        if !span.ended {
            let is_over = |span: &Span| {
                let is_known = span.is_busy() || span.tells();
                span.time >= SILENCE && is_known || span.time > LATEST
            };
            span = Span::of(group, is_over)?;
        }
        if !span.is_busy() {
            return None;
        }
    }
    Some(format!("it ran for {:.0?} in {:.0?} of silence", span.ran(), span.time))
}

/// Whether a thread of process group `group` runs, or would if the machine were faster.
pub fn is_running(group: u32) -> bool {
    let runs = |pid: u32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        tasks.filter_map(|task| Stat::read(&task.path())).any(|stat| stat.runs())
    };
    // The first mostly tells, and to find the others all processes are looked at.
    runs(group) || processes(group).unwrap_or_default().into_iter().any(runs)
}

/// Waits with `wait` for something of the program of process group `group`: for `within`, and longer
/// if the program is only late. On a loaded machine it is, until it has gone to sleep, or has run for
/// a third of that time without having come to it, or 20 s more are over.
///
/// # Errors
/// Those of `wait`, which is told how long it may take.
pub fn patiently<T>(
    group: u32,
    within: Duration,
    mut wait: impl FnMut(Duration) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    /// Once may be the moment before the system wakes it.
    const RESTS: u32 = 2;
    let mut come = wait(within)?;
    if come.is_none()
        && !within.is_zero()
        && let Some(start) = run_time(group)
    {
        let (end, mut rests) = (Instant::now() + LATEST, 0);
        while come.is_none() && rests < RESTS && Instant::now() < end {
            let is_late = is_running(group)
                && run_time(group).is_some_and(|ran| ran.saturating_sub(start) < within / 3);
            rests = if is_late { 0 } else { rests + 1 };
            come = wait(within / 20)?;
        }
    }
    Ok(come)
}

/// The processes of process group `group`, a program and its children, that have not ended.
pub fn processes(group: u32) -> Option<Vec<u32>> {
    let of_group = harness::group(group)?.into_iter().filter(|stat| stat.state != 'Z');
    Some(of_group.map(|stat| stat.pid).collect())
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
    for table in tables {
        let table = match File::open(table) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // no IPv6 here
            file => BufReader::new(file?),
        };
        for line in table.lines().skip(1) {
            match own(&line?) {
                Some((found, at)) if at == state && found == port => return Ok(true),
                Some((_, at)) if at == state => {}
                // Who listens comes first, and thousands of connections may follow.
                _ if transport == Transport::Tcp => break,
                _ => {}
            }
        }
    }
    Ok(false)
}

/// How many connections of `port` of this machine are in TIME_WAIT there.
pub fn in_time_wait(port: u16) -> usize {
    let table = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let table: String = table.into_iter().flatten().collect();
    table.lines().filter(|line| own(line).is_some_and(|own| own == (port, "06"))).count()
}

/// The own port and the state of a socket in `/proc/net/tcp` and its like.
fn own(line: &str) -> Option<(u16, &str)> {
    let mut fields = line.split_whitespace().skip(1);
    let (_, port) = fields.next()?.rsplit_once(':')?;
    Some((u16::from_str_radix(port, 16).ok()?, fields.nth(1)?))
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
    fn who_runs_whenever_it_can_is_busy() {
        for (ran, waited, busy) in [
            (400, 0, true),
            (20, 370, true), // of a spinner that shares its CPU with many
            (100, 0, true),  // with naps in between
            (10, 300, true), // the same on a loaded machine
            (10, 0, false),  // now and then
            (3, 390, false), // late
        ] {
            let [ran, waited] = [ran, waited].map(Duration::from_millis);
            let (start, time) = (Instant::now(), Duration::from_millis(400));
            let after = HashMap::from([(1, Work { at: start + time, ran, waited, runs: false })]);
            let before = HashMap::new();
            let mut span = Span { start, before, after, time, ended: false };
            assert_eq!(span.is_busy(), busy, "{ran:?} {waited:?}");
            assert_eq!(busy || span.tells(), ran > Duration::from_millis(3), "{ran:?} {waited:?}");
            span.ended = true;
            assert_eq!(span.is_busy(), busy && span.share() > 0.5, "{ran:?} {waited:?}");
        }
    }

    #[test]
    fn a_wait_for_the_cpu_that_is_not_over_is_not_known() {
        let [zero, ms] = [0, 1].map(Duration::from_millis);
        let last = Work { at: Instant::now(), ran: zero, waited: zero, runs: true };
        for (time, known) in [(500, 104), (104, 104), (90, 90)] {
            let mut now =
                Work { at: last.at + time * ms, ran: 4 * ms, waited: 100 * ms, runs: true };
            now.until_it_waits(&last);
            assert_eq!(now.at - last.at, known * ms);
        }
    }

    #[test]
    fn who_polls_is_busy_and_who_waits_is_not() {
        for (script, is_busy) in [
            ("while :; do :; done", true),
            ("while :; do i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done; sleep 0.02; done", true),
            ("while :; do sleep 0.3; done", false),
            ("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; cat", false),
        ] {
            let process = harness::Process::spawn(Command::new("sh").args(["-c", script])).unwrap();
            let busy = busy(process.pid);
            assert_eq!(busy.is_some(), is_busy, "{script}: {busy:?}");
        }
    }

    #[test]
    fn who_runs_is_waited_for_longer_than_who_sleeps() {
        let looks = |command: &mut Command| {
            let process = harness::Process::spawn(command).unwrap();
            std::thread::sleep(Duration::from_millis(100)); // until it has started
            let mut looks = 0;
            let come: Option<()> = patiently(process.pid, Duration::from_millis(300), |within| {
                std::thread::sleep(within);
                looks += 1;
                Ok(None)
            })
            .unwrap();
            (come, looks)
        };
        assert_eq!(looks(&mut Command::new("cat")), (None, 3));
        let (come, spins) = looks(Command::new("sh").args(["-c", "while :; do :; done"]));
        assert!(come.is_none() && spins > 4, "{spins}");
    }

    #[test]
    fn a_waiting_process_is_explained() {
        let mut process = harness::Process::spawn(&mut Command::new("cat")).unwrap();
        let waits = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5)); // until it has started
            doing(process.pid).filter(|doing| doing.contains("waits"))
        });
        assert_eq!(waits.as_deref(), Some("the program waits in read"));
        assert!(
            !is_running(process.pid) && is_running(rustix::process::getpgrp().as_raw_pid() as u32)
        );
        assert_eq!((work(process.pid).unwrap().len(), busy(process.pid)), (1, None));
        assert_eq!(processes(process.pid).unwrap(), [process.pid]);
        drop(process.stdin.take());
        assert!(process.wait(harness::LIMIT).unwrap().success());
        assert!(work(process.pid).unwrap().is_empty());
    }
}
