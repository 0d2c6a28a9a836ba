//! What waits, after a copy of what is owed: what was deleted on the source, and what nobody knows.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::living::Names;
use super::{Delete, Deleted, Limbo, Resolved, below, is_directory, names, open_directory};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::{Why, by_handle, open_beneath, trees};
use crate::limits::{LEAVING_IN_MEMORY, LINKED_IN_MEMORY};
use crate::packet::Name;
use crate::sys::FileHandle;

/// Batches of names that wait, by what was said of them.
pub(in crate::apply) struct Parts {
    /// All in them is known, with all below.
    known: Vec<Name>,
    strange: Vec<Name>,
}

impl Limbo {
    /// Drops names of what lives on elsewhere, and visits everything else; gives what it lies in.
    pub(in crate::apply) fn each_waiting(
        &mut self,
        mount: &File,
        limbo: &File,
        mut visit: impl FnMut(&FileHandle) -> Result<(), Fault>,
    ) -> Result<Vec<Name>, Fault> {
        self.batch = None;
        let batches = self.batches_left(mount, limbo)?;
        for batch in &batches {
            let dir = open_directory(&self.waiting, batch)?;
            below(mount, &dir, |_, _, fd, _| visit(&handle_of(fd)?))?;
        }
        Ok(batches)
    }

    /// Takes away what waits and was removed on the source, with its names: files, and directories that nothing is
    /// in then. What cannot be removed stays.
    pub(in crate::apply) fn drop_removed(
        &mut self,
        mount: &File,
        was_removed: impl Fn(&FileHandle) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        self.batch = None;
        for batch in names(&self.waiting)? {
            let top = open_directory(&self.waiting, &batch)?;
            // Each pass empties some: many directories are too many to be remembered at once.
            while drop_some_removed(mount, &top, &was_removed)? {}
        }
        Ok(())
    }

    /// Takes what is not known out from among what is, with all below it.
    pub(in crate::apply) fn part(
        &mut self,
        mount: &File,
        mut is_known: impl FnMut(&FileHandle) -> Result<bool, Fault>,
    ) -> Result<Parts, Fault> {
        self.batch = None;
        let known = names(&self.waiting)?;
        for batch in &known {
            let mut waiting = vec![handle_of(&open_directory(&self.waiting, batch)?)?];
            while let Some(handle) = waiting.pop() {
                let opened = by_handle::open(mount, &handle, libc::O_RDONLY | libc::O_DIRECTORY);
                let dir = File::from(opened.map_err(Fault::system("open a directory"))?);
                for name in names(&dir)? {
                    let found = match open_beneath(dir.as_fd(), &name, OFlags::PATH, Mode::empty()) {
                        Ok(found) => found,
                        // Somebody's mount: it keeps from going what it lies in.
                        Err(Errno::XDEV) => continue,
                        Err(error) => return Err(Fault::system("look into limbo")(error)),
                    };
                    let handle = handle_of(&found)?;
                    match is_known(&handle)? {
                        false => self.take(&dir, &name, Why::NotOnSource)?,
                        true if is_directory(&inode::stat(&found)?) => waiting.push(handle),
                        true => {}
                    }
                }
            }
        }
        self.batch = None;
        let strange = names(&self.waiting)?.into_iter().filter(|batch| !known.contains(batch)).collect();
        Ok(Parts { known, strange })
    }

    /// What goes by names that are known, and is kept by them, has none below what nobody knows: by it, an orphan would
    /// be what is kept.
    fn drop_what_is_kept(&self, mount: &File, parts: &Parts) -> Result<(), Fault> {
        let (mut part, mut count) = (0, if parts.strange.is_empty() { 0 } else { 1 });
        while part < count {
            let mut names = Names::of_part(part, count, LINKED_IN_MEMORY);
            let mut has_room = true;
            for batch in &parts.known {
                has_room &= names.count(mount, &open_directory(&self.waiting, batch)?)?;
            }
            if !has_room {
                (part, count) = (0, count * 2);
                continue;
            }
            for batch in &parts.strange {
                names.drop_counted(mount, &open_directory(&self.waiting, batch)?)?;
            }
            part += 1;
        }
        Ok(())
    }

    /// As [`Limbo::resolve`]; what is known and would be deleted goes where it is `kept`, if somewhere.
    pub(in crate::apply) fn resolve_parts(
        &mut self,
        mount: &File,
        limbo: &File,
        parts: Parts,
        (known, strange): (Delete, Delete),
        kept: Option<&Deleted>,
    ) -> Result<Resolved, Fault> {
        if kept.is_some() {
            self.drop_what_is_kept(mount, &parts)?;
        }
        let deleted = self.resolve_all(mount, limbo, parts.known, (known, kept))?;
        let others = self.resolve_all(mount, limbo, parts.strange, (strange, None))?;
        Ok(Resolved {
            moved: deleted.moved + others.moved,
            deleted: deleted.deleted + others.deleted,
            spared: deleted.spared + others.spared,
        })
    }
}

pub(super) fn handle_of(fd: impl AsFd) -> Result<FileHandle, Fault> {
    FileHandle::of(fd.as_fd()).map_err(Fault::system("file handle"))
}

/// Whether there may be more directories to go.
fn drop_some_removed(
    mount: &File,
    top: &File,
    was_removed: &impl Fn(&FileHandle) -> Result<bool, Fault>,
) -> Result<bool, Fault> {
    let mut directories = Vec::new();
    below(mount, top, |dir, name, fd, status| {
        if !was_removed(&handle_of(fd)?)? {
            return Ok(());
        }
        if is_directory(&status) {
            if directories.len() < LEAVING_IN_MEMORY {
                directories.push((handle_of(dir)?, name.clone()));
            }
            return Ok(());
        }
        if let Err(error) = trees::unlink_flagged(dir, name, AtFlags::empty()) {
            log::warn!("{name:?}, which the source has removed, cannot be removed: {error}");
        }
        Ok(())
    })?;
    let (found, mut gone) = (directories.len(), 0);
    // What lies in one was met behind it.
    for (above, name) in directories.into_iter().rev() {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        let above = by_handle::open(mount, &above, flags).map_err(Fault::system("open a directory"))?;
        gone += usize::from(trees::unlink_flagged(&File::from(above), &name, AtFlags::REMOVEDIR).is_ok());
    }
    Ok(found == LEAVING_IN_MEMORY && gone > 0)
}
