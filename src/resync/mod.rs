//! The source's half of a copy: makes a target equal to what the backing directory holds, while
//! applications change it.
//!
//! ```text
//!  backing directory ──looks──> listings, content ──> StampedSink ──> link ──> target
//!                                    ^                                           │
//!                                    └────────── Wanted, Doubt, the end <────────┘
//! ```
//! [`LiveCopy`] decides what is looked at next, and sends nothing that is not exact as of its place among
//! the packets; whoever captures changes says what has changed meanwhile ([`Looks`]). The target's half is
//! in `apply::reconcile`. Blocking code for a thread of its own; it never goes through a mount, writes
//! nothing, and keeps neither listings nor content longer than until they are sent. What it has to show where
//! that is not everything is known ([`Owed`]), or found by change times ([`Search`]).

mod by_time;
mod content;
mod count;
mod error;
mod had;
mod live;
mod look;
mod looks;
mod owed;
mod pace;
mod place;
mod progress;
mod report;
mod seeing;
mod sink;
#[cfg(test)]
pub(crate) mod tests;
mod weighed;

#[cfg(test)]
pub(crate) use by_time::Planted as PlantedSearch;
pub use by_time::Search;
pub use count::NamesHad;
pub use error::CopyError;
pub use had::TargetHad;
pub use live::{Answer, BlockOrder, CheckOrder, LiveCopy, WhatIsOwed};
#[cfg(test)]
pub(crate) use live::{Planted, Sizes, Stepped};
pub use look::{attributes, birth, stat, timestamp};
pub use looks::{Counts, Found, Looks, Still};
pub use owed::{Owed, OwedContent, OwedObject};
pub use pace::Pace;
pub use place::{ListedFile, TreePath};
pub use progress::{CopyProgress, ProgressSnapshot, Size};
pub use report::{CopyReport, Wanted};
pub use sink::{Entry, Gone, Slot, StampedSink};
pub use weighed::{Expected, Weight, expect_beside};
