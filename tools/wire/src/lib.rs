//! What crossed the wire: events, faults, a faithful relay, and pictures of both.
//!
//! A [`relay`] stands between a client and a server, spoils the connection as a
//! [`fault::Plan`] says, and records every [`event`]. The same events are drawn for the terminal
//! ([`ladder`]), as pictures ([`svg`], [`html`], [`mermaid`]), or kept as [`jsonl`].
//!
//! ```
//! use wire::event::{Direction, Kind, Recorder};
//!
//! let recorder = Recorder::new();
//! let connection = recorder.connection();
//! connection.record(Direction::ToServer, Kind::Connect);
//! connection.data(Direction::ToServer, b"hello\n");
//! connection.record(Direction::ToServer, Kind::Fin);
//! print!("{}", wire::ladder::draw(&recorder.events(), &wire::ladder::Style::default()));
//! ```

pub mod event;
pub mod fault;
pub mod html;
pub mod jsonl;
pub mod ladder;
pub mod mermaid;
pub mod relay;
pub mod story;
pub mod svg;
pub mod text;
