//! The command line: one file a command; texts for people, JSON for scripts.
//!
//! A command never looks at a mount root: a daemon that hangs would hang it too. It finds its
//! daemon by the socket files of the run directory ([`find`]).

pub mod args;
pub mod units;
