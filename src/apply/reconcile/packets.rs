//! Packets on a replica that is not good yet: what they have come to is made true, whatever is here.
//!
//! "This name holds nothing" and "this name holds this object" are true of the source as of the packet.
//! What a listing has not shown yet cannot be trusted to be what its id says: it gets its name all the
//! same, and the directory is listed again, which looks at it. Content goes only into what was seen: a
//! file of before must not get the size and time under which it would be taken for equal.

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;

use super::Session;
use super::entry::{find_handle, is_born_as};
use super::places::is_apart;
use super::planted::{self, Planted};
use crate::apply::create::{NameTaken, NewObject};
use crate::apply::fault::{Concern, Fault};
use crate::apply::policy;
use crate::apply::replica::{Replica, c_name};
use crate::clone::guard;
use crate::packet::{Attributes, Birth, Entry, ObjectId, Op, Replaced, Timestamp, Whiteout};
use crate::sys::FileHandle;

impl Session {
    /// Errors: faults of the whole replica, and times that cannot be set; all of it is done again then.
    pub(super) fn converge(&mut self, replica: &mut Replica, op: &Op, payload: &[u8]) -> Result<(), Fault> {
        if let Err(fault) = policy::permit(op) {
            self.leave(op.name(), &fault);
            return Ok(());
        }
        if !matches!(op, Op::Write { .. } | Op::Resize { .. } | Op::Reserve { .. }) {
            replica.lift_for(op)?;
        }
        let removed = self.removed_by(replica, op)?;
        self.make_true(replica, op, payload)?;
        self.note_removed(removed)
    }

    fn make_true(&mut self, replica: &mut Replica, op: &Op, payload: &[u8]) -> Result<(), Fault> {
        let gone = gone_by(op);
        match op {
            Op::Create { at, dir_mtime, object, birth, attributes, xattrs } => {
                let new = NewObject { object: *object, birth, attributes, xattrs };
                let done = self.create(replica, at, new);
                self.or_doubt(replica, &[at], gone, done)?;
                self.set_time(replica, at.dir, *dir_mtime)
            }
            Op::Link { object, at, dir_mtime, links: _ } => {
                let done = self.set_name(replica, at, *object);
                self.or_doubt(replica, &[at], gone, done)?;
                self.set_time(replica, at.dir, *dir_mtime)
            }
            Op::Unlink { at, dir_mtime, object, links } => {
                let done = self.take_name(replica, at, *object, *links);
                self.or_doubt(replica, &[at], gone, done)?;
                self.set_time(replica, at.dir, *dir_mtime)
            }
            Op::RemoveDirectory { at, dir_mtime, object } => {
                let done = self.take_name(replica, at, *object, 0);
                self.or_doubt(replica, &[at], gone, done)?;
                self.set_time(replica, at.dir, *dir_mtime)
            }
            Op::Keep { at, dir_mtime, object, links, keeping } => {
                let done = self.keep_name(replica, (at, *dir_mtime), (*object, *links), keeping);
                self.or_doubt(replica, &[at], gone, done)?;
                self.set_time(replica, at.dir, *dir_mtime)
            }
            Op::Leave { at, dir_mtime, object } => {
                let done = self.take_directory_out(replica, at, *object);
                self.or_doubt(replica, &[at], gone, done)?;
                self.set_time(replica, at.dir, *dir_mtime)
            }
            Op::Rename { from, from_mtime, to, to_mtime, object, object_mtime, replaced, whiteout } => {
                let done = self.rename(replica, from, to, *object, replaced.as_ref());
                self.or_doubt(replica, &[from, to], gone, done)?;
                if let Some(whiteout) = whiteout {
                    let done = self.make_whiteout(replica, from, whiteout);
                    self.or_doubt(replica, &[from], None, done)?;
                }
                self.set_time(replica, from.dir, *from_mtime)?;
                self.set_time(replica, to.dir, *to_mtime)?;
                object_mtime.map_or(Ok(()), |mtime| self.set_time(replica, *object, mtime))
            }
            Op::Exchange { .. } => self.exchange(replica, op),
            Op::Write { .. } | Op::Resize { .. } | Op::Reserve { .. } => self.content(replica, op, payload),
            Op::SetAttributes { .. } | Op::SetXattr { .. } | Op::RemoveXattr { .. } => {
                self.attributes(replica, op, payload)
            }
            // It is the source as of no moment.
            Op::Barrier { .. } => Ok(()),
            Op::Stage { object, may_be_known, birth, .. } => {
                self.stage(replica, *object, (*may_be_known, birth))
            }
            Op::Unstage { object } => {
                self.outside.stays_out(*object);
                Ok(())
            }
            Op::Place { object, at, dir_mtime, replaced } => {
                self.comes_in(replica, *object)?;
                let done = self.place_name(replica, at, *object, replaced.as_ref());
                self.or_doubt(replica, &[at], gone, done)?;
                self.set_time(replica, at.dir, *dir_mtime)
            }
        }
    }

