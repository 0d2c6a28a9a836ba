//! Where objects wait that lost their name here: `LIMBO/resync/BATCH/NAME`, and at the end, as
//! orphans, `LIMBO/orphans/SECONDS-BATCH/NAME`. Where each came from is noted for people
//! ([`crate::apply::orphans`]).

mod known;
mod living;
mod lost;
mod parts;

use std::fs::File;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

use self::living::drop_living;
pub(in crate::apply) use self::lost::Copied;
use super::by_handle;
use super::deleted::Deleted;
use super::noted::{self, Why};
use super::trees::{self, Amount, Linked, clear_in_the_way};
use super::{Replica, c_name, open_beneath, path_of, read_directory};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::clone::guard;
use crate::failpoint;
use crate::limits::LINKED_IN_MEMORY;
use crate::packet::{Name, ObjectId};
use crate::store::random_u64;
use crate::sys::FileHandle;

pub(in crate::apply) const WAITING: &str = "resync";
/// What lies below it is no object of the replica any more: copies before this one have moved it aside.
pub(in crate::apply) const ORPHANS: &str = "orphans";

/// The part of limbo that belongs to resynchronisations. What an interrupted one left is in it too.
pub(in crate::apply) struct Limbo {
    limbo: File,
    root: File,
    waiting: File,
    /// Where names go until one is there already.
    batch: Option<Batch>,
}

struct Batch {
    dir: File,
    name: String,
}

impl Limbo {
    pub(in crate::apply) fn open(root: &File, limbo: &File) -> Result<Limbo, Fault> {
        let own = |file: &File| file.try_clone().map_err(Fault::own("limbo"));
        let (root, waiting) = (own(root)?, make_directory(limbo, WAITING)?);
        // Whoever removes what waits holds it alone, and is waited for.
        rustix::fs::flock(&waiting, FlockOperation::NonBlockingLockShared)
            .map_err(Fault::system("wait for limbo"))?;
        Ok(Limbo { limbo: own(limbo)?, root, waiting, batch: None })
    }

    /// Moves what a name holds into limbo, with everything below.
    pub(in crate::apply) fn take(&mut self, dir: &File, name: &Name, why: Why) -> Result<(), Fault> {
        let path = self.path_of(dir, name);
        guard::name(dir, name.as_bytes());
        loop {
            let batch = match self.batch.take() {
                Some(batch) => batch,
                None => self.new_batch()?,
            };
            let moved = name.as_bytes();
            match rustix::fs::renameat_with(dir, moved, &batch.dir, moved, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    noted::add(&self.limbo, &batch.name, name, path.as_deref(), why);
                    self.batch = Some(batch);
                    return Ok(());
                }
                // One of this name waits there: a fresh batch takes this one.
                Err(Errno::EXIST) => {}
                // What is nowhere in the replica any more has no flags, until it is shown again.
                Err(Errno::PERM) if clear_in_the_way(dir, name) => self.batch = Some(batch),
                Err(error) => {
                    self.batch = Some(batch);
                    return Err(Fault::system("move to limbo")(error));
                }
            }
        }
    }

    fn new_batch(&self) -> Result<Batch, Fault> {
        let name = format!("{:016x}", random_u64());
        Ok(Batch { dir: make_directory(&self.waiting, &name)?, name })
    }

    /// In the replica, as far as the kernel tells; below what waits here itself, from there on.
    fn path_of(&self, dir: &File, name: &Name) -> Option<PathBuf> {
        let dir = path_of(dir.as_fd()).ok()?;
        // Where the replica is a mount point, limbo lies in it.
        let below = match dir.strip_prefix(path_of(self.waiting.as_fd()).ok()?) {
            Ok(below) => below.components().skip(1).collect(),
            Err(_) => dir.strip_prefix(path_of(self.root.as_fd()).ok()?).ok()?.to_owned(),
        };
        Some(below.join(name.as_os_str()))
    }

    /// Moves what a name holds aside at once, with everything below: as orphans.
    fn put_aside(&self, dir: &File, name: &Name) -> Result<(), Fault> {
        let (path, batch) = (self.path_of(dir, name), self.new_batch()?);
        guard::name(dir, name.as_bytes());
        let moved = || rustix::fs::renameat(dir, name.as_bytes(), &batch.dir, name.as_bytes());
        match moved() {
            Err(Errno::PERM) if clear_in_the_way(dir, name) => moved(),
            done => done,
        }
        .map_err(Fault::system("move to limbo"))?;
        noted::add(&self.limbo, &batch.name, name, path.as_deref(), Why::OutOfTheSet);
        let orphans = make_directory(&self.limbo, ORPHANS)?;
        rustix::fs::renameat(&self.waiting, &batch.name, &orphans, aside_name(&batch.name))
            .map_err(Fault::system("move orphans aside"))
    }

    /// Drops names of what lives on elsewhere; the rest is moved aside, or deleted where it is to be. A
    /// directory with all in it counts as one.
    pub(in crate::apply) fn resolve(
        &mut self,
        mount: &File,
        limbo: &File,
        delete: Delete,
    ) -> Result<Resolved, Fault> {
        self.batch = None;
        let batches = self.batches_left(mount, limbo)?;
        self.resolve_all(mount, limbo, batches, (delete, None))
    }

    /// [`Limbo::resolve`], of what [`Limbo::each_waiting`] has left.
    pub(in crate::apply) fn resolve_left(
        &mut self,
        mount: &File,
        limbo: &File,
        batches: Vec<Name>,
        delete: Delete,
    ) -> Result<Resolved, Fault> {
        self.resolve_all(mount, limbo, batches, (delete, None))
    }

    fn resolve_all(
        &self,
        mount: &File,
        limbo: &File,
        batches: Vec<Name>,
        (delete, kept): (Delete, Option<&Deleted>),
    ) -> Result<Resolved, Fault> {
        let mut resolved = Resolved::default();
        let deletes = match delete {
            Delete::Nothing => false,
            Delete::UpTo { objects } => self.count(mount, &batches)? <= objects,
        };
        for batch in batches {
            let dir = open_directory(&self.waiting, &batch)?;
            if deletes {
                resolved.deleted += match kept {
                    Some(kept) => self.keep_all(kept, &batch, &dir)?,
                    None => delete_all(mount, &dir)?,
                };
            }
            let kept = names(&dir)?.len() as u64;
            if kept == 0 {
                self.drop_batch(limbo, &batch)?;
                continue;
            }
            resolved.moved += kept;
            if !deletes && delete != Delete::Nothing {
                resolved.spared += kept;
            }
            failpoint::at("moved aside").map_err(Fault::own("move orphans aside"))?;
            let aside = aside_name(&String::from_utf8_lossy(batch.as_bytes()));
            let orphans_dir = make_directory(limbo, ORPHANS)?;
            rustix::fs::renameat(&self.waiting, c_name(&batch), &orphans_dir, aside)
                .map_err(Fault::system("move orphans aside"))?;
        }
        Ok(resolved)
    }

    /// Those in which something is left that lives nowhere else.
    fn batches_left(&self, mount: &File, limbo: &File) -> Result<Vec<Name>, Fault> {
        let mut left = Vec::new();
        self.drop_living(mount, limbo)?;
        for batch in names(&self.waiting)? {
            let dir = open_directory(&self.waiting, &batch)?;
            match names(&dir)?.is_empty() {
                true => self.drop_batch(limbo, &batch)?,
                false => left.push(batch),
            }
        }
        Ok(left)
    }

    /// Gives how many names went.
    fn keep_all(&self, kept: &Deleted, batch: &Name, dir: &File) -> Result<u64, Fault> {
        let notes = noted::read(&self.limbo, &String::from_utf8_lossy(batch.as_bytes()));
        let names = names(dir)?;
        for name in &names {
            let path = notes.get(name).and_then(|note| note.path.as_deref());
            kept.take(dir, name, path)?;
        }
        Ok(names.len() as u64)
    }

    fn drop_batch(&self, limbo: &File, batch: &Name) -> Result<(), Fault> {
        rustix::fs::unlinkat(&self.waiting, c_name(batch), AtFlags::REMOVEDIR)
            .map_err(Fault::system("remove an empty directory of limbo"))?;
        noted::forget(limbo, &String::from_utf8_lossy(batch.as_bytes()));
        Ok(())
    }

    fn count(&self, mount: &File, batches: &[Name]) -> Result<u64, Fault> {
        let (mut objects, mut seen) = (0, Linked::default());
        for batch in batches {
            let found = trees::measure(mount, &self.waiting, batch, &mut seen, &|| true);
            // The directory of the batch is none.
            objects += found.map_err(Fault::system("count orphans"))?.objects - 1;
        }
        Ok(objects)
    }
}

