//! What lies in the areas of sessions by names that count as links: who asks whether an object has a name in the replica
//! leaves them out. Those of sessions of before that still have an area are meant as well.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};

use super::preserved::{KEPT, hex, open_directory};
use super::session::AREAS;
use crate::sys::FileHandle;

/// How many sessions keep an object by a name of its own. `limbo`: of the replica.
pub fn names_kept(limbo: &File, object: &FileHandle) -> u64 {
    let name = hex(object);
    let mut names = 0;
    each_area(limbo, |kept| {
        names += u64::from(rustix::fs::statat(kept, &*name, AtFlags::SYMLINK_NOFOLLOW).is_ok());
        Ok(())
    })
    // What cannot be listed has none that anybody could come upon.
    .unwrap_or_default();
    names
}

/// Visits all that is kept, once for each session that keeps it.
///
/// Errors: the system's.
pub fn each_kept(limbo: &File, mut visit: impl FnMut(&FileHandle) -> io::Result<()>) -> io::Result<()> {
    each_area(limbo, |kept| {
        for entry in Dir::read_from(kept)? {
            let entry = entry?;
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(kept, entry.file_name(), flags, Mode::empty()) {
                Ok(object) => visit(&FileHandle::of(object.as_fd())?)?,
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })
}

fn each_area(limbo: &File, mut visit: impl FnMut(&File) -> io::Result<()>) -> io::Result<()> {
    let Some(areas) = found(open_directory(limbo, AREAS))? else { return Ok(()) };
    for session in Dir::read_from(&areas)? {
        let name = session?.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        let Some(area) = found(open_directory(&areas, &name))? else { continue };
        if let Some(kept) = found(open_directory(&area, KEPT))? {
            visit(&kept)?;
        }
    }
    Ok(())
}

/// An area may be removed at any moment.
fn found(opened: io::Result<File>) -> io::Result<Option<File>> {
    match opened {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
