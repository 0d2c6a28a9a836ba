//! Where lane items go: among the packets, each behind the one that it is stamped with.

use bytes::Bytes;

use crate::packet::{ItemNumber, LaneItem, Sequence};

/// The other end is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// A lane item with its payload, before it is numbered.
#[derive(Clone, Debug)]
pub struct Entry {
    pub item: LaneItem,
    pub payload: Bytes,
}

impl Entry {
    /// An item without a payload.
    pub fn of(item: LaneItem) -> Entry {
        Entry { item, payload: Bytes::new() }
    }
}

/// The right to put one batch of items into a stream, without waiting.
#[derive(Debug)]
pub struct Slot(());

impl Slot {
    /// For whoever keeps the window.
    pub fn granted() -> Slot {
        Slot(())
    }
}

/// The lane of a session whose packets flow. Items show what is there as of a position P, and go right
/// behind packet P; content goes there at the latest.
pub trait StampedSink: Send {
    /// Waits until there is room for a batch. No lock may be held.
    ///
    /// Errors: [`Gone`] when the session ended.
    fn reserve(&mut self) -> Result<Slot, Gone>;

    /// Takes the last position given out, P; where `check` says that what the items show is not changed
    /// up to now, they are numbered, stamped with P, and in the stream, and `batch` is empty; gives the
    /// number of the last one. Else nothing has happened. `check` runs under the stream's lock: it does
    /// not wait.
    fn push(
        &mut self,
        slot: Slot,
        batch: &mut Vec<Entry>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot>;

    /// As [`StampedSink::push`], of what was not changed since packet `since`: it is right behind that one and each
    /// up to P, and may go behind any of them.
    fn push_since(
        &mut self,
        slot: Slot,
        batch: &mut Vec<Entry>,
        _since: Option<Sequence>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot> {
        self.push(slot, batch, check)
    }

    /// The last packet that has gone; `None`: nobody knows.
    fn reached(&self) -> Option<Sequence> {
        None
    }

    /// The last packet that was given out; `None`: nobody knows.
    fn given_out(&self) -> Option<Sequence> {
        None
    }

    /// As [`StampedSink::push`] for the first items of a copy; and every packet after P goes from now
    /// on, behind them. Whether it did.
    fn begin(&mut self, batch: &mut Vec<Entry>, check: impl FnOnce() -> bool) -> bool;
}
