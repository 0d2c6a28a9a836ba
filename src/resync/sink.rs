//! Where lane items go: the link, or a bounded channel where both ends are in one process.

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
