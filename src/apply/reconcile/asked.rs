//! Files whose content was asked for. On disk, as [`super::claims`]: a source can list as many
//! files as it likes and send the content of none.

use std::path::Path;

use crate::apply::fault::Fault;
use crate::apply::replica::{Index, remove_quietly};
use crate::packet::ObjectId;
use crate::sys::FileHandle;

pub(super) struct Asked {
    files: Index,
    /// Those whose content is not here yet.
    missing: u64,
}

/// What is remembered of a file.
#[derive(Clone, Copy)]
struct File {
    /// Link count on the source when it was listed.
    links: u32,
    /// Its content is here. Remembered only where it has further names: these ask no more.
    is_copied: bool,
}

impl Asked {
    pub(super) fn start(path: &Path) -> Result<Asked, Fault> {
        remove_quietly(path);
        Ok(Asked { files: Index::open(path).map_err(failed)?, missing: 0 })
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
        let before = self.files.remove(id).map_err(failed)?.and_then(|value| file_of(&value));
        let was_missing = before.is_some_and(|file| !file.is_copied);
        assert!(!was_missing || self.missing > 0, "content came of a file that nobody missed");
        self.missing -= u64::from(was_missing);
        Ok(())
    }

    fn get(&self, id: ObjectId) -> Result<Option<File>, Fault> {
        Ok(self.files.get(id).map_err(failed)?.and_then(|value| file_of(&value)))
    }

    fn put(&mut self, id: ObjectId, file: File) -> Result<(), Fault> {
        self.files.insert(id, value(file)).map_err(failed)
    }
}

/// A file in the clothes of a handle.
fn value(file: File) -> FileHandle {
    FileHandle::from_parts(i32::from(file.is_copied), &file.links.to_le_bytes())
        .expect("4 bytes fit into a handle")
}

fn file_of(value: &FileHandle) -> Option<File> {
    let links = u32::from_le_bytes(value.as_bytes().try_into().ok()?);
    Some(File { links, is_copied: value.kind() != 0 })
}

fn failed(error: std::io::Error) -> Fault {
    Fault::Own { what: "list of files that were asked for", error }
}
