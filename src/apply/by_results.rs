//! An op that was given up, performed by its results as far as that goes: "this name holds nothing",
//! "this name holds this object". What is in the way goes to limbo, with all below it; what cannot be
//! done is left out. The replica is marked bad before, and the next copy compares everything.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::RenameFlags;

use super::create::{NameTaken, NewObject};
use super::fault::{Concern, Fault};
use super::perform::Doubt;
use super::policy;
use super::replica::{Limbo, Replica, Why, c_name, handle_fault};
use crate::clone::guard;
use crate::packet::{Entry, Keeping, ObjectId, Op, Replaced, Timestamp};
use crate::sys::FileHandle;

impl Replica {
    /// Errors: faults of the whole replica; the op is done again then, all of it.
    pub(super) fn perform_by_results(&mut self, op: &Op) -> Result<(), Fault> {
        if policy::permit(op).is_err() {
            return Ok(());
        }
        match op {
            Op::Create { at, dir_mtime, object, birth, attributes, xattrs } => {
                let done = self.free_name(at, Some(*object)).and_then(|dir| {
                    let new = NewObject { object: *object, birth, attributes, xattrs };
                    self.create(&dir, &at.name, new, NameTaken::Adopt).map(drop)
                });
                self.or_left_out(done)?;
                self.time_has_changed(at.dir, *dir_mtime)
            }
            Op::Link { object, at, dir_mtime, links: _ } => {
                let done =
                    self.free_name(at, Some(*object)).and_then(|_| self.link(*object, at, Doubt::MayBeDone));
                self.or_left_out(done)?;
                self.time_has_changed(at.dir, *dir_mtime)
            }
            Op::Unlink { at, dir_mtime, object, links } => {
                let done = self.unlink(at, *object, *links, Doubt::MayBeDone);
                self.or_cleared(at, *object, *links, done)?;
                self.time_has_changed(at.dir, *dir_mtime)
            }
            Op::Keep { at, dir_mtime, object, links, keeping } => {
                self.settle_time_of_kept(*object)?;
                let done = self.keep_removed((at, *dir_mtime), (*object, *links), keeping, Doubt::MayBeDone);
                match keeping {
                    Keeping::InPlace => self.or_left_out(done)?,
                    Keeping::Aside { .. } => self.or_cleared(at, *object, *links, done)?,
                }
                self.time_has_changed(at.dir, *dir_mtime)
            }
            Op::Leave { at, dir_mtime, object } => {
                let done = self.leave(at, *object, Doubt::MayBeDone);
                self.or_cleared(at, *object, 0, done)?;
                self.time_has_changed(at.dir, *dir_mtime)
            }
            Op::RemoveDirectory { at, dir_mtime, object } => {
                let done = self.remove_directory(at, *object, Doubt::MayBeDone);
                self.or_cleared(at, *object, 0, done)?;
                self.time_has_changed(at.dir, *dir_mtime)
            }
            Op::Rename { from, from_mtime, to, to_mtime, object, object_mtime, replaced, whiteout: _ } => {
                self.rename_by_results(from, to, *object, replaced.as_ref())?;
                self.time_has_changed(from.dir, *from_mtime)?;
                self.time_has_changed(to.dir, *to_mtime)?;
                object_mtime.map_or(Ok(()), |mtime| self.time_has_changed(*object, mtime))
            }
            // Names and objects stay as they are: what comes next finds that, name by name.
            Op::Exchange { .. } => Ok(()),
            Op::Write { object, .. } | Op::Resize { object, .. } | Op::Reserve { object, .. } => {
                self.content_is_lost(*object)
            }
            // A copy compares all of it.
            Op::SetAttributes { .. } | Op::SetXattr { .. } | Op::RemoveXattr { .. } => Ok(()),
            Op::Barrier { .. } | Op::Stage { .. } | Op::Unstage { .. } => Ok(()),
            Op::Place { object, at, dir_mtime, replaced } => {
                let done =
                    self.free_name(at, Some(*object)).and_then(|_| self.link(*object, at, Doubt::MayBeDone));
                self.or_left_out(done)?;
                if let Some(Replaced { object, links: 0 }) = replaced {
                    self.forget_gone(*object)?;
                }
                self.time_has_changed(at.dir, *dir_mtime)
            }
        }
    }

