//! What is out of the set by its rules: nobody tells of changes of it, and when it comes back no listing may take it
//! for what packets have kept as it is.
//!
//! | here | what becomes of it |
//! |---|---|
//! | below a directory that leaves | forgotten, unless it has other names |
//! | in limbo, since a packet moved it into a directory that is not here | forgotten before something comes in |
//! | a file with names elsewhere, here or in limbo | its content is asked for once it is listed in what came in |
//!
//! What was told of before it came in ([`crate::packet::Op::Stage`]) is as it was told.

use std::collections::HashSet;

use rustix::fs::FileType;

use super::Session;
use super::end::is_below_root;
use super::entry::{Found, find_handle};
use super::planted::{self, Planted};
use crate::apply::fault::Fault;
use crate::apply::replica::{Limbo, Replica};
use crate::clone::names_kept;
use crate::limits::{BATCHES_KNOWN_MAX, CAME_IN_MAX, STAGED_KNOWN_MAX};
use crate::packet::{Birth, Entry, ListedObject, Name, ObjectId};

/// See the module.
#[derive(Default)]
pub(super) struct Outside {
    /// What was told of beforehand and has no name yet; too many are none.
    told: HashSet<ObjectId>,
    /// Of what waits in these nothing is known any more that has one name.
    looked_at: HashSet<Name>,
    /// Directories that came in with more than was told, and those in them, until they are listed.
    came_in: HashSet<ObjectId>,
    /// They were too many: any directory may be one.
    came_in_anywhere: bool,
    /// Files that are asked for since the last one came.
    asked: HashSet<ObjectId>,
    /// Files that no listing has shown since they may have been out.
    unlisted: HashSet<ObjectId>,
}

impl Outside {
    /// All of it was told, and is forgotten: what comes under its id is to be brought.
    pub(super) fn is_told(&mut self, object: ObjectId) {
        add_or_clear(&mut self.told, object, STAGED_KNOWN_MAX);
    }

    /// It gets no name in the set.
    pub(super) fn stays_out(&mut self, object: ObjectId) {
        self.told.remove(&object);
    }

    fn comes(&mut self, dir: ObjectId) {
        self.came_in_anywhere |= self.came_in.len() == CAME_IN_MAX;
        add_or_clear(&mut self.came_in, dir, CAME_IN_MAX);
    }

    fn has_come(&self, dir: ObjectId) -> bool {
        self.came_in_anywhere || self.came_in.contains(&dir)
    }

    /// A listing shows a directory that nothing is known of.
    pub(super) fn comes_with(&mut self, dir: ObjectId, shown: ObjectId) {
        if self.came_in.contains(&dir) {
            self.comes(shown);
        }
    }

    /// A file is to be listed where it gets a name.
    pub(super) fn awaits_listing(&self, object: ObjectId) -> bool {
        self.unlisted.contains(&object)
    }

    pub(super) fn is_listed_now(&mut self, object: ObjectId) {
        self.unlisted.remove(&object);
    }

    /// All of its names were shown.
    pub(super) fn is_listed(&mut self, dir: ObjectId) {
        self.came_in.remove(&dir);
    }
}

fn add_or_clear<T: Eq + std::hash::Hash>(set: &mut HashSet<T>, one: T, max: usize) {
    if set.len() == max {
        set.clear();
    }
    set.insert(one);
}

impl Session {
    /// A directory leaves the set: changes of what is below it are not told any more, so that nothing of it
    /// may count as shown, wherever it is here.
    pub(super) fn take_directory_out(
        &mut self,
        replica: &mut Replica,
        at: &Entry,
        object: ObjectId,
    ) -> Result<(), Fault> {
        let dir = self.directory_of(replica, at)?;
        if let Some(living) = self.living(replica, object)?.filter(|_| object != self.root) {
            match dir {
                Some(dir) if replica.name_holds(&dir, &at.name)? == Some(living) => {
                    self.untold(at)?;
                    let file = replica.object(object)?;
                    replica.each_left_below(&file, |replica, id| self.forget_all_of(replica, id))?;
                    replica.put_aside(&dir, &at.name)?;
                    replica.places_changed();
                }
                _ => self.forget_below(replica, object)?,
            }
        }
        self.take_name(replica, at, object, 0)
    }

