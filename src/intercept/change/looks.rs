//! Whether something changes while it is looked at: counts of changes begun and ended, and what is kept
//! from changing for a moment.
//!
//! ```text
//!  a change:   locks ── begun + 1 ── (system call) ── its op into the queue ── ended + 1 ── locks free
//!  a look:     begun == ended? ── (system calls) ── last position P; begun as before? ── exact as of P
//! ```
//! Where both are equal no change is under way, and all that were are in the queue; as long as no other
//! one begins, what is seen is what the packets up to the last one make of it. Counts are shared by many
//! objects, by inode number: whoever looks may be told of a change that is another one's, never the
//! other way round.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::super::objects::{Node, NodeId, Pinned, Sighting};
use super::locks::{LockedNames, LockedObjects, Tree};
use super::recent::Recent;
use crate::intercept::Volume;
use crate::packet::{ObjectId, Sequence};
use crate::sys::FileHandle;

/// 64 KiB: they stay in the processor's cache, and the thousand entries of a listing rarely share one
/// with a file that is being written.
const STRIPES: usize = 4096;
/// What one change touches at most: two directories, two objects in them, one that it makes, and
/// [`DIRECTORY_MOVES`].
const TOUCHED_MAX: usize = 6;
/// Stands for the paths of all directories: no object has this number.
pub(super) const DIRECTORY_MOVES: u64 = u64::MAX;

#[derive(Default)]
struct Stripe {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// See the module.
pub struct Counters(Box<[Stripe; STRIPES]>);

impl Default for Counters {
    fn default() -> Counters {
        Counters(Box::new(std::array::from_fn(|_| Stripe::default())))
    }
}

impl Counters {
    /// Neighbours are mostly of one directory, and at work together.
    fn stripe(inode: u64) -> u16 {
        (inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - STRIPES.ilog2())) as u16
    }

    pub(super) fn begin<'a>(&'a self, recent: Option<&'a Recent>) -> Begun<'a> {
        Begun { counters: self, recent, inodes: [0; TOUCHED_MAX], count: 0 }
    }

    /// (begun, ended). In this order: equal only where there was a moment without a change under way.
    fn read(&self, inode: u64) -> (u64, u64) {
        let stripe = &self.0[usize::from(Self::stripe(inode))];
        let ended = stripe.ended.load(SeqCst);
        (stripe.begun.load(SeqCst), ended)
    }
}

/// What a change under way is counted for; it counts as ended when this goes.
pub(super) struct Begun<'a> {
    counters: &'a Counters,
    recent: Option<&'a Recent>,
    inodes: [u64; TOUCHED_MAX],
    count: usize,
}

impl Begun<'_> {
    /// Before the system call that changes this object, or names in it.
    pub fn add(&mut self, inode: u64) {
        if self.inodes[..self.count].contains(&inode) {
            return;
        }
        assert!(self.count < TOUCHED_MAX, "one change touches more than {TOUCHED_MAX} objects");
        self.inodes[self.count] = inode;
        self.count += 1;
        self.counters.0[usize::from(Counters::stripe(inode))].begun.fetch_add(1, SeqCst);
    }

    pub fn end(&mut self) {
        let inodes = &self.inodes[..std::mem::take(&mut self.count)];
        // Before they count as ended: whoever finds them at rest knows.
        self.recent.into_iter().for_each(|recent| recent.note(inodes));
        for inode in inodes {
            self.counters.0[usize::from(Counters::stripe(*inode))].ended.fetch_add(1, SeqCst);
        }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// An object that somebody looks at past the mount.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub object: ObjectId,
    pub handle: &'a FileHandle,
    /// `S_IFMT` bits.
    pub file_type: u32,
}

impl Volume {
    /// Changes so far, begun and ended, of what shares its counts with this inode.
    pub fn change_counts(&self, inode: u64) -> (u64, u64) {
        self.changes.counters.read(inode)
    }

    /// The last packet that may have changed an object of this inode number.
    pub fn last_change_of(&self, inode: u64) -> Sequence {
        self.changes.recent.of(inode)
    }

    /// The last packet that may have given a directory another path.
    pub fn last_directory_move(&self) -> Sequence {
        self.changes.recent.of(DIRECTORY_MOVES)
    }

    /// Runs `look` while nobody changes these objects, one or two, nor names in those of them that are
    /// directories; whatever was changed before is in the queue.
    pub fn while_still(&self, one: Seen<'_>, other: Option<Seen<'_>>, look: &mut dyn FnMut()) {
        let (one, other) = (self.known(one), other.map(|other| self.known(other)));
        let nodes = [Some(&*one), other.as_deref()];
        let [one, other] = nodes.map(|node| node.map(|node| &**node));
        let directory = |node: &&Node| node.is_directory();
        // Whoever has the whole tree locks one directory inside of another, in whatever order.
        let _tree = other.map(|_| self.changes.tree.take(Tree::Shared, &self.changes.ongoing));
        let _names = LockedNames::take(one.filter(directory), other.filter(directory));
        let _objects = LockedObjects::take(one, other);
        nodes.into_iter().flatten().for_each(|node| self.met(node));
        look();
    }

    fn known(&self, seen: Seen<'_>) -> Known<'_> {
        if seen.object == self.root.object {
            return Known::Root(&self.root);
        }
        let node = self.objects.pin(Sighting {
            // Its id may have come from another file system.
            id: NodeId::of_inode(seen.handle.inode().unwrap_or(seen.object.inode)),
            object: seen.object,
            file_type: seen.file_type,
            handle: Some(*seen.handle),
            descriptor: None,
        });
        Known::Pinned(node)
    }
}

enum Known<'a> {
    Root(&'a Arc<Node>),
    Pinned(Pinned<'a>),
}

impl std::ops::Deref for Known<'_> {
    type Target = Arc<Node>;
    fn deref(&self) -> &Arc<Node> {
        match self {
            Known::Root(root) => root,
            Known::Pinned(node) => node,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_under_way_until_it_ends() {
        let counters = Counters::default();
        let (before, _) = counters.read(7);
        let mut change = counters.begin(None);
        change.add(7);
        change.add(7);
        assert_eq!(counters.read(7), (before + 1, before));
        drop(change);
        assert_eq!(counters.read(7), (before + 1, before + 1));
        let far = (8..).find(|inode| Counters::stripe(*inode) != Counters::stripe(7)).unwrap();
        assert_eq!(counters.read(far), (0, 0));
    }
}
