//! The lane of a copy that nothing goes among: what is looked at waits here for the link.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::limits::{STAMPED_BYTES_MAX, STAMPED_ITEMS_MAX};
use crate::link::{Feed, Waker};
use crate::packet::{EncodedFrame, Epoch, Incarnation, ItemHeader, ItemNumber, Position, item_frame};
use crate::resync::{Entry, Gone, Slot, StampedSink};
use crate::store::random_u64;

/// The end that the copy puts its items into.
pub struct ReadingLane {
    shared: Arc<Shared>,
    waker: Waker,
}

/// The end that the link asks.
pub struct ReadingFeed(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    taken: Condvar,
    /// Of a history of its own, without a packet.
    at: Position,
}

#[derive(Default)]
struct State {
    items: VecDeque<(ItemHeader, Bytes)>,
    bytes: usize,
    last: ItemNumber,
    /// Nobody will ask any more.
    is_over: bool,
}

impl ReadingFeed {
    pub fn new() -> ReadingFeed {
        let epoch = Epoch { number: 1, writer: random_u64() };
        let at = Position::origin(epoch, Incarnation(random_u64()));
        ReadingFeed(Arc::new(Shared { state: Mutex::default(), taken: Condvar::new(), at }))
    }

    /// The other end, before the link has this one; the waker is the link's.
    pub fn lane(&self) -> Lane {
        Lane(self.0.clone())
    }
}

/// A [`ReadingLane`] without a link.
pub struct Lane(Arc<Shared>);

impl Lane {
    pub fn into_link(self, waker: Waker) -> ReadingLane {
        ReadingLane { shared: self.0, waker }
    }
}

impl Feed for ReadingFeed {
    fn next_frames(&mut self, max_bytes: usize) -> Vec<EncodedFrame> {
        let mut state = self.0.state.lock();
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes
            && let Some((header, payload)) = state.items.pop_front()
        {
            state.bytes -= payload.len();
            let frame = item_frame(&self.0.at, &header, payload);
            bytes += frame.len();
            frames.push(frame);
        }
        if !frames.is_empty() {
            self.0.taken.notify_all();
        }
        frames
    }
}

impl Drop for ReadingFeed {
    fn drop(&mut self) {
        self.0.state.lock().is_over = true;
        self.0.taken.notify_all();
    }
}

impl ReadingLane {
    fn put(&self, batch: &mut Vec<Entry>) -> ItemNumber {
        let mut state = self.shared.state.lock();
        for Entry { item, payload } in batch.drain(..) {
            state.last.0 += 1;
            state.bytes += payload.len();
            let header = ItemHeader { number: state.last, item };
            state.items.push_back((header, payload));
        }
        let (last, is_filling) = (state.last, state.items.len() >= STAMPED_ITEMS_MAX / 2);
        drop(state);
        // Whoever fills the lane would wait for a link that rests.
        if is_filling {
            self.waker.wake_now()
        } else {
            self.waker.wake()
        }
        last
    }
}

impl StampedSink for ReadingLane {
    fn reserve(&mut self) -> Result<Slot, Gone> {
        let mut state = self.shared.state.lock();
        while !state.is_over && (state.items.len() >= STAMPED_ITEMS_MAX || state.bytes >= STAMPED_BYTES_MAX) {
            self.waker.wake_now();
            self.shared.taken.wait(&mut state);
        }
        if state.is_over { Err(Gone) } else { Ok(Slot::granted()) }
    }

    fn push(
        &mut self,
        slot: Slot,
        batch: &mut Vec<Entry>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot> {
        if check() { Ok(self.put(batch)) } else { Err(slot) }
    }

    fn begin(&mut self, batch: &mut Vec<Entry>, check: impl FnOnce() -> bool) -> bool {
        let holds = check();
        if holds {
            self.put(batch);
        }
        holds
    }
}
