//! Files whose content was asked for.

use std::path::Path;

use super::table::{Kept, Table, key_of};
use crate::apply::fault::Fault;
use crate::limits::ASKED_IN_MEMORY;
use crate::packet::ObjectId;
use crate::sys::FileHandle;

pub(super) struct Asked {
    files: Table<File>,
    /// Those whose content is not here yet.
    missing: u64,
}

/// What is remembered of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct File {
    /// Link count on the source when it was listed.
    links: u32,
    /// Its content is here. Remembered only where it has further names: these ask no more.
    is_copied: bool,
}

impl Asked {
    pub(super) fn start(path: &Path) -> Asked {
        Asked { files: Table::start(path, ASKED_IN_MEMORY), missing: 0 }
    }

    /// Files whose content is still to come.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    pub(super) fn contains(&self, id: ObjectId) -> Result<bool, Fault> {
        self.get(id).map(|file| file.is_some())
    }

    pub(super) fn ask(&mut self, id: ObjectId, links: u32) -> Result<(), Fault> {
        self.forget(id)?;
        self.put(id, File { links, is_copied: false })?;
        self.missing += 1;
        Ok(())
    }

    /// Its content is here.
    pub(super) fn copied(&mut self, id: ObjectId) -> Result<(), Fault> {
        let Some(file) = self.get(id)? else { return Ok(()) };
        self.forget(id)?;
        if file.links == 1 { Ok(()) } else { self.put(id, File { is_copied: true, ..file }) }
    }

    /// As if it had never been asked for.
    pub(super) fn forget(&mut self, id: ObjectId) -> Result<(), Fault> {
        let before = self.files.remove(key_of(id)).map_err(failed)?;
        let was_missing = before.is_some_and(|file| !file.is_copied);
        assert!(!was_missing || self.missing > 0, "content came of a file that nobody missed");
        self.missing -= u64::from(was_missing);
        Ok(())
    }

    fn get(&self, id: ObjectId) -> Result<Option<File>, Fault> {
        self.files.get(key_of(id)).map_err(failed)
    }

    fn put(&mut self, id: ObjectId, file: File) -> Result<(), Fault> {
        self.files.insert(key_of(id), file).map_err(failed)
    }
}

impl Kept for File {
    fn to_handle(self) -> FileHandle {
        FileHandle::from_parts(i32::from(self.is_copied), &self.links.to_le_bytes())
            .expect("4 bytes fit into a handle")
    }

    fn from_handle(handle: &FileHandle) -> Option<File> {
        let links = u32::from_le_bytes(handle.as_bytes().try_into().ok()?);
        Some(File { links, is_copied: handle.kind() != 0 })
    }
}

fn failed(error: std::io::Error) -> Fault {
    Fault::Own { what: "list of files that were asked for", error }
}
