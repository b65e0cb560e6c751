//! What crossed the wire: events, faults, a faithful relay, and pictures of both.
