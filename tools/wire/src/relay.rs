//! Relays between one client and one server, faithful but for the faults they are told to add.
//!
//! Without faults a relay is transparent: a FIN is passed on as `shutdown(Write)`, so half-close
//! works; an RST as an RST, behind the data that came before it; a receiver that does not read
//! holds up the sender, since a relay stops reading when it cannot write.

mod bulk;
mod flow;
mod tcp;
mod udp;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, Timespec};

use crate::fault::Plan;

pub use tcp::{reset, tcp};
pub use udp::udp;

/// What is spoiled, in each direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// What happens to what the client sends.
    pub to_server: Plan,
    /// What happens to what the server sends.
    pub to_client: Plan,
    /// Where chance starts: the same seed gives the same run.
    pub seed: u64,
}

/// Calls off the relays that were given a clone of it.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A request that has not been made yet.
    pub fn new() -> Self {
        Stop::default()
    }

    /// Makes the relays end, at the latest after 50 ms; a TCP relay resets both connections.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_made(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often a [`Stop`] is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until a socket is ready, `due` is over, or it is time to look at `stop`.
fn poll(fds: &mut [PollFd<'_>], due: Option<Instant>, stop: Option<&Stop>) -> io::Result<()> {
    let due = due.map(|due| due.saturating_duration_since(Instant::now()));
    let timeout = due.into_iter().chain(stop.map(|_| LOOK)).min();
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: timeout.as_secs() as i64,
        tv_nsec: timeout.subsec_nanos() as _, // its type differs between systems
    });
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(io::Error::from_raw_os_error(error.raw_os_error())),
    }
}
