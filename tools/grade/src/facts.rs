//! What a server holds, seen from outside in Linux's `/proc` (proc(5)): its processes, threads,
//! descriptors and memory, and so how it serves several clients.

use std::collections::HashSet;
use std::fmt;
use std::fs;

use harness::Stat;

use crate::hang;

/// The processes of the group of `pid`, their children too where those have a group of their own.
fn family(pid: u32) -> Vec<Stat> {
    let mut all = harness::processes();
    let mut found = Vec::new();
    let mut known = HashSet::from([pid]);
    loop {
        let is_of_it = |member: &mut Stat| {
            member.group == pid || known.contains(&member.pid) || known.contains(&member.parent)
        };
        let more: Vec<_> = all.extract_if(.., is_of_it).collect();
        if more.is_empty() {
            return found;
        }
        known.extend(more.iter().map(|member| member.pid));
        found.extend(more);
    }
}

/// What a server holds at one moment, over all its processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Processes that run.
    pub processes: usize,
    /// Processes that have ended and that nobody has waited for.
    pub zombies: usize,
    /// Threads.
    pub threads: usize,
    /// Threads that wait to receive something.
    pub receiving: usize,
    /// Descriptors.
    pub descriptors: usize,
    /// Those of them that are sockets.
    pub sockets: usize,
    /// Memory in KiB that they have written; what several of them share is counted once.
    pub memory: u64,
}

impl Facts {
    /// The facts of the program that was started as `pid`; `None` if it is gone, or the system does
    /// not tell.
    pub fn of(pid: u32) -> Option<Self> {
        let mut facts = Facts::default();
        for member in family(pid) {
            if member.state == 'Z' {
                facts.zombies += 1;
                continue;
            }
            let pid = member.pid;
            let list = |folder: &str| fs::read_dir(format!("/proc/{pid}/{folder}"));
            facts.processes += 1;
            facts.threads += list("task").into_iter().flatten().count();
            facts.receiving += hang::calls(pid).iter().filter(|c| RECEIVING.contains(c)).count();
            for is_socket in descriptors(pid) {
                facts.descriptors += 1;
                facts.sockets += usize::from(is_socket);
            }
            facts.memory += memory(pid).unwrap_or_default();
        }
        (facts.processes > 0).then_some(facts)
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { processes, zombies, threads, descriptors, memory, .. } = *self;
        write!(f, "{}, {}, ", number(processes, "process"), number(threads, "thread"))?;
        write!(f, "{}, {}, ", number(descriptors, "descriptor"), number(zombies, "zombie"))?;
        write!(f, "{memory} KiB")
    }
}

/// The descriptors of process `pid`: for each, whether it is a socket.
fn descriptors(pid: u32) -> impl Iterator<Item = bool> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.map(|descriptor| {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        target.as_os_str().as_encoded_bytes().starts_with(b"socket:")
    })
}

/// Whether process `pid` itself has a socket.
pub fn has_socket(pid: u32) -> bool {
    descriptors(pid).any(|is_socket| is_socket)
}

/// The calls in which a thread waits for one client.
const RECEIVING: &[&str] = &["read", "recvfrom", "recvmsg"];

/// The memory that `pid` has written, in KiB: its share of what a fork has in common with it, and
/// nothing of the program file, in which others of the same program share (Linux 5.9).
fn memory(pid: u32) -> Option<u64> {
    let sizes = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let size = |name: &str| {
        let size = sizes.lines().find_map(|line| line.strip_prefix(name))?;
        size.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    Some(size("Pss_Anon:")? + size("Pss_Shmem:")?)
}

/// How a server serves several clients.
#[derive(Clone, Debug)]
pub struct Architecture {
    /// In one word.
    pub name: &'static str,
    clients: usize,
    facts: Facts,
}

impl Architecture {
    /// How a server does it that held `before` without a client and `now` holds `clients`, each of
    /// which has been answered unless the server was too slow for that.
    pub fn seen(before: Facts, now: Facts, clients: usize) -> Self {
        let most = clients - 1; // one may be late
        let name = match () {
            () if now.processes >= before.processes + most => "processes",
            () if now.threads >= before.threads + most => "threads",
            () if now.processes > most => "processes", // they were there before
            () if now.receiving >= most => "threads",
            () if now.sockets >= before.sockets + most => "multiplexed",
            () if now.sockets <= before.sockets + 2 => "iterative", // a socket may be held twice
            () => "unclear",
        };
        Architecture { name, clients, facts: now }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Facts { processes, threads, sockets, .. } = self.facts;
        write!(
            f,
            "{} (with {} clients: {}, ",
            self.name,
            self.clients,
            number(processes, "process")
        )?;
        write!(f, "{}, {})", number(threads, "thread"), number(sockets, "socket"))
    }
}

fn number(n: usize, what: &str) -> String {
    let plural = if what.ends_with('s') { "es" } else { "s" };
    format!("{n} {what}{}", if n == 1 { "" } else { plural })
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn children_count_also_with_a_session_of_their_own() {
        let script = "setsid sleep 600 & exec sleep 600";
        let process = harness::Process::spawn(Command::new("sh").args(["-c", script])).unwrap();
        let found = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5)); // until the second has started
            let family = family(process.pid);
            let child = family.iter().find(|member| member.pid != process.pid)?.pid;
            (family.iter().all(|member| member.state != 'Z')
                && fs::read_to_string(format!("/proc/{child}/comm")).ok()? == "sleep\n")
                .then_some((child, Facts::of(process.pid)?))
        });
        let (child, facts) = found.unwrap();
        let _ = Command::new("kill").arg(child.to_string()).status();
        assert_eq!((facts.processes, facts.threads, facts.sockets), (2, 2, 0));
        assert!(facts.descriptors >= 6 && facts.memory > 0, "{facts}");
    }

    #[test]
    fn architectures_are_told_apart() {
        let one = Facts { processes: 1, threads: 1, sockets: 1, ..Facts::default() };
        let pool = Facts { threads: 17, ..one };
        for (before, now, name) in [
            (one, Facts { sockets: 2, ..one }, "iterative"),
            (one, Facts { sockets: 6, ..one }, "multiplexed"),
            (one, Facts { threads: 6, sockets: 6, ..one }, "threads"),
            (pool, Facts { sockets: 6, receiving: 5, ..pool }, "threads"),
            (pool, Facts { sockets: 6, ..pool }, "multiplexed"), // a runtime with threads
            (one, Facts { processes: 6, threads: 6, sockets: 11, ..one }, "processes"),
        ] {
            assert_eq!(Architecture::seen(before, now, 5).name, name, "{now:?}");
        }
        let shown = Architecture::seen(one, Facts { sockets: 2, ..one }, 5).to_string();
        assert_eq!(shown, "iterative (with 5 clients: 1 process, 1 thread, 2 sockets)");
    }
}
