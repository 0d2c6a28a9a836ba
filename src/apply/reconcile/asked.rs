//! Files whose content was asked for and has not come.

use std::path::Path;

use super::table::{Table, key_of};
use crate::apply::fault::Fault;
use crate::limits::ASKED_IN_MEMORY;
use crate::packet::ObjectId;

pub(super) struct Asked(Table<()>);

impl Asked {
    pub(super) fn start(path: &Path) -> Asked {
        Asked(Table::start(path, ASKED_IN_MEMORY))
    }

    pub(super) fn contains(&self, id: ObjectId) -> Result<bool, Fault> {
        Ok(self.0.get(key_of(id)).map_err(failed)?.is_some())
    }

    pub(super) fn ask(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.0.insert(key_of(id), ()).map_err(failed)
    }

    /// It is here, or does not come.
    pub(super) fn forget(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.0.remove(key_of(id)).map(drop).map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Fault {
    Fault::Own { what: "list of files that were asked for", error }
}
