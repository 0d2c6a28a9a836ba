//! Files whose content may not be what their id says, although size and mtime could: those that
//! were adopted by name, and those that a copy was cut off in. On disk, so that a killed target
//! knows them; files written in the same tick of the clock have the same mtime.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use crate::apply::fault::Fault;
use crate::apply::index::Index;
use crate::apply::replica::Replica;
use crate::packet::ObjectId;
use crate::sys::FileHandle;

pub(super) struct Incomplete {
    list: Index,
    /// What earlier sessions left.
    left_over: HashSet<ObjectId>,
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
        let mut left_over = HashSet::new();
        list.for_each(|id, _| {
            left_over.insert(id);
            Ok(())
        })
        .map_err(failed)?;
        Ok(Incomplete { list, left_over })
    }

    /// From now on the content is in doubt.
    pub(super) fn add(&mut self, id: ObjectId, handle: FileHandle) -> Result<(), Fault> {
        self.list.insert(id, handle).map_err(failed)
    }

    /// The content is what the source has, and its mtime says so.
    pub(super) fn remove(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.left_over.remove(&id);
        self.list.remove(id).map(drop).map_err(failed)
    }

    pub(super) fn was_left_over(&self, id: ObjectId) -> bool {
        self.left_over.contains(&id)
    }
}

fn failed(error: io::Error) -> Fault {
    Fault::System { what: "list of incomplete files", error }
}
