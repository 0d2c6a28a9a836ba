//! One guard for every change: the only way to a lock for writing, and the only way to the queue.
//!
//! ```text
//!  Touched ──prepare──> Prepared ──lock──> Change ──make──> (system call) ──tell──> append
//!  what it will touch   room in the        all locks        from here on            its op is in the
//!                       queue, no lock     that it needs    it has to be told       queue, locks free
//! ```
//! Dropped between the system call and its op a change leaves the set *diverged*: targets miss
//! something, and that is never silent. A call that was refused has changed nothing, and
//! [`Change::unchanged`] says so of one that failed and is known to have left everything as it was.
//!
//! What an op appends was said before its locks were taken, and is locked: both are asserted. What a change
//! touches is marked in the map right before it is made: a target that never gets the op is shown it. What it
//! changes the content of is hot in the activity log before it has a lock (`hot`).

mod hot;
mod locks;
mod looks;
mod marks;
mod members;
mod ongoing;
#[cfg(test)]
pub mod planted;
mod recent;
#[cfg(test)]
mod tests;
pub mod turns;

use std::ffi::OsStr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::fs::Stat;

use super::error::{FsError, FsResult, Step};
use super::growth::{Answers, Growing};
use super::objects::{Node, NodeState};
use super::parking::{self, Parking};
use super::volume::Volume;
use crate::activity::ActivityLog;
use crate::limits::QUEUE_PACKET_COST;
use crate::map::Map;
use crate::packet::{Entry, ObjectId, Op, Sequence};
use crate::queue::{Queue, Reservation};
use crate::ranks;
pub use locks::{DirectoryLock, ObjectLock, Tree, TreeLock};
use locks::{LockedNames, LockedObjects, LockedTree};
pub use looks::Seen;
use looks::{Begun, Counters, DIRECTORY_MOVES};
use ongoing::Ongoing;
#[cfg(test)]
pub use planted::Planted;
use recent::Recent;
use turns::turn;

/// What became of an op that takes the tree lock shared if it can.
pub enum Attempt {
    Done,
    /// Nothing was changed.
    NeedsExclusiveTree,
}

/// Room reserved for the header of an op; what is more or less is settled when it is appended.
const HEADER_ROOM: usize = 512;

/// What all changes of a volume share.
pub struct Changes {
    queue: Arc<Queue>,
    tree: TreeLock,
    ongoing: Ongoing,
    counters: Counters,
    recent: Recent,
    map: Option<Arc<Map>>,
    activity: OnceLock<Arc<ActivityLog>>,
}

impl Changes {
    pub fn into(queue: Arc<Queue>) -> Changes {
        Changes {
            recent: Recent::into(queue.clone()),
            queue,
            map: None,
            activity: OnceLock::new(),
            tree: TreeLock::default(),
            ongoing: Ongoing::default(),
            counters: Counters::default(),
        }
    }
}

/// What a change will touch, said before anything is locked.
pub struct Touched<'a> {
    /// Names in directories.
    names: Vec<(&'a Arc<Node>, &'a OsStr)>,
    object: Option<TouchedObject<'a>>,
}

struct TouchedObject<'a> {
    node: &'a Arc<Node>,
    /// To look at it.
    fd: &'a OwnedFd,
    part: Part,
}

/// What of an object is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Owner, mode, times, extended attributes, link count.
    Attributes,
    /// Bytes from..to, and the attributes.
    Content(Range<u64>),
    /// All bytes from the smaller of two sizes on, and the attributes: it will have this one.
    Size(u64),
}

