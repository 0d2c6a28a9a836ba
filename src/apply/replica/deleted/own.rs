//! A copy of its own of what is kept and lives on: names of it that nobody tells of may be in the replica (they
//! have stayed when deletions were ignored, or belong to no set any more), or in limbo, or with a person. By any of
//! them it would change, and whoever works on what is kept would change the replica.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, major, minor};
use rustix::io::Errno;

use super::begun::{self, Begun};
use crate::apply::create::make;
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::{by_handle, open_beneath};
use crate::failpoint;
use crate::limits::KEPT_PIECE;
use crate::packet::{Attributes, Birth, Bounded, Name, Timestamp};
use crate::sys::FileHandle;
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

    pub(super) fn handle(&self) -> Result<FileHandle, Fault> {
        FileHandle::of(self.file.as_fd()).map_err(Fault::system("file handle"))
    }

    /// Where a process that was killed has put a copy of it, before the name went. One that is of another state of it
    /// is none.
    pub(super) fn put_before(&self, limbo: &File) -> io::Result<Option<(File, Name)>> {
        let Some(noted) = Begun::noted(limbo)? else { return Ok(None) };
        let place = match noted.of == FileHandle::of(self.file.as_fd())? && !is_begun(limbo)? {
            true => noted.place(limbo),
            false => None,
        };
        let is_it = |(dir, name): &(File, Name)| {
            let there = rustix::fs::statat(dir, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
            there.is_ok_and(|there| looks(&there) == looks(&self.status))
        };
        Ok(place.filter(is_it))
    }

    /// Makes the copy, with all that is replicated but flags, as long as it may; gives its name in limbo.
    ///
    /// Errors: also, that it may not.
    pub(super) fn copy(&self, limbo: &File, go_on: &dyn Fn() -> bool) -> Result<Name, Fault> {
        let name = Name::new(MAKING.as_bytes()).expect("a constant is a name");
        forget_begun(limbo).map_err(system)?;
        self.copy_to(limbo, &name, go_on).inspect_err(|_| _ = take_away(limbo, &name))?;
        Ok(name)
    }

    fn copy_to(&self, limbo: &File, name: &Name, go_on: &dyn Fn() -> bool) -> Result<(), Fault> {
        let Stat { st_mode: mode, st_uid: uid, st_gid: gid, .. } = self.status;
        let made = make(limbo.as_fd(), name, &self.birth()?, mode & 0o7777);
        let (made, _) = made.map_err(system)?;
        if FileType::from_raw_mode(mode) == FileType::RegularFile {
            let from = by_handle::reopen_to_read(self.file.as_fd()).map_err(system)?;
            copy_content(&from, &made, self.status.st_size as u64, go_on)?;
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
            FileType::RegularFile => {
                failpoint::at("sync what is kept").and_then(|()| made.sync_all()).map_err(system)
            }
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

/// What tells two states of a file apart.
fn looks(status: &Stat) -> (u32, i64, i64, Timestamp) {
    (status.st_mode, status.st_size, status.st_rdev as i64, inode::mtime(status))
}

/// There is a copy that was not put anywhere.
fn is_begun(limbo: &File) -> io::Result<bool> {
    match rustix::fs::statat(limbo, MAKING, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes what a process that was killed has begun.
pub(super) fn forget_begun(limbo: &File) -> io::Result<()> {
    if is_begun(limbo)? {
        // Where it was to go another one lies, perhaps.
        begun::forget(limbo)?;
    }
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

/// Holes stay holes; where the file system can, both have the same blocks. A large one comes in pieces.
fn copy_content(mut from: &File, mut into: &File, size: u64, go_on: &dyn Fn() -> bool) -> Result<(), Fault> {
    let mut at = 0;
    while at < size {
        match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => at = data,
            // A hole up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(system(error)),
        }
        let end = rustix::fs::seek(from, SeekFrom::Hole(at)).map_err(system)?.min(size);
        from.seek(io::SeekFrom::Start(at)).map_err(system)?;
        into.seek(io::SeekFrom::Start(at)).map_err(system)?;
        let length = end.saturating_sub(at).min(KEPT_PIECE);
        let copied = io::copy(&mut from.take(length), &mut into).map_err(system)?;
        if copied == 0 {
            break;
        }
        at += copied;
        if length == KEPT_PIECE && at < size {
            if !go_on() {
                return Err(Fault::own(COPY)(io::Error::other("it is to stop")));
            }
            // All of it at the end would take as long.
            into.sync_data().map_err(system)?;
        }
    }
    into.set_len(size).map_err(system)
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
            found.copy(&dir, &|| true).unwrap();
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

    /// Nobody heard a stop while a large file was copied.
    #[test]
    fn a_copy_ends_where_it_is_to() {
        let place = tempfile::tempdir().unwrap();
        let pieces = 5;
        fs::write(place.path().join("file"), vec![b'x'; (pieces * KEPT_PIECE) as usize + 7]).unwrap();
        let dir = File::open(place.path()).unwrap();
        let found = Found::at(&dir, &Name::new(b"file").unwrap()).unwrap();
        let looks = std::cell::Cell::new(0);
        let go_on = |most: u64| {
            looks.set(looks.get() + 1);
            looks.get() <= most
        };
        let fault = found.copy(&dir, &|| go_on(2)).unwrap_err();
        assert!(matches!(fault, Fault::Own { .. }), "{fault}");
        assert_eq!(looks.get(), 3);
        assert!(!place.path().join(MAKING).exists());
        looks.set(0);
        found.copy(&dir, &|| go_on(u64::MAX)).unwrap();
        assert_eq!(looks.get(), pieces);
        assert!(fs::read(place.path().join("file")).unwrap() == fs::read(place.path().join(MAKING)).unwrap());
    }

    /// The process died between the note and the move, as the name was taken: what has it is another one's.
    #[test]
    fn a_copy_that_was_not_put_is_found_nowhere() {
        let place = tempfile::tempdir().unwrap();
        let dir = File::open(place.path()).unwrap();
        for name in ["file", "alike", MAKING] {
            let file = File::create(place.path().join(name)).unwrap();
            inode::set_mtime(&file, Timestamp { seconds: 5, nanoseconds: 7 }).unwrap();
        }
        let found = Found::at(&dir, &Name::new(b"file").unwrap()).unwrap();
        Begun::new(found.handle().unwrap(), &dir, b"alike").unwrap().note(&dir).unwrap();
        assert!(found.put_before(&dir).unwrap().is_none());
        forget_begun(&dir).unwrap();
        assert!(found.put_before(&dir).unwrap().is_none());
        // It was put.
        Begun::new(found.handle().unwrap(), &dir, b"alike").unwrap().note(&dir).unwrap();
        assert!(found.put_before(&dir).unwrap().is_some());
    }

    #[test]
    fn a_directory_is_nobody_elses() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir_all(place.path().join("dir/below")).unwrap();
        let dir = File::open(place.path()).unwrap();
        assert!(!Found::at(&dir, &Name::new(b"dir").unwrap()).unwrap().is_shared());
    }
}
