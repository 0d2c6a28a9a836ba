//! What packets do to the names of a replica while it is compared.

use super::Check;
use crate::apply::fault::Fault;
use crate::apply::reconcile::table::key_of;
use crate::packet::{Birth, Entry, Keeping, Name, ObjectId, Op};

impl Check {
    /// A packet was performed.
    ///
    /// Errors: of the lists that are kept.
    pub(in crate::apply::reconcile) fn passed(&mut self, op: &Op) -> Result<(), Fault> {
        match op {
            Op::Create { at, object, birth, .. } => {
                self.see(*object)?;
                if *birth == Birth::Directory {
                    self.directories.is_new(*object)?;
                }
                self.told(at.dir, &at.name)
            }
            Op::Link { object, at, .. } => self.moved_to(at, *object),
            Op::Unlink { at, object, links, .. } => {
                self.untold(at)?;
                if *links == 0 { self.gone(*object) } else { Ok(()) }
            }
            Op::Keep { at, object, links, keeping, .. } => {
                match keeping {
                    Keeping::InPlace => self.keeps_in_place = true,
                    Keeping::Aside { .. } => self.untold(at)?,
                }
                if *links == 0 { self.gone(*object) } else { Ok(()) }
            }
            Op::RemoveDirectory { at, object, .. } | Op::Leave { at, object, .. } => {
                self.untold(at)?;
                self.gone(*object)
            }
            Op::Rename { from, to, object, replaced, whiteout, .. } => {
                self.untold(from)?;
                if let Some(whiteout) = whiteout {
                    self.see(whiteout.object)?;
                    self.told(from.dir, &from.name)?;
                }
                if let Some(replaced) = replaced.filter(|replaced| replaced.links == 0) {
                    self.gone(replaced.object)?;
                }
                self.moved_to(to, *object)
            }
            Op::Exchange { left, left_object, right, right_object, .. } => {
                self.moved_to(left, *right_object)?;
                self.moved_to(right, *left_object)
            }
            Op::Write { .. }
            | Op::Resize { .. }
            | Op::Reserve { .. }
            | Op::SetAttributes { .. }
            | Op::SetXattr { .. }
            | Op::RemoveXattr { .. }
            | Op::Barrier { .. }
            | Op::Unstage { .. } => Ok(()),
            // All of it comes by packets.
            Op::Stage { object, .. } => self.see(*object),
            Op::Place { object, at, replaced, .. } => {
                if let Some(replaced) = replaced.filter(|replaced| replaced.links == 0) {
                    self.gone(replaced.object)?;
                }
                self.moved_to(at, *object)
            }
        }
    }

    /// A name holds an object that may come from where nothing was listed yet.
    fn moved_to(&mut self, at: &Entry, object: ObjectId) -> Result<(), Fault> {
        self.told(at.dir, &at.name)?;
        if self.is_seen(object)? {
            return Ok(());
        }
        let is_open = self.listing.as_ref().is_some_and(|listing| listing.dir == at.dir);
        self.directories.doubt(at.dir, is_open)
    }

    /// Its inode number may be another object's from now on.
    fn gone(&mut self, object: ObjectId) -> Result<(), Fault> {
        self.seen.remove(key_of(object)).map_err(Fault::own("objects that were compared"))?;
        self.listing.take_if(|listing| listing.dir == object);
        self.directories.forget(object)
    }

    /// A name is no extra one.
    pub(super) fn told(&mut self, dir: ObjectId, name: &Name) -> Result<(), Fault> {
        match &mut self.listing {
            Some(listing) if listing.dir == dir => listing.names.insert(name),
            Some(_) | None => Ok(()),
        }
    }

    fn untold(&mut self, at: &Entry) -> Result<(), Fault> {
        match &mut self.listing {
            Some(listing) if listing.dir == at.dir => listing.names.remove(&at.name),
            Some(_) | None => Ok(()),
        }
    }
}
