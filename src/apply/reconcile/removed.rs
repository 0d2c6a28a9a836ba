//! What packets have removed on the source while it had no name in the replica: it waits in limbo, in a directory
//! that waits there, or nowhere that a listing has come to. A delete explains it: it is no orphan.
//!
//! Inodes are remembered, because ids are forgotten with the last link. What a killed target has forgotten of them
//! becomes an orphan: nothing is deleted that is not known.

use std::path::Path;

use super::claims::key;
use super::table::Table;
use super::{Session, planted};
use crate::apply::fault::Fault;
use crate::apply::replica::Replica;
use crate::limits::CLAIMS_IN_MEMORY;
use crate::packet::{ObjectId, Op};
use crate::sys::FileHandle;

/// File of a session in the replica's state directory.
const REMOVED: &str = "removed";

/// See the module.
pub(super) struct Removed {
    inodes: Table<()>,
    are_any: bool,
}

impl Removed {
    pub(super) fn start(state: &Path) -> Removed {
        Removed { inodes: Table::start(&state.join(REMOVED), CLAIMS_IN_MEMORY), are_any: false }
    }
}

impl Session {
    /// The inode of what an op removes for good. A copy of what is owed knows it by its id.
    pub(super) fn removed_by(&self, replica: &Replica, op: &Op) -> Result<Option<FileHandle>, Fault> {
        match removed_by(op) {
            Some(object) if self.vouching.is_none() && object != self.root => self.living(replica, object),
            Some(_) | None => Ok(None),
        }
    }

    /// The source has no link to what had this inode, or none in the set, and a copy of it is kept.
    pub(super) fn note_removed(&mut self, inode: Option<FileHandle>) -> Result<(), Fault> {
        let Some(inode) = inode else { return Ok(()) };
        if planted::is(planted::Planted::ForgetsWhatIsRemoved) {
            return Ok(());
        }
        self.removed.are_any = true;
        self.removed.inodes.insert(key(&inode), ()).map_err(Fault::own("what was removed"))
    }

    /// Takes what was removed out of limbo, at the end.
    pub(super) fn drop_removed(&mut self, replica: &Replica) -> Result<(), Fault> {
        if !self.removed.are_any {
            return Ok(());
        }
        let failed = || Fault::own("what was removed");
        let (inodes, claims) = (&self.removed.inodes, &self.claims);
        self.limbo.drop_removed(replica.root(), |inode| {
            Ok(inodes.get(key(inode)).map_err(failed())?.is_some()
                // Another object has it by now.
                && claims.claimant(inode).map_err(failed())?.is_none())
        })
    }
}

/// What is kept, or leaves the set, is not removed.
fn removed_by(op: &Op) -> Option<ObjectId> {
    match op {
        Op::Unlink { object, links: 0, .. } | Op::RemoveDirectory { object, .. } => Some(*object),
        Op::Rename { replaced: Some(replaced), .. } | Op::Place { replaced: Some(replaced), .. } => {
            (replaced.links == 0).then_some(replaced.object)
        }
        _ => None,
    }
}
