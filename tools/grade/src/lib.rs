//! Black-box checks that tell a wrong program from a right one, in any language, and say why.
//!
//! A check is a peer that behaves badly in one precise way. It is judged from what crossed the
//! wire and from how the process ended, never from the source. `grade` runs programs as processes
//! and imports none of them. Unix only.
#![cfg(unix)]

pub mod chat;
pub mod check;
pub mod client;
pub mod echo_client;
pub mod echo_server;
pub mod facts;
pub mod hang;
pub mod mutants;
pub mod peer;
pub mod show;
pub mod subject;
pub mod trial;
pub mod udp_client;
pub mod udp_server;
pub mod upper_tcp;
pub mod workspace;