/// What of the orphans is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::apply) enum Delete {
    Nothing,
    /// All, where they hold no more objects than this.
    UpTo {
        objects: u64,
    },
}

/// What became of names that lost their place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::apply) struct Resolved {
    pub(in crate::apply) moved: u64,
    pub(in crate::apply) deleted: u64,
    /// Of those that were moved: they were too many to be deleted.
    pub(in crate::apply) spared: u64,
}

/// What cannot be deleted stays; gives how many names went.
fn delete_all(mount: &File, dir: &File) -> Result<u64, Fault> {
    let mut deleted = 0;
    for name in names(dir)? {
        let failed = trees::take_away(mount, dir, &name, &mut Amount::default(), &|| true);
        let failed = failed.map_err(Fault::system("delete an orphan"))?;
        match failed.first {
            None => deleted += 1,
            Some(why) => log::warn!("an orphan cannot be deleted, and is moved aside: {why}"),
        }
    }
    Ok(deleted)
}

fn aside_name(batch: &str) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{seconds}-{batch}")
}

impl Replica {
    /// Moves what a name holds aside, with everything below.
    pub(in crate::apply) fn put_aside(&self, dir: &File, name: &Name) -> Result<(), Fault> {
        Limbo::open(self.root(), self.limbo())?.put_aside(dir, name)
    }

    /// Takes away, below a directory that is about to go, names of what has one elsewhere, and gives the ids of all
    /// that is left there.
    pub(in crate::apply) fn each_left_below(
        &mut self,
        top: &File,
        mut visit: impl FnMut(&mut Replica, ObjectId) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let root = self.root().try_clone().map_err(Fault::system("root"))?;
        drop_living(&root, top, None, LINKED_IN_MEMORY)?;
        self.each_known_below(top, |replica, id, _| visit(replica, id))
    }

    /// Visits every name below a directory.
    pub(in crate::apply) fn each_below(
        &self,
        top: &File,
        mut visit: impl FnMut(&FileHandle, &Stat) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        below(self.root(), top, |_, _, fd, status| {
            visit(&FileHandle::of(fd.as_fd()).map_err(Fault::system("file handle"))?, &status)
        })
    }
}

fn is_directory(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::Directory
}

/// Visits every name in a whole tree. Nothing below a mount is looked at: it belongs to others.
fn below(
    mount: &File,
    top: &File,
    mut visit: impl FnMut(&File, &Name, &OwnedFd, Stat) -> Result<(), Fault>,
) -> Result<(), Fault> {
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
            if is_directory(&status) {
                waiting.push(FileHandle::of(found.as_fd()).map_err(Fault::system("file handle"))?);
            }
            visit(&dir, &name, &found, status)?;
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
