//! What was removed on the source and is kept here: in its place, or aside for some days.
//!
//! In its place it is a name that the source does not have, as an orphan that a copy has kept, and gives way
//! to whatever needs its name ([`Replica::keep_orphans`]). A directory stays as long as something is kept in it.
//!
//! Aside it is nobody else's file: it has no name in the replica, and no object is bound to it. The source's count of
//! links does not tell that: what has stayed in its place may be a link of it. So what this side counts decides
//! ([`Replica::move_to_deleted`]).

use std::fs::File;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::fault::{Concern, Fault};
use super::perform::Doubt;
use super::replica::Replica;
use crate::clone::guard;
use crate::packet::{Entry, Keeping, Name, ObjectId, Timestamp};

impl Replica {
    /// `links`: of the object on the source, without this name.
    pub(super) fn keep_removed(
        &mut self,
        (at, dir_mtime): (&Entry, Timestamp),
        (object, links): (ObjectId, u32),
        keeping: &Keeping,
        doubt: Doubt,
    ) -> Result<(), Fault> {
        if doubt == Doubt::MayBeDone && self.handle(object)?.is_none() {
            return self.forget_gone(object);
        }
        match keeping {
            Keeping::InPlace => self.keep_in_place(at, object, links, doubt),
            Keeping::Aside { into, days } => {
                self.keep_aside((at, dir_mtime), (object, links), (into, *days), doubt)
            }
        }
    }

    fn keep_in_place(&mut self, at: &Entry, object: ObjectId, links: u32, doubt: Doubt) -> Result<(), Fault> {
        self.keep_orphans(true)?;
        let dir = self.directory(at.dir)?;
        let is_gone = doubt == Doubt::MayBeDone && self.name_holds(&dir, &at.name)?.is_none();
        if !is_gone {
            self.must_hold(&dir, &at.name, object)?;
            remove_empty_directory(&dir, &at.name)?;
        }
        match self.links_left(object, links, is_gone)? {
            0 => self.settle_time_of(object).and_then(|()| self.forget_gone(object)),
            _ => Ok(()),
        }
    }

    fn keep_aside(
        &mut self,
        (at, dir_mtime): (&Entry, Timestamp),
        (object, links): (ObjectId, u32),
        kept: (&Name, u16),
        doubt: Doubt,
    ) -> Result<(), Fault> {
        let dir: Arc<File> = self.directory(at.dir)?;
        let is_gone = doubt == Doubt::MayBeDone && self.name_holds(&dir, &at.name)?.is_none();
        let links = self.links_left(object, links, is_gone)?;
        if links > 0 {
            if is_gone || self.names_here(object)? > 1 {
                return self.unlink(at, object, links, doubt);
            }
            // Its other names on the source are none of the set's: packets go on reaching it.
            self.must_hold(&dir, &at.name, object)?;
            self.settle_time_alone(object)?;
            let unlink = |replica: &mut Replica| replica.unlink(at, object, links, doubt);
            return self.copy_to_deleted((&dir, &at.name), kept, dir_mtime, unlink);
        }
        if !is_gone {
            self.must_hold(&dir, &at.name, object)?;
            // Elsewhere nobody finds it to set it.
            self.settle_time_alone(object)?;
            // What is immutable cannot be moved: it gets its flags where it lies then.
            let file = self.object(object)?;
            self.move_to_deleted(&dir, &at.name, kept, dir_mtime)?;
            self.settle_flags_at(object, &file)?;
        }
        self.forget_gone(object)
    }
}

impl Replica {
    /// What is about to be kept gets its time. Where it cannot have it, it is kept without.
    pub(super) fn settle_time_of_kept(&mut self, object: ObjectId) -> Result<(), Fault> {
        let settled = self.settle_time_alone(object);
        if settled.is_err() {
            self.or_without_its_time(object, settled)?;
            self.forget_time(object);
        }
        Ok(())
    }

    /// Errors: those of the whole replica.
    pub(super) fn or_without_its_time(&self, object: ObjectId, set: Result<(), Fault>) -> Result<(), Fault> {
        match set {
            Err(fault) if matches!(self.concern(&fault), Concern::Object(_) | Concern::Packet) => {
                log::warn!("object {object} is kept without its time: {fault}");
                Ok(())
            }
            set => set,
        }
    }
}

/// One in which something is kept stays, and so does what is no directory.
pub(super) fn remove_empty_directory(dir: &File, name: &Name) -> Result<(), Fault> {
    let found = rustix::fs::statat(dir, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
    let found = found.map_err(Fault::system("look at what is kept"))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
        return Ok(());
    }
    guard::going(dir, name.as_bytes());
    match rustix::fs::unlinkat(dir, name.as_bytes(), AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(error) => Err(Fault::system("remove a directory")(error)),
    }
}
