//! Which set a backing directory belongs to: an xattr on its root, hidden from applications; and
//! which directory it is, so that an empty mount point is not taken for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::packet::SetId;
use crate::place::Place;
use crate::sys::proc_path;

/// Name of the xattr; its value is the set's id as 32 hexadecimal digits.
const XATTR: &str = "trusted.standin.set";

/// What a directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub label: Label,
    pub place: Place,
}

/// The xattr of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    Set(SetId),
    None,
    /// The file system has no such xattrs: nothing can be told from their absence.
    Impossible,
}

impl Found {
    /// Looks at a directory that was opened for reading.
    ///
    /// Errors: the file system does not say (a disk that fails): nothing follows from that.
    pub fn at(root: impl AsFd) -> io::Result<Found> {
        let root = root.as_fd();
        Ok(Found { label: read(root)?, place: Place::of(root) })
    }
}

fn read(root: BorrowedFd<'_>) -> io::Result<Label> {
    let mut value = [0; 32];
    match rustix::fs::getxattr(proc_path(root), XATTR, &mut value) {
        Ok(len) => {
            let text = value.get(..len).and_then(|value| std::str::from_utf8(value).ok());
            let set = text.and_then(|text| u128::from_str_radix(text, 16).ok());
            Ok(set.map_or(Label::None, |set| Label::Set(SetId(set))))
        }
        Err(Errno::OPNOTSUPP) => Ok(Label::Impossible),
        Err(Errno::NODATA | Errno::RANGE) => Ok(Label::None),
        Err(error) => Err(error.into()),
    }
}

/// Marks the directory, durably: the record that asks for the mark comes after it. Where the file
/// system has no such xattrs the state directory alone knows.
pub fn write(root: impl AsFd, set: SetId) -> io::Result<()> {
    let root = root.as_fd();
    if read(root)? == Label::Set(set) {
        return Ok(());
    }
    let value = set.to_string();
    match rustix::fs::setxattr(proc_path(root), XATTR, value.as_bytes(), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(rustix::fs::fsync(root)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_told_from_others() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let look = |dir: &std::path::Path| Found::at(std::fs::File::open(dir).unwrap()).unwrap();
        let found = look(one.path());
        assert_eq!(found.label, Label::None);
        write(std::fs::File::open(one.path()).unwrap(), SetId(7)).unwrap();
        let again = look(one.path());
        assert_eq!(again.label, Label::Set(SetId(7)));
        assert_eq!(again.place.differs_from(&found.place), None);
        assert_eq!(look(other.path()).place.differs_from(&found.place), Some("it is another directory"));
    }
}
