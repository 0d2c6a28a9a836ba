//! Counting and removing whole trees, however deep: one directory is open at a time, and found again
//! by its handle. Each step is one name that is not followed; a mount is not entered.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

pub(in crate::apply) use super::linked::Linked;
use super::{by_handle, c_name, open_beneath};
use crate::apply::inode;
use crate::clone::guard;
use crate::limits::EMPTIED_AT_ONCE_MAX;
use crate::packet::Name;
use crate::sys::FileHandle;
use crate::xattr::{Flags, clear_hindering};

/// How much there is, or was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Files, directories and everything else.
    pub objects: u64,
    /// Of the disk.
    pub bytes: u64,
}

impl Amount {
    pub fn add(&mut self, other: Amount) {
        self.objects += other.objects;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn one(stat: &Stat) -> Amount {
        Amount { objects: 1, bytes: u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512) }
    }
}

/// What could not be removed.
#[derive(Debug, Default)]
pub(in crate::apply) struct Failed {
    pub(in crate::apply) count: u64,
    pub(in crate::apply) first: Option<String>,
}

impl Failed {
    fn note(&mut self, name: &Name, why: &dyn std::fmt::Display) {
        self.count += 1;
        self.first.get_or_insert_with(|| format!("{}: {why}", name.as_os_str().display()));
    }
}

/// What lies at a name, and below it, but for files that were counted under another name. What goes meanwhile is not
/// counted.
pub(in crate::apply) fn measure(
    mount: &File,
    dir: &File,
    name: &Name,
    linked: &mut Linked,
    go_on: &dyn Fn() -> bool,
) -> io::Result<Amount> {
    let mut amount = Amount::default();
    each(mount, dir, name, go_on, |stat| {
        if !linked.is_counted(stat) {
            amount.add(Amount::one(stat));
        }
    })?;
    Ok(amount)
}

/// The latest time, in seconds since 1970, at which something of it was modified.
pub(in crate::apply) fn last_modified(mount: &File, dir: &File, name: &Name) -> io::Result<i64> {
    let mut last = i64::MIN;
    each(mount, dir, name, &|| true, |stat| last = last.max(inode::mtime(stat).seconds))?;
    Ok(last)
}

fn each(
    mount: &File,
    dir: &File,
    name: &Name,
    go_on: &dyn Fn() -> bool,
    mut found: impl FnMut(&Stat),
) -> io::Result<()> {
    let mut waiting = Vec::new();
    one(dir, name, &mut found, &mut waiting)?;
    while let Some(handle) = waiting.pop() {
        let Some(dir) = open_handle(mount, &handle)? else { continue };
        for name in names(&dir)? {
            one(&dir, &name, &mut found, &mut waiting)?;
        }
        if !go_on() {
            break;
        }
    }
    Ok(())
}

fn one(
    dir: &File,
    name: &Name,
    found: &mut impl FnMut(&Stat),
    below: &mut Vec<FileHandle>,
) -> io::Result<()> {
    let (file, stat) = match look(dir, name) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(()),
        // Somebody's mount.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::XDEV) => return Ok(()),
        Err(error) => return Err(error),
    };
    found(&stat);
    if is_directory(&stat) {
        below.push(FileHandle::of(file.as_fd())?);
    }
    Ok(())
}

/// A directory that is being emptied.
struct Emptied {
    /// In the one before.
    name: Name,
    handle: FileHandle,
    /// Directories in it.
    left: Vec<Name>,
    /// It holds more than was read, and so many names had gone from everywhere before.
    more: Option<u64>,
}

/// Removes what lies at a name, with all below it, as far as `go_on` lets it, but for one step in any case;
/// `amount` grows by what went.
pub(in crate::apply) fn take_away(
    mount: &File,
    dir: &File,
    name: &Name,
    amount: &mut Amount,
    go_on: &dyn Fn() -> bool,
) -> io::Result<Failed> {
    let mut work = Work { amount, gone: 0, failed: Failed::default(), go_on };
    let mut path: Vec<Emptied> = Vec::new();
    path.extend(work.enter_or_unlink(dir, name)?);
    while let Some(mut last) = path.pop() {
        if !work.goes_on() {
            work.failed.note(&last.name, &"not removed yet");
            break;
        }
        if let Some(next) = last.left.pop() {
            let below = match open_handle(mount, &last.handle)? {
                Some(dir) => work.enter_or_unlink(&dir, &next)?,
                None => None,
            };
            path.push(last);
            path.extend(below);
            continue;
        }
        if last.more.is_some_and(|before| before < work.gone)
            && let Some(dir) = open_handle(mount, &last.handle)?
        {
            (last.left, last.more) = work.unlink_files(&dir)?;
            path.push(last);
            continue;
        }
        let above = match path.last() {
            Some(above) => open_handle(mount, &above.handle)?,
            None => Some(dir.try_clone()?),
        };
        if let Some(above) = above {
            work.unlink(&above, &last.name, AtFlags::REMOVEDIR);
        }
    }
    Ok(work.failed)
}

struct Work<'a> {
    amount: &'a mut Amount,
    /// Names that have gone.
    gone: u64,
    failed: Failed,
    go_on: &'a dyn Fn() -> bool,
}

