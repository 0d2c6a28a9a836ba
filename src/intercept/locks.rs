//! The lock order of the source: tree, directories (by id), objects (by id), queue tail.
//!
//! Queue room is reserved before any of them. None is held over an fsync, a notification to the
//! kernel or a wait for the network. The kernel's own inode locks are no help: asynchronous
//! O_DIRECT and writeback of mappings do not hold them.

use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

use super::objects::{Node, NodeState};
use super::ongoing::Change;

/// The tree lock, as an op needs it: exclusive for renames and exchanges of directories, shared
/// for everything else.
pub enum TreeGuard<'a> {
    Shared { _guard: RwLockReadGuard<'a, ()>, _ongoing: Change<'a> },
    Exclusive { _guard: RwLockWriteGuard<'a, ()>, _ongoing: Change<'a> },
}

/// Directory locks of one or two directories, by id order; the same directory is locked once.
pub struct NamesGuard<'a> {
    _first: MutexGuard<'a, ()>,
    _second: Option<MutexGuard<'a, ()>>,
}

pub fn lock_names<'a>(one: &'a Node, other: &'a Node) -> NamesGuard<'a> {
    if one.id == other.id {
        return NamesGuard { _first: one.names.lock(), _second: None };
    }
    let (low, high) = if one.id < other.id { (one, other) } else { (other, one) };
    NamesGuard { _first: low.names.lock(), _second: Some(high.names.lock()) }
}

/// Object locks of one object and perhaps another, by id order.
pub struct StatesGuard<'a> {
    _one: MutexGuard<'a, NodeState>,
    /// `None` where there is no other object, or it is the same one.
    _other: Option<MutexGuard<'a, NodeState>>,
}

pub fn lock_states<'a>(one: &'a Node, other: Option<&'a Node>) -> StatesGuard<'a> {
    match other {
        Some(other) if other.id < one.id => {
            let low = other.state.lock();
            StatesGuard { _one: one.state.lock(), _other: Some(low) }
        }
        Some(other) if other.id > one.id => {
            let low = one.state.lock();
            StatesGuard { _other: Some(other.state.lock()), _one: low }
        }
        _ => StatesGuard { _one: one.state.lock(), _other: None },
    }
}
