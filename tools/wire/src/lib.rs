//! What crossed the wire: events, faults, a faithful relay, and pictures of both.
//!
//! A [`relay`] stands between a client and a server, spoils the connection as a
//! [`fault::Plan`] says, and records every [`event`]. The same events are drawn for the terminal
//! ([`ladder`]), as pictures ([`svg`], [`html`], [`mermaid`]), or kept as [`jsonl`].
//!

pub mod event;
pub mod fault;
pub mod jsonl;
pub mod relay;
