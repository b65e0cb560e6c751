//! Several echo clients at once, each in a thread of its own, and what they got back in all.
//! It shows that a client which has all its data to itself runs beside others as it ran alone, and
//! is the first load for a server of part 3. Still wrong: a thread each, so a thousand clients are a
//! thousand threads. `clients_select` repairs it.
//!
//! `cargo run -q -p echoserv` in terminal 1, `cargo run -q -p clients -- localhost:10007 3` in 2

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use clap::Args;
use common::args::ClientArgs;
use common::message::Messages;
use common::report::Report;
use common::{exit, net, output};
use serde_json::json;

// The arguments that one client has not.
#[derive(Args)]
struct More {
    /// Number of clients
    #[arg(value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
}

/// What a client leaves behind: its report, and the error that ended it, if one did.
type Ended = (Report, io::Result<()>);

fn main() -> ExitCode {
    let (args, More { clients }) = ClientArgs::parse_with(clap::command!(), 20, 2000);
    let several = clients > 1 && args.file.as_ref().is_some_and(|file| file.as_os_str() == "-");
    let checked = match several {
        true => Err(exit::unusable("standard input can feed one client only")),
        false => args.messages().map(|_| ()),
    };
    match checked.map(|()| run(&args, clients)) {
        Ok(ended) => finish(&args, &ended),
        Err(error) => Report::new(&args.target.server).finish(&args, Err(error)),
    }
}

/// Runs the clients at once and waits for them all.
fn run(args: &ClientArgs, clients: u32) -> Vec<Ended> {
    let ended = AtomicUsize::new(0);
    let client = || {
        let mut report = Report::new(&args.target.server);
        let result = args
            .messages()
            .and_then(|messages| echo(net::connect(&args.target)?, messages, &mut report));
        progress(ended.fetch_add(1, Ordering::Relaxed) + 1, clients);
        let result = result.and_then(|()| report.judge());
        (report, result)
    };
    thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, client);
        let threads: Vec<_> = (0..clients).map(start).collect();
        let join = |thread: io::Result<thread::ScopedJoinHandle<Ended>>| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(error) => (Report::new(&args.target.server), Err(error)), // out of threads
        };
        threads.into_iter().map(join).collect()
    })
}

/// Prints every client's report and the sum. The status is the worst of theirs.
fn finish(args: &ClientArgs, ended: &[Ended]) -> ExitCode {
    let (mut text, mut status) = (String::new(), exit::OK);
    let (mut sent, mut received, mut complete) = (0, 0, 0);
    for (n, (report, result)) in (1..).zip(ended) {
        if !args.quiet && !report.is_void(result.as_ref().err()) {
            text += &format!("client {n}\n{report}");
        }
        (sent, received) = (sent + report.totals().0, received + report.totals().1);
        match result {
            Ok(()) => complete += 1,
            Err(error) => {
                let _ = writeln!(io::stderr(), "error: client {n}: {}", exit::text(error));
                status = status.max(exit::status(error));
            }
        }
    }
    let clients = ended.len();
    text += &format!("all clients\ntotal ({sent}, {received})\n");
    text += &format!("verdict: every byte came back to {complete} of {clients} clients\n");
    if args.json {
        let reports: Vec<_> =
            ended.iter().map(|(report, result)| report.json(result.as_ref().err())).collect();
        let totals = json!({ "sent": sent, "received": received });
        let all = json!({ "clients": reports, "complete": complete, "totals": totals });
        text = format!("{all}\n");
    }
    match output::print(text) {
        Ok(()) => ExitCode::from(status),
        error => exit::finish(error),
    }
}

/// Tells on a terminal how many clients have ended.
fn progress(ended: usize, clients: u32) {
    if io::stderr().is_terminal() {
        let end = if ended == clients as usize { '\n' } else { '\r' };
        let _ = write!(io::stderr(), "{ended} of {clients} clients have ended{end}");
    }
}

fn echo(sock: TcpStream, messages: Messages, report: &mut Report) -> io::Result<()> {
    Client::new(&sock, report).run(messages)
}

/// A client and all that belongs to it: two of them share nothing.
struct Client<'a> {
    sock: &'a TcpStream,
    rfile: BufReader<&'a TcpStream>,
    report: &'a mut Report,
}

impl<'a> Client<'a> {
    fn new(sock: &'a TcpStream, report: &'a mut Report) -> Self {
        Client { sock, rfile: BufReader::new(sock), report }
    }

    fn run(mut self, messages: Messages) -> io::Result<()> {
        for message in messages {
            let message = message?;
            self.report.sent(&message);
            self.sock.write_all(&message)?; // whole: no buffer that would have to be flushed
            if self.receive(message.len())? == 0 {
                return Err(exit::left_early());
            }
        }
        self.sock.shutdown(Shutdown::Write)?; // sends a FIN: the server reads 0, and we can still receive
        while self.receive(2048)? > 0 {}
        Ok(())
    }

    /// Receives one line, of at most `length` bytes: one without end must not fill the memory.
    fn receive(&mut self, length: usize) -> io::Result<usize> {
        let mut line = Vec::new();
        let rfile = self.rfile.by_ref();
        let result = rfile.take(length as u64).read_until(b'\n', &mut line);
        self.report.received(&line)?; // also what came before an error
        result
    }
}
