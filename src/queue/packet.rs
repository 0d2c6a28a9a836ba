//! A packet, and what one is made of before it has its position.

use std::time::Instant;

use bytes::Bytes;

use super::behind::Volume;
use crate::limits::QUEUE_PACKET_COST;
use crate::packet::{Birth, HeaderDigest, Keeping, Op, Position, ToWhom, encode_packet_header_to};
use crate::pool::Pool;

/// A packet in the queue. Cheap to clone: header and payload are shared.
#[derive(Clone, Debug)]
pub struct Packet {
    pub position: Position,
    /// Encoded [`crate::packet::PacketHeader`].
    pub header: Bytes,
    pub payload: Bytes,
    pub queued_at: Instant,
    /// It gives a name to what is no directory, or takes one from it.
    pub changes_names: bool,
    /// All packets before it, since the queue began.
    pub(super) before: Volume,
}

/// An op that is ready to be given a position: encoded outside every lock of the queue.
pub struct Draft {
    pub(super) header: Vec<u8>,
    pub(super) digest: HeaderDigest,
    pub(super) payload: Bytes,
    pub(super) haste: Haste,
    pub(super) changes: bool,
    pub(super) changes_names: bool,
}

/// How soon an op wants to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// With what comes right after it.
    Together,
    /// Somebody waits for it.
    Now,
}

impl Draft {
    /// `path` is relative to the root of the set, as of the op's place in the order.
    pub fn new(path: &[u8], op: &Op, payload: Bytes) -> Draft {
        Draft::to(path, op, payload, ToWhom::AllOf)
    }

    /// As [`Draft::new`].
    pub fn to(path: &[u8], op: &Op, payload: Bytes, to_whom: ToWhom) -> Draft {
        let header = encode_packet_header_to(path, op, to_whom);
        let digest = HeaderDigest::of(&header, payload.len());
        let changes = !matches!(op, Op::Barrier { .. });
        let haste = if changes { Haste::Together } else { Haste::Now };
        let changes_names = changes_names(op);
        Draft { header, digest, payload, haste, changes, changes_names }
    }

    pub(super) fn cost(&self) -> usize {
        held_by(self.header.len(), self.payload.len())
    }
}

/// The list grows by doubling; header and payload have an owner and a block of the allocator each.
const _: () = assert!(QUEUE_PACKET_COST >= 2 * size_of::<Packet>() + 2 * 48);

/// Bytes of memory that an op takes.
pub(super) fn held_by(header: usize, payload: usize) -> usize {
    QUEUE_PACKET_COST + header + Pool::held_for(payload)
}

/// It gives a name to what is no directory, or takes one from it.
pub(super) fn changes_names(op: &Op) -> bool {
    match op {
        Op::Create { birth, .. } => *birth != Birth::Directory,
        Op::Rename { replaced, whiteout, .. } => replaced.is_some() || whiteout.is_some(),
        Op::Link { .. } | Op::Unlink { .. } | Op::Place { .. } => true,
        Op::Keep { keeping, .. } => *keeping != Keeping::InPlace,
        _ => false,
    }
}