    /// A fault that hits names of these directories alone: they are listed again. `gone`: what the source has no
    /// link to any more is known no more all the same, as no listing will say it.
    fn or_doubt(
        &mut self,
        replica: &mut Replica,
        at: &[&Entry],
        gone: Option<ObjectId>,
        done: Result<(), Fault>,
    ) -> Result<(), Fault> {
        let Err(fault) = done else { return Ok(()) };
        if !is_of_one(replica, &fault) {
            return Err(fault);
        }
        log::debug!("a name is looked at again: {fault}");
        let forgotten = match gone.filter(|object| *object != self.root) {
            Some(object) => self.gone(replica, object),
            None => Ok(()),
        };
        match forgotten {
            // It cannot be looked at: that holds up nothing behind it.
            Err(fault) if is_of_one(replica, &fault) => log::debug!("what is gone stays known: {fault}"),
            forgotten => forgotten?,
        }
        at.iter().try_for_each(|at| self.doubt(at.dir))
    }

    /// The directory that a name is in; none where it is not here, or stands for another one by now: a
    /// listing will show it.
    pub(super) fn directory_of(
        &mut self,
        replica: &mut Replica,
        at: &Entry,
    ) -> Result<Option<Arc<File>>, Fault> {
        if at.dir != self.root && self.living(replica, at.dir)?.is_none() {
            return Ok(None);
        }
        match replica.directory(at.dir) {
            Ok(dir) => Ok(Some(dir)),
            Err(fault @ Fault::MissingObject(_)) => {
                self.misses(at.dir, &fault);
                Ok(None)
            }
            Err(fault) => Err(fault),
        }
    }

    /// A name holds a new object.
    fn create(&mut self, replica: &mut Replica, at: &Entry, new: NewObject<'_>) -> Result<(), Fault> {
        let Some(dir) = self.directory_of(replica, at)? else { return Ok(()) };
        if new.object == self.root {
            return Err(Fault::Refused("the root directory inside itself"));
        }
        // A listing may have shown it before.
        if self.is_seen_as(replica, new.object, new.birth)?
            && self.give_name(replica, &dir, at, new.object)?
        {
            return self.told_by_packet(at);
        }
        let begun = self.begun_before(replica, &dir, at, new.object)?;
        self.make_way(replica, &dir, &at.name, begun)?;
        self.forget_all_of(replica, new.object)?;
        let taken = if begun.is_some() { NameTaken::Adopt } else { NameTaken::Fail };
        match replica.create(&dir, &at.name, new, taken) {
            // It may lack an attribute, or not be here at all.
            Err(fault) if fault.keeps_out_one() => self.leave_name(replica, &dir, &at.name, &fault),
            done => drop(done?),
        }
        let Some(handle) = replica.handle(new.object)? else { return Ok(()) };
        if !self.claims.claim(&handle, new.object)? {
            return Err(Fault::Refused("a new object that is another one already"));
        }
        if *new.birth == Birth::Directory {
            self.directories.is_new(new.object)?;
        }
        self.told_by_packet(at)
    }

