//! A drill: a clone of the replica, mounted read-write at the data's own path in namespaces of its own, the
//! user's checks run against it, a report, and everything thrown away. Replication goes on, and the
//! replica stays as it is.
//!
//! ```text
//!  standin drill run                                       daemon (serve, or protect with local:)
//!   plan ── driver ── clone start, list, stop ───────────────> executes nothing
//!             │
//!             │ requests, answers (two pipes)
//!             v
//!   isolation::keeper ── kills when it ends ──> isolation::init   the first process of its namespaces
//!                                                 mounts          what is seen there
//!                                                 /bin/sh -c …    start, ready, checks, stop
//! ```
//! - `plan`: which step is next, and the verdict; pure
//! - `damage`: which blocks are damaged for a proof; pure
//! - [`request`]: what it is asked to do; [`driver`]: performs the steps, with a record on the disk before the first of them; `inside`: what it asks for in there
//! - `told`: what its commands are told, and the hooks, which run on the host
//! - [`group`]: what it may take of processor, disk and memory
//! - [`lag`]: how far the replica was behind meanwhile; `written`: what was written to the clone
//! - `prove`: whether the checks fail on damaged data; [`proof`]: what that says
//! - [`isolation`]: namespaces, mounts, capabilities, and the commands in them
//! - [`recovery`]: what a drill has made goes, also of one whose command has died
//! - [`visit`]: a shell in a drill that stays open; [`mod@make_way`]: the end of one for what goes first
//! - [`report`]: what is kept of a drill, `junit`: in the words of build servers; [`last`]: how long ago one passed, [`expected`]: and should have; [`journal`]: where, numbered, each with the hash of the one before
//!
//! The drill is the process of the command that was typed: no daemon executes anything.

mod damage;
pub mod driver;
pub mod expected;
pub mod group;
mod inside;
pub mod isolation;
pub mod journal;
mod junit;
pub mod lag;
pub mod last;
pub mod limits;
pub mod make_way;
mod plan;
pub mod proof;
mod prove;
pub mod recovery;
pub mod report;
pub mod request;
#[cfg(test)]
mod tests;
mod told;
pub mod visit;
mod written;

pub use plan::{Outcome, Step, Verdict};
