//! What a connection sends next: lane items while a resynchronisation runs, packets once the
//! stream has started.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::connection::Flow;
use crate::limits::{HEADER_LEN_MAX, LANE_WINDOW, PAYLOAD_LEN_MAX};
use crate::link::{Feed, Waker};
use crate::packet::{
    EncodedFrame, ItemHeader, ItemNumber, LaneItem, PREFIX_LEN, Position, Sequence, item_frame, packet_frame,
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

/// How far a session has sent.
pub struct Stream(Mutex<StreamState>);

struct StreamState {
    /// The last position that was sent, or that the stream starts after.
    at: Position,
    /// Packets go out.
    started: bool,
    /// Nothing goes out on hold, items neither.
    flow: Flow,
    /// Earlier sessions had sent everything up to here.
    again_upto: Sequence,
}

impl Stream {
    /// A stream that has not started, after this position.
    pub fn new(at: Position, flow: Flow) -> Arc<Stream> {
        let again_upto = Sequence(0);
        Arc::new(Stream(Mutex::new(StreamState { at, started: false, flow, again_upto })))
    }

    /// Lets packets go, from the one after `after`; what comes up to `again_upto` was sent before.
    pub fn start(&self, after: Position, again_upto: Sequence) {
        let mut state = self.0.lock();
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
        self.0.lock().flow = flow;
    }

    /// Where it stands.
    pub fn at(&self) -> Position {
        self.0.lock().at
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

    fn packets(&self, state: &mut StreamState, max_bytes: usize) -> Vec<EncodedFrame> {
        let packets = self.queue.next(state.at.sequence, max_bytes);
        let mut frames = Vec::with_capacity(packets.len());
        let (mut bytes, mut again) = (0, (0, 0));
        for packet in packets {
            assert!(packet.position.follows(&state.at), "no packet is left out or comes twice");
            state.at = packet.position;
            let frame = packet_frame(&packet.position, &packet.header, packet.payload);
            assert_taken(&frame);
            bytes += frame.len();
            if packet.position.sequence <= state.again_upto {
                again = (again.0 + 1, again.1 + frame.len() as u64);
            }
            frames.push(frame);
        }
        assert!(again.0 <= frames.len() as u64, "more was sent again than was sent");
        self.sent.packets_again.fetch_add(again.0, Relaxed);
        self.sent.bytes_again.fetch_add(again.1, Relaxed);
        self.sent.packets.fetch_add(frames.len() as u64, Relaxed);
        self.sent.bytes.fetch_add(bytes as u64, Relaxed);
        frames
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
        let mut state = self.stream.0.lock();
        if state.flow == Flow::Hold {
            return Vec::new();
        }
        let items = self.items(&state.at, max_bytes);
        if !items.is_empty() || !state.started {
            return items;
        }
        self.packets(&mut state, max_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Epoch, Incarnation, Op};
    use crate::queue::Draft;

    fn queue_of(packets: usize, payload: usize) -> (Arc<Queue>, Position) {
        let start = Position::origin(Epoch { number: 1, writer: 7 }, Incarnation(9));
        let queue = Queue::new(32 << 20, start);
        queue.attach(|_| {});
        for _ in 0..packets {
            let mut room = queue.reserve(payload, 64).unwrap();
            let payload = Bytes::from(vec![7; payload]);
            queue.append(&mut room, Draft::new(b"", &Op::Barrier { durable: false }, payload));
        }
        (queue, start)
    }

    fn counts(sent: &Sent) -> (u64, u64) {
        (sent.packets_again.load(Relaxed), sent.bytes_again.load(Relaxed))
    }

    /// Bytes that were sent again once counted as none.
    #[test]
    fn what_an_earlier_session_sent_counts_as_sent_again() {
        let (queue, start) = queue_of(10, 1000);
        let sent = Arc::new(Sent::default());
        let first = Stream::new(start, Flow::Send);
        let (mut feed, _lane) = PacketFeed::new(queue.clone(), first.clone(), sent.clone());
        assert!(feed.next_frames(1 << 20).is_empty(), "not before it was started");
        first.start(start, Sequence(0));
        // Two frames of some 1,000 bytes each.
        assert_eq!(feed.next_frames(2000).len(), 2);
        assert_eq!(feed.next_frames(2000).len(), 2);
        assert_eq!((first.at().sequence, counts(&sent)), (Sequence(4), (0, 0)));
        // The target has the first one.
        let applied = queue.next(Sequence(0), 1)[0].position;
        let second = Stream::new(start, Flow::Send);
        let (mut feed, _lane) = PacketFeed::new(queue, second.clone(), sent.clone());
        second.start(applied, first.at().sequence);
        let frames = feed.next_frames(1 << 20);
        let bytes = frames[..3].iter().map(|frame| frame.len() as u64).sum();
        assert_eq!((frames.len(), counts(&sent)), (9, (3, bytes)));
    }

    #[test]
    fn nothing_goes_on_hold() {
        let (queue, start) = queue_of(3, 10);
        let stream = Stream::new(start, Flow::Send);
        let (mut feed, _lane) = PacketFeed::new(queue, stream.clone(), Arc::default());
        stream.start(start, Sequence(0));
        stream.set_flow(Flow::Hold);
        assert!(feed.next_frames(1 << 20).is_empty());
        stream.set_flow(Flow::Send);
        assert_eq!(feed.next_frames(1 << 20).len(), 3);
    }
}
