//! A rename that replaces nothing, on any file system.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, RenameFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// `RENAME_NOREPLACE`. A file system that does not know the flag says `EINVAL` (renameat2(2): NFS, CephFS, most of FUSE):
/// there the new name is looked at first, which keeps off nobody else who writes there.
///
/// Errors: `EXIST` where the new name is taken; else those of renameat2(2).
pub fn rename_to_new(
    (from_dir, from): (impl AsFd, impl Arg + Copy),
    (to_dir, to): (impl AsFd, impl Arg + Copy),
) -> Result<(), Errno> {
    let (from_dir, to_dir) = (from_dir.as_fd(), to_dir.as_fd());
    match flagged(|| rustix::fs::renameat_with(from_dir, from, to_dir, to, RenameFlags::NOREPLACE)) {
        Err(Errno::INVAL) => match rustix::fs::statat(to_dir, to, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::renameat(from_dir, from, to_dir, to),
            Err(error) => Err(error),
        },
        renamed => renamed,
    }
}

#[cfg(not(test))]
fn flagged(rename: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    rename()
}

#[cfg(test)]
fn flagged(rename: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    if lacking::is() { Err(Errno::INVAL) } else { rename() }
}

/// A file system that does not know the flag, for this thread.
#[cfg(test)]
pub mod lacking {
    use std::cell::Cell;

    thread_local! {
        static LACKS: Cell<bool> = const { Cell::new(false) };
    }

    pub fn is() -> bool {
        LACKS.get()
    }

    pub fn set(lacks: bool) {
        LACKS.set(lacks);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn nothing_is_replaced_without_the_flag_either() {
        for lacks in [false, true] {
            lacking::set(lacks);
            let dir = tempfile::tempdir().unwrap();
            let at = File::open(dir.path()).unwrap();
            fs::write(dir.path().join("a"), "a").unwrap();
            fs::hard_link(dir.path().join("a"), dir.path().join("same")).unwrap();
            fs::create_dir_all(dir.path().join("d/e")).unwrap();
            assert_eq!(rename_to_new((&at, "a"), (&at, "same")), Err(Errno::EXIST));
            assert_eq!(rename_to_new((&at, "a"), (&at, "d")), Err(Errno::EXIST));
            assert_eq!(rename_to_new((&at, "d"), (&at, "d/e/d")), Err(Errno::INVAL));
            assert_eq!(rename_to_new((&at, "none"), (&at, "b")), Err(Errno::NOENT));
            assert_eq!(rename_to_new((&at, "a"), (&at, "b")), Ok(()));
            assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"a");
            lacking::set(false);
        }
    }
}
