//! The end of a resynchronisation: nothing is owed any more, and the replica is good.

use std::fs::File;

use rustix::fs::Stat;

use super::Session;
use super::claims::key;
use super::entry::find_handle;
use super::packets::is_of_one;
use super::planted::{self, Planted};
use super::stayed::Names;
use super::table::Table;
use crate::apply::fault::Fault;
use crate::apply::replica::{Replica, by_handle};
use crate::clone::each_kept;
use crate::limits::{CLAIMS_IN_MEMORY, LISTED_AGAIN_MAX};
use crate::packet::{DataState, ObjectId, OrphanCounts, Position, Sequence};
use crate::sys::FileHandle;

/// A file of a session in the replica's state directory.
const KEPT: &str = "kept-by-clones";

impl Session {
    /// The source has nothing more to send: settles what is open, makes it durable, and declares it
    /// good; gives what became of the orphans. `None` where something is still to come: the source
    /// hears of it, and ends again.
    pub(super) fn end(
        &mut self,
        replica: &mut Replica,
        position: Position,
    ) -> Result<Option<OrphanCounts>, Fault> {
        if self.directories.has_doubts() && !planted::is(Planted::EndsInDoubt) {
            return Ok(None);
        }
        if self.listing.is_some() || self.open.is_some() || self.beside.has_held() {
            return Err(Fault::Refused("the end of a resynchronisation before everything was sent"));
        }
        if position.sequence == Sequence(u64::MAX) {
            return Err(Fault::Refused("a position that no history comes to"));
        }
        self.settle(replica)?;
        assert!(self.unsettled.is_empty(), "a copy ends before its content is on the disk");
        if self.asks_again(replica)? || self.looks_everywhere(replica)? {
            return Ok(None);
        }
        self.finish(replica, position).map(Some)
    }

    /// A file that waits for content that nobody sends: everything is listed again, which asks for it
    /// anew. A net below the rules, and no part of them.
    fn asks_again(&mut self, replica: &mut Replica) -> Result<bool, Fault> {
        let mut waiting = Vec::new();
        for object in self.incomplete.waiting()? {
            if self.is_seen(replica, object)? && is_below_root(replica, object)? {
                waiting.push(object);
            }
        }
        if waiting.is_empty() || planted::is(Planted::EndTrusts) {
            return Ok(false);
        }
        log::warn!("the content of {} files has not come, first {}", waiting.len(), waiting[0]);
        if self.listed_again == LISTED_AGAIN_MAX {
            for object in waiting {
                let fault = Fault::Refused("a file whose content does not come");
                self.leave_object(replica, object, &fault);
                self.incomplete.leave(object)?;
            }
            return Ok(false);
        }
        self.listed_again += 1;
        waiting.iter().try_for_each(|&object| self.asked.forget(object))?;
        self.directories.restart();
        self.directories.ask(self.root)?;
        Ok(true)
    }

