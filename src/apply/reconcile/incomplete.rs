//! Files whose content may not be what their id says, although size and mtime could: those that
//! were adopted by name, and those that a copy was cut off in. On disk, so that a killed target
//! knows them; files written in the same tick of the clock have the same mtime.

use std::io;
use std::path::Path;

use crate::apply::fault::Fault;
use crate::apply::index::Index;
use crate::apply::replica::Replica;
use crate::packet::ObjectId;
use crate::store::random_u64;
use crate::sys::FileHandle;

pub(super) struct Incomplete {
    list: Index,
    /// What this session adds; everything else is what earlier sessions left.
    mark: FileHandle,
}

impl Incomplete {
    /// Opens the list. Where it is damaged every id is forgotten: then all content is wanted.
    pub(super) fn open(path: &Path, replica: &mut Replica) -> Result<Incomplete, Fault> {
        let list = match Index::open(path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                log::warn!("{}: {error}; all content is copied again", path.display());
                replica.forget_all()?;
                std::fs::remove_file(path).and_then(|()| Index::open(path))
            }
            opened => opened,
        }
        .map_err(failed)?;
        let mark = FileHandle::from_parts(0, &random_u64().to_le_bytes()).expect("8 bytes fit into a handle");
        Ok(Incomplete { list, mark })
    }

    /// From now on the content is in doubt.
    pub(super) fn add(&mut self, id: ObjectId) -> Result<(), Fault> {
        match self.was_left_over(id)? {
            // It stays what it is until its content has come.
            true => Ok(()),
            false => self.list.insert(id, self.mark).map_err(failed),
        }
    }

    /// The content is what the source has, and its mtime says so.
    pub(super) fn remove(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.list.remove(id).map(drop).map_err(failed)
    }

    pub(super) fn was_left_over(&self, id: ObjectId) -> Result<bool, Fault> {
        Ok(self.list.get(id).map_err(failed)?.is_some_and(|mark| mark != self.mark))
    }
}

fn failed(error: io::Error) -> Fault {
    Fault::Own { what: "list of incomplete files", error }
}
