//! The lock order of the source: tree, directories (by id), objects (by id), queue tail.
//!
//! Queue room is reserved before any of them. None is held over an fsync, a notification to the
//! kernel or a wait for the network. The kernel's own inode locks are no help: asynchronous
//! O_DIRECT and writeback of mappings do not hold them. [`crate::ranks`] asserts all of it.
//!
//! To change something each is taken by a [`Change`](super::Change) alone; anybody may take one to
//! look.

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::ongoing::{Counted, Ongoing};
#[cfg(test)]
use super::planted::{self, Planted};
use super::turns::taken;
use crate::intercept::objects::{Node, NodeId, NodeState};
use crate::packet::ObjectId;
use crate::ranks::{Guard, Held, Rank, Ranked, RankedMutex};

/// *Tree lock*: first in the lock order.
pub struct TreeLock {
    lock: RwLock<()>,
    rank: Ranked,
}

impl Default for TreeLock {
    fn default() -> TreeLock {
        TreeLock { lock: RwLock::new(()), rank: Ranked::new(Rank::Tree) }
    }
}

/// How a change needs the tree lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// For everything but the next.
    Shared,
    /// For renames and exchanges of directories, and to lock one inside of another that is locked.
    Exclusive,
}

pub(super) enum LockedTree<'a> {
    Shared { _guard: RwLockReadGuard<'a, ()>, _held: Held, _counted: Counted<'a> },
    Exclusive { _guard: RwLockWriteGuard<'a, ()>, _held: Held, _counted: Counted<'a> },
}

impl LockedTree<'_> {
    pub fn how(&self) -> Tree {
        match self {
            LockedTree::Shared { .. } => Tree::Shared,
            LockedTree::Exclusive { .. } => Tree::Exclusive,
        }
    }
}

impl TreeLock {
    /// The change counts as under way before it waits for the lock.
    pub(super) fn take<'a>(&'a self, tree: Tree, ongoing: &'a Ongoing) -> LockedTree<'a> {
        let _counted = ongoing.enter();
        let _held = self.rank.wait();
        match tree {
            Tree::Shared => {
                let _guard = taken(|| self.lock.try_read(), || self.lock.read());
                LockedTree::Shared { _guard, _held, _counted }
            }
            Tree::Exclusive => {
                let _guard = taken(|| self.lock.try_write(), || self.lock.write());
                LockedTree::Exclusive { _guard, _held, _counted }
            }
        }
    }
}

/// *Directory lock*: names in a directory. Taken after the tree lock, before object locks; two of
/// them by id order.
pub struct DirectoryLock(RankedMutex<()>);

/// Nobody changes the names, or the object, meanwhile; nor does the holder.
pub struct Looking<'a, T = ()> {
    _guard: Guard<'a, T>,
}

impl DirectoryLock {
    pub fn of(id: NodeId) -> DirectoryLock {
        DirectoryLock(RankedMutex::new(Rank::Directory(id.0), ()))
    }

    pub fn look(&self) -> Looking<'_> {
        Looking { _guard: self.take() }
    }

    pub fn try_look(&self) -> Option<Looking<'_>> {
        self.0.try_lock().map(|_guard| Looking { _guard })
    }

    fn take(&self) -> Guard<'_, ()> {
        self.0.lock_by(Ranked::wait, taken_in_turn)
    }
}

/// *Object lock*: data and attributes. Taken after directory locks, before the queue's tail;
/// several of them by id order.
pub struct ObjectLock(RankedMutex<NodeState>);

impl ObjectLock {
    pub fn of(id: NodeId) -> ObjectLock {
        ObjectLock(RankedMutex::new(Rank::Object(id.0), NodeState::default()))
    }

    /// For what is known of the object's open handles, not for the object.
    pub fn note(&self) -> Guard<'_, NodeState> {
        self.take()
    }

    pub fn try_look(&self) -> Option<Looking<'_, NodeState>> {
        self.0.try_lock().map(|_guard| Looking { _guard })
    }

    fn take(&self) -> Guard<'_, NodeState> {
        self.0.lock_by(Ranked::wait, taken_in_turn)
    }
}

/// Where a model decides which thread goes on, it decides here.
fn taken_in_turn<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    taken(|| lock.try_lock(), || lock.lock())
}

/// Directory locks of up to two directories, by id order; the same directory is locked once.
pub(super) struct LockedNames<'a> {
    _guards: [Option<Guard<'a, ()>>; 2],
    inside: Option<Guard<'a, ()>>,
}

impl<'a> LockedNames<'a> {
    pub fn take(one: Option<&'a Node>, other: Option<&'a Node>) -> LockedNames<'a> {
        let lock = |node: Option<&'a Node>| node.map(|node| node.names.take());
        let (first, second) = in_order(one, other);
        #[cfg(test)]
        let second = second.filter(|_| !planted::is(Planted::LocksOneParent));
        let first = lock(first);
        LockedNames { _guards: [first, lock(second)], inside: None }
    }

    /// Takes the lock of a directory in one that is locked, whatever their order. With the shared tree
    /// lock it does not wait: whoever has it may wait for one that is held here. With the exclusive
    /// one nobody has it but to look.
    pub fn take_inside(&mut self, dir: &'a Node, tree: Tree) -> bool {
        self.inside = match tree {
            Tree::Shared => dir.names.0.try_lock(),
            Tree::Exclusive => Some(dir.names.0.lock_by(Ranked::wait_inside, taken_in_turn)),
        };
        self.inside.is_some()
    }
}

/// Object locks of up to two objects, by id order; the same object is locked once.
#[derive(Default)]
pub(super) struct LockedObjects<'a> {
    locked: [Option<(&'a Node, Guard<'a, NodeState>)>; 2],
}

impl<'a> LockedObjects<'a> {
    pub fn take(one: Option<&'a Node>, other: Option<&'a Node>) -> LockedObjects<'a> {
        let lock = |node: Option<&'a Node>| node.map(|node| (node, node.state.take()));
        let (first, second) = in_order(one, other);
        let first = lock(first);
        LockedObjects { locked: [first, lock(second)] }
    }

    pub fn holds(&self, object: ObjectId) -> bool {
        self.locked.iter().flatten().any(|(node, _)| node.object == object)
    }

    pub fn node(&self, object: ObjectId) -> Option<&'a Node> {
        self.locked.iter().flatten().map(|(node, _)| *node).find(|node| node.object == object)
    }

    /// The one that is locked, where it is one.
    pub fn first(&self) -> Option<&'a Node> {
        self.locked[0].as_ref().map(|(node, _)| *node)
    }

    /// What is known of the one object that is locked.
    pub fn state(&mut self) -> Option<&mut NodeState> {
        self.locked[0].as_mut().map(|(_, state)| &mut **state)
    }
}

/// The order in which two are locked; one of them where they are the same.
fn in_order<'a>(one: Option<&'a Node>, other: Option<&'a Node>) -> (Option<&'a Node>, Option<&'a Node>) {
    match (one, other) {
        (Some(one), Some(other)) if one.id == other.id => (Some(one), None),
        (Some(one), Some(other)) if one.id > other.id => (Some(other), Some(one)),
        as_they_are => as_they_are,
    }
}
