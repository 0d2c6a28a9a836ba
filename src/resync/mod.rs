//! The first copy: makes a target equal from what the backing directory holds now.
//!
//! ```text
//!  backing directory ──walk──> listings ──────────┐
//!        │                                        ├──> ItemSink ──> link ──> target
//!        └──content of what the target asks for───┘                             │
//!                          ^                                                    │
//!                          └──────────────── Wanted (one for each listing) <────┘
//! ```
//! Owns the source's half: the walk ([`Walk`]), reading files, and the order of lane items
//! ([`FirstCopy`]). The target's half is in `apply::Applier`. Blocking code for a thread of its
//! own; it never goes through a mount, writes nothing, and keeps neither listings nor content
//! longer than until they are sent.
//!
//! [`LiveCopy`] does the same while applications write, with packets flowing from its beginning on: its
//! items are stamped ([`StampedSink`]), exact ([`Looks`]), and what the target doubts is listed again.

mod content;
mod copy;
mod error;
mod live;
mod look;
mod looks;
mod progress;
mod seeing;
mod sink;
#[cfg(test)]
pub(crate) mod tests;
mod walk;

pub use copy::{CopyReport, FirstCopy, Wanted};
pub use error::CopyError;
pub use live::{Answer, LiveCopy};
#[cfg(test)]
pub(crate) use live::{Planted, Sizes, Stepped};
pub use look::{attributes, birth, stat, timestamp};
pub use looks::{Counts, Found, Looks};
pub use progress::{CopyProgress, ProgressSnapshot};
pub use sink::{ChannelSink, Entry, Gone, ItemSink, NumberedItem, Slot, StampedSink, item_channel};
pub use walk::{Chunk, ListedFile, TreePath, Walk};
