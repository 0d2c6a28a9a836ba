//! What waits in limbo at the end of a copy, names of what lives on apart: its id is known no more, also where a
//! listing had shown it, or it would be missed as soon as it is removed there. So it is with what has left the set by its
//! last name in it: the source says that the name is gone, and cannot say that no other one is here.

use rustix::fs::FileType;

use super::Session;
use super::claims::key;
use super::entry::find_handle;
use super::stayed::Names;
use super::table::Table;
use super::vouched::failed;
use crate::apply::fault::Fault;
use crate::apply::replica::{Replica, Resolved};
use crate::clone::names_kept;
use crate::limits::CLAIMS_IN_MEMORY;
use crate::packet::{Name, ObjectId};
use crate::sys::FileHandle;

/// A file of a session in the replica's state directory.
const LYING: &str = "lying";

pub(super) struct Lying {
    /// By inode: how many of its names.
    names: Table<Names>,
    /// Where they lie.
    pub(super) batches: Vec<Name>,
}

impl Lying {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn holds(&self, handle: &FileHandle) -> std::io::Result<bool> {
        Ok(self.names.get(key(handle))?.is_some())
    }

    /// Whether it has no name elsewhere, clones apart: one that could not be taken away says nothing.
    fn holds_all_of(&self, replica: &Replica, handle: &FileHandle) -> Result<bool, Fault> {
        let Some(Names(names)) = self.names.get(key(handle)).map_err(failed)? else { return Ok(false) };
        let Some(found) = find_handle(replica, handle)? else { return Ok(true) };
        let is_directory = FileType::from_raw_mode(found.status.st_mode) == FileType::Directory;
        Ok(is_directory || found.status.st_nlink <= names + names_kept(replica.limbo(), handle))
    }
}

impl Session {
    /// Takes away the names of what lives on, and finds everything else that waits.
    pub(super) fn lying(&mut self, replica: &Replica) -> Result<Lying, Fault> {
        self.note_shared(replica)?;
        let mut names: Table<Names> = Table::start(&replica.state().join(LYING), CLAIMS_IN_MEMORY);
        let batches = self.limbo.each_waiting(replica.root(), replica.limbo(), |handle| {
            let before = names.get(key(handle)).map_err(failed)?;
            let before = before.map_or(0, |Names(names)| names);
            names.insert(key(handle), Names(before + 1)).map_err(failed)
        })?;
        Ok(Lying { names, batches })
    }

    /// Before it is moved: a copy that is killed then finds none of it again.
    pub(super) fn forget_what_lies(
        &self,
        replica: &mut Replica,
        lying: &Lying,
        but: impl Fn(&FileHandle) -> std::io::Result<bool>,
    ) -> Result<(), Fault> {
        let mut found: Vec<(ObjectId, FileHandle)> = Vec::new();
        let look = |id, handle: FileHandle| {
            if id != self.root && lying.holds(&handle)? && !but(&handle)? {
                found.push((id, handle));
            }
            Ok(())
        };
        replica.index().for_each(look).map_err(Fault::own("object index"))?;
        for (id, handle) in found {
            if lying.holds_all_of(replica, &handle)? {
                replica.forget(id)?;
            }
        }
        Ok(())
    }

    /// What waits at the end of a copy of everything is an orphan.
    pub(super) fn resolve_all(&mut self, replica: &mut Replica) -> Result<Resolved, Fault> {
        let lying = self.lying(replica)?;
        if lying.is_empty() {
            return Ok(Resolved::default());
        }
        self.forget_what_lies(replica, &lying, |_| Ok(false))?;
        self.limbo.resolve_left(replica.root(), replica.limbo(), lying.batches, self.deletes(replica))
    }
}
