//! Where objects wait that lost their name here: `LIMBO/resync/BATCH/NAME`, and at the end, as
//! orphans, `LIMBO/orphans/SECONDS-BATCH/NAME`.

use std::fs::File;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::os::fd::AsFd;

use super::by_handle;
use super::{c_name, open_beneath, read_directory};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::packet::Name;
use crate::store::random_u64;
use crate::sys::FileHandle;

const WAITING: &str = "resync";
/// What lies below it is no object of the replica any more: copies before this one have moved it aside.
pub(super) const ORPHANS: &str = "orphans";

/// The part of limbo that belongs to resynchronisations. What an interrupted one left is in it too.
pub(in crate::apply) struct Limbo {
    waiting: File,
    /// Where names go until one is there already.
    batch: Option<File>,
}

impl Limbo {
    pub(in crate::apply) fn open(limbo: &File) -> Result<Limbo, Fault> {
        Ok(Limbo { waiting: make_directory(limbo, WAITING)?, batch: None })
    }

    /// Moves what a name holds into limbo, with everything below.
    pub(in crate::apply) fn take(&mut self, dir: &File, name: &Name) -> Result<(), Fault> {
        loop {
            let batch = match self.batch.take() {
                Some(batch) => batch,
                None => make_directory(&self.waiting, &format!("{:016x}", random_u64()))?,
            };
            let name = name.as_bytes();
            match rustix::fs::renameat_with(dir, name, &batch, name, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.batch = Some(batch);
                    return Ok(());
                }
                // One of this name waits there: a fresh batch takes this one.
                Err(Errno::EXIST) => {}
                Err(error) => {
                    self.batch = Some(batch);
                    return Err(Fault::system("move to limbo")(error));
                }
            }
        }
    }

    /// Drops names of what lives on elsewhere, moves the rest aside; gives how many objects
    /// (a directory with all in it counts as one) are aside now.
    pub(in crate::apply) fn resolve(&mut self, mount: &File, limbo: &File) -> Result<u64, Fault> {
        self.batch = None;
        let mut orphans = 0;
        for batch in names(&self.waiting)? {
            let dir = open_directory(&self.waiting, &batch)?;
            drop_living(mount, &dir)?;
            let kept = names(&dir)?.len() as u64;
            if kept == 0 {
                rustix::fs::unlinkat(&self.waiting, c_name(&batch), AtFlags::REMOVEDIR)
                    .map_err(Fault::system("remove an empty directory of limbo"))?;
                continue;
            }
            orphans += kept;
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let aside = format!("{seconds}-{}", String::from_utf8_lossy(batch.as_bytes()));
            let orphans_dir = make_directory(limbo, ORPHANS)?;
            rustix::fs::renameat(&self.waiting, c_name(&batch), &orphans_dir, aside)
                .map_err(Fault::system("move orphans aside"))?;
        }
        Ok(orphans)
    }
}

/// Unlinks, in a whole tree, every name of a non-directory that has another one. The last name
/// of an object is never taken, and nothing below a mount is looked at: it belongs to others.
fn drop_living(mount: &File, top: &File) -> Result<(), Fault> {
    let mut waiting = vec![FileHandle::of(top.as_fd()).map_err(Fault::system("file handle"))?];
    while let Some(handle) = waiting.pop() {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let dir =
            File::from(by_handle::open(mount, &handle, flags).map_err(Fault::system("open a directory"))?);
        for name in names(&dir)? {
            let found = match open_beneath(dir.as_fd(), &name, OFlags::PATH, Mode::empty()) {
                Ok(found) => found,
                Err(Errno::XDEV) => continue,
                Err(error) => return Err(Fault::system("look into limbo")(error)),
            };
            let status = inode::stat(&found)?;
            if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
                waiting.push(FileHandle::of(found.as_fd()).map_err(Fault::system("file handle"))?);
            } else if status.st_nlink > 1 {
                // What cannot be unlinked (immutable, used) is an orphan.
                if let Err(error) = rustix::fs::unlinkat(&dir, c_name(&name), AtFlags::empty()) {
                    log::warn!("{name:?}, which is not on the source, cannot be removed: {error}");
                }
            }
        }
    }
    Ok(())
}

fn names(dir: &File) -> Result<Vec<Name>, Fault> {
    let mut names = Vec::new();
    for entry in read_directory(dir)? {
        let entry = entry.map_err(Fault::system("list limbo"))?;
        names.extend(Name::new(entry.file_name().to_bytes()));
    }
    Ok(names)
}

fn make_directory(parent: &File, name: &str) -> Result<File, Fault> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(Fault::system("make a directory in limbo")(error)),
    }
    open(parent, name)
}

fn open_directory(parent: &File, name: &Name) -> Result<File, Fault> {
    open(parent, c_name(name))
}

fn open(parent: &File, name: impl rustix::path::Arg) -> Result<File, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
        .map(File::from)
        .map_err(Fault::system("open a directory of limbo"))
}
