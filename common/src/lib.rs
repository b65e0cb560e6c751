//! What every program of the lab needs and no lecture is about: addresses, arguments, opening
//! sockets, messages to send, the report on what came back, exit statuses.
//!
//! It opens sockets and never reads or writes them: that is what the lectures teach.

pub mod addr;
pub mod args;
pub mod exit;
pub mod message;
pub mod net;
pub mod output;
pub mod report;
