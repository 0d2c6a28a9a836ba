//! A copy of what is owed: the replica was the source as of some packet, and lacks what the source knows to
//! have changed since.
//!
//! ```text
//!  BeginOwed ──> Root ──> Owed* ────> Listing* ───────> OpenBlocks Content* CloseContent ──> End
//!  bad by what   bind     files are   of directories    what changed of the files that      what was deleted
//!  is owed                incomplete  whose names       were called; all content of          is deleted, good
//!                                     changed           those that a listing has shown first
//! ```
//! *Vouched for* is what the index knows, as if a listing had shown it ([`super::Claims`]), and of each
//! directory that it has all names; a listing answers with what it shows for the first time. What is made for
//! a listing counts as a directory without its names, or a file without its content, until these have come:
//! that is on disk before ([`crate::apply::replica::Incomplete`]), so that a session after a kill does not
//! vouch for it.
//! An inode that has an id here is never taken for another object: the names that it has elsewhere are not
//! listed.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use super::Session;
use super::claims::{Claims, key};
use super::entry::{Found, find_handle};
use super::lost::Lost;
use super::part::Missed;
use super::planted::{self, Planted};
use super::table::{Kept, Table, key_of};
use crate::apply::fault::Fault;
use crate::apply::replica::{Copied, Delete, Replica, Resolved};
use crate::clone::names_kept;
use crate::limits::{ASKED_IN_MEMORY, CLAIMS_IN_MEMORY, DELETE_GUARD_FILES_MIN, OWED_CALLED_MAX};
use crate::packet::{
    BadBy, Birth, DataState, ItemNumber, Keeping, LaneItem, ListedObject, Name, ObjectId, TargetMessage,
};
use crate::sys::FileHandle;

/// Files of a session in the replica's state directory.
const CALLED: &str = "called";
const SHARED: &str = "shared";
const REMOVED: &str = "removed";
const KNOWN: &str = "known";
const LOST: &str = "lost";
const COPIES: &str = "copies";
const LISTED: &str = "listed";

/// Why it is bad from the beginning of such a copy on.
const OWED: &str = "a copy of what is owed has begun and not ended";
const PART: &str = "a mirror of a part has begun and not ended";
const DOUBTS: &str = "a copy of what is owed has met what the source did not know to owe, and has not ended";

pub(super) struct Vouching {
    /// Files whose content is owed, with the inode that each is.
    called: Table<FileHandle>,
    percent_max: Option<u8>,
    /// The replica is bad by more than what the source knows to owe.
    is_doubt_noted: bool,
    /// Somebody may have changed the replica: what a listing shows first is looked at as in a copy of everything.
    pub(super) compares: bool,
    /// Packets came to these, which are not here.
    pub(super) missed: Missed,
    /// One before it has not come to its end: what that had removed nobody knows.
    pub(super) follows_cut: bool,
    /// Packets have removed these, while they are compared.
    pub(super) removed: Table<()>,
    /// These have lost names, and had others.
    pub(super) lost: Table<Lost>,
    /// These are kept of what may live on.
    copies: Table<()>,
    /// Directories whose listing has begun.
    listed: Claims,
}

impl Vouching {
    pub(super) fn start(
        state: &Path,
        percent_max: Option<u8>,
        (compares, follows_cut): (bool, bool),
    ) -> Vouching {
        let called = Table::start(&state.join(CALLED), ASKED_IN_MEMORY);
        let removed = Table::start(&state.join(REMOVED), CLAIMS_IN_MEMORY);
        // It is bad by anything already.
        Vouching {
            called,
            percent_max,
            is_doubt_noted: compares,
            compares,
            follows_cut,
            missed: Missed::default(),
            removed,
            lost: Table::start(&state.join(LOST), CLAIMS_IN_MEMORY),
            copies: Table::start(&state.join(COPIES), CLAIMS_IN_MEMORY),
            listed: Claims::start(&state.join(LISTED)),
        }
    }
}

/// The replica is bad from now on, by what is owed alone; where it is compared, by whatever that may find: a
/// copy that is cut off is followed by one of everything.
///
/// Errors: it lacks what nobody knows to owe.
pub(super) fn mark_bad(replica: &mut Replica, compares: bool) -> Result<(), Fault> {
    let is_good = replica.data().state == DataState::Good;
    if replica.sync_failed() || !is_good && replica.bad_by() != Some(BadBy::Owed) {
        return Err(Fault::Refused("a copy of what is owed to a replica that lacks more"));
    }
    match compares {
        true => replica.mark_bad(PART),
        false => replica.mark_bad_by(OWED, BadBy::Owed),
    }
}

