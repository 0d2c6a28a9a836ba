//! What makes room on a full target: files whose last name a packet removes, or that one cuts down
//! to nothing, while the packets before it wait for room. When it is looked for, the driver decides
//! (`connection::driver`); a target empties them ([`crate::apply::Relief`]).
//! Nothing is found behind a deletion that a person is to be asked about ([`DeleteGuard`]).

use std::collections::HashSet;

use crate::limits::{FEED_BATCH, RELIEF_FOUND_MAX};
use crate::packet::{ObjectId, Op, PacketHeader, Replaced, Sequence, decode_packet_header};
use crate::queue::Reader;
use crate::source_side::delete_guard::DeleteGuard;

#[cfg(test)]
mod tests;

/// Objects that packets from this one on let go, the first ones first, and the packet up to which was
/// looked: no farther than what is in memory, or was read from disk meanwhile. The first packet has to be one that a
/// cursor of the caller's still holds, and no packet before it one that the guard has not counted.
pub(crate) fn look(queue: &Reader, from: Sequence, guard: &DeleteGuard) -> (Vec<ObjectId>, Sequence) {
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    let mut after = Sequence(from.0.saturating_sub(1));
    while found.len() < RELIEF_FOUND_MAX {
        let packets = queue.next(after, FEED_BATCH);
        if packets.is_empty() {
            break;
        }
        for packet in &packets {
            if !guard.lets_pass(packet) {
                return (found, after);
            }
            after = packet.position.sequence;
            let Ok(PacketHeader { op, .. }) = decode_packet_header(&packet.header) else { continue };
            if let Some(object) = let_go(&op)
                && seen.insert(object)
            {
                found.push(object);
            }
        }
    }
    (found, after)
}

/// The object whose content nobody asks for after this op.
fn let_go(op: &Op) -> Option<ObjectId> {
    match op {
        Op::Unlink { object, links: 0, .. } => Some(*object),
        Op::Rename { replaced: Some(Replaced { object, links: 0 }), .. }
        | Op::Place { replaced: Some(Replaced { object, links: 0 }), .. } => Some(*object),
        Op::Resize { object, result } if result.size == 0 => Some(*object),
        Op::Unlink { .. } | Op::Rename { .. } | Op::Resize { .. } => None,
        Op::Create { .. }
        | Op::Link { .. }
        | Op::RemoveDirectory { .. }
        | Op::Exchange { .. }
        | Op::Write { .. }
        | Op::Reserve { .. }
        | Op::SetAttributes { .. }
        | Op::SetXattr { .. }
        | Op::RemoveXattr { .. }
        | Op::Barrier { .. }
        | Op::Stage { .. }
        | Op::Place { .. }
        | Op::Leave { .. }
        | Op::Unstage { .. }
        | Op::Keep { .. } => None,
    }
}
