//! A copy of its own of what is kept and lives on: names of it that nobody tells of may be in the replica (they
//! have stayed when deletions were ignored, or belong to no set any more), or in limbo, or with a person. By any of
//! them it would change, and whoever works on what is kept would change the replica.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, major, minor};
use rustix::io::Errno;

use crate::apply::create::make;
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::{by_handle, open_beneath};
use crate::packet::{Attributes, Birth, Bounded, Name};
use crate::xattr;

/// In limbo: the copy until it is complete. There is one applier, so there is one copy.
const MAKING: &str = "keeping";

const COPY: &str = "copy what was removed";

/// What a name holds.
pub(super) struct Found {
    file: File,
    status: Stat,
}

impl Found {
    pub(super) fn at(dir: &File, name: &Name) -> Result<Found, Fault> {
        let file = File::from(open_beneath(dir.as_fd(), name, OFlags::PATH, Mode::empty()).map_err(system)?);
        let status = inode::stat(&file)?;
        Ok(Found { file, status })
    }

    /// It has other names. A directory has none.
    pub(super) fn is_shared(&self) -> bool {
        FileType::from_raw_mode(self.status.st_mode) != FileType::Directory && self.status.st_nlink > 1
    }

    /// Makes the copy, with all that is replicated but flags; gives its name in limbo.
    pub(super) fn copy(&self, limbo: &File) -> Result<Name, Fault> {
        let name = Name::new(MAKING.as_bytes()).expect("a constant is a name");
        forget_begun(limbo).map_err(system)?;
        self.copy_to(limbo, &name).inspect_err(|_| _ = take_away(limbo, &name))?;
        Ok(name)
    }

    fn copy_to(&self, limbo: &File, name: &Name) -> Result<(), Fault> {
        let Stat { st_mode: mode, st_uid: uid, st_gid: gid, .. } = self.status;
        let made = make(limbo.as_fd(), name, &self.birth()?, mode & 0o7777);
        let (made, _) = made.map_err(system)?;
        if FileType::from_raw_mode(mode) == FileType::RegularFile {
            let from = by_handle::reopen_to_read(self.file.as_fd()).map_err(system)?;
            copy_content(&from, &made, self.status.st_size as u64).map_err(system)?;
        }
        let mtime = inode::mtime(&self.status);
        let attributes = Attributes { mode: mode & 0o7777, uid, gid, mtime };
        let mut xattrs = xattr::read_replicated(&self.file).map_err(system)?;
        // It is to be removed some day, by whoever likes.
        xattrs.retain(|xattr| xattr.name.0 != xattr::FLAGS);
        inode::make_attributes_or(&made, &attributes, &xattrs, |name, fault| {
            log::debug!("what is kept lacks {name:?}: {fault}");
            Ok(())
        })?;
        inode::set_mtime(&made, mtime)?;
        // The name that it is a copy of goes: there is nothing else that a power loss would leave.
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => made.sync_all().map_err(system),
            _ => Ok(()),
        }
    }

    fn birth(&self) -> Result<Birth, Fault> {
        let (major, minor) = (major(self.status.st_rdev), minor(self.status.st_rdev));
        Ok(match FileType::from_raw_mode(self.status.st_mode) {
            FileType::RegularFile => Birth::File,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&self.file, c"", Vec::new()).map_err(system)?;
                Birth::Symlink { target: Bounded(target.into_bytes()) }
            }
            FileType::Fifo => Birth::Fifo,
            FileType::Socket => Birth::Socket,
            FileType::CharacterDevice => Birth::CharDevice { major, minor },
            FileType::BlockDevice => Birth::BlockDevice { major, minor },
            FileType::Directory | FileType::Unknown => return Err(Fault::Refused("a copy of a directory")),
        })
    }
}