impl<'a> Touched<'a> {
    pub fn name(dir: &'a Arc<Node>, name: &'a OsStr) -> Touched<'a> {
        Touched { names: vec![(dir, name)], object: None }
    }

    pub fn names(one: (&'a Arc<Node>, &'a OsStr), other: (&'a Arc<Node>, &'a OsStr)) -> Touched<'a> {
        Touched { names: vec![one, other], object: None }
    }

    pub fn object(node: &'a Arc<Node>, fd: &'a OwnedFd, part: Part) -> Touched<'a> {
        Touched { names: Vec::new(), object: Some(TouchedObject { node, fd, part }) }
    }

    /// And an object that is known already.
    pub fn and(self, node: &'a Arc<Node>, fd: &'a OwnedFd, part: Part) -> Touched<'a> {
        Touched { object: Some(TouchedObject { node, fd, part }), ..self }
    }

    fn is_something(&self) -> bool {
        !self.names.is_empty() || self.object.is_some()
    }

    fn dir(&self, at: usize) -> Option<&'a Arc<Node>> {
        self.names.get(at).map(|(dir, _)| *dir)
    }

    fn has_name(&self, entry: &Entry) -> bool {
        let is_it = |(dir, name): &(&Arc<Node>, &OsStr)| {
            dir.object == entry.dir && name.as_bytes() == entry.name.as_bytes()
        };
        self.names.iter().any(is_it)
    }

    fn has_directory(&self, object: ObjectId) -> bool {
        self.names.iter().any(|(dir, _)| dir.object == object)
    }

    fn has_size(&self) -> bool {
        let part = self.object.as_ref().map(|object| &object.part);
        part.is_some_and(|part| *part != Part::Attributes)
    }

    fn has_content(&self, from: u64, len: u64) -> bool {
        match self.object.as_ref().map(|object| &object.part) {
            Some(Part::Content(range)) => range.start <= from && from.saturating_add(len) <= range.end,
            Some(Part::Size(_)) => true,
            Some(Part::Attributes) | None => false,
        }
    }
}

/// A change with its room in the queue, before it takes its locks.
pub struct Prepared<'a> {
    volume: &'a Volume,
    touched: Touched<'a>,
    room: Reservation,
}

/// A change that has its locks. See the module.
pub struct Change<'a> {
    volume: &'a Volume,
    touched: Touched<'a>,
    /// Descriptors of the directories that are touched.
    dirs: Vec<Arc<OwnedFd>>,
    /// That of the object before the change; `None` where it goes with its op as of then.
    path: Option<Arc<[u8]>>,
    /// The object that was named beforehand, before the change.
    before: Option<Stat>,
    /// Something was done that is not told yet.
    is_made: bool,
    /// The last step that failed.
    why: Option<FsError>,
    // From here on in this order: what is taken last is let go first.
    begun: Begun<'a>,
    objects: LockedObjects<'a>,
    names: LockedNames<'a>,
    tree: LockedTree<'a>,
    room: Reservation,
    /// Given when the locks are free again.
    answers: Vec<Answers>,
}

impl Volume {
    /// Takes room in the queue for one op with `payload` bytes. It waits, except on a thread that
    /// serves requests: no lock may be held.
    pub(super) fn prepare<'a>(&'a self, touched: Touched<'a>, payload: usize) -> FsResult<Prepared<'a>> {
        self.prepare_several(1, touched, payload)
    }

    /// As [`Volume::prepare`], for so many ops.
    pub(super) fn prepare_several<'a>(
        &'a self,
        ops: usize,
        touched: Touched<'a>,
        payload: usize,
    ) -> FsResult<Prepared<'a>> {
        ranks::assert_none_held("a change is prepared");
        assert!(ops > 0 && touched.is_something(), "a change of nothing");
        let queue = &self.changes.queue;
        let header = ops * HEADER_ROOM + (ops - 1) * QUEUE_PACKET_COST;
        let room = match parking::never_waits() {
            true => queue.reserve_now(payload, header),
            false => queue.reserve(payload, header),
        };
        Ok(Prepared { volume: self, touched, room: room? })
    }

    /// Runs something while no change is under way: each is in the queue, or has not begun.
    pub fn while_nothing_changes(&self, run: impl FnOnce()) {
        let _tree = self.changes.tree.take(Tree::Exclusive, &self.changes.ongoing);
        run();
    }

    /// Whether ops with so many bytes would get room without waiting.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.changes.queue.has_room(bytes)
    }

    /// Where changes wait for room so that `threads` go on serving.
    pub(super) fn parking(&self, threads: usize) -> Parking {
        Parking::new(self.changes.queue.clone(), threads)
    }

    /// Counts changes that begin from now on apart from those that are under way. `false`: older
    /// ones are still under way, and nothing was begun.
    pub fn tell_changes_apart(&self) -> bool {
        self.changes.ongoing.turn()
    }

    /// Whether every change that began before the last [`Volume::tell_changes_apart`] that
    /// answered `true` is in the queue, or failed.
    pub fn earlier_changes_are_over(&self) -> bool {
        self.changes.ongoing.earlier_are_over()
    }
}