    fn is_seen_as(&self, replica: &Replica, object: ObjectId, birth: &Birth) -> Result<bool, Fault> {
        let Some(handle) = replica.handle(object)? else { return Ok(false) };
        // What is vouched for, and is made only now, this very packet has made in part.
        if self.claims.claimant(&handle).map_err(Fault::system("claims"))? != Some(object) {
            return Ok(false);
        }
        match find_handle(replica, &handle)? {
            Some(found) => is_born_as(&found, replica.policy().birth(birth)),
            None => Ok(false),
        }
    }

    /// What a creation has left that was cut off, in a copy that takes it for complete.
    fn begun_before(
        &self,
        replica: &Replica,
        dir: &File,
        at: &Entry,
        object: ObjectId,
    ) -> Result<Option<FileHandle>, Fault> {
        let Some(handle) = replica.handle(object)?.filter(|_| self.vouching.is_some()) else {
            return Ok(None);
        };
        let is_free = self.claims.claimant(&handle).map_err(Fault::system("claims"))?.is_none();
        Ok((is_free && replica.name_holds(dir, &at.name)? == Some(handle)).then_some(handle))
    }

    fn make_whiteout(&mut self, replica: &mut Replica, at: &Entry, whiteout: &Whiteout) -> Result<(), Fault> {
        let Whiteout { object, attributes } = whiteout;
        let (birth, attributes): (_, &Attributes) = (Birth::CharDevice { major: 0, minor: 0 }, attributes);
        self.create(replica, at, NewObject { object: *object, birth: &birth, attributes, xattrs: &[] })
    }

    /// A name holds an object that the packet does not bring with it.
    fn set_name(&mut self, replica: &mut Replica, at: &Entry, object: ObjectId) -> Result<(), Fault> {
        let Some(dir) = self.directory_of(replica, at)? else { return Ok(()) };
        let was_seen = self.is_seen(replica, object)?
            && !self.is_unfinished(object)?
            && !self.outside.awaits_listing(object)
            && !self.passes_the_walk(replica, at.dir, object)?;
        let is_here = self.give_name(replica, &dir, at, object)?;
        if is_here {
            self.told_by_packet(at)?;
        }
        if was_seen && is_here { Ok(()) } else { self.doubt(at.dir) }
    }

    /// Gives an object this name; `false` where it is not here: then the name holds nothing.
    fn give_name(
        &mut self,
        replica: &mut Replica,
        dir: &File,
        at: &Entry,
        object: ObjectId,
    ) -> Result<bool, Fault> {
        let living = self.living(replica, object)?;
        self.make_way(replica, dir, &at.name, living)?;
        let Some(handle) = living else { return Ok(false) };
        self.stayed.is_elsewhere(&handle)?;
        if replica.name_holds(dir, &at.name)? == Some(handle) {
            return Ok(true);
        }
        let Some(found) = self.find_inside(replica, object, &handle)? else { return Ok(false) };
        let is_here = match self.bring_here(replica, (at.dir, dir), &at.name, object, &found) {
            // The listing of the directory decides.
            Err(fault) if is_apart(&fault) => false,
            brought => brought?,
        };
        if is_here {
            replica.leave_nameless(object)?;
            replica.note_name(object, at.dir, &at.name);
        }
        Ok(is_here)
    }

    /// A name holds nothing any more. What loses its last name here waits in limbo, unless the source
    /// counts no link to it either.
    pub(super) fn take_name(
        &mut self,
        replica: &mut Replica,
        at: &Entry,
        object: ObjectId,
        links: u32,
    ) -> Result<(), Fault> {
        if let Some(dir) = self.directory_of(replica, at)? {
            self.clear(replica, &dir, at, (links == 0).then_some(object))?;
        }
        if links == 0 { self.gone(replica, object) } else { Ok(()) }
    }

