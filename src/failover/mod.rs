//! A failover: a replica is served read-write in its source's place, for good, after everything that could be in
//! its way was looked at, with a report that is kept.
//!
//! ```text
//!  preflight ── take ── before (--pre) ── raise ── serve ── after (--post)
//!     │           │            │            │        └ programs write; killed here: the same command goes on
//!     │           │            │            └ no source of a lower epoch is taken in any more
//!     └───────────┴────────────┴ an error, a signal, a kill: all is as it was, the replica takes its source in
//! ```
//! Who performs it is the process of the command that was typed, which then is the daemon of the mount: the steps
//! that change something are those of `source_side`'s stand-in. Here is what is said and kept of them.
//!
//! - [`report`]: what is kept; [`journal`]: where, numbered
//! - [`steps`]: follows the steps, and runs the commands between them
//! - [`failback`]: who was the source before, and what it lacks
//! - [`switch`]: a planned change of roles, on the host that is written on

pub mod failback;
pub mod journal;
pub mod report;
pub mod steps;
pub mod switch;
#[cfg(test)]
mod tests;
