//! Items among packets: each has the position that it was stamped with under the stream's lock, so that
//! they stand in the order of their stamps.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::MutexGuard;

use super::{Stream, StreamState};
use crate::limits::{
    CONTENT_CREDIT_MAX, ITEM_COST, LISTED_COST, PACKETS_PER_CONTENT, STAMPED_BYTES_MAX,
    STAMPED_CHECK_BYTES_MAX, STAMPED_CHECKS_MAX, STAMPED_ITEMS_MAX,
};
use crate::link::Waker;
use crate::packet::{ItemHeader, ItemNumber, LaneItem, Sequence};
use crate::queue::Queue;
use crate::ranks;
use crate::resync::{Entry, Gone, Slot, StampedSink};

/// What is stamped and has not gone.
#[derive(Default)]
pub(super) struct StampedItems {
    items: VecDeque<StampedItem>,
    bytes: usize,
    last: ItemNumber,
    kind: Kind,
    /// Packets that have gone since content went last.
    packets: u32,
    /// Bytes of content that may go for what has gone of packets.
    credit: usize,
    #[cfg(test)]
    pub planted: Option<Planted>,
    #[cfg(test)]
    looked_at: Sequence,
}

pub(super) struct StampedItem {
    /// It is right behind this packet, too, and each up to the stamp.
    since: Sequence,
    stamp: Sequence,
    pub header: ItemHeader,
    pub payload: Bytes,
}

impl StampedItem {
    /// Bytes on the wire, about.
    fn cost(&self) -> usize {
        ITEM_COST + self.payload.len() + weight(&self.header.item)
    }

    /// Bytes of a file as of the stamp are right before it, too: the packets in between change them
    /// again. So are hashes of them in a copy; a comparison says what the replica is as of the stamp.
    fn may_go_early(&self, kind: Kind, at: Sequence) -> bool {
        match self.header.item {
            _ if self.since <= at => true,
            LaneItem::OpenContent { .. } | LaneItem::OpenBlocks { .. } | LaneItem::Content { .. } => true,
            LaneItem::Hashes { .. } | LaneItem::Hole { .. } => kind == Kind::Copy,
            _ => false,
        }
    }
}

/// What an item holds of memory while it waits, in bytes, beside its payload.
fn weight(item: &LaneItem) -> usize {
    match item {
        LaneItem::Listing { entries, .. } => entries.len() * LISTED_COST,
        LaneItem::Hashes { hashes, .. } => hashes.len() * size_of::<u128>(),
        _ => 0,
    }
}

/// What items are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    Copy,
    #[default]
    Comparison,
}

/// What goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Item,
    Packet,
    Nothing,
}

impl StampedItems {
    /// `at`: where the cursor stands. `packet_waits`: the next packet is at hand.
    pub fn turn(&self, at: Sequence, packet_waits: bool) -> Turn {
        let its_turn = |item: &StampedItem| {
            let is_due = item.stamp == at;
            #[cfg(test)]
            let is_due = match self.planted {
                // The first ones say where the packets begin.
                Some(Planted::GoesLate)
                    if !matches!(
                        item.header.item,
                        LaneItem::Begin
                            | LaneItem::BeginOwed { .. }
                            | LaneItem::Owed { .. }
                            | LaneItem::Afresh
                            | LaneItem::Root { .. }
                    ) =>
                {
                    item.stamp <= at && !packet_waits
                }
                Some(Planted::ClosesEarly) => {
                    is_due || matches!(item.header.item, LaneItem::CloseContent { .. })
                }
                Some(Planted::GoesLate | Planted::GoesEarly | Planted::StampsBeforeTheLook) | None => is_due,
            };
            // Before its stamp there is always a packet to go.
            is_due || item.may_go_early(self.kind, at) && self.has_turn(item)
        };
        match self.items.front() {
            Some(item) if its_turn(item) => Turn::Item,
            _ if packet_waits => Turn::Packet,
            _ => Turn::Nothing,
        }
    }

    /// Behind so many packets, or so many bytes of them: small files would get nothing among large writes.
    fn has_turn(&self, item: &StampedItem) -> bool {
        self.packets >= PACKETS_PER_CONTENT || self.credit >= item.cost()
    }

    pub fn take(&mut self, at: Sequence) -> Option<StampedItem> {
        let item = self.items.pop_front()?;
        #[cfg(test)]
        let is_anywhere = self.planted.is_some_and(|planted| planted != Planted::GoesEarly);
        #[cfg(test)]
        let at = if is_anywhere { item.stamp } else { at };
        let is_early = item.may_go_early(self.kind, at);
        let is_in_place = at == item.stamp || at < item.stamp && is_early;
        assert!(is_in_place, "an item as of {} goes at {}", item.stamp.0, at.0);
        self.bytes -= item.payload.len() + weight(&item.header.item);
        if is_early {
            self.packets = 0;
            self.credit = self.credit.saturating_sub(item.cost());
        }
        Some(item)
    }

    pub fn packet_went(&mut self, len: usize) {
        self.packets = self.packets.saturating_add(1);
        self.credit = (self.credit + len / PACKETS_PER_CONTENT as usize).min(CONTENT_CREDIT_MAX);
    }