    /// It lies elsewhere here, and stays there until a listing says more.
    fn forget_below(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        match replica.object(object) {
            Ok(dir) => {
                replica.each_known_below(&dir, |replica, id, shares| self.was_out(replica, id, shares))
            }
            Err(Fault::MissingObject(_)) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Before an object of which nobody has told gets a name in the set.
    pub(super) fn comes_in(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        if self.outside.told.remove(&object) {
            return Ok(());
        }
        self.outside.asked.clear();
        self.forget_what_waits(replica)?;
        if object == self.root || !self.is_seen(replica, object)? {
            self.outside.comes(object);
            return Ok(());
        }
        match self.type_of(replica, object)? {
            Some(FileType::Directory) => {
                self.forget_below(replica, object)?;
                self.forget_all_of(replica, object)?;
                self.outside.comes(object);
                Ok(())
            }
            Some(FileType::RegularFile) => self.may_have_changed(replica, object),
            // A listing sets all of it.
            _ => Ok(()),
        }
    }

    fn forget_what_waits(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        // What is taken from now on is looked at when the next one comes.
        if planted::is(Planted::TrustsWhatWaits) {
            return Ok(());
        }
        self.limbo.part_batches();
        let waiting = Limbo::open(replica.root(), replica.limbo())?;
        let mut looked_at = std::mem::take(&mut self.outside.looked_at);
        let done = waiting.batches()?.into_iter().try_for_each(|batch| {
            if looked_at.contains(&batch) {
                return Ok(());
            }
            let dir = waiting.open_batch(&batch)?;
            replica.each_known_below(&dir, |replica, id, shares| self.was_out(replica, id, shares))?;
            add_or_clear(&mut looked_at, batch, BATCHES_KNOWN_MAX);
            Ok(())
        });
        self.outside.looked_at = looked_at;
        done
    }

    /// `shares`: it has other names. With one of them it may be in the set.
    fn was_out(&mut self, replica: &mut Replica, id: ObjectId, shares: bool) -> Result<(), Fault> {
        if shares && self.names_of(replica, id)?.is_some_and(|names| names > 1) {
            return Ok(());
        }
        self.forget_all_of(replica, id)
    }

    /// What is told of beforehand and may be known: another name of it was in the set all along, or is of a time
    /// before. Its content comes, and what a listing says of it.
    pub(super) fn stage(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        (may_be_known, birth): (bool, &Birth),
    ) -> Result<(), Fault> {
        if may_be_known && self.is_seen(replica, object)? && is_below_root(replica, object)? {
            return if *birth == Birth::File { self.may_have_changed(replica, object) } else { Ok(()) };
        }
        self.outside.is_told(object);
        self.forget_all_of(replica, object)
    }

    /// A file that is shown in a directory that came in: changes of it may not have been told, unless its only name
    /// here is this one, which packets have set since.
    pub(super) fn look_again_if_out(
        &mut self,
        replica: &mut Replica,
        (dir, file): (ObjectId, &std::fs::File),
        entry: &ListedObject,
    ) -> Result<(), Fault> {
        if entry.birth != Birth::File
            || !self.outside.has_come(dir)
            || self.outside.asked.contains(&entry.object)
            || planted::is(Planted::TrustsALinkFromOutside)
            || !self.is_seen(replica, entry.object)?
        {
            return Ok(());
        }
        let is_only_here = self.names_of(replica, entry.object)?.is_none_or(|names| names == 1)
            && replica.name_holds(file, &entry.name)? == replica.handle(entry.object)?;
        if is_only_here {
            return Ok(());
        }
        add_or_clear(&mut self.outside.asked, entry.object, STAGED_KNOWN_MAX);
        self.may_have_changed(replica, entry.object)
    }

    /// All content of a file comes when it is listed next, whatever of it is on the way.
    fn may_have_changed(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        self.comes_anew(object)?;
        self.unsettled.forget(object);
        replica.forget_time(object);
        // Too many of them are asked for at the end.
        add_or_clear(&mut self.outside.unlisted, object, STAGED_KNOWN_MAX);
        self.incomplete.add(object)
    }

    /// Names of an object, without those by which clones keep it; `None`: it is not here.
    // The number has another width on other processors.
    #[allow(clippy::unnecessary_cast)]
    fn names_of(&self, replica: &Replica, id: ObjectId) -> Result<Option<u64>, Fault> {
        let Some(handle) = replica.handle(id)? else { return Ok(None) };
        let Some(Found { status, .. }) = find_handle(replica, &handle)? else { return Ok(None) };
        Ok(Some((status.st_nlink as u64).saturating_sub(names_kept(replica.limbo(), &handle))))
    }

    fn type_of(&self, replica: &Replica, id: ObjectId) -> Result<Option<FileType>, Fault> {
        let Some(handle) = replica.handle(id)? else { return Ok(None) };
        let found = find_handle(replica, &handle)?;
        Ok(found.map(|found| FileType::from_raw_mode(found.status.st_mode)))
    }
}