    /// `gone`: it can be removed for good, if this is what the name holds.
    pub(super) fn clear(
        &mut self,
        replica: &mut Replica,
        dir: &File,
        at: &Entry,
        gone: Option<ObjectId>,
    ) -> Result<(), Fault> {
        self.untold(at)?;
        let living = gone.map(|object| self.living(replica, object)).transpose()?.flatten();
        if let Some(handle) = living
            && replica.name_holds(dir, &at.name)? == Some(handle)
        {
            let found = find_handle(replica, &handle)?;
            let flags = match found.is_some_and(|found| super::places::is_directory(&found)) {
                true => AtFlags::REMOVEDIR,
                false => AtFlags::empty(),
            };
            // What is below it may still be wanted.
            guard::going(dir, at.name.as_bytes());
            if rustix::fs::unlinkat(dir, at.name.as_bytes(), flags).is_ok() {
                replica.places_changed();
                return Ok(());
            }
        }
        self.make_way(replica, dir, &at.name, None)
    }

    fn rename(
        &mut self,
        replica: &mut Replica,
        from: &Entry,
        to: &Entry,
        object: ObjectId,
        replaced: Option<&Replaced>,
    ) -> Result<(), Fault> {
        let living = self.living(replica, object)?;
        let gone = replaced.filter(|replaced| replaced.links == 0).map(|replaced| replaced.object);
        let to_dir = self.directory_of(replica, to)?;
        if let Some(dir) = &to_dir
            && (living.is_none() || replica.name_holds(dir, &to.name)? != living)
        {
            self.clear(replica, dir, to, gone)?;
        }
        if let Some(gone) = gone {
            self.gone(replica, gone)?;
        }
        if let Some(from_dir) = self.directory_of(replica, from)? {
            let is_moved = match (&to_dir, living) {
                (Some(to_dir), Some(handle)) => move_name(replica, (&from_dir, from), (to_dir, to), handle)?,
                _ => false,
            };
            self.untold(from)?;
            if !is_moved {
                self.make_way(replica, &from_dir, &from.name, None)?;
            }
        }
        self.set_name(replica, to, object)
    }

    /// A name holds an object that had none in the set, and nothing else any more.
    fn place_name(
        &mut self,
        replica: &mut Replica,
        at: &Entry,
        object: ObjectId,
        replaced: Option<&Replaced>,
    ) -> Result<(), Fault> {
        let living = self.living(replica, object)?;
        let gone = replaced.filter(|replaced| replaced.links == 0).map(|replaced| replaced.object);
        if let Some(dir) = self.directory_of(replica, at)?
            && (living.is_none() || replica.name_holds(&dir, &at.name)? != living)
        {
            self.clear(replica, &dir, at, gone)?;
        }
        if let Some(gone) = gone {
            self.gone(replica, gone)?;
        }
        self.set_name(replica, at, object)
    }

    fn exchange(&mut self, replica: &mut Replica, op: &Op) -> Result<(), Fault> {
        let Op::Exchange {
            left,
            left_mtime,
            left_object,
            left_object_mtime,
            right,
            right_mtime,
            right_object,
            right_object_mtime,
        } = op
        else {
            return Ok(());
        };
        let done = self.exchange_names(replica, (left, *left_object), (right, *right_object));
        self.or_doubt(replica, &[left, right], None, done)?;
        self.set_time(replica, left.dir, *left_mtime)?;
        self.set_time(replica, right.dir, *right_mtime)?;
        left_object_mtime.map_or(Ok(()), |mtime| self.set_time(replica, *left_object, mtime))?;
        right_object_mtime.map_or(Ok(()), |mtime| self.set_time(replica, *right_object, mtime))
    }

