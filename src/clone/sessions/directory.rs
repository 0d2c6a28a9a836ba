//! The directory that becomes the clone.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::Places;
use crate::clone::session::Record;
use crate::sys::FileHandle;

/// Magic number of FUSE (`linux/magic.h`).
const FUSE: i64 = 0x6573_5546;

const CONFINED: &str = "a target started by `standin serve` makes nothing outside of its --root";

/// Where the copy lies until it is complete, beside its directory.
pub(super) fn partial(dir: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(dir.file_name().unwrap_or_default());
    name.push(".standin-clone");
    dir.with_file_name(name)
}

/// Errors: why it cannot become one.
pub(super) fn check_directory(places: &Places, dir: &Path) -> Result<(), String> {
    let shown = dir.display();
    let (Some(parent), Some(_)) = (dir.parent(), dir.file_name()) else {
        return Err(format!("{shown} cannot be a clone's directory"));
    };
    if !dir.is_absolute() {
        return Err(format!("{shown} is no absolute path"));
    }
    let real = fs::canonicalize(parent).map_err(|error| {
        format!("{} cannot be reached by the daemon: {error} ({CONFINED})", parent.display())
    })?;
    for own in [&places.root_path, &places.limbo_path, &places.state] {
        let own = fs::canonicalize(own).unwrap_or_else(|_| own.clone());
        if real.starts_with(&own) {
            return Err(format!("{shown} lies in {}, which belongs to the replica itself", own.display()));
        }
    }
    let kind = rustix::fs::statfs(&real).map_err(|error| format!("{}: {error}", real.display()))?.f_type;
    if kind as i64 == FUSE {
        return Err(format!("{shown} lies on a FUSE mount: choose a directory of a disk"));
    }
    let partial = partial(dir);
    for path in [dir, &partial] {
        match fs::symlink_metadata(path) {
            Ok(_) => return Err(format!("{} is there already", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    // Tried: what the kernel keeps this process from it tells of nothing else.
    fs::create_dir(&partial)
        .and_then(|()| fs::remove_dir(&partial))
        .map_err(|error| format!("nothing can be made in {}: {error} ({CONFINED})", parent.display()))
}

/// Whether this is the directory that a session has made.
pub(super) fn is_own(path: &Path, record: &Record) -> io::Result<bool> {
    let Some((kind, bytes)) = &record.root else { return Ok(false) };
    match open(path) {
        Ok(dir) => Ok(FileHandle::from_parts(*kind, bytes) == Some(FileHandle::of(dir.as_fd())?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn open(path: &Path) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

/// Removes a directory that a session has made; nothing of anybody else's.
pub(super) fn remove_own(path: &Path, record: &Record) -> io::Result<()> {
    match is_own(path, record) {
        Ok(true) => fs::remove_dir_all(path),
        Ok(false) => Ok(()),
        // A file, or a symlink.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => Ok(()),
        Err(error) => Err(error),
    }
}
