//! What a copy that runs while applications write has to know of them.

use std::sync::Arc;

use crate::packet::{Keeping, ObjectId, Sequence};
use crate::sets::Matcher;
use crate::sys::FileHandle;

/// Changes so far of an object, and of whatever shares its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub begun: u64,
    pub ended: u64,
}

impl Counts {
    /// None is under way: what is seen from now on, until another one begins, is what the packets up to
    /// the last one make of it.
    pub fn is_calm(self) -> bool {
        self.begun == self.ended
    }
}

/// An object as it was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    pub object: ObjectId,
    pub handle: &'a FileHandle,
    /// `S_IFMT` bits.
    pub file_type: u32,
}

/// The tree under capture, for whoever looks at it past the mount. A change counts as begun before its
/// first effect and as ended when its op is in the queue; an object is counted by its inode number, a
/// name by that of its directory, and a number may be shared by several objects.
pub trait Looks: Send + Sync {
    fn counts(&self, inode: u64) -> Counts;

    /// Runs `look` once, while nobody changes these objects nor names in those of them that are
    /// directories; what was changed before is in the queue. `look` does not wait, and reads nothing
    /// that is not in memory.
    fn while_still(&self, one: Found<'_>, other: Option<Found<'_>>, look: &mut dyn FnMut());

    /// The last packet that may have changed an object: what a look has seen that is exact now was so from there
    /// on. `None`: it is not known.
    fn changed_at(&self, _inode: u64) -> Option<Sequence> {
        None
    }

    /// The last packet that may have given a directory another path; as above.
    fn directory_moved_at(&self) -> Option<Sequence> {
        None
    }

    /// The rules of the set, where it has some.
    fn rules(&self) -> Option<Arc<Matcher>> {
        None
    }

    /// Whether targets keep what is removed, and how.
    fn keeping(&self) -> Option<Keeping> {
        None
    }
}

/// A tree that nobody changes, with the rules of its set.
pub struct Still(pub Option<Arc<Matcher>>);

impl Looks for Still {
    fn counts(&self, _inode: u64) -> Counts {
        Counts { begun: 0, ended: 0 }
    }

    fn while_still(&self, _one: Found<'_>, _other: Option<Found<'_>>, look: &mut dyn FnMut()) {
        look();
    }

    fn rules(&self) -> Option<Arc<Matcher>> {
        self.0.clone()
    }
}