/// Removes what a process that was killed has begun.
pub(super) fn forget_begun(limbo: &File) -> io::Result<()> {
    match rustix::fs::unlinkat(limbo, MAKING, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn take_away(dir: &File, name: &Name) -> Result<(), Fault> {
    match rustix::fs::unlinkat(dir, name.as_bytes(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(system(error)),
    }
}

/// Holes stay holes; where the file system can, both have the same blocks.
fn copy_content(mut from: &File, mut into: &File, size: u64) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => at = data,
            // A hole up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        }
        let end = rustix::fs::seek(from, SeekFrom::Hole(at))?.min(size);
        from.seek(io::SeekFrom::Start(at))?;
        into.seek(io::SeekFrom::Start(at))?;
        let copied = io::copy(&mut from.take(end.saturating_sub(at)), &mut into)?;
        if copied == 0 {
            break;
        }
        at += copied;
    }
    into.set_len(size)
}

fn system<E: Into<io::Error>>(error: E) -> Fault {
    Fault::system(COPY)(error)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt, symlink};
    use std::path::Path;

    use rustix::fs::{CWD, XattrFlags};

    use super::*;
    use crate::packet::Timestamp;

    type Looks = (u32, u32, u32, i64, i64, u64, u64);

    fn looks(path: &Path) -> Looks {
        let found = fs::symlink_metadata(path).unwrap();
        let times = (found.mtime(), found.mtime_nsec());
        (found.mode(), found.uid(), found.gid(), times.0, times.1, found.rdev(), found.len())
    }

    fn make_all(place: &Path) {
        let data = File::create(place.join("file")).unwrap();
        data.write_all_at(b"begin", 0).unwrap();
        data.write_all_at(b"middle", 3 << 20).unwrap();
        data.set_len(5 << 20).unwrap();
        rustix::fs::setxattr(place.join("file"), "user.x", b"value", XattrFlags::empty()).unwrap();
        symlink("some/where", place.join("symlink")).unwrap();
        let mode = Mode::RUSR;
        rustix::fs::mknodat(CWD, place.join("fifo"), FileType::Fifo, mode, 0).unwrap();
        rustix::fs::mknodat(CWD, place.join("device"), FileType::CharacterDevice, mode, 0x105).unwrap();
    }

    #[test]
    fn a_copy_is_what_was_there() {
        let place = tempfile::tempdir().unwrap();
        make_all(place.path());
        let dir = File::open(place.path()).unwrap();
        let (link, made) = (place.path().join("link"), place.path().join(MAKING));
        for text in ["file", "symlink", "fifo", "device"] {
            let name = Name::new(text.as_bytes()).unwrap();
            let found = Found::at(&dir, &name).unwrap();
            assert!(!found.is_shared());
            let attributes = Attributes { mode: 0o4751, uid: 7, gid: 8, mtime: inode::mtime(&found.status) };
            inode::make_owner(&found.file, &attributes).unwrap();
            if text != "symlink" {
                inode::set_mode(&found.file, attributes.mode).unwrap();
            }
            inode::set_mtime(&found.file, Timestamp { seconds: -5, nanoseconds: 7 }).unwrap();
            fs::hard_link(place.path().join(text), &link).unwrap();
            let found = Found::at(&dir, &name).unwrap();
            assert!(found.is_shared());
            found.copy(&dir).unwrap();
            assert_eq!(looks(&link), looks(&made), "{text}");
            assert_eq!(fs::symlink_metadata(&made).unwrap().nlink(), 1);
            match text {
                "file" => {
                    assert!(fs::read(&link).unwrap() == fs::read(&made).unwrap());
                    assert!(fs::metadata(&made).unwrap().blocks() * 512 < 1 << 20, "holes are filled");
                    let value = inode::get_xattr(File::open(&made).unwrap(), b"user.x").unwrap();
                    assert_eq!(value.unwrap(), b"value");
                }
                "symlink" => assert_eq!(fs::read_link(&made).unwrap(), fs::read_link(&link).unwrap()),
                _ => {}
            }
            fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn a_directory_is_nobody_elses() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("dir/below")).unwrap();
        let dir = File::open(place.path()).unwrap();
        assert!(!Found::at(&dir, &Name::new(b"dir").unwrap()).unwrap().is_shared());
    }
}
