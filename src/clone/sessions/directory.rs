//! The directory that becomes the clone.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Places;
use crate::clone::removal;
use crate::clone::session::Record;
use crate::sys::FileHandle;
use crate::xattr;

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
pub(super) fn check_directory(places: &Places, keeps_off: &[PathBuf], dir: &Path) -> Result<(), String> {
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
    for taken in keeps_off {
        let there = fs::canonicalize(taken);
        if real.starts_with(taken) || there.is_ok_and(|there| real.starts_with(there)) {
            return Err(format!("{shown} lies in {}, which standin uses otherwise", taken.display()));
        }
    }
    refuse_places_of_others(&real, dir)?;
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

/// What sets, also those of other daemons, have beside their replicas, and what carries their mark.
fn refuse_places_of_others(real: &Path, dir: &Path) -> Result<(), String> {
    let shown = dir.display();
    let names = real.iter().chain(dir.file_name());
    if let Some(name) = names.into_iter().find(|name| is_name_of_standin(name)) {
        return Err(format!("{shown}: directories named {} are standin's own", name.display()));
    }
    for above in real.ancestors() {
        let failed = |error: io::Error| format!("{}: {error}", above.display());
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let above_fd = rustix::fs::open(above, flags, rustix::fs::Mode::empty());
        let names = match xattr::list(above_fd.map_err(|error| failed(error.into()))?) {
            Ok(names) => names,
            // It has none.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => continue,
            Err(error) => return Err(failed(error)),
        };
        if names.iter().any(|name| name.0.starts_with(xattr::OWN_PREFIX)) {
            return Err(format!(
                "{shown} lies in {}, which is a replica or a protected directory",
                above.display()
            ));
        }
    }
    Ok(())
}

fn is_name_of_standin(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b".") && (name.ends_with(b".standin") || name.ends_with(b".standin-clone"))
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

/// Whether it is where it was made. A file or a symlink in its place is somebody else's.
pub(super) fn is_there(path: &Path, record: &Record) -> io::Result<bool> {
    match is_own(path, record) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => Ok(false),
        found => found,
    }
}

/// Errors: something is mounted on its directory, or in it.
pub(super) fn may_be_removed(record: &Record) -> io::Result<()> {
    match (is_there(&record.dir, record)?, above(&record.dir)) {
        (true, Some((parent, name))) => removal::refuse_mounts(&fs::File::open(parent)?, name),
        (false, Some(_)) => refuse_cover(&record.dir),
        (_, None) => Ok(()),
    }
}

/// Where something is mounted on it, what was made there cannot be seen, and is there all the same.
pub(super) fn is_covered(path: &Path) -> bool {
    refuse_cover(path).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
}

fn refuse_cover(path: &Path) -> io::Result<()> {
    let Some((parent, name)) = above(path) else { return Ok(()) };
    match fs::File::open(parent) {
        Ok(parent) => removal::refuse_mount_on(&parent, name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a directory that a session has made; nothing of anybody else's, and nothing that is mounted in it.
pub(super) fn remove_own(path: &Path, record: &Record) -> io::Result<()> {
    match (is_there(path, record)?, above(path)) {
        (true, Some((parent, name))) => {
            let parent = fs::File::open(parent)?;
            removal::refuse_mounts(&parent, name)?;
            removal::remove(&parent, name)
        }
        _ => Ok(()),
    }
}

fn above(path: &Path) -> Option<(&Path, &[u8])> {
    path.parent().zip(path.file_name().map(OsStrExt::as_bytes))
}
