//! Removing whole trees of a session's own: never through a mount, nor a symlink, however deep. One directory is
//! open at a time, and found again by its handle.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::guard::look;
use crate::privileges::by_handle;
use crate::sys::{FileHandle, proc_path};
use crate::xattr::clear_hindering;

/// Looks at all that lies at a name, and changes nothing.
///
/// Errors: something is mounted at it or below; the system's.
pub(super) fn refuse_mounts(parent: &File, name: &[u8]) -> io::Result<()> {
    let Some(top) = directory(parent, name)? else { return Ok(()) };
    let (mount, mut waiting) = (by_name(parent, name)?, vec![top]);
    while let Some(handle) = waiting.pop() {
        if let Some(dir) = by_its_handle(&mount, &handle)? {
            each(&dir, |name| {
                waiting.extend(directory(&dir, name)?);
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Looks at a name alone.
///
/// Errors: something is mounted on what it holds ([`io::ErrorKind::ResourceBusy`]); the system's.
pub(super) fn refuse_mount_on(parent: &File, name: &[u8]) -> io::Result<()> {
    directory(parent, name).map(drop)
}

/// A directory that is being emptied.
struct Emptied {
    /// In the one before.
    name: Box<[u8]>,
    handle: FileHandle,
    /// Directories in it.
    left: Vec<Box<[u8]>>,
}

impl Emptied {
    /// All names go that are no directories'.
    fn begin(name: Box<[u8]>, handle: FileHandle, dir: &File) -> io::Result<Emptied> {
        let mut left = Vec::new();
        each(dir, |name| match directory(dir, name)? {
            Some(_) => {
                left.push(name.into());
                Ok(())
            }
            None => unlink(dir, name, AtFlags::empty()),
        })?;
        Ok(Emptied { name, handle, left })
    }
}

/// Removes what lies at a name, with all below it, if it is there.
///
/// Errors: what could not be removed, first of all a mount; what is left can be removed later.
pub(super) fn remove(parent: &File, name: &[u8]) -> io::Result<()> {
    let Some(top) = directory(parent, name)? else { return unlink(parent, name, AtFlags::empty()) };
    let mount = by_name(parent, name)?;
    let mut path = vec![Emptied::begin(name.into(), top, &mount)?];
    while let Some(mut last) = path.pop() {
        if let Some(next) = last.left.pop() {
            let handle = match by_its_handle(&mount, &last.handle)? {
                Some(dir) => directory(&dir, &next)?,
                None => None,
            };
            path.push(last);
            if let Some(handle) = handle
                && let Some(inside) = by_its_handle(&mount, &handle)?
            {
                path.push(Emptied::begin(next, handle, &inside)?);
            }
            continue;
        }
        let above = match path.last() {
            Some(above) => by_its_handle(&mount, &above.handle)?,
            None => Some(parent.try_clone()?),
        };
        if let Some(above) = above {
            unlink(&above, &last.name, AtFlags::REMOVEDIR)?;
        }
    }
    Ok(())
}

/// The handle of what a name holds, if that is a directory.
fn directory(dir: &File, name: &[u8]) -> io::Result<Option<FileHandle>> {
    match look(dir.as_fd(), name) {
        Ok(Some((handle, file))) => {
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
            Ok((kind == FileType::Directory).then_some(handle))
        }
        Ok(None) => Ok(None),
        // Symlinks are no directories, nor followed.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::LOOP) => Ok(None),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::XDEV) => {
            let path = shown(dir, name);
            Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("something is mounted at {}: unmount it first", path.display()),
            ))
        }
        Err(error) => Err(told(dir, name, &error)),
    }
}

fn each(dir: &File, mut found: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = match entry {
            Ok(entry) => entry,
            // It was removed meanwhile.
            Err(Errno::NOENT) => break,
            Err(error) => return Err(error.into()),
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found(name)?;
        }
    }
    Ok(())
}

/// Also of what is immutable or append-only, and from among it.
fn unlink(dir: &File, name: &[u8], flags: AtFlags) -> io::Result<()> {
    let unlinked = || rustix::fs::unlinkat(dir, name, flags);
    let unlinked = match unlinked() {
        Err(Errno::PERM) if clear_in_the_way(dir, name) => unlinked(),
        done => done,
    };
    match unlinked {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(told(dir, name, &error.into())),
    }
}

fn clear_in_the_way(dir: &File, name: &[u8]) -> bool {
    let held = look(dir.as_fd(), name).ok().flatten();
    clear_hindering(dir) | held.is_some_and(|(_, held)| clear_hindering(&held))
}

fn told(dir: &File, name: &[u8], error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", shown(dir, name).display()))
}

fn shown(dir: &File, name: &[u8]) -> PathBuf {
    let above = std::fs::read_link(proc_path(dir.as_fd())).unwrap_or_default();
    above.join(std::ffi::OsStr::from_bytes(name))
}

fn by_name(parent: &File, name: &[u8]) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve)?.into())
}

/// `None`: it is gone.
fn by_its_handle(mount: &File, handle: &FileHandle) -> io::Result<Option<File>> {
    match by_handle::open(mount, handle, libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(error) if error.raw_os_error() == Some(libc::ESTALE) => Ok(None),
        Err(error) => Err(error),
    }
}
