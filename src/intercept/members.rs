//! Which names and objects belong to the set, by its rules.
//!
//! Rules change under the exclusive tree lock, and directories move under it: what is known of a directory is
//! kept until the generation of the tree is another one, or the rules are. Who stages asks without that lock:
//! what was read by older rules, or of a tree whose directories are just moving, is never taken for what counts.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::RwLock;
use rustix::fs::{RenameFlags, Stat};

use super::aftermath::PAGE;
use super::change::{Part, Touched};
use super::error::{FsError, FsResult, Step};
use super::names::At;
use super::objects::{Node, NodeId, Pinned};
use super::seen_at::RulesAsOf;
use super::volume::{Volume, attributes, file_type, mtime};
use crate::limits::STAGED_LEN_MAX;
use crate::packet::{Birth, Bounded, ContentResult, Keeping, Op};
use crate::sets::{BadRule, DirRules, Matcher, Rules};
use crate::sys::proc_path;
use crate::xattr;

/// The rules of a set; none of them mostly.
#[derive(Default)]
pub(super) struct Members {
    has_rules: AtomicBool,
    matcher: RwLock<Option<Arc<Matcher>>>,
    keeping: RwLock<Option<Keeping>>,
}

/// Whether an object belongs to the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    In,
    Out,
    /// It has several names, or none that is known.
    Unknown,
}

impl Volume {
    /// From now on the set is what these rules leave of it. Every target has to be compared where they are
    /// other ones than before.
    ///
    /// Errors: one that means nothing; the rules are those of before then.
    pub fn set_rules(&self, rules: &Rules) -> Result<(), BadRule> {
        let matcher = if rules.is_empty() { None } else { Some(Arc::new(Matcher::new(rules)?)) };
        self.while_nothing_changes(|| {
            self.members.has_rules.store(matcher.is_some(), Relaxed);
            *self.members.matcher.write() = matcher;
            self.directories_moved();
            self.objects.forget_places_of_files();
        });
        Ok(())
    }

    /// The rules of the set, if it has some.
    pub fn matcher(&self) -> Option<Arc<Matcher>> {
        match self.members.has_rules.load(Relaxed) {
            true => self.members.matcher.read().clone(),
            false => None,
        }
    }

    /// From now on targets keep what is removed, or do not.
    pub fn keep_removed(&self, keeping: Option<Keeping>) {
        *self.members.keeping.write() = keeping;
    }

    /// Whether targets keep what is removed, and how.
    pub fn keeping(&self) -> Option<Keeping> {
        self.members.keeping.read().clone()
    }

    /// What is told of a removal whose object targets keep.
    pub(super) fn kept(&self, op: &Op) -> Option<Op> {
        let (at, dir_mtime, object, links) = match op {
            Op::Unlink { at, dir_mtime, object, links } => (at, *dir_mtime, *object, *links),
            Op::RemoveDirectory { at, dir_mtime, object } => (at, *dir_mtime, *object, 0),
            _ => return None,
        };
        let keeping = self.keeping()?;
        let is_directory = matches!(op, Op::RemoveDirectory { .. });
        // What was in it is kept aside by now.
        let is_told = !is_directory || keeping == Keeping::InPlace;
        is_told.then(|| Op::Keep { at: at.clone(), dir_mtime, object, links, keeping })
    }

    /// What the rules say of a directory: inner `None`, it is not in the set; outer `None`, nobody knows
    /// where it is.
    pub(super) fn dir_rules(&self, matcher: &Matcher, dir: &Node) -> Option<Option<Arc<DirRules>>> {
        let as_of = RulesAsOf {
            tree_generation: self.tree_generation(),
            matcher: std::ptr::from_ref(matcher).addr(),
        };
        let rules = match self.dir_rules_by_names(matcher, dir, as_of) {
            Some(rules) => rules,
            None => matcher.directory(&self.path_on_disk(dir)?).map(Arc::new),
        };
        if dir.id != NodeId::ROOT {
            dir.place.lock().rules = Some((as_of, rules.clone()));
        }
        Some(rules)
    }

    /// Of a directory whose parents the kernel has forgotten.
    fn path_on_disk(&self, dir: &Node) -> Option<Vec<u8>> {
        let path =
            |node: &Arc<Node>| std::fs::read_link(proc_path(self.descriptors.of(node).ok()?.as_fd())).ok();
        let (root, path) = (path(&self.root)?, path(&self.objects.get(dir.id)?)?);
        Some(path.strip_prefix(root).ok()?.as_os_str().as_bytes().to_vec())
    }

