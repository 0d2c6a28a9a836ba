//! The other side: an applier in the same process.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};

use crate::apply::tests::tree;
use crate::apply::{Applier, Outcome, Places, Replica};
use crate::intercept::{NodeId, Volume};
use crate::packet::{
    DataState, Frame, ItemNumber, PREFIX_LEN, Position, Prefix, SetId, TargetMessage, packet_frame,
};
use crate::queue::{Packet, Queue};
use crate::resync::{Answer, Entry, Gone, LiveCopy, Looks, Slot, StampedSink, Wanted};

/// A replica that follows a queue.
pub struct Copy {
    places: Places,
    applier: Applier,
    start: Position,
}

impl Copy {
    pub fn new(place: &Path, volume: &Volume, start: Position) -> Copy {
        let places = Places::beside(&place.join("replica"), &place.join("state"));
        std::fs::create_dir(&places.root).unwrap();
        let mut replica = Replica::open(&places, SetId(7)).unwrap();
        replica.bind_root(volume.node(NodeId::ROOT).unwrap().object).unwrap();
        replica.adopt(start).unwrap();
        replica.mark_good().unwrap();
        // What has to be set aside is, at once.
        let applier = Applier::new(replica).with_patience(Duration::ZERO);
        Copy { places, applier, start }
    }

    /// Performs everything that is in the queue.
    pub fn follow(&mut self, queue: &Queue) {
        for packet in queue.next(self.start.sequence, usize::MAX) {
            let frame = framed(&packet);
            match self.applier.handle(&frame) {
                Outcome::Applied => {}
                other => panic!("{:?}: {other:?}", frame.header),
            }
        }
        self.applier.set_pending_times().unwrap();
    }

    /// Objects that are set aside.
    pub fn aside(&self) -> Vec<String> {
        let listed = self.applier.aside().listed;
        listed.iter().map(|aside| format!("{} ({}): {}", aside.path, aside.op, aside.reason)).collect()
    }

    /// As [`Copy::follow`]; gives what was not performed as it was told.
    pub fn follow_with_faults(&mut self, queue: &Queue) -> Vec<String> {
        let mut aside = Vec::new();
        for packet in queue.next(self.start.sequence, usize::MAX) {
            let frame = framed(&packet);
            match self.applier.handle(&frame) {
                Outcome::Applied => {}
                Outcome::SetAside => aside.push(format!("{:?}", frame.header)),
                other => panic!("{:?}: {other:?}", frame.header),
            }
        }
        self.applier.set_pending_times().unwrap();
        aside
    }

    /// A copy of a tree that nobody changes, as of a position.
    pub fn converge(&mut self, backing: &Path, looks: Arc<dyn Looks>, position: Position) {
        let (sender, items) = unbounded();
        let (answers, heard) = unbounded();
        let root = File::open(backing).unwrap().into();
        let since = None;
        let copy = LiveCopy::new(root, looks, 1, since, Lane(sender, 0), heard, Arc::default()).unwrap();
        let source = std::thread::spawn(move || copy.run());
        for (number, Entry { item, payload }) in items {
            for said in self.applier.take_item(position, number, item, payload).unwrap() {
                let answer = match said {
                    TargetMessage::Wanted { listing, objects } => Answer::Wanted(Wanted { listing, objects }),
                    TargetMessage::Doubt { directories } => Answer::Doubt(directories),
                    TargetMessage::Resynchronised { end, .. } => Answer::Complete(end),
                    other => panic!("{other:?}"),
                };
                answers.send(answer).unwrap();
            }
            while let Some(TargetMessage::Doubt { directories }) = self.applier.take_doubts() {
                answers.send(Answer::Doubt(directories)).unwrap();
            }
        }
        source.join().unwrap().unwrap();
        self.applier.set_pending_times().unwrap();
        assert_eq!(self.applier.data().state, DataState::Good);
    }

    pub fn root(&self) -> &Path {
        &self.places.root
    }

    pub fn assert_same(&self, backing: &Path) {
        tree::assert_same(backing, &self.places.root);
    }
}

/// A lane without packets.
struct Lane(Sender<(ItemNumber, Entry)>, u64);

impl StampedSink for Lane {
    fn reserve(&mut self) -> Result<Slot, Gone> {
        Ok(Slot::granted())
    }

    fn push(
        &mut self,
        _: Slot,
        batch: &mut Vec<Entry>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot> {
        assert!(check());
        for entry in batch.drain(..) {
            self.1 += 1;
            self.0.send((ItemNumber(self.1), entry)).unwrap();
        }
        Ok(ItemNumber(self.1))
    }

    fn begin(&mut self, batch: &mut Vec<Entry>, check: impl FnOnce() -> bool) -> bool {
        self.push(Slot::granted(), batch, check).is_ok()
    }
}

/// As it comes out of a link.
fn framed(packet: &Packet) -> Frame {
    let frame = packet_frame(&packet.position, &packet.header, packet.payload.clone());
    let prefix: &[u8; PREFIX_LEN] = frame.head.first_chunk().unwrap();
    Prefix::decode(prefix).unwrap().frame(prefix, &frame.head[PREFIX_LEN..], frame.payload).unwrap()
}
