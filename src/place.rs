//! Which directory a directory is: what a copy of it does not have, whatever else it carries.

use std::os::fd::BorrowedFd;

use serde::{Deserialize, Serialize};

use crate::sys::{FileHandle, filesystem_uuid};

/// Which directory it is, whatever it is called and wherever it is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// UUID of the file system; `None` where kernel or file system do not say.
    filesystem: Option<String>,
    /// Type and bytes of its file handle; `None` where there are none.
    handle: Option<String>,
}

impl Place {
    /// Of a directory that was opened for reading.
    pub fn of(root: BorrowedFd<'_>) -> Place {
        let hex = |handle: FileHandle| {
            let bytes: String = handle.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}:{bytes}", handle.kind())
        };
        Place {
            filesystem: filesystem_uuid(root).ok().map(|uuid| format!("{uuid:032x}")),
            handle: FileHandle::of(root).ok().map(hex),
        }
    }

    /// Why it is not the directory that it was; `None` where nothing speaks against it.
    pub fn differs_from(&self, before: &Place) -> Option<&'static str> {
        let differ = |one: &Option<String>, other: &Option<String>| matches!((one, other), (Some(one), Some(other)) if one != other);
        match () {
            () if differ(&self.filesystem, &before.filesystem) => Some("it is on another file system"),
            () if differ(&self.handle, &before.handle) => Some("it is another directory"),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_directory_is_told_from_others() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let look = |dir: &std::path::Path| Place::of(std::fs::File::open(dir).unwrap().as_fd());
        let found = look(one.path());
        assert_eq!(look(one.path()).differs_from(&found), None);
        assert_eq!(look(other.path()).differs_from(&found), Some("it is another directory"));
        let elsewhere = Place { filesystem: Some("other".into()), ..found.clone() };
        if found.filesystem.is_some() {
            assert_eq!(elsewhere.differs_from(&found), Some("it is on another file system"));
        }
        let silent = Place { filesystem: None, handle: None };
        assert_eq!(silent.differs_from(&found), None, "what is not known is no difference");
    }
}