    fn dir_rules_by_names(
        &self,
        matcher: &Matcher,
        dir: &Node,
        as_of: RulesAsOf,
    ) -> Option<Option<Arc<DirRules>>> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let mut above: Option<Arc<Node>> = None;
        let mut rules = loop {
            let node = above.as_deref().unwrap_or(dir);
            if node.id == NodeId::ROOT {
                break Some(Arc::new(matcher.root()));
            }
            let place = node.place.lock();
            if let Some((read, rules)) = &place.rules
                && *read == as_of
            {
                break rules.clone();
            }
            let (parent, name) = (place.parent?, place.name.clone());
            drop(place);
            names.push(name);
            above = Some(self.node(parent).ok()?);
        };
        for name in names.iter().rev() {
            rules = rules.and_then(|rules| matcher.enter(&rules, name)).map(Arc::new);
        }
        Some(rules)
    }

    /// Where nobody knows it counts as in the set: a target that does not have it says so.
    pub(super) fn has_directory(&self, matcher: &Matcher, dir: &Node) -> bool {
        self.dir_rules(matcher, dir).is_none_or(|rules| rules.is_some())
    }

    pub(super) fn has_name(&self, matcher: &Matcher, dir: &Node, name: &[u8], is_directory: bool) -> bool {
        match self.dir_rules(matcher, dir) {
            Some(Some(rules)) => matcher.has(&rules, name, is_directory),
            Some(None) => false,
            None => true,
        }
    }

    /// The object is locked, or nobody relies on the answer.
    pub(super) fn member(&self, matcher: &Matcher, node: &Node) -> Member {
        if node.is_directory() {
            return if self.has_directory(matcher, node) { Member::In } else { Member::Out };
        }
        if node.is_staged.load(Relaxed) {
            return Member::In;
        }
        let place = {
            let place = node.place.lock();
            place.parent.map(|parent| (parent, place.name.clone()))
        };
        let Some((parent, name)) = place else { return Member::Unknown };
        let Ok(parent) = self.node(parent) else { return Member::Unknown };
        match self.has_name(matcher, &parent, &name, false) {
            true => Member::In,
            false if self.links(node).is_ok_and(|links| links == 1) => Member::Out,
            false => Member::Unknown,
        }
    }

    pub(super) fn links(&self, node: &Node) -> FsResult<u32> {
        let fd = match self.objects.get(node.id) {
            Some(node) => self.descriptors.of(&node)?,
            None => return Err(FsError::stale("links of an object")),
        };
        Ok(rustix::fs::fstat(&*fd).step("count links")?.st_nlink as u32)
    }

    /// Before names move: what comes into the set is told beforehand, so that its name is all that is left
    /// to tell. Gives what came to be staged, or was.
    pub(super) fn stage_for_rename(&self, from: At<'_>, to: At<'_>, flags: RenameFlags) -> Vec<Pinned<'_>> {
        let Some(matcher) = self.matcher() else { return Vec::new() };
        let both_ways = flags.contains(RenameFlags::EXCHANGE);
        let other = if both_ways { self.stage_for(&matcher, to, from) } else { None };
        self.stage_for(&matcher, from, to).into_iter().chain(other).collect()
    }

    /// What was staged and got no name is none of the set's, as before.
    pub(super) fn unstage(&self, node: &Arc<Node>) {
        let over = || {
            let fd = self.descriptors.of(node)?;
            let mut change = self.prepare(Touched::object(node, &fd, Part::Attributes), 0)?.lock()?;
            if !node.is_staged.swap(false, Relaxed) {
                change.unchanged();
                return Ok(());
            }
            change.make(|| Ok(()))?;
            change.append(&Op::Unstage { object: node.object }, Bytes::new());
            Ok::<_, FsError>(())
        };
        if node.is_staged.load(Relaxed) {
            over().unwrap_or_else(|error| log::debug!("targets keep it for now: {error}"));
        }
    }

    /// Whether targets have what gets a further name in the set; else a copy has to bring it. It is locked.
    pub(super) fn is_told_for_link(&self, node: &Node, dir: &Node, name: &OsStr) -> bool {
        let Some(matcher) = self.matcher() else { return true };
        let has = self.has_name(&matcher, dir, name.as_bytes(), false);
        !has || self.member(&matcher, node) == Member::In
    }

    /// Before an object gets a further name.
    pub(super) fn stage_for_link(&self, node: &Arc<Node>, dir: &Node, name: &OsStr) {
        let Some(matcher) = self.matcher() else { return };
        if !self.has_name(&matcher, dir, name.as_bytes(), false) {
            return;
        }
        let stat = self.descriptors.of(node).and_then(|fd| rustix::fs::fstat(&*fd).step("stat"));
        let staged = stat.and_then(|stat| self.stage(&matcher, node, &stat));
        staged.unwrap_or_else(|error| log::debug!("it is not told beforehand: {error}"));
    }

    /// Where it cannot be told, a copy brings it afterwards.
    fn stage_for(&self, matcher: &Matcher, from: At<'_>, to: At<'_>) -> Option<Pinned<'_>> {
        let (from_dir, to_dir) = (self.node(from.parent).ok()?, self.node(to.parent).ok()?);
        let has = |dir: &Node, name: &OsStr| self.has_name(matcher, dir, name.as_bytes(), false);
        if has(&from_dir, from.name) || !has(&to_dir, to.name) {
            return None;
        }
        let found = {
            let _names = from_dir.names.look();
            self.descriptors.of(&from_dir).and_then(|dir| self.sight_open(&from_dir, dir.as_fd(), from.name))
        };
        let (node, stat) = found.ok()?;
        if let Err(error) = self.stage(matcher, &node, &stat) {
            log::debug!("what comes into the set is not told beforehand: {error}");
        }
        Some(node)
    }

    /// Tells of an object that is about to get its first name in the set. No lock may be held.
    pub(super) fn stage(&self, matcher: &Matcher, node: &Arc<Node>, stat: &Stat) -> FsResult<()> {
        if file_type(stat) == libc::S_IFDIR
            || stat.st_size as u64 > STAGED_LEN_MAX
            || self.member(matcher, node) == Member::In
        {
            return Ok(());
        }
        let fd = self.descriptors.of(node)?;
        let mut change = self.prepare_several(2, Touched::object(node, &fd, Part::Size(0)), 0)?.lock()?;
        let member = self.member(matcher, node);
        if member == Member::In {
            change.unchanged();
            return Ok(());
        }
        let (stat, told) = self.birth_of(node, &fd, member == Member::Unknown)?;
        change.make(|| Ok(()))?;
        node.is_staged.store(true, Relaxed);
        change.tell(&told, Bytes::new());
        let size = stat.st_size as u64;
        if file_type(&stat) != libc::S_IFREG || size == 0 {
            return Ok(());
        }
        // What ends with a hole has its size from this alone.
        change.make(|| Ok(()))?;
        let result = ContentResult { size, mtime: mtime(&stat), mode: None };
        change.append(&Op::Resize { object: node.object, result }, Bytes::new());
        self.send_content(node, 0..size, PAGE).inspect_err(|_| {
            // What the target has of it is made anew, or never gets a name.
            node.is_staged.store(false, Relaxed);
        })
    }

    fn birth_of(&self, node: &Node, fd: &OwnedFd, may_be_known: bool) -> FsResult<(Stat, Op)> {
        let stat = rustix::fs::fstat(fd).step("stat what comes into the set")?;
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let birth = match file_type(&stat) {
            libc::S_IFREG => Birth::File,
            libc::S_IFLNK => {
                let text = rustix::fs::readlinkat(fd, "", Vec::new()).step("read a symlink")?;
                Birth::Symlink { target: Bounded(text.into_bytes()) }
            }
            libc::S_IFIFO => Birth::Fifo,
            libc::S_IFSOCK => Birth::Socket,
            libc::S_IFCHR => Birth::CharDevice { major, minor },
            libc::S_IFBLK => Birth::BlockDevice { major, minor },
            _ => return Err(FsError::new(libc::EINVAL, "type of an object")),
        };
        let xattrs = xattr::read_replicated(fd).step("read attributes of what comes into the set")?;
        let attributes = attributes(&stat);
        Ok((stat, Op::Stage { object: node.object, may_be_known, birth, attributes, xattrs }))
    }
}
