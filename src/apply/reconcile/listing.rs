//! Listings: what a directory of the source holds, chunk by chunk, and what that means for names.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::names::Names;
use super::planted::{self, Planted};
use super::{NAMES, Session};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::{Replica, Why, read_directory};
use crate::limits::LISTING_ENTRIES_MAX;
use crate::packet::{Birth, Entry, ItemNumber, ListedObject, Name, ObjectId, Timestamp, Unlisted};
use crate::sys::FileHandle;

/// The directory whose chunks arrive.
pub(super) struct Listing {
    pub(super) dir: ObjectId,
    file: Arc<File>,
    /// Names that were listed, or set by packets since the first chunk.
    names: Names,
    /// The source could not list it to its end: no name of it is an orphan.
    is_cut_off: bool,
    /// It shows some names of it, and says nothing of the rest.
    is_in_part: bool,
}

/// One chunk of a listing.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    pub(super) dir: ObjectId,
    pub(super) dir_mtime: Timestamp,
    pub(super) entries: &'a [ListedObject],
    pub(super) unlisted: Option<&'a Unlisted>,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

impl Session {
    /// Makes the entries of a chunk what they are; gives what is wanted of them. What this side does
    /// not have, or has not been shown, is not listed: whoever shows it has it listed again.
    pub(super) fn take_chunk(
        &mut self,
        replica: &mut Replica,
        chunk: Chunk<'_>,
    ) -> Result<Vec<ObjectId>, Fault> {
        if chunk.entries.len() > LISTING_ENTRIES_MAX {
            return Err(Fault::Refused("a listing of more entries than one may have"));
        }
        // Of one that was not answered.
        self.take_old(ItemNumber(0));
        let mut wanted = Vec::new();
        // Nothing that may fail comes behind the end of a listing: tried again, it would not be one that was asked for.
        let done = self
            .take_wanted(replica, chunk, &mut wanted)
            .and_then(|is_open| self.incomplete.write().map(|()| is_open))
            .and_then(|is_open| match is_open && chunk.is_last {
                true => self.close_listing(replica, chunk.dir_mtime),
                false => Ok(()),
            });
        if let Err(fault) = done {
            // Nobody was told: they will be wanted again when the item is.
            for &object in &wanted {
                self.asked.forget(object)?;
                self.directories.unwant(object)?;
            }
            return Err(fault);
        }
        Ok(wanted)
    }

    /// Gives whether it is of the listing that is open.
    fn take_wanted(
        &mut self,
        replica: &mut Replica,
        chunk: Chunk<'_>,
        wanted: &mut Vec<ObjectId>,
    ) -> Result<bool, Fault> {
        if !self.is_seen(replica, chunk.dir)? {
            return self.drop_listing(chunk.dir).map(|()| false);
        }
        if chunk.is_first {
            match self.open_listing(replica, chunk.dir) {
                Err(fault) if self.misses(chunk.dir, &fault) => {
                    return self.drop_listing(chunk.dir).map(|()| false);
                }
                opened => opened?,
            }
        }
        let Some(listing) = self.listing.as_ref().filter(|listing| listing.dir == chunk.dir) else {
            return Ok(false);
        };
        let file = listing.file.clone();
        // What is in it may have to change; between two chunks it may have been set.
        replica.lift(chunk.dir)?;
        let is_asked_for = self.directories.is_asked_for(chunk.dir)?;
        for entry in chunk.entries {
            self.told(chunk.dir, &entry.name)?;
            let mut entry = replica.policy().listed(entry);
            if self.rules.suspects_all && !entry.suspect {
                entry.to_mut().suspect = true;
            }
            if entry.birth == Birth::Directory && !self.was_shown(replica, entry.object)? {
                self.shown_in_walked(chunk.dir, entry.object)?;
                self.outside.comes_with(chunk.dir, entry.object);
            }
            let is_wanted = self.take_entry(replica, (chunk.dir, &file), &entry)?
                || is_asked_for && entry.birth == Birth::Directory && self.directories.want(entry.object)?;
            if entry.birth == Birth::Directory {
                self.ruled.is_in(chunk.dir, (entry.object, &entry.name));
            }
            wanted.extend(is_wanted.then_some(entry.object));
        }
        self.keep_unlisted(chunk.unlisted)?;
        Ok(true)
    }

