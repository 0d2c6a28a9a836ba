//! standin: real-time, ordered replication for any directory on Linux.
//!
//! ```text
//!  application
//!      | system calls
//!  [kernel FUSE]
//!      |
//!  [1] intercept --Op--> [2] queue --packets--> [3] link ==QUIC==> [3] link --packets--> [4] apply
//!      |                      ^  \____________acks____________________/       |
//!  backing directory      [5] resync (copies, lane items) --------> link      |
//!                                                              replica, position, id index
//!             source owns this side                     target owns this side
//! ```
//! In reading order:
//! - [`packet`]: ops, positions, lane items, messages, and their bytes
//! - [`intercept`]: FUSE in, ops out; the only user of `fuser`
//! - [`queue`]: one order for all threads, bounded
//! - [`map`]: what was changed since which position, for a target that has lost its place in the queue
//! - [`activity`]: whose content was being changed, on disk before it is, for a start after a power loss
//! - [`link`]: QUIC, keys, heartbeats; the only user of `quinn` and `tokio`
//! - [`connection`]: states, reconnection, what to do after a handshake; pure
//! - [`pairing`]: tokens, and which key may send which set
//! - [`clone`]: the replica as of one moment, copied into a directory while packets change it
//! - [`apply`]: performs packets inside the replica's root, exactly once
//! - [`resync`]: makes a target equal from what the source holds now: the source's half of a copy; the
//!   target's is `apply::reconcile`
//! - [`control`]: the unix socket and the words of the status; [`cli`]: the commands
//! - [`source_side`], [`target_side`]: the two daemons, where the rooms meet; rooms do not import each other, but
//!   for [`intercept`], which fills the [`queue`] (a test of `floors` holds it)
//! - [`drill`]: a clone at the data's own path in namespaces of its own, checked, reported, thrown away
//! - [`cover`]: what stands in a mount's place when its set was handed over
//! - [`failover`]: what is said and kept of a replica that is served in its source's place; [`commands`]: those of a
//!   person, run with a time-out
//! - [`address`]: holds the address of clients while this host serves a set
//! - [`monitor`]: watches a source from its target's host, calls for a person, or has the failover done
//! - [`events`]: what begins, ends and happens on a host, in stable words; hooks and the journal
//! - [`preflight`]: what is checked before a mount; [`privileges`]: what is given up before the
//!   work begins; [`failure`]: errors for people; `open_files`: how many this process may have
//! - [`mod@bench`]: what the mount costs, and how fast a replica follows
//! - [`words`], [`place`], [`pool`], [`units`], `signals`, `service_manager`, [`random`]: what several rooms speak of;
//!   which directory one is; memory for payloads; how numbers are shown; SIGTERM and its kin; what systemd is told;
//!   chance that a seed replays
//! - [`sets`]: which names belong to a replication set: rules, their matcher, the set's file
//! - [`store`], [`xattr`], [`blocks`], [`limits`], [`sys`]: small durable files; extended attributes; hashes
//!   of content; every bound; all unsafe code
//! - [`locked`]: files that are locked for as long as a value lives
//! - `aside`: what is said on standard error, where nobody may be there any more
//! - `reads`: reads that leave the page cache as it was
//! - `paced`: lines of the log that others can cause as often as they like
//! - `ranks`: the order in which locks are taken on the source, asserted in debug builds
//! - `clock`, `failpoint`: the time, and places where a disk can fail, both in a simulator's hand
//!   in tests
//! - `floors`, `dependencies`, `shape` (tests only): who may import whom; what may be depended on; how large
//!   files and functions are
//! - `simulator` (tests only): both sides under one seed, with a faulty network, disk and person
//!
//! The data plane (intercept, queue, link, apply) never waits for the control plane.

#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout))]

// Before all others: what it has is a macro.
#[macro_use]
mod aside;

pub mod activity;
pub mod address;
pub mod apply;
pub mod bench;
pub mod blocks;
pub mod cli;
mod clock;
pub mod clone;
pub mod commands;
pub mod connection;
pub mod control;
pub mod cover;
#[cfg(test)]
mod dependencies;
pub mod drill;
pub mod events;
pub mod failover;
mod failpoint;
pub mod failure;
#[cfg(test)]
mod floors;
pub mod intercept;
pub mod limits;
pub mod link;
pub mod locked;
pub mod map;
pub mod monitor;
#[cfg(test)]
mod mutation;
mod open_files;
mod paced;
pub mod packet;
pub mod pairing;
pub mod place;
pub mod pool;
pub mod preflight;
pub mod privileges;
pub mod queue;
pub mod random;
mod ranks;
mod reads;
pub mod resync;
mod service_manager;
pub mod sets;
#[cfg(test)]
mod shape;
mod signals;
#[cfg(test)]
mod simulator;
pub mod source_side;
pub mod store;
#[allow(unsafe_code)]
pub mod sys;
pub mod target_side;
pub mod units;
pub mod words;
pub mod xattr;
