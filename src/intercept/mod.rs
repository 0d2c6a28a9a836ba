//! Capture: the file system that applications see, and the only source of ops.
//!
//! ```text
//!  kernel ── fuse.rs (adapter; with mount.rs and convert.rs the only user of fuser)
//!                                  │
//!            serve/ (on which thread, what before the answer) ── volume.rs and the ops below
//!                                                            │
//!            objects.rs (who is who)                descriptors.rs (open ends)
//!                                                            │
//!            names.rs  renaming.rs  data.rs  attributes.rs  aftermath.rs  listing.rs
//!                                  │
//!            change/ (the one guard: room, locks, the change on the backing directory, and
//!                     under the same locks its op into the queue)
//! ```
//! Never waits for the network, and holds no lock over an fsync. Everything below `serve` works
//! without a mount: `model/` (tests only) tries it with random changes of several threads, thousands
//! of seeds a minute, against a replica in the same process.

mod aftermath;
mod appending;
mod attributes;
mod cached;
mod change;
mod clearing;
mod convert;
mod data;
mod departures;
mod descriptors;
mod divergence;
mod error;
mod fence;
mod flags;
mod foreign;
mod fuse;
mod gate;
mod gathered;
mod growth;
mod handshake;
mod helpers;
mod listing;
mod mapped;
mod members;
mod mixing;
#[cfg(test)]
mod model;
mod mount;
mod mounting;
mod names;
mod objects;
mod pages;
mod parking;
mod reachable;
mod refusals;
mod renaming;
mod seen_at;
mod serve;
mod shares;
mod standing;
#[cfg(test)]
mod tests;
mod volume;

pub use change::Seen;
pub use data::OpenMode;
pub use divergence::Divergence;
pub use error::FsError;
pub use fence::{Fence, Fenced};
pub use gate::{DurabilityGate, SyncAnswer};
pub use mapped::MappedFile;
pub use mount::{Connection, Mount, MountError, Place, Serving};
pub use mounting::Control;
pub use objects::NodeId;
pub use pages::serve_drops;
pub use refusals::Refused;
pub use standing::{FORMAT as MEMORY_FORMAT, Handover, KeepsFiles, Memory, Standing, Upgraded};
pub use volume::{Caller, Meta, SharedWriterCounts, Volume};
