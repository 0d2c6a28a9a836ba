//! Capture: the file system that applications see, and the only source of ops.
//!
//! ```text
//!  kernel ── fuse.rs (adapter, the only user of fuser) ── volume.rs and the ops below
//!                                                            │
//!            objects.rs (who is who)                descriptors.rs (open ends)
//!                                                            │
//!            names.rs  renaming.rs  data.rs  attributes.rs  aftermath.rs  listing.rs
//!                                  │
//!            change/ (the one guard: room, locks, the change on the backing directory, and
//!                     under the same locks its op into the queue)
//! ```
//! Never waits for the network, and holds no lock over an fsync. Everything but `fuse.rs` works,
//! and is tested, without a mount.

mod aftermath;
mod aside;
mod attributes;
mod cached;
mod change;
mod clearing;
mod data;
mod departures;
mod descriptors;
mod divergence;
mod error;
mod foreign;
mod fuse;
mod gate;
mod growth;
mod helpers;
mod listing;
mod mixing;
mod mounting;
mod names;
mod objects;
mod renaming;
mod shares;
#[cfg(test)]
mod tests;
mod volume;

pub use data::OpenMode;
pub use divergence::Divergence;
pub use error::FsError;
pub use fuse::{Mount, MountError, Serving};
pub use gate::{DurabilityGate, SyncAnswer};
pub use objects::NodeId;
pub use volume::{Caller, Meta, SharedWriterCounts, Volume};
