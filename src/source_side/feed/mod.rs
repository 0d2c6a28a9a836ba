//! What a connection sends next: packets once the stream has started, and lane items while a
//! resynchronisation runs.
//!
//! ```text
//!  the copy's thread: look ── push, under the stream's lock: stamp P = last position ──┐
//!                                                                                      v
//!  the link's thread: next_frames ── cursor at P? ── the items stamped P ── packet P + 1 ── ...
//! ```
//! A stamped item goes when the cursor stands at its stamp, before the next packet; content may go
//! earlier, one item behind every five packets ([`stamped`]).

mod stamped;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use crate::connection::Flow;
use crate::limits::{HEADER_LEN_MAX, LANE_WINDOW, PAYLOAD_LEN_MAX};
use crate::link::{Feed, Waker};
use crate::packet::{
    EncodedFrame, ItemHeader, ItemNumber, LaneItem, PREFIX_LEN, Position, Sequence, item_frame, packet_frame,
};
use crate::queue::{Packet, Queue};
use crate::resync::{Gone, ItemSink};
#[cfg(test)]
pub(crate) use stamped::Planted;
pub(crate) use stamped::StampedLane;
use stamped::{StampedItems, Turn};

/// Counters of what was given to the link.
#[derive(Default)]
pub struct Sent {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    pub items: AtomicU64,
    pub item_bytes: AtomicU64,
    /// Of the packets, those that an earlier session had sent before.
    pub packets_again: AtomicU64,
    pub bytes_again: AtomicU64,
}

/// The sending end of a connection, asked by the link's thread.
pub struct PacketFeed {
    queue: Arc<Queue>,
    lane: Receiver<LaneEntry>,
    stream: Arc<Stream>,
    sent: Arc<Sent>,
}

/// An item on its way to the link; it gets its stamp when the link takes it.
struct LaneEntry {
    header: ItemHeader,
    payload: Bytes,
}

/// How far a session has sent, and what is to go among its packets.
pub struct Stream {
    /// Taken after the locks of what was looked at, before the queue's.
    state: Mutex<StreamState>,
    /// The link has taken stamped items, or is over.
    taken: Condvar,
}

struct StreamState {
    /// The last position that was sent, or that the stream starts after.
    at: Position,
    /// Packets go out.
    started: bool,
    /// Nothing goes out on hold, items neither.
    flow: Flow,
    /// Earlier sessions had sent everything up to here.
    again_upto: Sequence,
    stamped: StampedItems,
    /// Nobody will ask for frames any more.
    is_over: bool,
}

impl Stream {
    /// A stream that has not started, after this position.
    pub fn new(at: Position, flow: Flow) -> Arc<Stream> {
        let again_upto = Sequence(0);
        let (stamped, is_over) = (StampedItems::default(), false);
        let state = StreamState { at, started: false, flow, again_upto, stamped, is_over };
        Arc::new(Stream { state: Mutex::new(state), taken: Condvar::new() })
    }

    /// Lets packets go, from the one after `after`; what comes up to `again_upto` was sent before.
    pub fn start(&self, after: Position, again_upto: Sequence) {
        let mut state = self.state.lock();
        assert!(!state.started, "a stream starts once: after {after}, and after {}", state.at);
        assert!(
            after.same_history(&state.at),
            "a stream starts after {after}, in another history than {}",
            state.at
        );
        (state.at, state.started, state.again_upto) = (after, true, again_upto);
    }

    /// When it returns with [`Flow::Hold`], the link has been given the last frame.
    pub fn set_flow(&self, flow: Flow) {
        self.state.lock().flow = flow;
    }

    /// Where it stands.
    pub fn at(&self) -> Position {
        self.state.lock().at
    }
}

/// The lane's end for whoever produces items. Blocks while [`LANE_WINDOW`] items wait.
pub struct LaneSink {
    lane: Sender<LaneEntry>,
    waker: Waker,
    last: Arc<AtomicU64>,
}

impl ItemSink for LaneSink {
    fn send(&mut self, item: LaneItem, payload: Bytes) -> Result<ItemNumber, Gone> {
        let number = ItemNumber(self.last.fetch_add(1, Relaxed) + 1);
        let header = ItemHeader { number, item };
        self.lane.send(LaneEntry { header, payload }).map_err(|_| Gone)?;
        // Whoever fills the lane would wait for a link that rests.
        if self.lane.len() >= LANE_WINDOW / 2 {
            self.waker.wake_now()
        } else {
            self.waker.wake()
        }
        Ok(number)
    }
}

#[cfg(test)]
impl LaneSink {
    /// Whether the next item does not block.
    pub(crate) fn has_room(&self) -> bool {
        !self.lane.is_full()
    }
}

/// Makes lane sinks for one session; items are numbered through all of them.
#[derive(Clone)]
pub struct Lane {
    sender: Sender<LaneEntry>,
    last: Arc<AtomicU64>,
    stream: Arc<Stream>,
    queue: Arc<Queue>,
}

impl Lane {
    /// The lane of a copy that runs among the packets. A session has one of the two kinds.
    #[cfg_attr(not(test), expect(dead_code, reason = "nobody starts such a copy yet"))]
    pub fn stamped(&self, waker: Waker) -> StampedLane {
        StampedLane::new(self.stream.clone(), self.queue.clone(), waker)
    }

