//! The lock order of the source: tree, directories (by id), objects (by id), queue tail.
//!
//! Queue room is reserved before any of them. None is held over an fsync, a notification to the
//! kernel or a wait for the network. The kernel's own inode locks are no help: asynchronous
//! O_DIRECT and writeback of mappings do not hold them.
//!
//! To change something each is taken by a [`Change`](super::Change) alone; anybody may take one to
//! look.

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::ongoing::{Counted, Ongoing};
#[cfg(test)]
use super::planted::{self, Planted};
use super::turns::taken;
use crate::intercept::objects::{Node, NodeState};
use crate::packet::ObjectId;

/// *Tree lock*: first in the lock order.
#[derive(Default)]
pub struct TreeLock(RwLock<()>);

/// How a change needs the tree lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tree {
    /// For everything but the next.
    Shared,
    /// For renames and exchanges of directories, and to lock one inside of another that is locked.
    Exclusive,
}

pub(super) enum LockedTree<'a> {
    Shared { _guard: RwLockReadGuard<'a, ()>, _counted: Counted<'a> },
    Exclusive { _guard: RwLockWriteGuard<'a, ()>, _counted: Counted<'a> },
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
        match tree {
            Tree::Shared => {
                let _guard = taken(|| self.0.try_read(), || self.0.read());
                LockedTree::Shared { _guard, _counted }
            }
            Tree::Exclusive => {
                let _guard = taken(|| self.0.try_write(), || self.0.write());
                LockedTree::Exclusive { _guard, _counted }
            }
        }
    }
}

/// *Directory lock*: names in a directory. Taken after the tree lock, before object locks; two of
/// them by id order.
#[derive(Default)]
pub struct DirectoryLock(Mutex<()>);

/// Nobody changes the names, or the object, meanwhile; nor does the holder.
pub struct Looking<'a, T = ()> {
    _guard: MutexGuard<'a, T>,
}

impl DirectoryLock {
    pub fn look(&self) -> Looking<'_> {
        Looking { _guard: self.take() }
    }

    pub fn try_look(&self) -> Option<Looking<'_>> {
        self.0.try_lock().map(|_guard| Looking { _guard })
    }

    fn take(&self) -> MutexGuard<'_, ()> {
        taken(|| self.0.try_lock(), || self.0.lock())
    }
}

/// *Object lock*: data and attributes. Taken after directory locks, before the queue's tail;
/// several of them by id order.
#[derive(Default)]
pub struct ObjectLock(Mutex<NodeState>);

impl ObjectLock {
    /// For what is known of the object's open handles, not for the object.
    pub fn note(&self) -> MutexGuard<'_, NodeState> {
        self.take()
    }

    pub fn try_look(&self) -> Option<Looking<'_, NodeState>> {
        self.0.try_lock().map(|_guard| Looking { _guard })
    }

    fn take(&self) -> MutexGuard<'_, NodeState> {
        taken(|| self.0.try_lock(), || self.0.lock())
    }
}

/// Directory locks of up to two directories, by id order; the same directory is locked once.
pub(super) struct LockedNames<'a> {
    _guards: [Option<MutexGuard<'a, ()>>; 2],
    inside: Option<MutexGuard<'a, ()>>,
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
            Tree::Exclusive => Some(dir.names.take()),
        };
        self.inside.is_some()
    }
}

/// Object locks of up to two objects, by id order; the same object is locked once.
#[derive(Default)]
pub(super) struct LockedObjects<'a> {
    locked: [Option<(&'a Node, MutexGuard<'a, NodeState>)>; 2],
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
