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

use parking_lot::{Condvar, Mutex};

use crate::connection::Flow;
use crate::limits::{HEADER_LEN_MAX, PAYLOAD_LEN_MAX};
use crate::link::{Feed, Waker};
use crate::packet::{EncodedFrame, PREFIX_LEN, Position, Sequence, item_frame, packet_frame};
use crate::queue::{Packet, Queue, Reader};
use crate::source_side::delete_guard::DeleteGuard;
#[cfg(test)]
pub(crate) use stamped::Planted;
pub use stamped::StampedLane;
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
    packets: Reader,
    stream: Arc<Stream>,
    sent: Arc<Sent>,
}

/// How far a session has sent, and what is to go among its packets.
pub struct Stream {
    /// Taken after the locks of what was looked at, before the queue's.
    state: Mutex<StreamState>,
    /// The link has taken stamped items, or is over.
    taken: Condvar,
    guard: Arc<DeleteGuard>,
}

struct StreamState {
    /// The last position that was sent, or that the stream starts after.
    at: Position,
    /// Packets go out.
    started: bool,
    /// Where a copy among the packets began.
    began: Option<Position>,
    /// Nothing goes out on hold, items neither.
    flow: Flow,
    /// Earlier sessions had sent everything up to here.
    again_upto: Sequence,
    stamped: StampedItems,
    /// No packet behind this one goes.
    wall: Option<Sequence>,
    /// Nobody will ask for frames any more.
    is_over: bool,
}

impl Stream {
    /// A stream that has not started, after this position. What `guard` asks about does not go.
    pub fn guarded(at: Position, flow: Flow, guard: Arc<DeleteGuard>) -> Arc<Stream> {
        let again_upto = Sequence(0);
        let (stamped, is_over) = (StampedItems::default(), false);
        let (started, began, wall) = (false, None, None);
        let state = StreamState { at, started, began, flow, again_upto, stamped, wall, is_over };
        Arc::new(Stream { state: Mutex::new(state), taken: Condvar::new(), guard })
    }

    #[cfg(test)]
    pub fn new(at: Position, flow: Flow) -> Arc<Stream> {
        Stream::guarded(at, flow, Arc::new(DeleteGuard::new(crate::words::DeleteLimit::Off, None, None)))
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

    /// No packet behind this one goes; `None`: all do.
    pub fn stop_behind(&self, wall: Option<Sequence>) {
        self.state.lock().wall = wall;
    }

    /// When it returns with [`Flow::Hold`], the link has been given the last frame.
    pub fn set_flow(&self, flow: Flow) {
        self.state.lock().flow = flow;
    }

    /// Packets go out, or may.
    pub fn is_started(&self) -> bool {
        self.state.lock().started
    }

    /// Where the copy of this session began, if it has.
    pub fn began(&self) -> Option<Position> {
        self.state.lock().began
    }

    /// Where it stands.
    pub fn at(&self) -> Position {
        self.state.lock().at
    }
}

/// The lane into one session.
#[derive(Clone)]
pub struct Lane {
    stream: Arc<Stream>,
    queue: Arc<Queue>,
}

impl Lane {
    /// For the one copy of the session.
    pub fn stamped(&self, waker: Waker) -> StampedLane {
        StampedLane::new(self.stream.clone(), self.queue.clone(), waker)
    }
}

impl PacketFeed {
    /// A feed for one session, and the lane into it.
    pub fn new(queue: Arc<Queue>, stream: Arc<Stream>, sent: Arc<Sent>) -> (PacketFeed, Lane) {
        let lane = Lane { stream: stream.clone(), queue: queue.clone() };
        (PacketFeed { packets: Reader::of(&queue), stream, sent }, lane)
    }

    #[cfg(test)]
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Packets, and among them what is stamped.
    fn merged(&self, state: &mut StreamState, max_bytes: usize) -> Vec<EncodedFrame> {
        let mut packets = self.packets.next(state.at.sequence, max_bytes);
        if let Some(wall) = state.wall {
            packets.truncate(packets.partition_point(|packet| packet.position.sequence <= wall));
        }
        let mut packets = packets.into_iter();
        let mut frames = Vec::with_capacity(packets.len());
        let mut counts = Counts::default();
        while counts.all_bytes() < max_bytes as u64 {
            let packet_waits =
                packets.as_slice().first().is_some_and(|next| self.stream.guard.lets_pass(next));
            let frame = match state.stamped.turn(state.at.sequence, packet_waits) {
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
        let frame = packet_frame(&packet.position, &packet.header, packet.payload);
        self.stamped.packet_went(frame.len());
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
        if state.flow == Flow::Hold || !state.started {
            return Vec::new();
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
