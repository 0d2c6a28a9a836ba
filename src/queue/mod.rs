//! The queue: every packet between capture and the last target's *applied* acknowledgement,
//! in one order for all threads.
//!
//! ```text
//!  reserve(bytes) ── before any lock; waits while the queue is full
//!     │
//!  [tree, directory, object locks: change on disk]
//!     │
//!  append(draft) ── the tail lock: position, chain, link into the list; no I/O
//!     │                     └── above 3/8 of memory ──> segments on disk ──> window ─┐
//!  Reader::next ──> link ──> target ── acknowledge(applied) ──> trim    <──────────────┘
//! ```
//! Memory holds the tail and a window ahead of each reader; what else some target has not applied lies on disk
//! (`overflow`), where there is one. At the limit writers wait, and [`Queue::stats`] says so. Neither appending
//! nor reading performs I/O: two threads of the queue do.

mod backlog;
mod behind;
mod leave;
mod list;
mod overflow;
mod packet;
mod segment;
mod segment_files;
#[cfg(test)]
mod tests;

pub use backlog::Backlog;
pub use behind::Behind;
pub use list::{Closed, CursorId, Queue, Reservation};
pub use overflow::Reader;
#[cfg(test)]
pub(crate) use overflow::Spilled;
pub use packet::{Draft, Haste, Packet};
pub use segment_files::{DiskPlace, remove_left};

/// Of what a segment looks like on disk.
pub const FORMAT: u32 = segment::VERSION;

/// Bugs that are planted on purpose: the tests and the simulator have to find each of them.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A segment is used again although some target has not applied all of it.
    RecyclesTooEarly,
    /// The first record of a segment is left out.
    SkipsAtTheBorder,
    /// What is read goes before what was read earlier.
    FillsOutOfOrder,
    /// What could not be written leaves memory all the same.
    ForgetsWhatWasNotWritten,
}
