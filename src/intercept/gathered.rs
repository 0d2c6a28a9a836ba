//! Where the kernel gathers writes (`Profile::Batch`): what it keeps by itself, and how that becomes
//! what the backing directory has.
//!
//! The kernel sets the modification time of a file when a program writes, and tells it later, beside
//! the pages. A page that comes after the time sets it anew on the disk: to the moment when it was
//! written back. So what was told last is kept here, and set again when the kernel has nothing more
//! of the file:
//!
//! ```text
//!  pages, time, page ──> the disk has the time of the last page ──release or sync──> time again
//! ```
//! Until then the disk, and the replica, have a later time than programs are shown, never an earlier
//! one than that of their content.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use bytes::Bytes;
use rustix::fs::AtFlags;

use super::attributes::{SetTime, times};
use super::change::{Part, Touched};
use super::error::{FsResult, Step};
use super::names::At;
use super::objects::{Node, NodeId, NodeState};
use super::volume::{Volume, c_name, mtime};
use crate::packet::{Op, Timestamp};

/// The modification time of one file.
#[derive(Debug, Default)]
pub struct KeptTime {
    /// As the kernel has it.
    told: Option<Timestamp>,
    /// The content has changed since.
    has_moved: bool,
}

impl KeptTime {
    fn owed(&mut self) -> Option<Timestamp> {
        std::mem::take(&mut self.has_moved).then_some(self.told).flatten()
    }
}

impl Volume {
    /// The content of a file is about to change, and with it the time on the disk. What the kernel has
    /// until it tells something else is the time from before the first change: it may be that of the
    /// change, too, by its coarse clock.
    pub(super) fn note_content(&self, node: &Node, state: &mut NodeState, fd: impl AsFd) {
        if self.profile.gathers() && !node.is_append_only.load(SeqCst) {
            let now = || rustix::fs::fstat(fd).ok().map(|stat| mtime(&stat));
            state.time.told = state.time.told.or_else(now);
            state.time.has_moved = true;
            node.owes_time.store(true, SeqCst);
        }
    }

    /// The kernel told the time that it has.
    pub(super) fn note_time(&self, node: &Node, state: &mut NodeState, time: Option<SetTime>) {
        if let (true, Some(SetTime::At(time))) = (self.profile.gathers(), time) {
            state.time = KeptTime { told: Some(time), has_moved: false };
            node.owes_time.store(false, SeqCst);
        }
    }

    /// Whether [`Volume::settle_time`] has something to do.
    pub fn owes_time(&self, id: NodeId) -> bool {
        self.profile.gathers() && self.node(id).is_ok_and(|node| node.owes_time.load(SeqCst))
    }

    /// The kernel has told everything of a file: it has the time that programs are shown.
    pub fn settle_time(&self, id: NodeId) -> FsResult<()> {
        let node = self.node(id)?;
        let fd = self.descriptors.of(&node)?;
        let mut change = self.prepare(Touched::object(&node, &fd, Part::Attributes), 0)?.lock()?;
        // Others that write may have a later time, which the kernel has not told: theirs is settled last.
        if change.state().read_write > 1 {
            change.unchanged();
            return Ok(());
        }
        node.owes_time.store(false, SeqCst);
        let owed = change.state().time.owed();
        let now = mtime(&rustix::fs::fstat(&*fd).step("stat")?);
        let Some(owed) = owed.filter(|owed| *owed != now) else {
            change.unchanged();
            return Ok(());
        };
        let times = times(None, Some(SetTime::At(owed)));
        let set = || rustix::fs::utimensat(&*fd, "", &times, AtFlags::EMPTY_PATH).step("set a time again");
        let outcome = change.make(set);
        let mtime = Some(mtime(&change.stat_after(&fd)?));
        match change.is_made() {
            true => {
                let op = Op::SetAttributes { object: node.object, mode: None, owner: None, mtime };
                change.append(&op, Bytes::new());
            }
            false => change.unchanged(),
        }
        outcome
    }

    /// Whether the kernel may have gathered writes to a file that are not here yet. A close waits
    /// for them, so that only what is open can have some.
    pub fn may_be_gathered(&self, id: NodeId) -> bool {
        self.profile.gathers() && self.may_be_mapped(id)
    }

    /// Files that are open for writing.
    pub fn files_written(&self) -> Vec<NodeId> {
        let mut found = HashSet::new();
        self.each_read_write(|node| _ = found.insert(node.id));
        found.into_iter().collect()
    }

    /// The kernel is about to take one more write. `false`: it has taken so many, and has to write
    /// back before; they are counted anew.
    pub fn count_write(&self, id: NodeId, most: u64) -> bool {
        let Ok(node) = self.node(id) else { return true };
        let is_more = node.writes_taken.fetch_add(1, SeqCst) <= most;
        if !is_more {
            node.writes_taken.store(0, SeqCst);
        }
        is_more
    }

    /// The file with this name, where [`Volume::may_be_gathered`].
    pub fn gathered_at(&self, at: At<'_>) -> Option<NodeId> {
        if !self.profile.gathers() || self.shared_writers.open.load(Relaxed) == 0 {
            return None;
        }
        let (parent, name) = (self.node(at.parent).ok()?, c_name(at.name).ok()?);
        let dir = self.descriptors.of(&parent).ok()?;
        let stat = rustix::fs::statat(dir.as_fd(), &*name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(NodeId::of_inode(stat.st_ino)).filter(|id| self.may_be_gathered(*id))
    }
}
