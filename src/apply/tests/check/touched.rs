//! What ops are of.

use crate::packet::{ObjectId, Op};

/// Whom an op changes.
pub fn touched(op: &Op) -> Vec<ObjectId> {
    match op {
        Op::Create { at, object, .. }
        | Op::Link { at, object, .. }
        | Op::Unlink { at, object, .. }
        | Op::RemoveDirectory { at, object, .. }
        | Op::Leave { at, object, .. }
        | Op::Keep { at, object, .. } => vec![at.dir, *object],
        Op::Rename { from, to, object, replaced, .. } => {
            let mut ids = vec![from.dir, to.dir, *object];
            ids.extend(replaced.iter().map(|replaced| replaced.object));
            ids
        }
        Op::Exchange { left, left_object, right, right_object, .. } => {
            vec![left.dir, *left_object, right.dir, *right_object]
        }
        Op::Write { object, .. }
        | Op::Resize { object, .. }
        | Op::Reserve { object, .. }
        | Op::SetAttributes { object, .. }
        | Op::SetXattr { object, .. }
        | Op::RemoveXattr { object, .. }
        | Op::Stage { object, .. }
        | Op::Unstage { object } => vec![*object],
        Op::Place { object, at, .. } => vec![at.dir, *object],
        Op::Barrier { .. } => Vec::new(),
    }
}
