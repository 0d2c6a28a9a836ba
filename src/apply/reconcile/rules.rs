//! What counts in a copy for what is there already and was not brought by it.

use std::fs::File;

use super::Session;
use super::entry::find_name;
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::packet::{Birth, ListedObject, Name, ObjectId};
use crate::sys::FileHandle;
use crate::words::OF_THE_DISK;

/// What a file of the replica is worth that has the right name and is bound to no id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameMatch {
    /// Its content is copied: neither name nor times prove what it is.
    #[default]
    Copy,
    /// Size and mtime decide, as for a file that is known by its id. For a directory that a person
    /// says is a copy.
    Compare,
}

/// What becomes of an object at a listed name that no copy has brought. Directories are no such
/// objects: they get owner, mode, attributes and time of the source's, and stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It is made the source's.
    #[default]
    Replace,
    /// It stays as it is.
    Keep,
    /// It stays, unless the source's has a later mtime.
    KeepNewer,
}

/// What becomes of names that the source does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strays {
    /// They go to limbo.
    #[default]
    Aside,
    /// They go to limbo, but for what `mkfs` has made in the root of a file system.
    AsideOnDisk,
    /// They stay.
    Keep,
}

/// What becomes of what has names outside of the directory, too (a copy of it by hard links): whatever is changed by
/// one name changes under all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkedOut {
    /// It is made the source's.
    #[default]
    Written,
    /// Its name gets another object.
    Replaced,
}

/// All of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    pub name_match: NameMatch,
    pub existing: Existing,
    pub strays: Strays,
    /// Neither size nor time says that a file is the source's.
    pub suspects_all: bool,
    pub linked_out: LinkedOut,
}

impl Session {
    /// Whether a name that the source does not list stays.
    pub(super) fn stray_stays(&self, dir: ObjectId, name: &Name) -> bool {
        match self.rules.strays {
            Strays::Aside => false,
            Strays::AsideOnDisk => dir == self.root && name.as_bytes() == OF_THE_DISK.as_bytes(),
            Strays::Keep => true,
        }
    }

    /// Whether a name keeps what it holds, whatever is listed there. `bound`: what a copy has brought
    /// for this entry.
    pub(super) fn stays(
        &self,
        dir: &File,
        entry: &ListedObject,
        bound: Option<FileHandle>,
    ) -> Result<bool, Fault> {
        if self.rules.existing == Existing::Replace {
            return Ok(false);
        }
        let Some(found) = find_name(dir, &entry.name)? else { return Ok(false) };
        let is_directory = super::places::is_directory(&found);
        let is_of_a_copy = bound == Some(found.handle) || self.links.replaces(&found.handle)?;
        if is_of_a_copy || is_directory && entry.birth == Birth::Directory {
            return Ok(false);
        }
        Ok(match self.rules.existing {
            Existing::Replace => false,
            Existing::Keep => true,
            Existing::KeepNewer => is_directory || inode::mtime(&found.status) >= entry.attributes.mtime,
        })
    }
}
