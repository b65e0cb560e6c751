//! An echo server with a process per connection: clients share nothing, not even memory.
//! It shows who holds which socket: after fork(2) both processes have both. The parent closes its
//! copy of the connection, or the client would never see a FIN; the child its copy of the listener,
//! or the port would stay taken. Still wrong: the dearest way to serve; see `server_thread`.
//!
//! `cargo run -q -p server_fork` in terminal 1, `cargo run -q -p clients -- :10007 5` in 2
#![cfg_attr(unix, expect(unsafe_code, reason = "fork(2) and a signal handler"))]

use std::process::ExitCode;

use common::args::ServerArgs;
use common::exit;

fn main() -> ExitCode {
    let args = ServerArgs::parse(clap::command!(), "localhost:10007");
    exit::finish(serve(&args))
}

#[cfg(not(unix))]
fn serve(_: &ServerArgs) -> std::io::Result<()> {
    let why = "fork(2) is a system call of Unix; server_thread does the same with threads";
    Err(exit::unusable(why))
}

#[cfg(unix)]
use unix::serve;

#[cfg(unix)]
mod unix {
    use std::io::{self, ErrorKind, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::thread;
    use std::time::Duration;

    use common::args::ServerArgs;
    use log::{debug, info, warn};
    use nix::errno::Errno;
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid, fork};

    pub fn serve(args: &ServerArgs) -> io::Result<()> {
        let mut listener = args.start()?;
        on_child_ended()?;
        let parent = Pid::this();
        loop {
            match listener.accept() {
                // SAFETY: there is one thread, so no other can hold a lock that the child needs.
                Ok((conn, peer)) => match unsafe { fork() } {
                    Ok(ForkResult::Child) => {
                        drop(listener); // a child accepts nobody
                        serve_client(conn, peer, args.buffer, parent)
                    }
                    Ok(ForkResult::Parent { .. }) => drop(conn), // the child has its own copy
                    Err(error) => warn!("Client sent away {peer}: {error}"),
                },
                Err(error) => {
                    // Out of descriptors, say: the client stays in the queue, so do not spin on it.
                    warn!("accept: {error}");
                    thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }

    /// All that a child does.
    fn serve_client(conn: TcpStream, peer: SocketAddr, buffer_size: usize, parent: Pid) -> ! {
        info!("Connection from {peer}");
        match end_with(parent).and_then(|()| echo(conn, buffer_size)) {
            Ok(()) => info!("Client closed {peer}"),
            Err(error) => warn!("Client lost {peer}: {error}"),
        }
        // Not by way of main: what there is to clean up is the parent's, and this is much faster.
        // SAFETY: _exit(2) ends the process at once, and nothing here waits to be written.
        unsafe { nix::libc::_exit(0) }
    }

    fn echo(mut conn: TcpStream, buffer_size: usize) -> io::Result<()> {
        conn.set_nodelay(true)?; // short answers go out at once, not after the ACK of the last
        let mut buffer = vec![0; buffer_size];
        loop {
            match conn.read(&mut buffer) {
                Ok(0) => return Ok(()), // the client's FIN; dropping conn sends ours
                Ok(n) => {
                    debug!("{n} bytes: {}", buffer[..n].escape_ascii());
                    conn.write_all(&buffer[..n])?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// From now on a child that ends leaves no zombie behind. SA_RESTART: accept(2) is called again
    /// where the signal interrupts it.
    fn on_child_ended() -> io::Result<()> {
        let flags = SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP;
        let action = SigAction::new(SigHandler::Handler(reap), flags, SigSet::empty());
        // SAFETY: the handler calls nothing but waitpid(2), which is async-signal-safe, and leaves
        // errno as it was.
        unsafe { sigaction(Signal::SIGCHLD, &action) }?;
        Ok(())
    }

    /// Takes the exit status of every child that has ended: one signal may stand for many.
    extern "C" fn reap(_: i32) {
        let errno = Errno::last();
        while let Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) =
            waitpid(None, Some(WaitPidFlag::WNOHANG))
        {}
        errno.set();
    }

    /// Has the system send this child a SIGTERM when its parent ends, however it does: a server
    /// that was stopped must not go on serving. Only Linux offers that; elsewhere a child stays
    /// until its client has gone.
    fn end_with(parent: Pid) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        if Pid::parent() != parent {
            return Err(io::Error::other("the server has ended")); // before it could be told
        }
        Ok(())
    }
}