/// Errors: the list of what is incomplete was damaged, and with it went what the index knew.
pub(super) fn must_know_something(replica: &mut Replica) -> Result<(), Fault> {
    if !replica.index().is_empty() {
        return Ok(());
    }
    replica.mark_bad("what the replica has is not known any more")?;
    Err(Fault::Refused("a copy of what is owed to a replica that knows nothing"))
}

impl Session {
    /// Takes what an item says of the rules of the set.
    ///
    /// Errors: an item that makes no sense in a copy of what is owed, or in another one.
    pub(super) fn must_fit(&mut self, item: &LaneItem) -> Result<(), Fault> {
        match (&self.vouching, item) {
            (Some(_), LaneItem::NamesMatch) => {
                Err(Fault::Refused("names that match in a copy of what is owed"))
            }
            (None, LaneItem::Owed { .. }) => {
                Err(Fault::Refused("files that are owed in a copy of everything"))
            }
            _ => self.ruled.take(item),
        }
    }

    /// An inode that nobody has claimed counts for the id that is bound to it.
    pub(super) fn vouches_for(&self, handle: &FileHandle) -> bool {
        self.vouching.is_some() && !self.own.contains(handle)
    }

    /// Whether an object that has a name may become the one that is listed there.
    pub(super) fn adopts(&self) -> bool {
        self.vouching.is_none() || planted::is(Planted::AdoptsWhatIsKnown)
    }

    /// Content of these files is owed; answers with those that are here.
    pub(super) fn call(
        &mut self,
        replica: &mut Replica,
        listing: ItemNumber,
        objects: &[ObjectId],
    ) -> Result<Vec<TargetMessage>, Fault> {
        if objects.len() > OWED_CALLED_MAX {
            return Err(Fault::Refused("more files that are owed than one item may name"));
        }
        let mut here = Vec::new();
        for &object in objects {
            if self.call_one(replica, object)? {
                here.push(object);
            }
        }
        Ok(vec![TargetMessage::Wanted { listing, objects: here }])
    }

    fn call_one(&mut self, replica: &mut Replica, object: ObjectId) -> Result<bool, Fault> {
        if !self.is_seen(replica, object)? || object == self.root {
            return Ok(false);
        }
        let Some(handle) = replica.handle(object)? else { return Ok(false) };
        let is_called = self.is_called(replica, object)?;
        if !is_called && self.asked.contains(object)? {
            // All of its content comes.
            return Ok(false);
        }
        let Some(vouching) = &mut self.vouching else { return Ok(false) };
        vouching.called.insert(key_of(object), handle).map_err(failed)?;
        self.want_content(replica, object)?;
        self.incomplete.write()?;
        Ok(true)
    }

    /// What is owed of a file comes to the inode that was called.
    pub(super) fn is_called(&self, replica: &Replica, object: ObjectId) -> Result<bool, Fault> {
        let Some(vouching) = &self.vouching else { return Ok(false) };
        let called = vouching.called.get(key_of(object)).map_err(failed)?;
        Ok(called.is_some() && called == replica.handle(object)?)
    }

    /// Nothing of what was owed of a file comes any more.
    pub(super) fn uncall(&mut self, object: ObjectId) -> Result<(), Fault> {
        let Some(vouching) = &mut self.vouching else { return Ok(()) };
        vouching.called.remove(key_of(object)).map(drop).map_err(failed)
    }

    /// Another inode has taken the place of the one that was called: it needs all of the content.
    pub(super) fn uncall_if_other(&mut self, replica: &Replica, object: ObjectId) -> Result<(), Fault> {
        let Some(vouching) = &self.vouching else { return Ok(()) };
        let was_called = vouching.called.get(key_of(object)).map_err(failed)?.is_some();
        if was_called && !self.is_called(replica, object)? {
            self.uncall(object)?;
            self.asked.forget(object)?;
        }
        Ok(())
    }

    /// An entry is about to be made, or looked at for the first time: until that is done, no session vouches
    /// for it.
    pub(super) fn before_shown(&mut self, entry: &ListedObject, was_seen: bool) -> Result<(), Fault> {
        let has_more = matches!(entry.birth, Birth::File | Birth::Directory);
        // After one that compares nobody vouches for anything.
        if self.vouching.is_none() || self.compares() || was_seen || !has_more {
            return Ok(());
        }
        self.incomplete.add(entry.object)
    }

