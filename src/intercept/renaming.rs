//! Ops that change two names: renames, replacements, exchanges.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, RenameFlags, Stat};

use super::change::{Attempt, Change, Touched, Tree};
use super::error::{FsError, FsResult, Step};
use super::names::{At, links_after_loss, mtime_of};
use super::objects::{Node, Pinned};
use super::standing::Intent;
use super::volume::{Volume, attributes, c_name, entry, file_type, mtime, stat_at};
use crate::packet::{Entry, Op, Replaced, Timestamp, Whiteout};

impl Volume {
    /// Renames, replaces or exchanges. Errors as `renameat2(2)`.
    pub fn rename(&self, from: At<'_>, to: At<'_>, flags: RenameFlags) -> FsResult<()> {
        let staged = self.stage_for_rename(from, to, flags);
        let renamed = match self.try_rename(from, to, flags, Tree::Shared) {
            Ok(Attempt::NeedsExclusiveTree) => self.try_rename(from, to, flags, Tree::Exclusive).map(drop),
            done => done.map(drop),
        };
        staged.iter().for_each(|node| self.unstage(node));
        renamed
    }

    /// With the shared tree lock a rename that turns out to move a directory has changed nothing.
    fn try_rename(&self, from: At<'_>, to: At<'_>, flags: RenameFlags, tree: Tree) -> FsResult<Attempt> {
        let (from_dir, to_dir) = (self.node(from.parent)?, self.node(to.parent)?);
        // Outlives the change, which locks what is found.
        let found;
        let touched = Touched::names((&from_dir, from.name), (&to_dir, to.name));
        let mut change = self.prepare(touched, 0)?.lock_tree(tree)?;
        let from = End::of(&from_dir, change.dir(), from)?;
        let to = End::of(&to_dir, change.other_dir(), to)?;
        if let Some(Intent::Move(moved)) = self.intended_before()
            && to.inode() == Some(moved)
            && from.inode() != Some(moved)
        {
            // A daemon that is gone has moved it for this request.
            change.unchanged();
            return Ok(Attempt::Done);
        }
        found = self.find_both(&from, &to)?;
        if found.are_directories() && tree == Tree::Shared {
            return Ok(Attempt::NeedsExclusiveTree);
        }
        let taken = found.taken.as_ref();
        change.lock_found(&found.moved.0, taken.map(|(node, _)| &**node));
        change.mark_moved(&found.moved.0);
        if flags.contains(RenameFlags::EXCHANGE) {
            taken.into_iter().for_each(|(node, _)| change.mark_moved(node));
        }
        let replaced = self.will_replace(&change, &found, flags)?;
        self.intend(Intent::Move(found.moved.1.st_ino));
        if let Err(error) = change.make(|| rename(&from, &to, flags)) {
            self.was_refused();
            if let (Some((node, _)), Some(_)) = (taken, replaced) {
                self.release_reachable(node);
            }
            return Err(change.failed(error, &[Some(&found.moved.1), taken.map(|(_, stat)| stat)]));
        }
        if found.is_one_object() {
            change.unchanged();
            return Ok(Attempt::Done);
        }
        match taken {
            Some(other) if flags.contains(RenameFlags::EXCHANGE) => {
                self.tell_exchange(change, (from, &found.moved), (to, other), found.are_directories())?;
            }
            _ => self.tell_rename(change, from, to, &found, replaced, flags)?,
        }
        Ok(Attempt::Done)
    }