    /// A name that was to go: where the object is not what it holds, or cannot be removed, what
    /// holds it goes to limbo.
    fn or_cleared(
        &mut self,
        at: &Entry,
        object: ObjectId,
        links: u32,
        done: Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Err(fault) = done else { return Ok(()) };
        self.or_left_out(Err(fault))?;
        let cleared = self.free_name(at, None).map(drop);
        self.or_left_out(cleared)?;
        if links == 0 { self.forget_gone(object) } else { Ok(()) }
    }

    fn rename_by_results(
        &mut self,
        from: &Entry,
        to: &Entry,
        object: ObjectId,
        replaced: Option<&Replaced>,
    ) -> Result<(), Fault> {
        let moved = self.move_by_results(from, to, object);
        self.or_left_out(moved)?;
        // Under its old name it would be in the way of what comes there.
        let cleared = self.free_name(from, None).map(drop);
        self.or_left_out(cleared)?;
        match replaced {
            Some(Replaced { object, links: 0 }) => self.forget_gone(*object),
            Some(_) | None => Ok(()),
        }
    }

    fn move_by_results(&mut self, from: &Entry, to: &Entry, object: ObjectId) -> Result<(), Fault> {
        let handle = self.known_handle(object);
        let to_dir = self.free_name(to, Some(object))?;
        let handle = handle?;
        if self.name_holds(&to_dir, &to.name)? == Some(handle) {
            return Ok(());
        }
        let from_dir = self.directory(from.dir)?;
        if self.name_holds(&from_dir, &from.name)? != Some(handle) {
            return self.link(object, to, Doubt::MayBeDone);
        }
        let (old, new) = (c_name(&from.name), c_name(&to.name));
        guard::moving((&*from_dir, from.name.as_bytes()), (&*to_dir, to.name.as_bytes()));
        rustix::fs::renameat_with(&*from_dir, old, &*to_dir, new, RenameFlags::NOREPLACE)
            .map_err(Fault::system("rename"))
    }

    /// Whatever a name holds that is not this object goes to limbo. Gives the directory.
    fn free_name(&mut self, at: &Entry, keep: Option<ObjectId>) -> Result<Arc<File>, Fault> {
        let dir = self.directory(at.dir)?;
        let Some(found) = self.name_holds(&dir, &at.name)? else { return Ok(dir) };
        // Where the replica is a mount point, limbo lies in it.
        if found == FileHandle::of(self.limbo().as_fd()).map_err(handle_fault)? {
            return Err(Fault::Refused("the replica's own directory as an object in it"));
        }
        let kept = keep.map(|object| self.handle(object)).transpose()?.flatten();
        if kept != Some(found) {
            self.lift(at.dir)?;
            Limbo::open(self.root(), self.limbo())?.take(&dir, &at.name, Why::InTheWay)?;
        }
        Ok(dir)
    }

    fn time_has_changed(&mut self, object: ObjectId, mtime: Timestamp) -> Result<(), Fault> {
        let noted = self.set_mtime_later(object, mtime);
        self.or_left_out(noted)
    }

    /// A fault of one object ends the attempt, and nothing else.
    fn or_left_out(&self, done: Result<(), Fault>) -> Result<(), Fault> {
        match done {
            Err(fault) => match self.concern(&fault) {
                Concern::Object(_) | Concern::Packet => {
                    log::debug!("left out: {fault}");
                    Ok(())
                }
                Concern::Replica { .. } | Concern::Proof => Err(fault),
            },
            Ok(()) => Ok(()),
        }
    }
}