    /// Begins a listing anew, also in the middle of another one.
    fn open_listing(&mut self, replica: &mut Replica, dir: ObjectId) -> Result<(), Fault> {
        let file = replica.directory(dir)?;
        self.is_listed_now(dir, &file)?;
        self.directories.begins(dir)?;
        let names = Names::none(&replica.state().join(NAMES));
        let before = self.listing.replace(Listing { dir, file, names, is_cut_off: false, is_in_part: false });
        match before {
            // Nobody has said what becomes of the rest of it.
            Some(before) if before.dir != dir => self.directories.doubt(before.dir, true),
            Some(_) | None => Ok(()),
        }
    }

    /// Makes one name what the source has there; `true` where the content of a file is wanted.
    fn take_entry(
        &mut self,
        replica: &mut Replica,
        into: (ObjectId, &File),
        entry: &ListedObject,
    ) -> Result<bool, Fault> {
        let was_seen = self.was_shown(replica, entry.object)?;
        match self.reconcile(replica, into, entry, was_seen) {
            Err(fault) if self.keeps_out(replica, &fault) => {
                if !was_seen && entry.birth == Birth::File {
                    // Nobody knows what it holds.
                    self.incomplete.leave(entry.object)?;
                }
                self.leave_name(replica, into.1, &entry.name, &fault);
                Ok(false)
            }
            Err(fault) => {
                // It was not looked at to the end.
                if !was_seen && let Some(handle) = replica.handle(entry.object)? {
                    self.claims.release(&handle, entry.object)?;
                }
                Err(fault)
            }
            done => done,
        }
    }

    /// What these names hold cannot be read on the source: it stays.
    fn keep_unlisted(&mut self, names: Option<&Unlisted>) -> Result<(), Fault> {
        let Some(listing) = &mut self.listing else { return Ok(()) };
        match names {
            Some(Unlisted::TheRest) => listing.is_cut_off = true,
            Some(Unlisted::NotShown) => (listing.is_cut_off, listing.is_in_part) = (true, true),
            Some(Unlisted::These(names)) => names.iter().try_for_each(|name| listing.names.insert(name))?,
            None => {}
        }
        Ok(())
    }

    /// The directory is not in the set any more, or not here.
    pub(super) fn drop_listing(&mut self, dir: ObjectId) -> Result<(), Fault> {
        self.listing.take_if(|listing| listing.dir == dir);
        self.directories.drop_doubt(dir)
    }

    /// After the last chunk: what was not listed goes to limbo, and the directory gets its time.
    fn close_listing(&mut self, replica: &mut Replica, mtime: Timestamp) -> Result<(), Fault> {
        let Some(listing) = self.listing.take() else { return Ok(()) };
        let done = self.close(replica, &listing, mtime);
        if done.is_err() {
            self.listing = Some(listing);
        }
        done
    }