    /// A directory of a listing that was just made, or whose names have never come.
    pub(super) fn shown_directory(&mut self, object: ObjectId, is_made: bool) -> Result<(), Fault> {
        if self.vouching.is_none() {
            return Ok(());
        }
        if is_made {
            self.incomplete.add(object)?;
        }
        match self.incomplete.lack(object)? {
            Some(_) if planted::is(Planted::MadeIsListed) => self.incomplete.remove(object),
            Some(_) if !is_made && planted::is(Planted::VouchesForTheUnfinished) => {
                self.incomplete.remove(object)
            }
            Some(_) => self.directories.unlist(object),
            None => Ok(()),
        }
    }

    /// What a session before this one has made, and nobody has asked for yet.
    pub(super) fn is_unfinished(&self, object: ObjectId) -> Result<bool, Fault> {
        Ok(self.vouching.is_some()
            && self.incomplete.lack(object)?.is_some()
            && !self.asked.contains(object)?)
    }

    /// A doubt is on no disk: before the source hears of the first one, the replica is bad by more than what
    /// the source knows to owe.
    pub(super) fn note_doubts(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        let Some(vouching) = &mut self.vouching else { return Ok(()) };
        if !vouching.is_doubt_noted && self.directories.has_unsent() {
            vouching.is_doubt_noted = planted::is(Planted::DoubtIsForgotten);
            if vouching.is_doubt_noted {
                return Ok(());
            }
            replica.mark_bad(DOUBTS)?;
            vouching.is_doubt_noted = true;
        }
        Ok(())
    }

    pub(super) fn may_tell_doubts(&self) -> bool {
        self.vouching.as_ref().is_none_or(|vouching| vouching.is_doubt_noted)
    }

    /// The listing of a directory begins.
    pub(super) fn is_listed_now(&mut self, dir: ObjectId, file: &File) -> Result<(), Fault> {
        let Some(vouching) = &mut self.vouching else { return Ok(()) };
        let handle = FileHandle::of(file.as_fd()).map_err(Fault::system("file handle"))?;
        vouching.listed.claim(&handle, dir).map(drop)
    }

    /// The id of a directory that nobody has claimed and whose listing has begun.
    pub(super) fn listed_id(&self, handle: &FileHandle) -> Result<Option<ObjectId>, Fault> {
        let Some(vouching) = &self.vouching else { return Ok(None) };
        vouching.listed.claimant(handle).map_err(failed)
    }

    /// The id of a directory that is vouched for.
    pub(super) fn vouched_id(&self, replica: &Replica, dir: &File) -> Result<Option<ObjectId>, Fault> {
        let handle = FileHandle::of(dir.as_fd()).map_err(Fault::system("file handle"))?;
        if !self.vouches_for(&handle) {
            return Ok(None);
        }
        // The index knows no way from an inode to its id.
        let mut found = None;
        let visit = |id, bound| {
            found = if bound == handle { Some(id) } else { found };
            Ok(())
        };
        replica.index().for_each(visit).map_err(Fault::own("object index"))?;
        Ok(found)
    }

    /// Whether a name that the source does not list holds what it had: it was deleted there.
    pub(super) fn was_deleted(&self, replica: &Replica, dir: &File, name: &Name) -> Result<bool, Fault> {
        if self.vouching.is_none() || self.compares() {
            return Ok(false);
        }
        let Some(handle) = replica.name_holds(dir, name)? else { return Ok(false) };
        let mut is_known = false;
        let visit = |_, bound| {
            is_known |= bound == handle;
            Ok(())
        };
        replica.index().for_each(visit).map_err(Fault::own("object index"))?;
        Ok(is_known)
    }

