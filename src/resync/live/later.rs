//! What a comparison puts off. The target compares each thing exactly as of a packet, and may be far behind: what
//! was changed since the packet that it has applied would have it wait for all that was written meanwhile, and
//! everything behind it.
//!
//! ```text
//!  first round:  all ── not changed since? ──> compared at once
//!                 └── changed since ──> put off
//!  next round:   what was put off, and what that leads to before the target comes to it:
//!                compared at its own place, one wait for all of it
//!                what is met behind that ── as in the first
//! ```
//! So a comparison waits once or a few times for what is queued, however large the tree is, and however much is
//! written.

use std::collections::{HashSet, VecDeque};
use std::mem::take;
use std::sync::Arc;

use super::super::CopyError;
use super::super::looks::Looks;
use super::super::place::TreePath;
use super::super::sink::StampedSink;
use super::check::Hashing;
use super::files::Place;
use super::plan::{Descend, Directory, Job, Sent};
use super::{LiveCopy, OpenListing};
use crate::limits::CHECKED_LATER_MAX;
use crate::packet::{ObjectId, Sequence};
use crate::sys::FileHandle;

type Listed = Directory<(FileHandle, Arc<TreePath>)>;

/// See the module.
#[derive(Default)]
pub(super) struct Later {
    directories: Vec<Listed>,
    doubts: Vec<ObjectId>,
    xattrs: Vec<Place>,
    files: Vec<Hashing>,
    /// Of this round: they are not put off again.
    due: HashSet<ObjectId>,
    due_files: VecDeque<Hashing>,
    /// Before the target comes here nothing is put off: it waits for this anyhow.
    upto: Option<Sequence>,
    /// Files whose hashes go before the target has asked for them.
    ahead: HashSet<ObjectId>,
}

/// Whether the target has yet to apply the last change of an object.
pub(super) fn is_behind(looks: &dyn Looks, sink: &impl StampedSink, inode: u64) -> bool {
    matches!((looks.changed_at(inode), sink.reached()), (Some(changed), Some(reached)) if changed > reached)
}

impl Later {
    fn len(&self) -> usize {
        self.directories.len() + self.doubts.len() + self.xattrs.len() + self.files.len()
    }

    /// Something was put off before.
    pub fn is_late(&self) -> bool {
        self.upto.is_some()
    }

    /// Whether the target has to come to something of this round yet.
    fn is_awaited(&self, reached: Option<Sequence>) -> bool {
        self.upto.zip(reached).is_some_and(|(upto, reached)| reached < upto)
    }

    /// Whether there is a next round for what is met now.
    pub fn has_room(&self, reached: Option<Sequence>) -> bool {
        self.len() < CHECKED_LATER_MAX && !self.is_awaited(reached)
    }

    /// Whether this one may wait for it.
    pub fn may(&self, object: ObjectId, reached: Option<Sequence>) -> bool {
        self.has_room(reached) && !self.due.contains(&object)
    }

    pub fn file(&mut self, file: Hashing) {
        self.files.push(file);
    }

    pub fn next_file(&mut self) -> Option<Hashing> {
        self.due_files.pop_front()
    }

    /// Whether its hashes went before they were asked for.
    pub fn was_ahead(&mut self, object: ObjectId) -> bool {
        self.ahead.remove(&object)
    }
}

impl<S: StampedSink> LiveCopy<S> {
    /// Whether this may be put off.
    pub(super) fn may_wait(&self, object: ObjectId) -> bool {
        let reached = self.sink.reached();
        self.checking.as_ref().is_some_and(|checking| checking.later.may(object, reached))
    }

    fn waits(&self, object: ObjectId) -> bool {
        self.may_wait(object) && is_behind(&*self.looks, &self.sink, object.inode)
    }

    fn later(&mut self) -> Option<&mut Later> {
        self.checking.as_mut().map(|checking| &mut checking.later)
    }

    pub(super) fn enter_now_or_later(&mut self, dir: Listed) -> Result<(), CopyError> {
        match self.waits(dir.id) {
            true => self.later().into_iter().for_each(|later| later.directories.push(dir.clone())),
            false => self.enter_inside(dir)?,
        }
        Ok(())
    }

    pub(super) fn find_now_or_later(&mut self, id: ObjectId) -> Result<(), CopyError> {
        match self.waits(id) {
            true => self.later().into_iter().for_each(|later| later.doubts.push(id)),
            false => self.find(id)?,
        }
        Ok(())
    }

    pub(super) fn xattrs_now_or_later(&mut self, place: Place) -> Result<(), CopyError> {
        match self.waits(place.listed.object) {
            true => self.later().into_iter().for_each(|later| later.xattrs.push(place.clone())),
            false => self.send_xattrs(&place)?,
        }
        Ok(())
    }

    /// A listing that cannot go on now is begun anew.
    pub(super) fn list_later(&mut self, open: &OpenListing) {
        let Some(dir) = self.plan.abandon() else { return };
        // What it has shown is known; of the rest the target says what it lacks.
        let descend = if open.is_fresh() { dir.descend } else { Descend::WhereAsked };
        self.later()
            .into_iter()
            .for_each(|later| later.directories.push(Directory { descend, ..dir.clone() }));
    }

    /// A chunk has gone that the target comes to after a while: what it would ask for then and wait for once more
    /// goes now.
    pub(super) fn hash_ahead(&mut self, sent: &Sent<(FileHandle, Arc<TreePath>), Place>) {
        let reached = self.sink.reached();
        let (looks, sink) = (&*self.looks, &self.sink);
        let Some(checking) = self.checking.as_mut().filter(|checking| checking.order.content.is_some())
        else {
            return;
        };
        if !checking.later.is_awaited(reached) {
            return;
        }
        for (id, _, place) in &sent.files {
            let later = &mut checking.later;
            if place.listed.size > 0
                && later.ahead.len() < CHECKED_LATER_MAX
                && is_behind(looks, sink, id.inode)
                && later.ahead.insert(*id)
            {
                later.due_files.push_back(Hashing::due(place.clone()));
            }
        }
        // The same of directories.
        for (id, _) in &sent.directories {
            if is_behind(looks, sink, id.inode) {
                self.plan.prefer(*id);
            }
        }
    }

    /// What was put off is done now; `false`: nothing was.
    pub(super) fn begin_round(&mut self) -> bool {
        let given_out = self.sink.given_out();
        let Some(later) = self.later().filter(|later| later.len() > 0) else { return false };
        let (directories, doubts) = (take(&mut later.directories), take(&mut later.doubts));
        let (xattrs, files) = (take(&mut later.xattrs), take(&mut later.files));
        later.due = directories.iter().map(|dir| dir.id).chain(doubts.iter().copied()).collect();
        later.due.extend(xattrs.iter().map(|place| place.listed.object));
        later.upto = given_out.or(Some(Sequence(0)));
        later.due_files.extend(files);
        self.plan.begin_late();
        directories.into_iter().for_each(|dir| self.plan.first(dir));
        doubts.into_iter().for_each(|id| self.plan.doubt_again(id));
        xattrs.into_iter().for_each(|place| self.plan.copy_later(Job::Xattrs(place)));
        true
    }
}