impl<'a> Prepared<'a> {
    /// Takes the locks of what is touched, and looks what others have done to it.
    pub fn lock(self) -> FsResult<Change<'a>> {
        self.lock_tree(Tree::Shared)
    }

    pub fn lock_tree(self, tree: Tree) -> FsResult<Change<'a>> {
        let mut change = self.take_locks(tree)?;
        change.volume.fence().check()?;
        for ((dir, _), fd) in change.touched.names.iter().zip(&change.dirs) {
            change.volume.begin_names(dir, &**fd);
        }
        if let Some(object) = &change.touched.object {
            #[cfg(test)]
            planted::begins(object.fd);
            change.before = change.volume.begin_change(object.node, object.fd);
        }
        change.mark();
        Ok(change)
    }

    /// Takes the locks of what a failed call may have changed: it has to be told as it is.
    pub fn lock_to_tell(self) -> FsResult<Change<'a>> {
        let mut change = self.take_locks(Tree::Shared)?;
        change.mark();
        change.is_made = true;
        Ok(change)
    }

    fn take_locks(self, tree: Tree) -> FsResult<Change<'a>> {
        let Prepared { volume, touched, room } = self;
        let dirs = touched.names.iter().map(|(dir, _)| volume.descriptors.of(dir));
        let dirs = dirs.collect::<FsResult<Vec<_>>>()?;
        let node = touched.object.as_ref().map(|object| &**object.node);
        let moves = (tree == Tree::Exclusive).then_some(DIRECTORY_MOVES);
        let tree = volume.take_tree(&touched, tree);
        let names = LockedNames::take(touched.dir(0).map(|dir| &**dir), touched.dir(1).map(|dir| &**dir));
        let objects = LockedObjects::take(node, None);
        let mut begun = volume.changes.counters.begin(Some(&volume.changes.recent));
        touched.names.iter().for_each(|(dir, _)| begun.add(dir.object.inode));
        node.iter().for_each(|node| begun.add(node.object.inode));
        moves.into_iter().for_each(|moves| begun.add(moves));
        Ok(Change {
            volume,
            dirs,
            path: None,
            before: None,
            is_made: false,
            why: None,
            begun,
            objects,
            touched,
            names,
            tree,
            room,
            answers: Vec::new(),
        })
    }
}

impl<'a> Change<'a> {
    /// Directory of the first, or the only, name.
    pub fn dir(&self) -> Arc<OwnedFd> {
        self.dirs[0].clone()
    }

    /// Directory of the second name.
    pub fn other_dir(&self) -> Arc<OwnedFd> {
        self.dirs[1].clone()
    }

    /// Takes the directory lock of a directory that goes: names in it whose change is not told yet come
    /// first. `false`: the change has to begin anew, with the exclusive tree lock.
    pub fn lock_inside(&mut self, dir: &'a Arc<Node>) -> bool {
        self.names.take_inside(dir, self.tree.how())
    }

    /// Takes the locks of the objects that the names have led to. The change is told under the path
    /// that the first one has now.
    pub fn lock_found(&mut self, one: &'a Arc<Node>, other: Option<&'a Arc<Node>>) {
        assert!(self.objects.first().is_none(), "a change leaves objects that it has locked");
        self.objects = LockedObjects::take(Some(one), other.map(|other| &**other));
        for node in [Some(one), other].into_iter().flatten() {
            self.begun.add(node.object.inode);
            node.left.forget();
        }
        self.path = Some(self.volume.path(one));
    }

