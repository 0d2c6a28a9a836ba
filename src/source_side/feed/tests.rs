//! What goes when.

use super::*;
use crate::limits::{STAMPED_BYTES_MAX, STAMPED_ITEMS_MAX};
use crate::packet::{Epoch, FrameHeader, Incarnation, LeftOut, ObjectId, Op, Prefix};
use crate::packet::{ItemNumber, LaneItem};
use crate::queue::Draft;
use crate::resync::Gone;
use crate::resync::{Entry, StampedSink};
use bytes::Bytes;

fn queue_of(packets: usize, payload: usize) -> (Arc<Queue>, Position) {
    let start = Position::origin(Epoch { number: 1, writer: 7 }, Incarnation(9));
    let queue = Queue::new(32 << 20, start);
    queue.attach(|_| {});
    for _ in 0..packets {
        let mut room = queue.reserve(payload, 64).unwrap();
        let payload = Bytes::from(vec![7; payload]);
        queue.append(&mut room, Draft::new(b"", &Op::Barrier { durable: false, name: None }, payload));
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

/// A queue, and a feed that has begun to send among its packets.
struct Scene {
    queue: Arc<Queue>,
    feed: PacketFeed,
    lane: StampedLane,
}

impl Scene {
    fn new(packets: usize) -> Scene {
        let (queue, start) = queue_of(packets, 10);
        let stream = Stream::new(start, Flow::Send);
        let (feed, lane) = PacketFeed::new(queue.clone(), stream, Arc::default());
        let lane = lane.stamped(Waker::new());
        Scene { queue, feed, lane }
    }

    fn begin(&mut self) {
        assert!(self.lane.begin(&mut vec![Entry::of(LaneItem::Begin)], || true));
    }

    fn append(&self, packets: usize) {
        for _ in 0..packets {
            let mut room = self.queue.reserve(0, 64).unwrap();
            self.queue.append(
                &mut room,
                Draft::new(b"", &Op::Barrier { durable: false, name: None }, Bytes::new()),
            );
        }
    }

    fn push(&mut self, item: LaneItem) {
        let slot = self.lane.reserve().unwrap();
        self.lane.push(slot, &mut vec![Entry::of(item)], || true).unwrap();
    }

    /// What goes: packets by their number, items by name and where they stand.
    fn all(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let frames = self.feed.next_frames(2000);
            if frames.is_empty() {
                return all;
            }
            all.extend(frames.iter().map(|frame| {
                let raw: &[u8; PREFIX_LEN] = frame.head.first_chunk().unwrap();
                let prefix = Prefix::decode(raw).unwrap();
                let frame = prefix.frame(raw, &frame.head[PREFIX_LEN..], frame.payload.clone()).unwrap();
                let at = frame.position.sequence.0;
                match frame.header {
                    FrameHeader::Packet(_) => format!("{at}"),
                    FrameHeader::Skip(_) => panic!("nothing is left out"),
                    FrameHeader::Item(item) => format!("{} at {at}", item.item.name()),
                }
            }));
        }
    }
}

fn content() -> LaneItem {
    LaneItem::Content { object: ObjectId::default(), hole: 0, offset: 0 }
}

#[test]
fn items_go_behind_the_packet_of_their_stamp() {
    let mut scene = Scene::new(3);
    assert!(scene.all().is_empty(), "not before it has begun");
    scene.begin();
    scene.append(1);
    scene.push(LaneItem::NotListed { dir: ObjectId::default() });
    scene.append(2);
    scene.push(LaneItem::End);
    scene.push(LaneItem::LeftOut { left_out: LeftOut::default() });
    scene.append(1);
    let went = ["begin at 3", "4", "no listing at 4", "5", "6", "end at 6", "left out at 6", "7"];
    assert_eq!(scene.all(), went);
    scene.append(1);
    scene.push(LaneItem::End);
    assert_eq!(scene.all(), ["8", "end at 8"]);
}

#[test]
fn content_goes_behind_five_packets_and_at_its_stamp_at_the_latest() {
    let mut scene = Scene::new(0);
    scene.begin();
    scene.append(12);
    (0..4).for_each(|_| scene.push(content()));
    scene.push(LaneItem::End);
    scene.append(1);
    let went = scene.all();
    let places: Vec<usize> = (0..went.len()).filter(|at| went[*at].starts_with("content")).collect();
    assert_eq!(went[places[0]], "content at 5");
    assert_eq!(went[places[1]], "content at 10");
    assert_eq!(went[places[2]], "content at 12");
    assert_eq!(went[places[3]..], ["content at 12", "end at 12", "13"]);
}

/// A copy of small files had a few items a second beside a program that wrote 64 KiB at a time.
#[test]
fn small_content_has_its_share_of_the_bytes_of_large_packets() {
    let mut scene = Scene::new(0);
    scene.begin();
    for _ in 0..4 {
        let mut room = scene.queue.reserve(10_000, 64).unwrap();
        let payload = Bytes::from(vec![7; 10_000]);
        scene.queue.append(&mut room, Draft::new(b"", &Op::Barrier { durable: false, name: None }, payload));
    }
    (0..40).for_each(|_| scene.push(content()));
    scene.push(LaneItem::End);
    let went = scene.all();
    let before = |packet: &str| went[..went.iter().position(|one| one == packet).unwrap()].len() - 1;
    // Two thousand bytes a packet, and each of these counts for 128.
    assert_eq!((before("1"), before("2"), before("3"), before("4")), (0, 16, 33, 43));
}

/// What stands behind an item that is exact does not overtake it.
#[test]
fn early_content_keeps_its_order_in_the_lane() {
    let mut scene = Scene::new(0);
    scene.begin();
    scene.append(20);
    scene.push(LaneItem::End);
    scene.push(content());
    assert_eq!(scene.all()[20..], ["20", "end at 20", "content at 20"]);
}

#[test]
fn what_was_changed_meanwhile_does_not_go() {
    let mut scene = Scene::new(2);
    let mut batch = vec![Entry::of(LaneItem::Begin)];
    assert!(!scene.lane.begin(&mut batch, || false));
    assert!(scene.all().is_empty(), "nothing has begun");
    scene.begin();
    let slot = scene.lane.reserve().unwrap();
    let slot = scene.lane.push(slot, &mut batch, || false).unwrap_err();
    assert_eq!(batch.len(), 1);
    batch.push(Entry::of(LaneItem::End));
    let number = scene.lane.push(slot, &mut batch, || true).unwrap();
    assert_eq!((number, batch.len()), (ItemNumber(3), 0), "the last of the batch, with no gap");
    assert_eq!(scene.all().len(), 3);
}

#[test]
fn a_stream_that_flows_already_goes_on_to_the_beginning() {
    let mut scene = Scene::new(2);
    let start = Position::origin(Epoch { number: 1, writer: 7 }, Incarnation(9));
    scene.feed.stream().start(start, Sequence(0));
    scene.begin();
    assert_eq!(scene.all(), ["1", "2", "begin at 2"]);
}

#[test]
fn the_window_is_bounded_by_items_and_bytes() {
    let mut scene = Scene::new(0);
    scene.begin();
    (1..STAMPED_ITEMS_MAX).for_each(|_| scene.push(content()));
    assert!(!scene.lane.has_room());
    scene.all();
    let mut large = 0;
    while scene.lane.has_room() {
        let slot = scene.lane.reserve().unwrap();
        let entry = Entry { item: content(), payload: Bytes::from(vec![1; 1 << 20]) };
        scene.lane.push(slot, &mut vec![entry], || true).unwrap();
        large += 1;
    }
    assert_eq!(large, STAMPED_BYTES_MAX >> 20);
    assert_eq!(scene.all().len(), large);
    assert!(scene.lane.has_room());
}

#[test]
fn whoever_waits_goes_on_with_room_and_ends_with_the_session() {
    let mut scene = Scene::new(0);
    scene.begin();
    (1..STAMPED_ITEMS_MAX).for_each(|_| scene.push(content()));
    let Scene { mut feed, mut lane, queue: _queue } = scene;
    let waits = std::thread::spawn(move || {
        for _ in 0..STAMPED_ITEMS_MAX {
            let slot = lane.reserve().expect("there will be room");
            lane.push(slot, &mut vec![Entry::of(content())], || true).unwrap();
        }
        lane.reserve().map(drop)
    });
    // All that fits goes at once: the rest of them fit.
    assert_eq!(feed.next_frames(1 << 20).len(), STAMPED_ITEMS_MAX);
    while feed.stream().state.lock().stamped.has_room() {}
    drop(feed);
    assert_eq!(waits.join().unwrap(), Err(Gone));
}
