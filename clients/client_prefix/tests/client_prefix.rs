//! client_prefix against a server that frames badly.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

#[test]
fn an_absurd_length_or_type_is_refused_at_once() {
    for (frame, why) in [
        (*b"M\xff\xff\xff\xff", "refused: a frame of type 0x4d, 4294967295 bytes"),
        (*b"M\x01\0\0\x01", "refused: a frame of type 0x4d, 16777217 bytes"),
        (*b"m\0\0\x07\xd0", "refused: a frame of type 0x6d, 2000 bytes"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut conn, _) = listener.accept().unwrap();
            conn.write_all(&frame).unwrap();
            conn.read_to_end(&mut Vec::new()).map_err(|error| error.kind()) // until the client left
        });
        let mut client = Command::new(env!("CARGO_BIN_EXE_client_prefix"));
        let ended = harness::run(client.args(["-q", &addr]), b"").unwrap();
        assert_eq!(ended.error(), (Some(1), why));
        assert!(server.join().unwrap().is_ok());
    }
}
