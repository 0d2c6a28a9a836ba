//! Whether a file system's handles are identities: one for each object whatever its names, and for good.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::sys::{FileHandle, is_fuse};

const PROBE: &str = "handles";
const ELSEWHERE: &str = "handles-elsewhere";

/// Those of FUSE are numbers that its daemon gives out from the mount on (`fuse_encode_fh` of `fs/fuse/inode.c`):
/// after the next mount an old one opens another file.
const FUSE: &str = "its file handles are good until it is unmounted only (FUSE)";

/// Behind NFS exports with `subtree_check` a handle holds the directory, too.
const OF_NAMES: &str = "its file handles are of names, and not of files";

/// Why the handles of the file system of a directory name no objects, as far as can be told without writing.
///
/// Errors: the directory cannot be asked.
pub fn are_passing(dir: &File) -> io::Result<Option<&'static str>> {
    Ok(is_fuse(dir)?.then_some(FUSE))
}

/// The same, tried out. Nothing is found against one that makes no files now, or no hard links.
pub(super) fn are_of_names(limbo: &File) -> Option<&'static str> {
    matches!(two_names_are_one(limbo), Ok(false)).then_some(OF_NAMES)
}

/// A file is given a second name, in another directory; nothing of it is left.
fn two_names_are_one(limbo: &File) -> io::Result<bool> {
    let clear = || {
        let elsewhere = rustix::fs::openat(limbo, ELSEWHERE, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        let _ = elsewhere.and_then(|dir| rustix::fs::unlinkat(dir, PROBE, AtFlags::empty()));
        let _ = rustix::fs::unlinkat(limbo, ELSEWHERE, AtFlags::REMOVEDIR);
        let _ = rustix::fs::unlinkat(limbo, PROBE, AtFlags::empty());
    };
    clear();
    let compared = || -> io::Result<bool> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(limbo, PROBE, flags, Mode::RUSR)?;
        rustix::fs::mkdirat(limbo, ELSEWHERE, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let elsewhere = rustix::fs::openat(limbo, ELSEWHERE, flags, Mode::empty())?;
        rustix::fs::linkat(limbo, PROBE, &elsewhere, PROBE, AtFlags::empty())?;
        let name = c"handles";
        let (here, there) = (FileHandle::at(limbo.as_fd(), name)?, FileHandle::at(elsewhere.as_fd(), name)?);
        Ok(here == there && here == FileHandle::of(file.as_fd())?)
    };
    let found = compared();
    clear();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_found_against_a_disk_and_nothing_is_left() {
        for dir in [tempfile::tempdir().unwrap(), tempfile::tempdir_in("/dev/shm").unwrap()] {
            let place = File::open(dir.path()).unwrap();
            std::fs::write(dir.path().join(PROBE), "of a process that was killed").unwrap();
            std::fs::create_dir(dir.path().join(ELSEWHERE)).unwrap();
            assert!(two_names_are_one(&place).unwrap());
            assert_eq!((are_passing(&place).unwrap(), are_of_names(&place)), (None, None));
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}