    /// How a name's object is now that nobody changes it; `found` is how it was before it was locked,
    /// which says all that is asked of a directory.
    pub fn stat_found(&self, node: &Arc<Node>, found: Stat) -> FsResult<Stat> {
        let is_enough = node.is_directory();
        #[cfg(test)]
        let is_enough = is_enough || planted::is(Planted::ReadsLinksTooEarly);
        match is_enough {
            true => Ok(found),
            false => rustix::fs::fstat(&*self.volume.descriptors.of(node)?).step("stat what a name holds"),
        }
    }

    /// Takes the lock of the object that the change has made.
    pub fn lock_new(&mut self, node: &'a Arc<Node>) {
        assert!(self.objects.first().is_none(), "a change leaves objects that it has locked");
        self.objects = LockedObjects::take(Some(node), None);
        self.begun.add(node.object.inode);
        self.mark_new(node);
    }

    /// What is known of the open handles of the object that was named beforehand.
    pub fn state(&mut self) -> &mut NodeState {
        self.objects.state().expect("the op named its object beforehand")
    }

    /// To be called before every change that the kernel asks for under the file's own lock and that
    /// may make it longer.
    pub fn will_grow(&mut self, growing: Growing, fd: &OwnedFd) -> FsResult<()> {
        let node = self.touched.object.as_ref().map(|object| object.node).expect("a file grows");
        assert!(self.touched.has_size(), "a file grows whose size was not said to change");
        // Nobody has changed it since: it is locked.
        let size = match self.before {
            Some(stat) => stat.st_size,
            None => rustix::fs::fstat(fd).step("stat before a change")?.st_size,
        };
        self.answers.push(self.volume.before_growth(node, fd, growing, size as u64));
        Ok(())
    }

    /// The system call that changes something. From here on the change has to be told, unless it was
    /// refused.
    pub fn make<T>(&mut self, call: impl FnOnce() -> FsResult<T>) -> FsResult<T> {
        let was_made = std::mem::replace(&mut self.is_made, true);
        turn();
        let outcome = call();
        turn();
        if let Err(error) = &outcome
            && !error.may_have_changed()
        {
            self.is_made = was_made;
        }
        self.look(outcome)
    }

    /// Whether there is something to tell.
    pub fn is_made(&self) -> bool {
        self.is_made
    }

    /// A look at what was changed: where it fails, that is why the change cannot be told.
    pub fn look<T>(&mut self, outcome: FsResult<T>) -> FsResult<T> {
        outcome.inspect_err(|error| self.why = Some(*error))
    }

    /// How the object that was named beforehand is now: the change has left it like this.
    pub fn stat_after(&mut self, fd: &OwnedFd) -> FsResult<Stat> {
        let stat = self.look(rustix::fs::fstat(fd).step("stat after a change"))?;
        #[cfg(test)]
        let stat = planted::seen(stat);
        if let Some(object) = &self.touched.object {
            self.volume.end_change(object.node, &stat);
        }
        Ok(stat)
    }

    /// Puts the op into the queue: the change is over.
    pub fn append(mut self, op: &Op, payload: Bytes) {
        self.tell(op, payload);
    }

    /// As [`Change::append`], and the locks are kept for a further change of the same object.
    pub fn tell(&mut self, op: &Op, payload: Bytes) {
        assert!(self.is_made, "{} is told before it was made", op.name());
        assert!(self.covers(op, payload.len() as u64), "{} touches more than was said before it", op.name());
        #[cfg(test)]
        if planted::is(Planted::EndsBeforeItIsTold) {
            self.begun.end();
            turn();
        }
        #[cfg(test)]
        let (op, payload) = &planted::told(&self.touched, op, payload);
        #[cfg(test)]
        let payload = payload.clone();
        if !self.is_nobodys() {
            match self.volume.matcher() {
                None => self.tell_all(op, payload),
                Some(matcher) => self.tell_members(&matcher, op, payload),
            }
        }
        for ((dir, _), fd) in self.touched.names.iter().zip(&self.dirs) {
            self.volume.end_names(dir, &**fd);
        }
        self.is_made = false;
    }

