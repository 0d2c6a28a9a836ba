//! Which set a backing directory belongs to: an xattr on its root, hidden from applications; and
//! which directory it is, so that an empty mount point is not taken for it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::apply::set_of;
use crate::packet::SetId;
use crate::place::Place;
use crate::store;
use crate::sys::proc_path;

/// Name of the xattr; its value is the set's id as 32 hexadecimal digits, and behind it, since that is
/// noted, the [`Place`] of the directory that was marked: a copy carries the mark of another one.
const XATTR: &str = "trusted.standin.set";
const VALUE_LEN_MAX: usize = 1024;

/// Name of the xattr that says of which run, or of which orderly end, the directory is: the state directory
/// knows the last one, and a file system that was put back to an older image has an older one.
const STAMP_XATTR: &str = "trusted.standin.run";

/// Of a run, or of its orderly end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(u64);

impl Stamp {
    /// One that no other run has.
    pub fn new() -> Stamp {
        Stamp(store::random_u64())
    }
}

/// What a directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub label: Label,
    pub place: Place,
    /// The label was written for another directory, of which this one is a copy.
    pub is_copy: bool,
    /// None of versions that did not write it.
    pub stamp: Option<Stamp>,
    /// It carries the mark of a replica of this set.
    pub replica_of: Option<SetId>,
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
        let (label, marked) = read(root)?;
        let place = Place::of(root);
        let is_copy = marked.is_some_and(|marked| place.differs_from(&marked).is_some());
        let replica_of = File::from(root.try_clone_to_owned()?);
        let replica_of = set_of(&replica_of, None)?;
        Ok(Found { label, place, is_copy, stamp: read_stamp(root)?, replica_of })
    }
}

fn read(root: BorrowedFd<'_>) -> io::Result<(Label, Option<Place>)> {
    let mut value = [0; VALUE_LEN_MAX];
    match rustix::fs::getxattr(proc_path(root), XATTR, &mut value) {
        Ok(len) => {
            let text = std::str::from_utf8(&value[..len]).unwrap_or_default();
            let (set, place) = text.split_at_checked(32).unwrap_or_default();
            let set = u128::from_str_radix(set, 16).ok();
            Ok((set.map_or(Label::None, |set| Label::Set(SetId(set))), serde_json::from_str(place).ok()))
        }
        Err(Errno::OPNOTSUPP) => Ok((Label::Impossible, None)),
        Err(Errno::NODATA | Errno::RANGE) => Ok((Label::None, None)),
        Err(error) => Err(error.into()),
    }
}

/// Marks the directory, durably: the record that asks for the mark comes after it. Where the file
/// system has no such xattrs the state directory alone knows.
pub fn write(root: impl AsFd, set: SetId) -> io::Result<()> {
    let root = root.as_fd();
    let place = Place::of(root);
    if read(root)? == (Label::Set(set), Some(place.clone())) {
        return Ok(());
    }
    let value = format!("{set}{}", serde_json::to_string(&place)?);
    match rustix::fs::setxattr(proc_path(root), XATTR, value.as_bytes(), XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(rustix::fs::fsync(root)?),
    }
}

/// The mark of a directory as it lies there; `None`: it has none.
pub struct Raw(Option<Vec<u8>>);

impl Raw {
    /// Errors: the system's, also where it is longer than any mark.
    pub fn of(root: impl AsFd) -> io::Result<Raw> {
        let mut value = [0; VALUE_LEN_MAX];
        match rustix::fs::getxattr(proc_path(root.as_fd()), XATTR, &mut value) {
            Ok(len) => Ok(Raw(Some(value[..len].to_vec()))),
            Err(Errno::NODATA) => Ok(Raw(None)),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts it back, durably.
    ///
    /// Errors: the system's; another mark may be there.
    pub fn restore(&self, root: impl AsFd) -> io::Result<()> {
        let root = root.as_fd();
        match &self.0 {
            Some(value) => rustix::fs::setxattr(proc_path(root), XATTR, value, XattrFlags::empty())?,
            None => rustix::fs::removexattr(proc_path(root), XATTR)?,
        }
        Ok(rustix::fs::fsync(root)?)
    }
}

fn read_stamp(root: BorrowedFd<'_>) -> io::Result<Option<Stamp>> {
    let mut value = [0; 8];
    match rustix::fs::getxattr(proc_path(root), STAMP_XATTR, &mut value) {
        Ok(8) => Ok(Some(Stamp(u64::from_le_bytes(value)))),
        Ok(_) | Err(Errno::OPNOTSUPP | Errno::NODATA | Errno::RANGE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Stamps the directory, durably. Where the file system has no such xattrs nothing is.
pub fn stamp(root: impl AsFd, Stamp(stamp): Stamp) -> io::Result<()> {
    let root = root.as_fd();
    match rustix::fs::setxattr(proc_path(root), STAMP_XATTR, &stamp.to_le_bytes(), XattrFlags::empty()) {
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
        assert!(!again.is_copy);
        assert_eq!(look(other.path()).place.differs_from(&found.place), Some("it is another directory"));
        // As a copy with its attributes has it, and as an earlier version wrote it.
        let mark =
            |value: &[u8]| rustix::fs::setxattr(other.path(), XATTR, value, XattrFlags::empty()).unwrap();
        let mut value = [0; VALUE_LEN_MAX];
        let len = rustix::fs::getxattr(one.path(), XATTR, &mut value).unwrap();
        mark(&value[..len]);
        let copy = look(other.path());
        assert_eq!((copy.label, copy.is_copy), (Label::Set(SetId(7)), true));
        mark(&value[..32]);
        let copy = look(other.path());
        assert_eq!((copy.label, copy.is_copy), (Label::Set(SetId(7)), false));
        mark(b"7");
        assert_eq!(look(other.path()).label, Label::None);
    }
}
