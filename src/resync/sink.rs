//! Where lane items go: the link, or a bounded channel where both ends are in one process.
//!
//! While applications write, items go among the packets, each behind the one that it is stamped with
//! ([`StampedSink`]).

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use crate::packet::{ItemNumber, LaneItem};

/// The other end is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Takes lane items in order.
pub trait ItemSink {
    /// Numbers an item and hands it on. Blocks while the window is full.
    ///
    /// Errors: [`Gone`] when the connection ended.
    fn send(&mut self, item: LaneItem, payload: Bytes) -> Result<ItemNumber, Gone>;
}

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

    /// As [`StampedSink::push`] for the first items of a copy; and every packet after P goes from now
    /// on, behind them. Whether it did.
    fn begin(&mut self, batch: &mut Vec<Entry>, check: impl FnOnce() -> bool) -> bool;
}

impl<S: ItemSink + ?Sized> ItemSink for &mut S {
    fn send(&mut self, item: LaneItem, payload: Bytes) -> Result<ItemNumber, Gone> {
        (**self).send(item, payload)
    }
}

/// A lane item on its way.
#[derive(Clone, Debug)]
pub struct NumberedItem {
    pub number: ItemNumber,
    pub item: LaneItem,
    pub payload: Bytes,
}

/// An [`ItemSink`] that is a channel, for an embedded target.
#[derive(Debug)]
pub struct ChannelSink {
    sender: Sender<NumberedItem>,
    last: u64,
}

/// A sink and its receiving end; at most `window` items are under way.
pub fn item_channel(window: usize) -> (ChannelSink, Receiver<NumberedItem>) {
    let (sender, receiver) = bounded(window);
    (ChannelSink { sender, last: 0 }, receiver)
}

impl ItemSink for ChannelSink {
    fn send(&mut self, item: LaneItem, payload: Bytes) -> Result<ItemNumber, Gone> {
        self.last += 1;
        let number = ItemNumber(self.last);
        self.sender.send(NumberedItem { number, item, payload }).map_err(|_| Gone)?;
        Ok(number)
    }
}
