//! What waits after a copy of what is owed, was deleted on the source, and lives on by names that are none of the
//! replica's: a snapshot of hard links that a person has made, what is kept or was moved aside before. Its names in
//! limbo would go as those of what lives on. Where it is to be kept, a copy takes the place of one of them before.

use std::collections::HashMap;
use std::fs::File;

use super::living::{Names, has_several};
use super::parts::handle_of;
use super::{Limbo, below};
use crate::apply::fault::{Concern, Fault};
use crate::apply::replica::deleted::{DELETED, replace_by_copy};
use crate::apply::replica::{Replica, trees};
use crate::limits::LINKED_IN_MEMORY;
use crate::packet::Name;
use crate::sys::FileHandle;

/// A copy of what waits, in its place.
pub(in crate::apply) struct Copied {
    pub of: FileHandle,
    pub copy: FileHandle,
    /// It has a name in the replica.
    pub lives: bool,
}

impl Limbo {
    /// Visits what waits and has several names; not in limbo alone, perhaps.
    pub(in crate::apply) fn each_shared(
        &mut self,
        mount: &File,
        mut visit: impl FnMut(&FileHandle) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.batch = None;
        below(mount, &self.waiting, |_, _, fd, status| match has_several(&status) {
            true => visit(&handle_of(fd)?),
            false => Ok(()),
        })
    }

    /// Puts a copy in the place of one name of each of these that lives on and has no name in the replica; `copied`
    /// hears of both. Where the replica has names that its source does not have, nobody knows which they are: there is
    /// a copy of what lives on there as well, and `copied` hears that it does.
    pub(in crate::apply) fn copy_lost(
        &mut self,
        replica: &mut Replica,
        is_one: impl Fn(&FileHandle) -> Result<bool, Fault>,
        mut copied: impl FnMut(&mut Replica, Copied) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.batch = None;
        let root = replica.root().try_clone().map_err(Fault::own("limbo"))?;
        let (mut part, mut parts) = (0, 1);
        while part < parts {
            let mut names = Names::of_part(part, parts, LINKED_IN_MEMORY);
            if !names.count(&root, &self.waiting)? {
                (part, parts) = (0, parts * 2);
                continue;
            }
            let mut lost = HashMap::new();
            below(&root, &self.waiting, |_, _, fd, status| {
                if names.is_elsewhere(&status) {
                    let handle = handle_of(fd)?;
                    if is_one(&handle)? {
                        lost.insert(handle, status.st_ino);
                    }
                }
                Ok(())
            })?;
            let mut nameless = lost.clone();
            replica.strike_names_below_root(&mut nameless)?;
            if !replica.keeps_orphans() {
                lost.clone_from(&nameless);
            }
            let mut tell = |replica: &mut Replica, of: FileHandle, copy: FileHandle| {
                copied(replica, Copied { of, copy, lives: !nameless.contains_key(&of) })
            };
            self.copy_these(replica, &root, lost, &mut tell)?;
            part += 1;
        }
        Ok(())
    }

    fn copy_these(
        &self,
        replica: &mut Replica,
        root: &File,
        mut lost: HashMap<FileHandle, u64>,
        copied: &mut impl FnMut(&mut Replica, FileHandle, FileHandle) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if lost.is_empty() {
            return Ok(());
        }
        below(root, &self.waiting, |dir, name, fd, _| {
            let handle = handle_of(fd)?;
            if lost.remove(&handle).is_none() {
                return Ok(());
            }
            match self.own_copy(replica, dir, name)? {
                Some(copy) => copied(replica, handle, copy),
                None => Ok(()),
            }
        })
    }

    /// What is kept and has names elsewhere, as earlier versions left it, gets a copy in its place: by them it would
    /// change.
    pub(in crate::apply) fn part_from_kept(&self, replica: &mut Replica) -> Result<(), Fault> {
        let place = Name::new(DELETED.as_bytes()).expect("a constant is a name");
        let kept = trees::open(&self.limbo, &place).map_err(Fault::system("look at what is kept"))?;
        let Some(kept) = kept else { return Ok(()) };
        let root = replica.root().try_clone().map_err(Fault::own("limbo"))?;
        let (mut part, mut parts) = (0, 1);
        while part < parts {
            let mut names = Names::of_part(part, parts, LINKED_IN_MEMORY);
            if !names.count(&root, &kept)? {
                (part, parts) = (0, parts * 2);
                continue;
            }
            below(&root, &kept, |dir, name, _, status| match names.is_elsewhere(&status) {
                true => self.own_copy(replica, dir, name).map(drop),
                false => Ok(()),
            })?;
            part += 1;
        }
        Ok(())
    }

    /// `None`: this one cannot be copied.
    fn own_copy(&self, replica: &Replica, dir: &File, name: &Name) -> Result<Option<FileHandle>, Fault> {
        match replace_by_copy(&self.limbo, dir, name, &*replica.goes_on()) {
            Ok(copy) => Ok(Some(copy)),
            Err(fault) => match replica.concern(&fault) {
                Concern::Object(_) | Concern::Packet => {
                    log::warn!("{name:?}, which the source has removed, cannot be kept by itself: {fault}");
                    Ok(None)
                }
                Concern::Replica { .. } | Concern::Proof => Err(fault),
            },
        }
    }
}