    fn find_both(&self, from: &End<'_>, to: &End<'_>) -> FsResult<Found<'_>> {
        let moved = self.sight(from.dir, from.fd.as_fd(), from.at.name)?;
        let taken = match self.sight(to.dir, to.fd.as_fd(), to.at.name) {
            Ok(taken) => Some(taken),
            Err(error) if error.errno == libc::ENOENT => None,
            Err(error) => return Err(error),
        };
        Ok(Found { moved, taken })
    }

    /// What the rename takes the place of: it stays reachable, also without a name.
    fn will_replace(
        &self,
        change: &Change<'_>,
        found: &Found<'_>,
        flags: RenameFlags,
    ) -> FsResult<Option<Replaced>> {
        let exchanges = flags.contains(RenameFlags::EXCHANGE);
        match &found.taken {
            None if exchanges => Err(FsError::new(libc::ENOENT, "exchange")),
            // The same inode under both names: the kernel does nothing, and says it succeeded.
            Some(_) if exchanges || found.is_one_object() => Ok(None),
            Some((node, stat)) if !flags.contains(RenameFlags::NOREPLACE) => {
                let links = links_after_loss(&change.stat_found(node, *stat)?);
                self.keep_reachable(node, links)?;
                Ok(Some(Replaced { object: node.object, links }))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn tell_rename(
        &self,
        mut change: Change<'_>,
        from: End<'_>,
        to: End<'_>,
        found: &Found<'_>,
        replaced: Option<Replaced>,
        flags: RenameFlags,
    ) -> FsResult<()> {
        let (moved, before) = &found.moved;
        moved.set_place(to.dir.id, to.at.name.as_bytes());
        if found.are_directories() {
            self.directories_moved();
        }
        let whiteout = match flags.contains(RenameFlags::WHITEOUT) {
            true => {
                let (node, stat) = change.look(self.sight(from.dir, from.fd.as_fd(), from.at.name))?;
                Some(Whiteout { object: node.object, attributes: attributes(&stat) })
            }
            false => None,
        };
        let op = Op::Rename {
            from_mtime: change.look(mtime_of(&from.fd))?,
            to_mtime: change.look(mtime_of(&to.fd))?,
            object: moved.object,
            object_mtime: change.look(to.mtime_after_move(before))?,
            from: from.entry,
            to: to.entry,
            replaced,
            whiteout,
        };
        if let (Some((node, _)), Some(replaced)) = (&found.taken, replaced) {
            self.objects.set_nameless(node, replaced.links == 0);
            if replaced.links == 0 {
                self.unlist(node);
                change.look(self.keep_standing(node))?;
            }
        }
        change.append(&op, Bytes::new());
        Ok(())
    }

    fn tell_exchange(
        &self,
        mut change: Change<'_>,
        (from, (moved, before)): (End<'_>, &Before<'_>),
        (to, (other, other_before)): (End<'_>, &Before<'_>),
        are_directories: bool,
    ) -> FsResult<()> {
        moved.set_place(to.dir.id, to.at.name.as_bytes());
        other.set_place(from.dir.id, from.at.name.as_bytes());
        if are_directories {
            self.directories_moved();
        }
        let op = Op::Exchange {
            left_mtime: change.look(mtime_of(&from.fd))?,
            left_object: moved.object,
            left_object_mtime: change.look(to.mtime_after_move(before))?,
            right_mtime: change.look(mtime_of(&to.fd))?,
            right_object: other.object,
            right_object_mtime: change.look(from.mtime_after_move(other_before))?,
            left: from.entry,
            right: to.entry,
        };
        change.append(&op, Bytes::new());
        Ok(())
    }
}

/// What had a name before, and what it was like.
type Before<'a> = (Pinned<'a>, Stat);

/// One end of a rename.
struct End<'a> {
    at: At<'a>,
    dir: &'a Arc<Node>,
    fd: Arc<OwnedFd>,
    entry: Entry,
}

impl<'a> End<'a> {
    fn of(dir: &'a Arc<Node>, fd: Arc<OwnedFd>, at: At<'a>) -> FsResult<End<'a>> {
        Ok(End { at, dir, fd, entry: entry(dir, at.name)? })
    }

    /// Number of what has the name now.
    fn inode(&self) -> Option<u64> {
        stat_at(self.fd.as_fd(), self.at.name).map(|stat| stat.st_ino)
    }

    /// The mtime of an object that has just got this name, where the move may have changed it, on this
    /// file system or on another one: of a directory always (XFS changes both in an exchange, f2fs the
    /// one that a rename moves), of others where it did.
    fn mtime_after_move(&self, before: &Stat) -> FsResult<Option<Timestamp>> {
        let name = c_name(self.at.name)?;
        let now = rustix::fs::statat(&*self.fd, &*name, AtFlags::SYMLINK_NOFOLLOW).step("stat what moved")?;
        let is_directory = file_type(&now) == libc::S_IFDIR;
        Ok((is_directory || mtime(&now) != mtime(before)).then(|| mtime(&now)))
    }
}

/// What the two names stand for before.
struct Found<'a> {
    moved: Before<'a>,
    taken: Option<Before<'a>>,
}

impl Found<'_> {
    /// One of them is a directory.
    fn are_directories(&self) -> bool {
        self.moved.0.is_directory() || self.taken.as_ref().is_some_and(|(node, _)| node.is_directory())
    }

    fn is_one_object(&self) -> bool {
        self.taken.as_ref().is_some_and(|(node, _)| node.id == self.moved.0.id)
    }
}

fn rename(from: &End<'_>, to: &End<'_>, flags: RenameFlags) -> FsResult<()> {
    let (old, new) = (c_name(from.at.name)?, c_name(to.at.name)?);
    rustix::fs::renameat_with(&*from.fd, &*old, &*to.fd, &*new, flags).step("rename")
}
