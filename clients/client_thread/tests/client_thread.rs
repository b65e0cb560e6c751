//! client_thread and client_select, which send and receive at the same time: what no client that
//! takes turns survives.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use harness::{LIMIT, Process, program, serve};
use socket2::SockRef;

const CLIENTS: [&str; 2] = ["client_thread", "client_select"];

/// Runs `client` to its end; returns its status, its output and the most memory it held, in KiB.
fn run(client: &str, args: &[&str]) -> (Option<i32>, String, u64) {
    let mut process = Process::spawn(Command::new(program(client)).args(args)).unwrap();
    let (mut peak, end) = (0, Instant::now() + LIMIT);
    let status = loop {
        assert!(Instant::now() < end, "{client} {args:?} hangs");
        peak = harness::peak_memory(process.pid).unwrap_or(0).max(peak);
        if let Some(status) = process.wait(Duration::from_millis(20)) {
            break status;
        }
    };
    let output = [process.stdout.all(LIMIT), process.stderr.all(LIMIT)].concat();
    (status.code(), String::from_utf8(output).unwrap(), peak)
}

const ALL_BACK: &str = "verdict: every byte came back\n";

#[test]
fn a_server_that_answers_only_at_the_end_stops_neither() {
    let server = serve(|mut conn| {
        let mut data = Vec::new();
        conn.read_to_end(&mut data)?;
        conn.write_all(&data)
    });
    for client in CLIENTS {
        for [count, length] in [["65536", "1024"], ["64", "1048576"]] {
            let (code, output, _) = run(client, &["-q", "-n", count, "-l", length, &server]);
            assert!(code == Some(0) && output.ends_with(ALL_BACK), "{client}: {code:?} {output}");
        }
    }
}

#[test]
fn a_server_that_does_not_read_before_it_has_written_stops_neither() {
    let server = serve(|mut conn| {
        SockRef::from(&conn).set_send_buffer_size(16 * 1024)?;
        SockRef::from(&conn).set_recv_buffer_size(64 * 1024)?;
        conn.set_nodelay(true)?;
        let mut data = [0; 16 * 1024];
        loop {
            match conn.read(&mut data)? {
                0 => return Ok(()),
                n => conn.write_all(&data[..n])?,
            }
        }
    });
    for client in CLIENTS {
        for [count, length] in [["65536", "1024"], ["64", "1048576"]] {
            let (code, output, peak) = run(client, &["-q", "-n", count, "-l", length, &server]);
            assert!(code == Some(0) && output.ends_with(ALL_BACK), "{client}: {code:?} {output}");
            assert!(peak < 32 * 1024, "{client}: {peak} KiB");
        }
    }
}

#[test]
fn slow_is_not_silent() {
    // For twice the time-out it only writes, then it only reads, slowly: but bytes always move.
    let slow = serve(|mut conn| {
        SockRef::from(&conn).set_recv_buffer_size(64 * 1024)?;
        let (mut data, mut all) = (vec![0; 512 * 1024], Vec::new());
        let written = 30 * 100;
        conn.read_exact(&mut data[..written])?;
        for piece in data[..written].chunks(100) {
            conn.write_all(piece)?;
            thread::sleep(Duration::from_millis(100));
        }
        all.extend_from_slice(&data[..written]);
        loop {
            match conn.read(&mut data)? {
                0 => return conn.write_all(&all[written..]),
                n => all.extend_from_slice(&data[..n]),
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    for client in CLIENTS {
        for [count, length] in [["16", "2000000"], ["1", "20000000"]] {
            let start = Instant::now();
            let args = ["-q", "--timeout", "1.5", "-n", count, "-l", length, &slow];
            let (code, output, _) = run(client, &args);
            assert!(code == Some(0) && output.ends_with(ALL_BACK), "{client}: {code:?} {output}");
            assert!(start.elapsed() > Duration::from_secs(3), "{client}: this proves nothing");
        }
    }
}

#[test]
fn a_pause_of_the_client_is_no_silence_of_the_server() {
    let late = serve(|mut conn| {
        let mut data = [0; 64];
        loop {
            let n = conn.read(&mut data)?;
            thread::sleep(Duration::from_millis(1300)); // before it answers a FIN, too
            match n {
                0 => return Ok(()),
                n => conn.write_all(&data[..n])?,
            }
        }
    });
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"one\n").unwrap();
    let args = &["-q", "--timeout", "2", "-d", "2500", "-f", file.path().to_str().unwrap(), &late];
    let clients = [CLIENTS[0], CLIENTS[1], "clients_select"];
    let ended = thread::scope(|scope| {
        clients
            .map(|client| scope.spawn(move || run(client, args)))
            .map(|client| client.join().unwrap())
    });
    for (client, (code, output, _)) in clients.into_iter().zip(ended) {
        assert!(code == Some(0) && output.contains("every byte came back"), "{client}: {output}");
    }
}

#[test]
fn an_early_close_is_noticed_while_the_next_message_is_waited_for() {
    let leaves = serve(|conn| conn.shutdown(Shutdown::Both));
    let later = ["-d", "600000"];
    for (client, args) in
        [("client_thread", ["-f", "-"]), ("client_thread", later), ("client_select", later)]
    {
        let mut command = Command::new(program(client));
        let mut client = Process::spawn(command.args(args).args(["-q", &leaves])).unwrap();
        let status = client.wait(LIMIT).and_then(|status| status.code());
        assert_eq!((status, args), (Some(1), args)); // its standard input is still open
        let stderr = client.stderr.all(LIMIT);
        assert_eq!(stderr, b"error: the server closed the connection early\n");
    }
}

#[test]
fn messages_that_are_due_one_by_one_go_out_one_by_one() {
    let (received, sizes) = std::sync::mpsc::channel();
    let server = serve(move |mut conn| {
        let mut data = [0; 64];
        loop {
            match conn.read(&mut data)? {
                0 => return Ok(()),
                n => conn.write_all(&data[..n]).map(|()| received.send(n).unwrap())?,
            }
        }
    });
    for client in CLIENTS {
        let (code, output, _) = run(client, &["-q", "-d", "100", "-n", "3", "-l", "7", &server]);
        assert!(code == Some(0) && output.ends_with(ALL_BACK), "{client}: {code:?} {output}");
        assert_eq!(sizes.try_iter().collect::<Vec<_>>(), [7; 3], "{client}");
    }
}
