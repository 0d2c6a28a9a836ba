//! What a connection sends next: lane items while a resynchronisation runs, packets once the
//! stream has started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::limits::LANE_WINDOW;
use crate::link::{Feed, Waker};
use crate::packet::{
    EncodedFrame, ItemHeader, ItemNumber, LaneItem, Position, Sequence, item_frame, packet_frame,
};
use crate::queue::Queue;
use crate::resync::{Gone, ItemSink};

/// Counters of what was given to the link.
#[derive(Default)]
pub struct Sent {
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    pub items: AtomicU64,
    pub item_bytes: AtomicU64,
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

/// How far a session has sent.
pub struct Stream(Mutex<StreamState>);

struct StreamState {
    /// The last position that was sent, or that the stream starts after.
    at: Position,
    /// Packets go out.
    flowing: bool,
}

impl Stream {
    /// A stream that has not started, after this position.
    pub fn new(at: Position) -> Arc<Stream> {
        Arc::new(Stream(Mutex::new(StreamState { at, flowing: false })))
    }

    /// Lets packets go, from the one after `after`.
    pub fn start(&self, after: Position) {
        *self.0.lock() = StreamState { at: after, flowing: true };
    }

    /// The last packet that was sent, or after which the stream starts.
    pub fn sent_upto(&self) -> Sequence {
        self.0.lock().at.sequence
    }

    /// Lets packets go from where the stream stands; answers after which position that is.
    pub fn start_here(&self) -> Position {
        let mut state = self.0.lock();
        state.flowing = true;
        state.at
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
        self.waker.wake();
        Ok(number)
    }
}

/// Makes lane sinks for one session; items are numbered through all of them.
#[derive(Clone)]
pub struct Lane {
    sender: Sender<LaneEntry>,
    last: Arc<AtomicU64>,
}

impl Lane {
    pub fn sink(&self, waker: Waker) -> LaneSink {
        LaneSink { lane: self.sender.clone(), waker, last: self.last.clone() }
    }
}

impl PacketFeed {
    /// A feed for one session, and the lane into it.
    pub fn new(queue: Arc<Queue>, stream: Arc<Stream>, sent: Arc<Sent>) -> (PacketFeed, Lane) {
        let (sender, lane) = bounded(LANE_WINDOW);
        (PacketFeed { queue, lane, stream, sent }, Lane { sender, last: Arc::default() })
    }

    fn items(&self, at: &Position, max_bytes: usize) -> Vec<EncodedFrame> {
        let mut frames = Vec::new();
        let mut bytes = 0;
        while bytes < max_bytes
            && let Ok(entry) = self.lane.try_recv()
        {
            let frame = item_frame(at, &entry.header, entry.payload);
            bytes += frame.len();
            frames.push(frame);
        }
        self.sent.items.fetch_add(frames.len() as u64, Relaxed);
        self.sent.item_bytes.fetch_add(bytes as u64, Relaxed);
        frames
    }

    fn packets(&self, state: &mut StreamState, max_bytes: usize) -> Vec<EncodedFrame> {
        let packets = self.queue.next(state.at.sequence, max_bytes);
        let mut frames = Vec::with_capacity(packets.len());
        let mut bytes = 0;
        for packet in packets {
            assert_eq!(packet.position.sequence, state.at.sequence.next(), "the queue has no gaps");
            state.at = packet.position;
            let frame = packet_frame(&packet.position, &packet.header, packet.payload);
            bytes += frame.len();
            frames.push(frame);
        }
        self.sent.packets.fetch_add(frames.len() as u64, Relaxed);
        self.sent.bytes.fetch_add(bytes as u64, Relaxed);
        frames
    }
}

impl Feed for PacketFeed {
    fn next_frames(&mut self, max_bytes: usize) -> Vec<EncodedFrame> {
        let mut state = self.stream.0.lock();
        let items = self.items(&state.at, max_bytes);
        if !items.is_empty() || !state.flowing {
            return items;
        }
        self.packets(&mut state, max_bytes)
    }
}