    fn exchange_names(
        &mut self,
        replica: &mut Replica,
        (left, left_object): (&Entry, ObjectId),
        (right, right_object): (&Entry, ObjectId),
    ) -> Result<(), Fault> {
        let (left_dir, right_dir) = (self.directory_of(replica, left)?, self.directory_of(replica, right)?);
        let (left_inode, right_inode) =
            (self.living(replica, left_object)?, self.living(replica, right_object)?);
        let is_exchanged = match (&left_dir, &right_dir, left_inode, right_inode) {
            (Some(left_dir), Some(right_dir), Some(left_inode), Some(right_inode)) => {
                let (left, right) = ((left_dir, left, left_inode), (right_dir, right, right_inode));
                exchange_both(replica, (left.0, left.1, left.2), (right.0, right.1, right.2))?
            }
            _ => false,
        };
        if !is_exchanged {
            for (dir, at, keep) in [(left_dir, left, right_inode), (right_dir, right, left_inode)] {
                self.untold(at)?;
                if let Some(dir) = dir {
                    self.make_way(replica, &dir, &at.name, keep)?;
                }
            }
        }
        self.set_name(replica, left, right_object)?;
        self.set_name(replica, right, left_object)
    }

    /// The source has no link to it any more.
    pub(super) fn gone(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        if object == self.root {
            return Err(Fault::Refused("the root directory inside itself"));
        }
        let left = self.outlives(replica, object)?;
        self.forget_all_of(replica, object)?;
        replica.forget_gone(object)?;
        match left {
            Some(left) => {
                self.outlived(&left.handle)?;
                replica.bind(object, &*left.file).map(drop)
            }
            None => Ok(()),
        }
    }

    /// As if an object had never been here; whatever its id is bound to is another one's.
    pub(super) fn forget_all_of(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        if let Some(handle) = replica.handle(object)? {
            self.claims.release(&handle, object)?;
        }
        self.asked.forget(object)?;
        self.incomplete.remove(object)?;
        self.unsettled.forget(object);
        self.directories.forget(object)?;
        self.forget_compared(object);
        self.uncall(object)?;
        self.listing.take_if(|listing| listing.dir == object);
        replica.forget(object)
    }

    fn content(&mut self, replica: &mut Replica, op: &Op, payload: &[u8]) -> Result<(), Fault> {
        let (Op::Write { object, result, .. }
        | Op::Resize { object, result }
        | Op::Reserve { object, result, .. }) = op
        else {
            return Ok(());
        };
        let object = *object;
        if !self.is_seen(replica, object)? && !planted::is(Planted::ContentOfUnseen) {
            // Its listing asks for its content, whatever size and time say.
            let is_here = replica.handle(object)?.is_some() && !planted::is(Planted::UnseenIsComplete);
            return if is_here { self.incomplete.add(object) } else { Ok(()) };
        }
        if planted::is(Planted::DropsWhatIsCompared) && self.is_being_compared(object) {
            return Ok(());
        }
        let done = match op {
            Op::Write { offset, .. } => replica.write_untimed(object, *offset, payload, result),
            Op::Reserve { offset, length, how, .. } => {
                replica.reserve_untimed(object, *offset, *length, *how, result)
            }
            _ => replica.resize_untimed(object, result),
        };
        match done {
            Err(fault) if self.misses(object, &fault) => Ok(()),
            Err(fault) if is_of_one(replica, &fault) => {
                self.leave_for_good(replica, object, &fault);
                // What was compared of it is not right any more.
                self.forget_compared(object);
                self.unsettled.forget(object);
                self.incomplete.leave(object)
            }
            Err(fault) => Err(fault),
            Ok(()) => self.set_time(replica, object, result.mtime),
        }
    }

