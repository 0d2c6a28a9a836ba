//! What was removed on the source and is kept, on a replica that is not good yet: by packets
//! ([`crate::packet::Op::Keep`]), and by what the source says of the whole copy ([`LaneItem::Keeping`]).

use std::os::fd::AsFd;

use super::Session;
use super::planted::{self, Planted};
use crate::apply::fault::Fault;
use crate::apply::keep::remove_empty_directory;
use crate::apply::policy;
use crate::apply::replica::{Deleted, KeptAs, Replica};
use crate::packet::{Entry, Keeping, LaneItem, Name, ObjectId, OrphanRule, Timestamp};
use crate::sys::FileHandle;

impl Session {
    /// Takes what an item says of what the source does not have.
    ///
    /// Errors: nothing is kept so.
    pub(super) fn treat_strays(&mut self, item: &LaneItem) -> Result<(), Fault> {
        match item {
            LaneItem::OrphanRules { rule, age_ms } => self.treat_orphans(*rule, *age_ms),
            LaneItem::Keeping { keeping } => self.keeps_removed(keeping)?,
            _ => {}
        }
        Ok(())
    }

    /// What the source does not list was removed there, for all that anybody knows.
    fn keeps_removed(&mut self, keeping: &Keeping) -> Result<(), Fault> {
        policy::may_be_kept(keeping)?;
        if *keeping == Keeping::InPlace {
            self.treat_orphans(OrphanRule::Keep, 0);
        }
        self.keeping = Some(keeping.clone());
        Ok(())
    }

    pub(super) fn keeps_in_place(&self) -> bool {
        self.keeping == Some(Keeping::InPlace)
    }

    /// Where to what the index knows goes that was removed on the source meanwhile.
    pub(super) fn deleted(&self, replica: &Replica) -> Result<Option<Deleted>, Fault> {
        match &self.keeping {
            Some(Keeping::Aside { into, days }) => {
                Deleted::open(replica.limbo(), into, *days, None).map(Some)
            }
            Some(Keeping::InPlace) | None => Ok(None),
        }
    }

    pub(super) fn keep_name(
        &mut self,
        replica: &mut Replica,
        (at, dir_mtime): (&Entry, Timestamp),
        (object, links): (ObjectId, u32),
        keeping: &Keeping,
    ) -> Result<(), Fault> {
        if object == self.root {
            return Err(Fault::Refused("the root directory inside itself"));
        }
        // What follows the copy needs the place, perhaps.
        self.has_kept_in_place |= *keeping == Keeping::InPlace;
        if links > 0 {
            return match keeping {
                Keeping::InPlace => self.note_stays(replica, at, object),
                Keeping::Aside { into, days } => {
                    self.keep_last_here(replica, (at, dir_mtime), (object, links), (into, *days))
                }
            };
        }
        let living = self.living(replica, object)?;
        match self.keep_last_name(replica, (at, dir_mtime), (object, living), keeping)? {
            None => return self.take_name(replica, at, object, links),
            Some(KeptAs::Itself) => {}
            // Its other names go as those of whatever packets remove, and are no orphans.
            Some(KeptAs::Copy) => {
                self.note_removed(living)?;
                return self.gone(replica, object);
            }
        }
        self.forget_all_of(replica, object)?;
        replica.forget_gone(object)
    }

    /// A name stays of what has others on the source.
    fn note_stays(&mut self, replica: &mut Replica, at: &Entry, object: ObjectId) -> Result<(), Fault> {
        self.untold(at)?;
        let (dir, living) = (self.directory_of(replica, at)?, self.living(replica, object)?);
        match (dir, living) {
            (Some(dir), Some(held)) if replica.name_holds(&dir, &at.name)? == Some(held) => {
                let dir = FileHandle::of(dir.as_fd()).map_err(Fault::system("file handle"))?;
                self.stayed.note(&dir, &at.name, held)
            }
            _ => Ok(()),
        }
    }

    /// A name of what has others on the source. Where it has none here they are none of the set's, for all that
    /// anybody knows: a copy is kept. At the end it goes from limbo, unless it has a name again.
    fn keep_last_here(
        &mut self,
        replica: &mut Replica,
        (at, dir_mtime): (&Entry, Timestamp),
        (object, links): (ObjectId, u32),
        kept: (&Name, u16),
    ) -> Result<(), Fault> {
        let living = self.living(replica, object)?;
        let dir = self.directory_of(replica, at)?;
        let is_last = match &dir {
            Some(dir) if living.is_some() && replica.name_holds(dir, &at.name)? == living => {
                replica.names_here(object)? == 1 && self.lack(object)?.is_none()
            }
            Some(_) | None => false,
        };
        let Some(dir) = dir.filter(|_| is_last && !planted::is(Planted::LosesWhatIsLinked)) else {
            return self.take_name(replica, at, object, links);
        };
        self.settle_time_of_kept(replica, object)?;
        replica.copy_to_deleted((&dir, &at.name), kept, dir_mtime, |replica| {
            self.take_name(replica, at, object, links)
        })?;
        self.note_removed(living)
    }

    /// It is kept with the time that it is to have, if it can have that.
    fn settle_time_of_kept(&self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        replica.settle_time_of_kept(object)?;
        let waits = self.unsettled.time_of(object);
        let set = waits.map_or(Ok(()), |mtime| replica.set_mtime_now(object, mtime));
        replica.or_without_its_time(object, set)
    }

    /// `None`: the name does not hold it, or not all of it.
    fn keep_last_name(
        &mut self,
        replica: &mut Replica,
        (at, dir_mtime): (&Entry, Timestamp),
        (object, living): (ObjectId, Option<FileHandle>),
        keeping: &Keeping,
    ) -> Result<Option<KeptAs>, Fault> {
        let Some(dir) = self.directory_of(replica, at)? else { return Ok(None) };
        if living.is_none() || replica.name_holds(&dir, &at.name)? != living {
            return Ok(None);
        }
        let kept = match keeping {
            Keeping::InPlace => {
                remove_empty_directory(&dir, &at.name)?;
                KeptAs::Itself
            }
            Keeping::Aside { .. } if self.lack(object)?.is_some() => return Ok(None),
            Keeping::Aside { into, days } => {
                self.settle_time_of_kept(replica, object)?;
                replica.settle_flags_before_it_goes(object)?;
                let kept = replica.move_to_deleted(&dir, &at.name, (into, *days), dir_mtime)?;
                replica.places_changed();
                kept
            }
        };
        self.untold(at)?;
        Ok(Some(kept))
    }
}
