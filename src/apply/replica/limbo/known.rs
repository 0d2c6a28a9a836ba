//! What lies in limbo, or below any directory, and is known by an id.

use std::collections::HashMap;
use std::fs::File;

use super::living::has_several;
use super::parts::handle_of;
use super::{Limbo, below, names, open_directory};
use crate::apply::fault::Fault;
use crate::apply::replica::Replica;
use crate::limits::LEAVING_IN_MEMORY;
use crate::packet::{Name, ObjectId};
use crate::sys::FileHandle;

impl Limbo {
    /// The names that are taken next go where none of before lies.
    pub(in crate::apply) fn part_batches(&mut self) {
        self.batch = None;
    }

    /// Where something waits.
    pub(in crate::apply) fn batches(&self) -> Result<Vec<Name>, Fault> {
        names(&self.waiting)
    }

    pub(in crate::apply) fn open_batch(&self, batch: &Name) -> Result<File, Fault> {
        open_directory(&self.waiting, batch)
    }
}

impl Replica {
    /// Visits all that lies below a directory and has an id, and whether it has several names.
    pub(in crate::apply) fn each_known_below(
        &mut self,
        top: &File,
        mut visit: impl FnMut(&mut Replica, ObjectId, bool) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut found = HashMap::new();
        let root = self.root().try_clone().map_err(Fault::system("root"))?;
        below(&root, top, |_, _, fd, status| {
            found.insert(handle_of(fd)?, has_several(&status));
            if found.len() == LEAVING_IN_MEMORY { self.visit_all(&mut found, &mut visit) } else { Ok(()) }
        })?;
        self.visit_all(&mut found, &mut visit)
    }

    /// The index knows no way from an inode to its id: it is read once for many.
    fn visit_all(
        &mut self,
        found: &mut HashMap<FileHandle, bool>,
        visit: &mut impl FnMut(&mut Replica, ObjectId, bool) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut known = Vec::new();
        if !found.is_empty() {
            let each = |id, handle| {
                known.extend(found.get(&handle).map(|has_several| (id, *has_several)));
                Ok(())
            };
            self.index().for_each(each).map_err(Fault::own("object index"))?;
        }
        found.clear();
        known.into_iter().try_for_each(|(id, has_several)| visit(self, id, has_several))
    }
}
