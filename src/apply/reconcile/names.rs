//! Names of one directory that were listed: in memory as long as they are few, then on disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use crate::apply::fault::Fault;
use crate::apply::replica::{Index, remove_quietly};
use crate::limits::LISTED_NAMES_IN_MEMORY;
use crate::packet::{Name, ObjectId};
use crate::sys::FileHandle;

/// 128 bits of hash stand for a name.
pub(super) struct Names {
    few: HashSet<u128>,
    many: Option<Index>,
    path: PathBuf,
}

impl Names {
    /// None yet; `path` is where many of them would go.
    pub(super) fn none(path: &Path) -> Names {
        Names { few: HashSet::new(), many: None, path: path.to_owned() }
    }

    pub(super) fn insert(&mut self, name: &Name) -> Result<(), Fault> {
        let hash = xxh3_128(name.as_bytes());
        if self.few.len() < LISTED_NAMES_IN_MEMORY {
            self.few.insert(hash);
            return Ok(());
        }
        let many = match self.many.take() {
            Some(many) => many,
            None => {
                remove_quietly(&self.path);
                Index::open(&self.path).map_err(failed)?
            }
        };
        self.many.insert(many).insert(key(hash), nothing()).map_err(failed)
    }

    pub(super) fn contains(&self, name: &Name) -> Result<bool, Fault> {
        let hash = xxh3_128(name.as_bytes());
        match &self.many {
            _ if self.few.contains(&hash) => Ok(true),
            Some(many) => Ok(many.get(key(hash)).map_err(failed)?.is_some()),
            None => Ok(false),
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        if self.many.is_some() {
            remove_quietly(&self.path);
        }
    }
}

fn key(hash: u128) -> ObjectId {
    ObjectId { birth_epoch: (hash >> 96) as u32, generation: (hash >> 64) as u32, inode: hash as u64 }
}

fn nothing() -> FileHandle {
    FileHandle::from_parts(0, &[]).expect("nothing fits into a handle")
}

fn failed(error: std::io::Error) -> Fault {
    Fault::Own { what: "list of names", error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_names_than_memory_takes_are_all_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        let mut names = Names::none(&path);
        let name = |number: usize| Name::new(number.to_string().as_bytes()).unwrap();
        let count = LISTED_NAMES_IN_MEMORY + 5000;
        (0..count).for_each(|number| names.insert(&name(number)).unwrap());
        assert!(path.exists() && names.few.len() == LISTED_NAMES_IN_MEMORY);
        assert!((0..count).all(|number| names.contains(&name(number)).unwrap()));
        assert!((count..count + 5000).all(|number| !names.contains(&name(number)).unwrap()));
        drop(names);
        assert!(!path.exists());
    }
}