    /// What a packet has removed, where it still has a name here, clones apart: that one goes, and what becomes of it
    /// at the end is known by its id.
    pub(super) fn outlives(&self, replica: &Replica, object: ObjectId) -> Result<Option<Found>, Fault> {
        match self.living(replica, object)? {
            Some(handle) if self.vouching.is_some() => {
                let found = find_handle(replica, &handle)?;
                Ok(found.filter(|found| found.status.st_nlink > names_kept(replica.limbo(), &handle)))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// What waits in limbo at the end: what the index knows was deleted, and goes with its id.
    pub(super) fn resolve_vouched(&mut self, replica: &mut Replica) -> Result<Option<Resolved>, Fault> {
        if self.vouching.is_none() {
            return Ok(None);
        }
        let own = |file: &File| file.try_clone().map_err(Fault::own("limbo"));
        let (root, limbo) = (own(replica.root())?, own(replica.limbo())?);
        self.copy_lost(replica, &root)?;
        let lying = self.lying(replica)?;
        if lying.is_empty() {
            return Ok(Some(Resolved::default()));
        }
        let was_deleted =
            |handle: &FileHandle| Ok(self.claims.claimant(handle)?.is_none() && self.was_removed(handle)?);
        self.forget_what_lies(replica, &lying, was_deleted)?;
        let mut gone = Vec::new();
        let mut known: Table<()> = Table::start(&replica.state().join(KNOWN), CLAIMS_IN_MEMORY);
        replica
            .index()
            .for_each(|id, handle| {
                if lying.holds(&handle)? && was_deleted(&handle)? {
                    gone.push(id);
                    known.insert(key(&handle), ())?;
                }
                Ok(())
            })
            .map_err(Fault::own("object index"))?;
        let copies = self.vouching.as_ref().map(|vouching| &vouching.copies);
        let parts = self.limbo.part(&root, |handle| {
            let has = |table: &Table<()>| table.get(key(handle)).map(|found| found.is_some()).map_err(failed);
            Ok(has(&known)? || copies.map_or(Ok(false), has)?)
        })?;
        let deletes = (self.deletes_known(replica), self.deletes(replica));
        let kept = self.deleted(replica)?;
        let resolved = self.limbo.resolve_parts(&root, &limbo, parts, deletes, kept.as_ref())?;
        gone.into_iter().try_for_each(|id| replica.forget(id))?;
        if resolved.spared > 0 {
            log::warn!(
                "{} names are gone on the source, too many to be deleted: they are moved aside",
                resolved.spared
            );
        }
        Ok(Some(resolved))
    }

    /// What was deleted and lives on elsewhere has a copy of it in its place, which goes where the rest is kept: its own
    /// names in limbo go as those of what lives on.
    fn copy_lost(&mut self, replica: &mut Replica, root: &File) -> Result<(), Fault> {
        let keeps = matches!(self.keeping, Some(Keeping::Aside { .. }));
        if !keeps || planted::is(Planted::LosesWhatIsLinked) {
            return Ok(());
        }
        let mut lying: Table<()> = Table::start(&replica.state().join(SHARED), CLAIMS_IN_MEMORY);
        let mut is_empty = true;
        self.limbo.each_shared(root, |handle| {
            is_empty = false;
            lying.insert(key(handle), ()).map_err(failed)
        })?;
        if is_empty {
            return Ok(());
        }
        let mut known: Table<ObjectId> = Table::start(&replica.state().join(KNOWN), CLAIMS_IN_MEMORY);
        let look = |id, handle: FileHandle| {
            let is_one = lying.get(key(&handle))?.is_some()
                && self.claims.claimant(&handle)?.is_none()
                && self.was_removed(&handle)?;
            if is_one { known.insert(key(&handle), id) } else { Ok(()) }
        };
        replica.index().for_each(look).map_err(Fault::own("object index"))?;
        let id_of = |handle: &FileHandle| known.get(key(handle)).map_err(failed);
        let vouching = &mut self.vouching;
        let copied = |replica: &mut Replica, Copied { of, copy, lives }: Copied| {
            let Some(id) = id_of(&of)? else { return Ok(()) };
            if lives && let Some(vouching) = vouching.as_mut() {
                // By names that others may know nothing of: its id stays with them.
                return vouching.copies.insert(key(&copy), ()).map_err(failed);
            }
            if let Some(vouching) = vouching.as_mut().filter(|vouching| vouching.compares) {
                vouching.removed.insert(key(&copy), ()).map_err(failed)?;
            }
            // Known by its id it is no orphan.
            replica.bind_to(id, copy)
        };
        self.limbo.copy_lost(replica, |handle| Ok(id_of(handle)?.is_some()), copied)
    }

    fn deletes_known(&self, replica: &Replica) -> Delete {
        // What packets have removed is no guess.
        let vouching = self.vouching.as_ref().filter(|vouching| !vouching.compares);
        let percent_max = vouching.and_then(|vouching| vouching.percent_max);
        if percent_max == Some(0) || planted::is(Planted::DeletedIsAnOrphan) || self.keeps_in_place() {
            return Delete::Nothing;
        }
        // What has left the set is gone from it, and there all the same.
        if self.ruled.is_there() {
            return Delete::Nothing;
        }
        let of = |percent: u8| replica.index().len().saturating_mul(percent.into()) / 100;
        let objects = percent_max.map_or(u64::MAX, |percent| of(percent).max(DELETE_GUARD_FILES_MIN));
        Delete::UpTo { objects }
    }
}

impl Kept for FileHandle {
    fn to_handle(self) -> FileHandle {
        self
    }

    fn from_handle(handle: &FileHandle) -> Option<FileHandle> {
        Some(*handle)
    }
}

pub(super) fn failed(error: std::io::Error) -> Fault {
    Fault::Own { what: "list of what is owed", error }
}
