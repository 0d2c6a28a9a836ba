//! The queue: every packet between capture and the last target's *applied* acknowledgement,
//! in one order for all threads.
//!
//! ```text
//!  reserve(bytes) ── before any lock; waits while the queue is full
//!     │
//!  [tree, directory, object locks: change on disk]
//!     │
//!  append(draft) ── the tail lock: position, chain, link into the list; no I/O
//!     │
//!  next(cursor) ──> link ──> target ── acknowledge(applied) ──> trim
//! ```
//! Memory only for now: at the limit writers wait, and [`Queue::stats`] says so. Performs no I/O.

mod behind;
mod list;
#[cfg(test)]
mod tests;

pub use behind::Behind;
pub use list::{Closed, CursorId, Draft, Haste, Packet, Queue, Reservation};