    fn attributes(&mut self, replica: &mut Replica, op: &Op, payload: &[u8]) -> Result<(), Fault> {
        let (Op::SetAttributes { object, .. } | Op::SetXattr { object, .. } | Op::RemoveXattr { object, .. }) =
            op
        else {
            return Ok(());
        };
        let object = *object;
        if !self.is_seen(replica, object)? {
            return Ok(());
        }
        let (done, time) = match op {
            Op::SetAttributes { mode, owner, mtime, .. } => {
                (replica.set_attributes(object, *mode, *owner, None), *mtime)
            }
            Op::SetXattr { name, mode, .. } => {
                (replica.change_xattr(object, name, Some(payload), *mode), None)
            }
            Op::RemoveXattr { name, mode, .. } => (replica.change_xattr(object, name, None, *mode), None),
            _ => (Ok(()), None),
        };
        match done {
            Err(fault) if self.misses(object, &fault) => return Ok(()),
            Err(fault) if is_of_one(replica, &fault) => self.leave_object(replica, object, &fault),
            done => done?,
        }
        time.map_or(Ok(()), |mtime| self.set_time(replica, object, mtime))
    }

    /// The time of an object as of a packet. A file that waits for content gets it with the last of it.
    pub(super) fn set_time(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        mtime: Timestamp,
    ) -> Result<(), Fault> {
        if !self.is_seen(replica, object)?
            || self.unsettled.replace(object, mtime)
            || self.lack(object)?.is_some()
        {
            return Ok(());
        }
        replica.set_mtime_later(object, mtime)
    }
}

/// The name moves as it did on the source; `false` where it does not hold the object, or it cannot.
fn move_name(
    replica: &mut Replica,
    (from_dir, from): (&File, &Entry),
    (to_dir, to): (&File, &Entry),
    object: FileHandle,
) -> Result<bool, Fault> {
    if replica.name_holds(from_dir, &from.name)? != Some(object) {
        return Ok(false);
    }
    let (old, new) = (c_name(&from.name), c_name(&to.name));
    guard::moving((from_dir, from.name.as_bytes()), (to_dir, to.name.as_bytes()));
    match rustix::fs::renameat_with(from_dir, old, to_dir, new, RenameFlags::NOREPLACE) {
        Ok(()) => {
            replica.places_changed();
            Ok(true)
        }
        // A loop; or another name of the same file.
        Err(Errno::INVAL | Errno::EXIST) => Ok(false),
        Err(error) => Err(Fault::system("rename")(error)),
    }
}

/// As [`move_name`], of two names.
fn exchange_both(
    replica: &mut Replica,
    (left_dir, left, left_object): (&File, &Entry, FileHandle),
    (right_dir, right, right_object): (&File, &Entry, FileHandle),
) -> Result<bool, Fault> {
    if replica.name_holds(left_dir, &left.name)? != Some(left_object)
        || replica.name_holds(right_dir, &right.name)? != Some(right_object)
    {
        return Ok(false);
    }
    let names = (c_name(&left.name), c_name(&right.name));
    guard::exchanging((left_dir, left.name.as_bytes()), (right_dir, right.name.as_bytes()));
    match rustix::fs::renameat_with(left_dir, names.0, right_dir, names.1, RenameFlags::EXCHANGE) {
        Ok(()) => {
            replica.places_changed();
            Ok(true)
        }
        Err(Errno::INVAL) => Ok(false),
        Err(error) => Err(Fault::system("exchange")(error)),
    }
}

/// What the source has no link to any more after this op.
fn gone_by(op: &Op) -> Option<ObjectId> {
    match op {
        Op::Unlink { object, links: 0, .. }
        | Op::Keep { object, links: 0, .. }
        | Op::RemoveDirectory { object, .. }
        | Op::Leave { object, .. } => Some(*object),
        Op::Rename { replaced: Some(replaced), .. } | Op::Place { replaced: Some(replaced), .. } => {
            (replaced.links == 0).then_some(replaced.object)
        }
        _ => None,
    }
}

/// A fault that says nothing of what comes behind it.
pub(super) fn is_of_one(replica: &Replica, fault: &Fault) -> bool {
    match replica.concern(fault) {
        Concern::Object(_) | Concern::Packet => !matches!(fault, Fault::Time { .. }),
        Concern::Replica { .. } | Concern::Proof => false,
    }
}