impl Work<'_> {
    fn goes_on(&self) -> bool {
        let has_begun = self.gone > 0 || self.failed.count > 0;
        !has_begun || (self.go_on)()
    }

    /// Takes a file's name away, and all of a directory's that are no directories.
    fn enter_or_unlink(&mut self, dir: &File, name: &Name) -> io::Result<Option<Emptied>> {
        let (file, stat) = match look(dir, name) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.failed.note(name, &error);
                return Ok(None);
            }
        };
        if !is_directory(&stat) {
            self.unlink(dir, name, AtFlags::empty());
            return Ok(None);
        }
        let handle = FileHandle::of(file.as_fd())?;
        let Some(inside) = open(dir, name)? else { return Ok(None) };
        let (left, more) = self.unlink_files(&inside)?;
        Ok(Some(Emptied { name: name.clone(), handle, left, more }))
    }

    /// Gives some directories that are in it, and whether there is more, as in [`Emptied`]. It is read while it
    /// shrinks: each name that stays is still met once.
    fn unlink_files(&mut self, inside: &File) -> io::Result<(Vec<Name>, Option<u64>)> {
        let (mut left, before) = (Vec::new(), self.gone);
        for entry in Dir::read_from(inside)? {
            let Ok(entry) = Name::new(entry?.file_name().to_bytes()) else { continue };
            if left.len() == EMPTIED_AT_ONCE_MAX || !self.goes_on() {
                return Ok((left, Some(before)));
            }
            match look(inside, &entry) {
                Ok(Some((_, stat))) if is_directory(&stat) => left.push(entry),
                Ok(Some(_)) => self.unlink(inside, &entry, AtFlags::empty()),
                Ok(None) => {}
                Err(error) => self.failed.note(&entry, &error),
            }
        }
        Ok((left, None))
    }

    fn unlink(&mut self, dir: &File, name: &Name, flags: AtFlags) {
        let stat = rustix::fs::statat(dir, c_name(name), AtFlags::SYMLINK_NOFOLLOW);
        match unlink_flagged(dir, name, flags) {
            Ok(()) => {
                self.gone += 1;
                let has_others = flags.is_empty() && stat.is_ok_and(|stat| stat.st_nlink > 1);
                // With its last name it goes, and its room is free.
                if !has_others {
                    self.amount.add(stat.map_or(Amount { objects: 1, bytes: 0 }, |stat| Amount::one(&stat)));
                }
            }
            Err(Errno::NOENT) => {}
            // What is left in it was told.
            Err(Errno::NOTEMPTY) if self.failed.count > 0 => self.failed.count += 1,
            Err(error) => self.failed.note(name, &error),
        }
    }
}

/// Takes a name away, whatever flags keep it. What has another one keeps its flags.
pub(in crate::apply) fn unlink_flagged(dir: &File, name: &Name, flags: AtFlags) -> rustix::io::Result<()> {
    guard::going(dir, name.as_bytes());
    let take = || rustix::fs::unlinkat(dir, c_name(name), flags);
    match take() {
        Err(Errno::PERM) => {}
        done => return done,
    }
    let fd = open_beneath(dir.as_fd(), name, OFlags::PATH, Mode::empty())?;
    let held = Flags::of(&fd).unwrap_or_default();
    if !clear_in_the_way(dir, name) {
        return Err(Errno::PERM);
    }
    let taken = take();
    if rustix::fs::fstat(&fd).is_ok_and(|stat| stat.st_nlink > 0)
        && let Err(error) = held.set(fd.as_fd())
    {
        log::warn!("{name:?} has lost its flags: {error}");
    }
    taken
}

/// Takes away flags that keep a name from going: those of what it holds, and of its directory. `false`: there
/// are none, or they cannot be taken away.
pub(in crate::apply) fn clear_in_the_way(dir: &File, name: &Name) -> bool {
    let held = open_beneath(dir.as_fd(), name, OFlags::PATH, Mode::empty());
    let clear = |fd: &dyn AsFd| {
        guard::attributes(fd.as_fd());
        clear_hindering(fd.as_fd())
    };
    clear(dir) | held.is_ok_and(|held| clear(&held))
}

/// `None`: it is gone. Errors: a mount, among others.
fn look(dir: &File, name: &Name) -> io::Result<Option<(File, Stat)>> {
    match open_beneath(dir.as_fd(), name, OFlags::PATH, Mode::empty()) {
        Ok(fd) => {
            let stat = rustix::fs::fstat(&fd)?;
            Ok(Some((File::from(fd), stat)))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A directory, to be listed; `None` where it is gone, or something else.
pub(in crate::apply) fn open(dir: &File, name: &Name) -> io::Result<Option<File>> {
    match open_beneath(dir.as_fd(), name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn open_handle(mount: &File, handle: &FileHandle) -> io::Result<Option<File>> {
    match by_handle::open(mount, handle, libc::O_RDONLY | libc::O_DIRECTORY) {
        Ok(fd) => Ok(Some(File::from(fd))),
        Err(error) if error.raw_os_error() == Some(libc::ESTALE) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All names in a directory, sorted: those of `.` and `..` are none.
pub(in crate::apply) fn names(dir: &File) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        names.extend(Name::new(entry?.file_name().to_bytes()));
    }
    names.sort_unstable_by(|left, right| left.as_bytes().cmp(right.as_bytes()));
    Ok(names)
}

pub(in crate::apply) fn directories(dir: &File) -> io::Result<Vec<Name>> {
    let mut found = names(dir)?;
    found.retain(|name| matches!(look(dir, name), Ok(Some((_, stat))) if is_directory(&stat)));
    Ok(found)
}

/// Whether it is gone.
pub(in crate::apply) fn drop_if_empty(dir: &File, name: &Name) -> io::Result<bool> {
    guard::going(dir, name.as_bytes());
    match rustix::fs::unlinkat(dir, c_name(name), AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
