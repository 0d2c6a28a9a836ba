//! A copy of what is owed that compares: of a part of the set, on a replica that somebody may have changed.
//!
//! What lies elsewhere is vouched for, and so is what lies in the part, for packets. A listing looks at what it
//! shows first, as in a copy of everything; a directory whose listing has come is *walked*. What a packet moves
//! into a walked directory without having been looked at is a doubt: the directory is listed again. Where it
//! comes to lie anywhere else, its listing is to come, or nobody asked for it.
//!
//! The replica may have in the part what belongs elsewhere, or lack what packets come to. Then everything is
//! looked at: the session becomes one of everything, whose sources suspects what has changed since its beginning.

use super::Session;
use super::claims::key;
use super::lost::Lost;
use super::planted::{self, Planted};
use super::vouched::failed;
use crate::apply::fault::Fault;
use crate::apply::replica::Replica;
use crate::limits::MISSED_MAX;
use crate::packet::ObjectId;
use crate::sys::FileHandle;

/// Objects that packets came to and that are not here.
#[derive(Default)]
pub(super) struct Missed {
    objects: Vec<ObjectId>,
    /// More than are noted.
    are_many: bool,
}

impl Session {
    /// What is vouched for counts for packets; a listing looks at it.
    pub(super) fn compares(&self) -> bool {
        self.vouching.as_ref().is_some_and(|vouching| vouching.compares)
    }

    /// A listing of this session has shown it, or a packet has made it, or nobody has to look at it.
    pub(super) fn was_shown(&self, replica: &Replica, id: ObjectId) -> Result<bool, Fault> {
        if !self.compares() || planted::is(Planted::ComparesNothing) {
            return self.is_seen(replica, id);
        }
        let Some(handle) = replica.handle(id)? else { return Ok(false) };
        let claimant = self.claims.claimant(&handle).map_err(Fault::system("claims"))?;
        Ok(claimant == Some(id))
    }

    /// Whether nobody has looked at an object that gets a name in this directory, and nobody will.
    pub(super) fn passes_the_walk(
        &self,
        replica: &Replica,
        dir: ObjectId,
        object: ObjectId,
    ) -> Result<bool, Fault> {
        if !self.compares() || planted::is(Planted::MovedIntoTheWalked) {
            return Ok(false);
        }
        let is_open = self.listing.as_ref().is_some_and(|listing| listing.dir == dir);
        Ok((is_open || self.directories.is_walked(dir)?) && !self.was_shown(replica, object)?)
    }

    /// A directory that a listing of a walked one has shown first is walked, too.
    pub(super) fn shown_in_walked(&mut self, dir: ObjectId, shown: ObjectId) -> Result<(), Fault> {
        match self.compares() && self.directories.is_walked(dir)? {
            true => self.directories.unlist(shown),
            false => Ok(()),
        }
    }

    /// A packet came to it, and it is not here: of the part it comes with its listing. `false`: that is no
    /// surprise, or one for others.
    pub(super) fn misses(&mut self, object: ObjectId, fault: &Fault) -> bool {
        let is_missing = matches!(fault, Fault::MissingObject(_) | Fault::Outside { .. });
        let Some(vouching) = self.vouching.as_mut().filter(|vouching| vouching.compares && is_missing) else {
            return false;
        };
        let missed = &mut vouching.missed;
        match missed.objects.len() < MISSED_MAX {
            _ if missed.objects.contains(&object) => {}
            true => missed.objects.push(object),
            false => missed.are_many = true,
        }
        true
    }

    /// A packet has removed it for good, and it has a name that was taken before, or that is none of the replica's: in
    /// limbo it is none that belongs elsewhere.
    pub(super) fn outlived(&mut self, handle: &FileHandle) -> Result<(), Fault> {
        let Some(vouching) = &mut self.vouching else { return Ok(()) };
        vouching.lost.insert(key(handle), Lost::All).map_err(failed)?;
        match vouching.compares {
            true => vouching.removed.insert(key(handle), ()).map_err(failed),
            false => Ok(()),
        }
    }

    /// Whether what waits in limbo under an id was deleted on the source: of a part that is compared packets have
    /// said so; of another copy nothing is known that is not.
    pub(super) fn was_removed(&self, handle: &FileHandle) -> std::io::Result<bool> {
        match self.vouching.as_ref().filter(|vouching| vouching.compares) {
            Some(vouching) => Ok(vouching.removed.get(key(handle))?.is_some()),
            None => Ok(true),
        }
    }

    /// Something of the part belongs elsewhere, or something is lacking: what nobody has shown is looked at as well.
    pub(super) fn looks_everywhere(&mut self, replica: &mut Replica) -> Result<bool, Fault> {
        if !self.compares() || planted::is(Planted::KeepsToThePart) {
            return Ok(false);
        }
        let looks = self.still_misses(replica)? || self.holds_what_is_of_elsewhere(replica)?;
        if looks {
            log::info!(
                "what was found in the part is not all of it, or belongs elsewhere: everything is looked at"
            );
            self.vouching = None;
            self.directories.restart();
            self.directories.ask(self.root)?;
        }
        Ok(looks)
    }

    fn still_misses(&self, replica: &Replica) -> Result<bool, Fault> {
        let Some(vouching) = &self.vouching else { return Ok(false) };
        let mut misses = vouching.missed.are_many;
        for &object in &vouching.missed.objects {
            // What was removed since is known no more.
            misses |= replica.handle(object)?.is_some() && !self.was_shown(replica, object)?;
        }
        Ok(misses)
    }

    fn holds_what_is_of_elsewhere(&mut self, replica: &mut Replica) -> Result<bool, Fault> {
        let lying = self.lying(replica)?;
        let mut is_of_elsewhere = false;
        let look = |_, handle: FileHandle| {
            is_of_elsewhere |= lying.holds(&handle)?
                && self.claims.claimant(&handle)?.is_none()
                && !self.was_removed(&handle)?;
            Ok(())
        };
        if !lying.is_empty() {
            replica.index().for_each(look).map_err(Fault::own("object index"))?;
        }
        Ok(is_of_elsewhere)
    }
}