    pub fn has_room(&self) -> bool {
        let (items, bytes) = match self.kind {
            Kind::Copy => (STAMPED_ITEMS_MAX, STAMPED_BYTES_MAX),
            Kind::Comparison => (STAMPED_CHECKS_MAX, STAMPED_CHECK_BYTES_MAX),
        };
        self.items.len() < items && self.bytes < bytes
    }

    fn push(&mut self, since: Sequence, stamp: Sequence, batch: &mut Vec<Entry>) -> ItemNumber {
        assert!(!batch.is_empty(), "nothing is sent");
        assert!(self.items.back().is_none_or(|last| last.stamp <= stamp), "stamps go back");
        for Entry { item, payload } in batch.drain(..) {
            match item {
                LaneItem::Begin | LaneItem::BeginOwed { .. } => self.kind = Kind::Copy,
                LaneItem::CheckBegin { .. } => self.kind = Kind::Comparison,
                _ => {}
            }
            self.last.0 += 1;
            self.bytes += payload.len() + weight(&item);
            let header = ItemHeader { number: self.last, item };
            self.items.push_back(StampedItem { since: since.min(stamp), stamp, header, payload });
        }
        self.last
    }
}

/// A session's lane among its packets, for the one thread that copies.
pub struct StampedLane {
    stream: Arc<Stream>,
    queue: Arc<Queue>,
    waker: Waker,
}

impl StampedLane {
    pub(super) fn new(stream: Arc<Stream>, queue: Arc<Queue>, waker: Waker) -> StampedLane {
        StampedLane { stream, queue, waker }
    }

    #[cfg(test)]
    pub(crate) fn plant(&self, planted: Planted) {
        self.stream.state.lock().stamped.planted = Some(planted);
    }

    /// Whether a batch would not wait.
    #[cfg(test)]
    pub(crate) fn has_room(&self) -> bool {
        self.stream.state.lock().stamped.has_room()
    }

    fn wake(&self, state: MutexGuard<'_, StreamState>) {
        // Whoever fills the lane would wait for a link that rests.
        let is_filling = state.stamped.items.len() >= STAMPED_ITEMS_MAX / 2
            || state.stamped.bytes >= STAMPED_BYTES_MAX / 2;
        drop(state);
        if is_filling { self.waker.wake_now() } else { self.waker.wake() }
    }
}

impl StampedSink for StampedLane {
    fn reserve(&mut self) -> Result<Slot, Gone> {
        ranks::assert_none_held("a wait for room in the lane");
        let mut state = self.stream.state.lock();
        while !state.is_over && !state.stamped.has_room() {
            self.stream.taken.wait(&mut state);
        }
        #[cfg(test)]
        (state.stamped.looked_at = self.queue.last().sequence);
        if state.is_over { Err(Gone) } else { Ok(Slot::granted()) }
    }

    fn push(
        &mut self,
        slot: Slot,
        batch: &mut Vec<Entry>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot> {
        self.push_since(slot, batch, None, check)
    }

    fn push_since(
        &mut self,
        slot: Slot,
        batch: &mut Vec<Entry>,
        since: Option<Sequence>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot> {
        let mut state = self.stream.state.lock();
        // In this order: what was not begun by now comes behind it.
        let stamp = self.queue.last().sequence;
        #[cfg(test)]
        let (stamp, check) = state.planted(stamp, check);
        if !check() {
            return Err(slot);
        }
        #[cfg(test)]
        let since = match state.stamped.planted {
            Some(Planted::GoesEarly) => Some(Sequence(0)),
            Some(Planted::GoesLate | Planted::StampsBeforeTheLook | Planted::ClosesEarly) | None => since,
        };
        let number = state.stamped.push(since.unwrap_or(stamp), stamp, batch);
        self.wake(state);
        Ok(number)
    }

    fn reached(&self) -> Option<Sequence> {
        Some(self.stream.state.lock().at.sequence)
    }

    fn given_out(&self) -> Option<Sequence> {
        Some(self.queue.last().sequence)
    }

    fn begin(&mut self, batch: &mut Vec<Entry>, check: impl FnOnce() -> bool) -> bool {
        let mut state = self.stream.state.lock();
        let start = self.queue.last();
        if !check() {
            return false;
        }
        if !state.started {
            // Nothing after it was sent in an earlier session.
            (state.at, state.started, state.again_upto) = (start, true, Sequence(0));
        }
        state.began = Some(start);
        state.stamped.push(start.sequence, start.sequence, batch);
        self.wake(state);
        true
    }
}

#[cfg(test)]
impl StreamState {
    fn planted(&self, stamp: Sequence, check: impl FnOnce() -> bool) -> (Sequence, impl FnOnce() -> bool) {
        let is_early = self.stamped.planted == Some(Planted::StampsBeforeTheLook);
        let least = self.stamped.items.back().map_or(self.at.sequence, |last| last.stamp);
        let early = self.stamped.looked_at.max(least).max(self.at.sequence);
        (if is_early { early } else { stamp }, move || check() || is_early)
    }
}

/// Bugs that are planted on purpose.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// An item goes behind packets that come after its stamp.
    GoesLate,
    /// An item has the position that was the last one before it was looked at, whatever has changed.
    StampsBeforeTheLook,
    /// An item goes before its stamp, whatever has changed in between.
    GoesEarly,
    /// The end of a file's content goes before its stamp.
    ClosesEarly,
}
