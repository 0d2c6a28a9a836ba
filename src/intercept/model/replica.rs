//! The other side: an applier in the same process.

use std::path::Path;

use crate::apply::tests::tree;
use crate::apply::{Applier, Outcome, Places, Replica};
use crate::intercept::{NodeId, Volume};
use crate::packet::{Frame, PREFIX_LEN, Position, Prefix, SetId, packet_frame};
use crate::queue::{Packet, Queue};

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
        Copy { places, applier: Applier::new(replica), start }
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

    pub fn assert_same(&self, backing: &Path) {
        tree::assert_same(backing, &self.places.root);
    }
}

/// As it comes out of a link.
fn framed(packet: &Packet) -> Frame {
    let frame = packet_frame(&packet.position, &packet.header, packet.payload.clone());
    let prefix: &[u8; PREFIX_LEN] = frame.head.first_chunk().unwrap();
    Prefix::decode(prefix).unwrap().frame(prefix, &frame.head[PREFIX_LEN..], frame.payload).unwrap()
}
