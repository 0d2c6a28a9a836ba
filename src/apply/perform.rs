//! Performing one op: its system calls, then what the index and the pending times must know.

use super::create::{NameTaken, NewObject};
use super::fault::Fault;
use super::policy;
use super::replica::Replica;
use crate::packet::{ObjectId, Op, Timestamp};

/// Whether this very op may have been performed before: in full, in part, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It is performed for the first time.
    None,
    /// It was begun before (a crash, or an attempt that failed): what is done is found out by
    /// the identity of what its names hold. Sound for the op after *applied* only.
    MayBeDone,
}

impl Replica {
    /// Performs an op. `payload`: the bytes of a write, the value of an xattr, else empty.
    ///
    /// Errors: every fault leaves the op in doubt: it is performed again with
    /// [`Doubt::MayBeDone`], nothing after it may go before.
    pub fn perform(&mut self, op: &Op, payload: &[u8], doubt: Doubt) -> Result<(), Fault> {
        policy::permit(op)?;
        match op {
            Op::Create { at, dir_mtime, object, birth, attributes, xattrs } => {
                let dir = self.directory(at.dir)?;
                let taken = if doubt == Doubt::None { NameTaken::Fail } else { NameTaken::Adopt };
                self.create(&dir, &at.name, NewObject { object: *object, birth, attributes, xattrs }, taken)?;
                self.note_name(*object, at.dir, &at.name);
                self.set_mtime_later(at.dir, *dir_mtime)
            }
            Op::Link { object, at, dir_mtime, links: _ } => {
                self.link(*object, at, doubt)?;
                self.note_name(*object, at.dir, &at.name);
                self.set_mtime_later(at.dir, *dir_mtime)
            }
            Op::Unlink { at, dir_mtime, object, links } => {
                self.unlink(at, *object, *links, doubt)?;
                self.set_mtime_later(at.dir, *dir_mtime)
            }
            Op::RemoveDirectory { at, dir_mtime, object } => {
                self.remove_directory(at, *object, doubt)?;
                self.set_mtime_later(at.dir, *dir_mtime)
            }
            Op::Rename { from, from_mtime, to, to_mtime, object, object_mtime, replaced, whiteout } => {
                self.rename(from, to, *object, replaced.as_ref(), whiteout.as_ref(), doubt)?;
                self.places_changed();
                self.note_name(*object, to.dir, &to.name);
                self.set_mtime_later(from.dir, *from_mtime)?;
                self.set_mtime_later(to.dir, *to_mtime)?;
                self.moved(*object, *object_mtime)
            }
            Op::Exchange {
                left,
                left_mtime,
                left_object,
                left_object_mtime,
                right,
                right_mtime,
                right_object,
                right_object_mtime,
            } => {
                self.exchange((left, *left_object), (right, *right_object), doubt)?;
                self.places_changed();
                self.note_name(*left_object, right.dir, &right.name);
                self.note_name(*right_object, left.dir, &left.name);
                self.set_mtime_later(left.dir, *left_mtime)?;
                self.set_mtime_later(right.dir, *right_mtime)?;
                self.moved(*left_object, *left_object_mtime)?;
                self.moved(*right_object, *right_object_mtime)
            }
            Op::Write { object, offset, result } => self.write(*object, *offset, payload, result),
            Op::Resize { object, result } => self.resize(*object, result),
            Op::Reserve { object, offset, length, how, result } => {
                self.reserve(*object, *offset, *length, *how, result)
            }
            Op::SetAttributes { object, .. }
            | Op::SetXattr { object, .. }
            | Op::RemoveXattr { object, .. } => {
                self.describe(op, payload).map(|()| self.look_at_names(*object))
            }
            Op::Barrier { .. } => self.settle_times(),
            Op::Keep { at, dir_mtime, object, links, keeping } => {
                self.keep_removed((at, *dir_mtime), (*object, *links), keeping, doubt)?;
                self.set_mtime_later(at.dir, *dir_mtime)
            }
            Op::Stage { .. } | Op::Place { .. } | Op::Leave { .. } | Op::Unstage { .. } => {
                self.perform_at_border(op, doubt)
            }
        }
    }

    /// What comes into the set, or leaves it.
    fn perform_at_border(&mut self, op: &Op, doubt: Doubt) -> Result<(), Fault> {
        match op {
            Op::Stage { object, may_be_known, birth, attributes, xattrs } => {
                self.stage(NewObject { object: *object, birth, attributes, xattrs }, *may_be_known)
            }
            Op::Leave { at, dir_mtime, object } => {
                self.leave(at, *object, doubt)?;
                self.set_mtime_later(at.dir, *dir_mtime)
            }
            Op::Unstage { object } => self.unstage(*object),
            Op::Place { object, at, dir_mtime, replaced } => {
                self.place(*object, at, replaced.as_ref(), doubt)?;
                self.note_name(*object, at.dir, &at.name);
                self.set_mtime_later(at.dir, *dir_mtime)
            }
            _ => Err(Fault::Refused("an op that no border knows")),
        }
    }

    fn describe(&mut self, op: &Op, payload: &[u8]) -> Result<(), Fault> {
        match op {
            Op::SetAttributes { object, mode, owner, mtime } => {
                self.set_attributes(*object, *mode, *owner, *mtime)
            }
            Op::SetXattr { object, name, mode } => self.change_xattr(*object, name, Some(payload), *mode),
            Op::RemoveXattr { object, name, mode } => self.change_xattr(*object, name, None, *mode),
            _ => Err(Fault::Refused("an op that changes no attribute")),
        }
    }

    /// The move may have changed the object's own time, here or on the source.
    fn moved(&mut self, object: ObjectId, mtime: Option<Timestamp>) -> Result<(), Fault> {
        mtime.map_or(Ok(()), |mtime| self.set_mtime_later(object, mtime))
    }
}