    pub fn sink(&self, waker: Waker) -> LaneSink {
        LaneSink { lane: self.sender.clone(), waker, last: self.last.clone() }
    }
}

impl PacketFeed {
    /// A feed for one session, and the lane into it.
    pub fn new(queue: Arc<Queue>, stream: Arc<Stream>, sent: Arc<Sent>) -> (PacketFeed, Lane) {
        let (sender, lane) = bounded(LANE_WINDOW);
        let ends = Lane { sender, last: Arc::default(), stream: stream.clone(), queue: queue.clone() };
        (PacketFeed { queue, lane, stream, sent }, ends)
    }

    #[cfg(test)]
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    fn items(&self, at: &Position, max_bytes: usize) -> Vec<EncodedFrame> {
        let mut frames = Vec::new();
        let mut bytes = 0;
        while bytes < max_bytes
            && let Ok(entry) = self.lane.try_recv()
        {
            let frame = item_frame(at, &entry.header, entry.payload);
            assert_taken(&frame);
            bytes += frame.len();
            frames.push(frame);
        }
        self.sent.items.fetch_add(frames.len() as u64, Relaxed);
        self.sent.item_bytes.fetch_add(bytes as u64, Relaxed);
        frames
    }

    /// Packets, and among them what is stamped.
    fn merged(&self, state: &mut StreamState, max_bytes: usize) -> Vec<EncodedFrame> {
        let mut packets = self.queue.next(state.at.sequence, max_bytes).into_iter();
        let mut frames = Vec::with_capacity(packets.len());
        let mut counts = Counts::default();
        while counts.all_bytes() < max_bytes as u64 {
            let frame = match state.stamped.turn(state.at.sequence, packets.len() > 0) {
                Turn::Item => self.stamped_frame(state, &mut counts),
                Turn::Packet => packets.next().map(|packet| state.packet_frame(packet, &mut counts)),
                Turn::Nothing => None,
            };
            let Some(frame) = frame else { break };
            assert_taken(&frame);
            frames.push(frame);
        }
        self.sent.add(&counts);
        frames
    }

    fn stamped_frame(&self, state: &mut StreamState, counts: &mut Counts) -> Option<EncodedFrame> {
        let item = state.stamped.take(state.at.sequence)?;
        self.stream.taken.notify_all();
        let frame = item_frame(&state.at, &item.header, item.payload);
        counts.items += 1;
        counts.item_bytes += frame.len() as u64;
        Some(frame)
    }
}

impl StreamState {
    fn packet_frame(&mut self, packet: Packet, counts: &mut Counts) -> EncodedFrame {
        assert!(packet.position.follows(&self.at), "no packet is left out or comes twice");
        self.at = packet.position;
        self.stamped.packet_went();
        let frame = packet_frame(&packet.position, &packet.header, packet.payload);
        let len = frame.len() as u64;
        (counts.packets, counts.bytes) = (counts.packets + 1, counts.bytes + len);
        if self.at.sequence <= self.again_upto {
            (counts.packets_again, counts.bytes_again) = (counts.packets_again + 1, counts.bytes_again + len);
        }
        frame
    }
}

/// What one batch of frames adds to [`Sent`].
#[derive(Default)]
struct Counts {
    packets: u64,
    bytes: u64,
    items: u64,
    item_bytes: u64,
    packets_again: u64,
    bytes_again: u64,
}

impl Counts {
    fn all_bytes(&self) -> u64 {
        self.bytes + self.item_bytes
    }
}

impl Sent {
    fn add(&self, counts: &Counts) {
        assert!(counts.packets_again <= counts.packets, "more was sent again than was sent");
        let pairs = [
            (&self.packets, counts.packets),
            (&self.bytes, counts.bytes),
            (&self.items, counts.items),
            (&self.item_bytes, counts.item_bytes),
            (&self.packets_again, counts.packets_again),
            (&self.bytes_again, counts.bytes_again),
        ];
        pairs
            .into_iter()
            .filter(|(_, more)| *more > 0)
            .for_each(|(sum, more)| _ = sum.fetch_add(more, Relaxed));
    }
}

/// What every target refuses would be sent for ever.
fn assert_taken(EncodedFrame { head, payload }: &EncodedFrame) {
    assert!(
        head.len() <= PREFIX_LEN + HEADER_LEN_MAX,
        "a header of {} bytes, which no target takes",
        head.len()
    );
    assert!(payload.len() <= PAYLOAD_LEN_MAX, "a payload of {} bytes, which no target takes", payload.len());
}

impl Feed for PacketFeed {
    fn next_frames(&mut self, max_bytes: usize) -> Vec<EncodedFrame> {
        let mut state = self.stream.state.lock();
        if state.flow == Flow::Hold {
            return Vec::new();
        }
        let items = self.items(&state.at, max_bytes);
        if !items.is_empty() || !state.started {
            return items;
        }
        self.merged(&mut state, max_bytes)
    }
}

impl Drop for PacketFeed {
    fn drop(&mut self) {
        self.stream.state.lock().is_over = true;
        self.stream.taken.notify_all();
    }
}
