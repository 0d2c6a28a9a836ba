//! Content, block by block, without a byte of it on the wire.

use std::fs::File;
use std::os::fd::AsFd;

use super::Check;
use super::findings::Where;
use crate::apply::fault::Fault;
use crate::apply::reconcile::blocks::{differing, range_of};
use crate::apply::replica::Replica;
use crate::blocks::{Hole, Range};
use crate::limits::HASH_BLOCK;
use crate::packet::{DifferenceKind, LaneItem, ObjectId};
use crate::reads::Reads;

/// A file whose hashes arrive.
pub(super) struct OpenContent {
    object: ObjectId,
    /// `None`: it is not here, or cannot be read, which is known.
    file: Option<File>,
    /// Bytes of it that differ so far.
    differ: u64,
}

impl Check {
    /// What is answered to hashes, or to a hole.
    pub(super) fn take_content(&mut self, replica: &mut Replica, item: &LaneItem) -> Result<u64, Fault> {
        match item {
            LaneItem::Hashes { object, offset, size, hashes } => {
                self.hashes(replica, *object, (*offset, *size), hashes)
            }
            LaneItem::Hole { object, offset, end, size } => {
                self.hole(replica, *object, Hole { offset: *offset, end: *end, size: *size })
            }
            _ => Ok(0),
        }
    }

    /// Which blocks of a file differ, the first one in the lowest bit.
    fn hashes(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        place: (u64, u64),
        hashes: &[u128],
    ) -> Result<u64, Fault> {
        let range = range_of(place, hashes)?;
        self.open_content(replica, object)?;
        let Some(OpenContent { file: Some(file), differ, .. }) = &mut self.content else { return Ok(0) };
        let Some(hasher) = &mut self.hasher else {
            return Err(Fault::Refused("hashes in a comparison without any"));
        };
        let Ok(own) = hasher.hash(file.as_fd(), range, Reads::Passing) else {
            self.content = Some(OpenContent { object, file: None, differ: 0 });
            return self.unreadable(replica, object).map(|()| 0);
        };
        let differing = differing(&own, hashes);
        self.counts.compared(bytes_of(range, u64::MAX));
        *differ += bytes_of(range, differing);
        Ok(differing)
    }

    /// Up to where what a file has was looked at, where the source's has a hole.
    fn hole(&mut self, replica: &mut Replica, object: ObjectId, hole: Hole) -> Result<u64, Fault> {
        if !hole.is_of_a_file() {
            return Err(Fault::Refused("a hole that no file has"));
        }
        self.open_content(replica, object)?;
        let Some(OpenContent { file: Some(file), differ, .. }) = &mut self.content else {
            return Ok(hole.end);
        };
        let Some(hasher) = &mut self.hasher else {
            return Err(Fault::Refused("a hole in a comparison without content"));
        };
        let Ok((upto, found)) = hasher.look_at_hole(file.as_fd(), hole) else {
            self.content = Some(OpenContent { object, file: None, differ: 0 });
            return self.unreadable(replica, object).map(|()| hole.end);
        };
        self.counts.compared(upto - hole.offset);
        *differ += found;
        Ok(upto)
    }

    fn open_content(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        if self.content.as_ref().is_none_or(|open| open.object != object) {
            self.close_content(replica)?;
            let file = self.open(replica, object)?;
            self.content = Some(OpenContent { object, file, differ: 0 });
        }
        Ok(())
    }

    /// Names a file whose content differs, once.
    pub(super) fn close_content(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        let Some(OpenContent { object, file: Some(file), differ }) = self.content.take() else {
            return Ok(());
        };
        if differ > 0 {
            let at = Where { dir: object, file: &file, name: None };
            self.differs(replica, DifferenceKind::Content, object, at, differ);
        }
        Ok(())
    }

    fn open(&mut self, replica: &mut Replica, object: ObjectId) -> Result<Option<File>, Fault> {
        match replica.readable(object) {
            Ok(file) => Ok(Some(file)),
            // Packets have taken its last name since it was listed.
            Err(Fault::MissingObject(_) | Fault::Outside { .. }) => Ok(None),
            Err(_) => self.unreadable(replica, object).map(|()| None),
        }
    }

    fn unreadable(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        let Ok(file) = replica.object(object) else { return Ok(()) };
        let at = Where { dir: object, file: &file, name: None };
        self.differs(replica, DifferenceKind::Unreadable, object, at, 0);
        Ok(())
    }
}

/// Bytes of these blocks of a range, the first one in the lowest bit.
fn bytes_of(range: Range, blocks: u64) -> u64 {
    let len = |index: usize| {
        let at = range.offset + index as u64 * HASH_BLOCK;
        HASH_BLOCK.min(range.size.saturating_sub(at))
    };
    (0..range.blocks).filter(|index| blocks & 1 << index != 0).map(len).sum()
}