    /// A position that what was told last has, or that is behind it.
    pub fn told(&self) -> Sequence {
        self.volume.changes.queue.last().sequence
    }

    /// A part with an op of its own: what was made before it is to be told as before.
    pub fn part<T>(&mut self, part: impl FnOnce(&mut Change<'a>) -> T) -> T {
        let was_made = std::mem::replace(&mut self.is_made, false);
        let outcome = part(self);
        self.end();
        self.is_made = was_made;
        outcome
    }

    /// Everything is as it was, or what became of it is known to be the target's too.
    pub fn unchanged(mut self) {
        self.is_made = false;
    }

    /// A call on names failed: each must hold what it held before (`None`: nothing).
    pub fn failed(self, error: FsError, before: &[Option<&Stat>]) -> FsError {
        assert_eq!(before.len(), self.touched.names.len(), "each name is compared with what it held");
        if self.is_made {
            for (((_, name), dir), before) in self.touched.names.iter().zip(&self.dirs).zip(before) {
                self.volume.name_must_hold(&**dir, name, *before);
            }
        }
        self.unchanged();
        error
    }

    /// What was made and was not told is missed by the targets.
    fn end(&mut self) {
        if std::mem::take(&mut self.is_made) {
            let why = self.why.map_or("its op was left out".to_owned(), |error| error.to_string());
            self.volume.divergence().note(&why);
        }
    }

    /// Changes of an object without a name are nobody's: it can never get one again.
    fn is_nobodys(&self) -> bool {
        let object = self.touched.object.as_ref().filter(|_| self.touched.names.is_empty());
        object.is_some_and(|object| object.node.is_nameless.load(Relaxed))
    }

    /// The path that travels with the op.
    fn path(&self) -> Arc<[u8]> {
        let node = || self.objects.first().or(self.touched.dir(0).map(|dir| &**dir));
        let now = || node().map(|node| self.volume.path(node));
        self.path.clone().or_else(now).unwrap_or_default()
    }

    /// Whether all that the op names is locked and was said before.
    fn covers(&self, op: &Op, payload: u64) -> bool {
        let is_locked = |object: &ObjectId| self.objects.holds(*object);
        match op {
            Op::Create { at, object, .. }
            | Op::Link { at, object, .. }
            | Op::Unlink { at, object, .. }
            | Op::RemoveDirectory { at, object, .. }
            | Op::Leave { at, object, .. }
            | Op::Keep { at, object, .. } => self.touched.has_name(at) && is_locked(object),
            Op::Place { at, object, replaced, .. } => {
                let is_locked = is_locked(object) && replaced.is_none_or(|taken| is_locked(&taken.object));
                is_locked && self.touched.has_name(at)
            }
            Op::Stage { object, .. } | Op::Unstage { object } => is_locked(object),
            Op::Rename { from, to, object, replaced, .. } => {
                let is_locked = is_locked(object) && replaced.is_none_or(|taken| is_locked(&taken.object));
                is_locked && self.touched.has_name(from) && self.touched.has_name(to)
            }
            Op::Exchange { left, left_object, right, right_object, .. } => {
                let are_locked = is_locked(left_object) && is_locked(right_object);
                are_locked && self.touched.has_name(left) && self.touched.has_name(right)
            }
            Op::Write { object, offset, .. } => {
                is_locked(object) && self.touched.has_content(*offset, payload)
            }
            Op::Reserve { object, offset, length, .. } => {
                is_locked(object) && self.touched.has_content(*offset, *length)
            }
            Op::Resize { object, .. } => is_locked(object) && self.touched.has_size(),
            Op::SetAttributes { object, .. } => is_locked(object) || self.touched.has_directory(*object),
            Op::SetXattr { object, .. } | Op::RemoveXattr { object, .. } => is_locked(object),
            Op::Barrier { .. } => false,
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
