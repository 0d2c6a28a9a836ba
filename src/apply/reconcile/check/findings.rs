//! What a comparison has found, until it is sent: some of it by name, all of it counted.

use std::collections::{HashSet, VecDeque};
use std::fs::File;

use xxhash_rust::xxh3::xxh3_128;

use crate::apply::fault::Fault;
use crate::apply::reconcile::left_out::shown;
use crate::apply::replica::Replica;
use crate::limits::{
    DIFFERENCES_LEN_CUT, DIFFERENCES_LEN_MAX, DIFFERENCES_NAMED_MAX, DIFFERENCES_WAITING_MAX, PATH_LEN_MAX,
};
use crate::packet::{Bounded, Difference, DifferenceKind, Name, ObjectId, TargetMessage};

/// What a difference takes in a message beside its path, in bytes.
const COST: usize = 48;

/// See the module.
#[derive(Default)]
pub(super) struct Findings {
    waiting: VecDeque<Difference>,
    waiting_len: usize,
    named: usize,
    named_len: usize,
    /// Names that were found missing, extra or another object's, while they are few enough to be named:
    /// a directory may be listed twice.
    names: HashSet<u128>,
    /// Objects that differ, as long as they are few enough to be named.
    objects: HashSet<ObjectId>,
}

/// Where something lies: a directory and a name in it, or an object itself.
#[derive(Clone, Copy)]
pub(super) struct Where<'a> {
    pub(super) dir: ObjectId,
    pub(super) file: &'a File,
    pub(super) name: Option<&'a Name>,
}

impl Findings {
    /// Whether nothing was found at this name before.
    pub(super) fn is_new(&mut self, at: Where<'_>) -> Result<bool, Fault> {
        let ObjectId { birth_epoch, generation, inode } = at.dir;
        let mut key =
            [&birth_epoch.to_le_bytes()[..], &generation.to_le_bytes(), &inode.to_le_bytes()].concat();
        key.extend(at.name.map(Name::as_bytes).unwrap_or_default());
        Ok(self.names.len() >= DIFFERENCES_NAMED_MAX || self.names.insert(xxh3_128(&key)))
    }

    /// Whether nothing of this object was found to differ before.
    pub(super) fn is_first_of(&mut self, object: ObjectId) -> bool {
        self.objects.len() >= DIFFERENCES_NAMED_MAX || self.objects.insert(object)
    }

    pub(super) fn add(
        &mut self,
        replica: &Replica,
        kind: DifferenceKind,
        object: Option<ObjectId>,
        at: Where<'_>,
        bytes: u64,
    ) {
        let has_room = self.named < DIFFERENCES_NAMED_MAX
            && self.named_len < DIFFERENCES_LEN_MAX
            && self.waiting_len < DIFFERENCES_WAITING_MAX;
        if !has_room {
            return;
        }
        let mut path = shown(replica, at.file, at.name).into_os_string().into_encoded_bytes();
        path.truncate(PATH_LEN_MAX);
        let len = COST + path.len();
        (self.named, self.named_len, self.waiting_len) =
            (self.named + 1, self.named_len + len, self.waiting_len + len);
        self.waiting.push_back(Difference { kind, object, path: Bounded(path), bytes });
    }

    /// What goes with the next answer.
    pub(super) fn take(&mut self) -> Option<TargetMessage> {
        let (mut found, mut len) = (Vec::new(), 0);
        while len < DIFFERENCES_LEN_CUT
            && let Some(difference) = self.waiting.pop_front()
        {
            len += COST + difference.path.0.len();
            found.push(difference);
        }
        self.waiting_len -= len;
        (!found.is_empty()).then_some(TargetMessage::Differences { found })
    }
}