    fn close(&mut self, replica: &mut Replica, listing: &Listing, mtime: Timestamp) -> Result<(), Fault> {
        let mut stayed = 0;
        let dir = FileHandle::of(listing.file.as_fd()).map_err(Fault::system("file handle"))?;
        // Taken away while it is read: each name that stays is still met exactly once.
        for entry in read_directory(&listing.file)? {
            let entry = entry.map_err(Fault::system("list a directory"))?;
            // `.` and `..` are no names.
            let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
            let is_listed = listing.is_cut_off || listing.names.contains(&name)?;
            if is_listed
                || replica.is_of_the_place(&listing.file, &name)?
                || self.ruled.leaves_out(listing.dir, &listing.file, &name)
            {
                continue;
            }
            let may_stay =
                self.stray_stays(listing.dir, &name) || self.is_too_young(replica, &listing.file, &name)?;
            if may_stay && (self.keeps_in_place() || !self.was_deleted(replica, &listing.file, &name)?) {
                stayed += 1;
                if let Some(held) = replica.name_holds(&listing.file, &name)? {
                    self.stayed.note(&dir, &name, held)?;
                }
                continue;
            }
            match self.take_orphan(replica, &listing.file, &name) {
                Err(fault) if self.keeps_out(replica, &fault) => {
                    self.leave_name(replica, &listing.file, &name, &fault);
                }
                done => done?,
            }
        }
        self.strays_stayed(listing.dir, stayed);
        // A time that is pending would be set over it.
        if inode::mtime(&inode::stat(&listing.file)?) != mtime || replica.pending_time(listing.dir).is_some()
        {
            replica.set_mtime_later(listing.dir, mtime)?;
        }
        if listing.is_in_part {
            return self.directories.ends_in_part(listing.dir);
        }
        self.outside.is_listed(listing.dir);
        self.incomplete.remove(listing.dir)?;
        self.directories.ends(listing.dir)
    }

    fn take_orphan(&mut self, replica: &mut Replica, dir: &File, name: &Name) -> Result<(), Fault> {
        replica.places_changed();
        if let Some(held) = replica.name_holds(dir, name)? {
            self.stayed.goes(dir, name, &held)?;
        }
        self.limbo.take(dir, name, Why::NotOnSource)
    }

    /// A name is known to hold what the source has there: it is no orphan.
    pub(super) fn told(&mut self, dir: ObjectId, name: &Name) -> Result<(), Fault> {
        match &mut self.listing {
            Some(listing) if listing.dir == dir => listing.names.insert(name),
            Some(_) | None => Ok(()),
        }
    }

    /// A packet has set a name.
    pub(super) fn told_by_packet(&mut self, at: &Entry) -> Result<(), Fault> {
        if planted::is(Planted::SweepsNamesOfPackets) { Ok(()) } else { self.told(at.dir, &at.name) }
    }

    /// A packet has taken a name away.
    pub(super) fn untold(&mut self, at: &Entry) -> Result<(), Fault> {
        match &mut self.listing {
            Some(listing) if listing.dir == at.dir => listing.names.remove(&at.name),
            Some(_) | None => Ok(()),
        }
    }

    /// A name of this directory holds what nobody has shown: it is listed again.
    pub(super) fn doubt(&mut self, dir: ObjectId) -> Result<(), Fault> {
        let is_open = self.listing.as_ref().is_some_and(|listing| listing.dir == dir);
        self.directories.doubt(dir, is_open)
    }

    /// The object was listed in this session, or a packet has made it.
    pub(super) fn is_seen(&self, replica: &Replica, id: ObjectId) -> Result<bool, Fault> {
        let Some(handle) = replica.handle(id)? else { return Ok(false) };
        let claimant = self.claims.claimant(&handle).map_err(Fault::system("claims"))?;
        Ok(claimant.map_or_else(|| self.vouches_for(&handle), |claimant| claimant == id))
    }

    /// The inode that an id stands for here: none where it stands for another one by now.
    pub(super) fn living(&self, replica: &Replica, id: ObjectId) -> Result<Option<FileHandle>, Fault> {
        let Some(handle) = replica.handle(id)? else { return Ok(None) };
        let claimant = self.claims.claimant(&handle).map_err(Fault::system("claims"))?;
        Ok((claimant.is_none_or(|claimant| claimant == id) && !self.own.contains(&handle)).then_some(handle))
    }

    /// The id of a directory of the replica, where it was seen.
    pub(super) fn id_of(&self, replica: &Replica, dir: &File) -> Result<Option<ObjectId>, Fault> {
        let handle = FileHandle::of(dir.as_fd()).map_err(Fault::system("file handle"))?;
        match self.claims.claimant(&handle).map_err(Fault::system("claims"))? {
            Some(id) => Ok(Some(id)),
            None => self.vouched_id(replica, dir),
        }
    }
}