    fn finish(&mut self, replica: &mut Replica, position: Position) -> Result<OrphanCounts, Fault> {
        // Before limbo is looked through: there a further name would let the last one go.
        replica.empty_nameless()?;
        // What becomes an orphan is out of reach then.
        replica.settle_times_or(|replica, id, fault| {
            if !is_of_one(replica, &fault) {
                return Err(fault);
            }
            self.left_out.add(&format!("object {id}: the target: {fault}"));
            Ok(())
        })?;
        self.drop_removed(replica)?;
        if self.vouching.is_none() {
            self.limbo.part_from_kept(replica)?;
        }
        let resolved = match self.resolve_vouched(replica)? {
            Some(resolved) => resolved,
            None => self.resolve_all(replica)?,
        };
        let orphans = self.orphan_counts(resolved);
        replica.places_are_others();
        // Of directories that were not listed nothing is counted.
        let keeps_others = self.vouching.is_some() && replica.keeps_orphans();
        let keeps_own = self.keeps_in_place() || self.has_kept_in_place;
        replica.keep_orphans(orphans.kept > 0 || keeps_others || keeps_own)?;
        // Those that were set aside before went without, or while the copy ran.
        replica.untimed().for_each(|id| {
            self.left_out.add(&format!("object {id}: the target: its modification time could not be set"));
        });
        match self.left_out.is_empty() && self.vouching.is_none() {
            true => self.forget_the_gone(replica)?,
            false => self.forget_what_stayed(replica)?,
        }
        if let Some(vouching) = &self.vouching {
            forget_the_dead(replica, vouching.follows_cut)?;
            self.forget_the_lost(replica)?;
        }
        self.ruled.keep(replica)?;
        replica.adopt(position)?;
        assert_eq!(replica.data().state, DataState::Bad, "a replica is good before its copy has ended");
        match self.left_out.is_empty() {
            true => replica.mark_good()?,
            false => replica.mark_in_line(&self.left_out.summary())?,
        }
        Ok(orphans)
    }

    /// Every object that was listed has a claim: ids without one are gone from the source.
    fn forget_the_gone(&self, replica: &mut Replica) -> Result<(), Fault> {
        let mut gone = Vec::new();
        replica
            .index()
            .for_each(|id, handle| {
                if self.claims.claimant(&handle)? != Some(id) {
                    gone.push(id);
                }
                Ok(())
            })
            .map_err(Fault::own("object index"))?;
        gone.into_iter().try_for_each(|id| replica.forget(id))
    }
}

/// Ids whose inodes are gone, or lie where a clone keeps them and nowhere else: who looks whether the replica is still
/// there would miss them. A copy of what is owed has claims of little, so that each is looked at.
fn forget_the_dead(replica: &mut Replica, follows_cut: bool) -> Result<(), Fault> {
    let mut kept: Table<Names> = Table::start(&replica.state().join(KEPT), CLAIMS_IN_MEMORY);
    let count = |handle: &FileHandle| {
        let before = kept.get(key(handle))?.map_or(0, |Names(names)| names);
        kept.insert(key(handle), Names(before + 1))
    };
    // What a clone keeps must not keep a copy from its end: an id that stays is found missing later, and brought anew.
    if let Err(error) = each_kept(replica.limbo(), count) {
        log::warn!("what clones keep cannot be looked at: {error}");
    }
    let mut dead = Vec::new();
    let look = |id, handle: FileHandle| {
        let in_clones = kept.get(key(&handle))?.map_or(0, |Names(names)| names);
        let is_dead = match by_handle::open(replica.root(), &handle, libc::O_PATH | libc::O_NOFOLLOW) {
            Ok(fd) => {
                let file = File::from(fd);
                // What has become of it in a session that was cut off nobody knows.
                let is_outside = || follows_cut && replica.is_present(id, &handle).is_ok_and(|is| !is);
                rustix::fs::fstat(&file).is_ok_and(|status| is_nowhere(&status, in_clones) || is_outside())
            }
            // What one object's own fault hides is not gone, and keeps no copy from its end.
            Err(error) => error.raw_os_error() == Some(libc::ESTALE),
        };
        dead.extend(is_dead.then_some(id));
        Ok(())
    };
    replica.index().for_each(look).map_err(Fault::own("object index"))?;
    dead.into_iter().try_for_each(|id| replica.forget(id))
}

// The number has another width on other processors.
#[allow(clippy::unnecessary_cast)]
fn is_nowhere(status: &Stat, in_clones: u64) -> bool {
    status.st_nlink as u64 <= in_clones
}

pub(super) fn is_below_root(replica: &Replica, object: ObjectId) -> Result<bool, Fault> {
    let Some(handle) = replica.handle(object)? else { return Ok(false) };
    match find_handle(replica, &handle)? {
        Some(found) => replica.is_below_root(&found.file),
        None => Ok(false),
    }
}
