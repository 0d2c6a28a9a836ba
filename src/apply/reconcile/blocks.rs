//! Files that have other content here: their blocks are compared, and only what differs is written.
//!
//! What was equal as of some packet stays so, because later ones are performed on it; so the inode that
//! was compared first is the one that is complete in the end, or none is. What it lacks stays in doubt.

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, Stat, fallocate};
use rustix::io::Errno;

use super::Session;
use super::content::{Comes, OpenFile};
use super::planted::{self, Planted};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::Replica;
use crate::blocks::{Hasher, Hole, Range, next_data};
use crate::clone::guard;
use crate::failpoint;
use crate::limits::{COMPARED_FILES_MAX, HASH_BLOCK};
use crate::packet::{
    Attributes, BadBy, BlockHash, ItemHeader, ItemNumber, LaneItem, ListedObject, ObjectId, TargetMessage,
    Xattr,
};
use crate::reads::Reads;
use crate::sys::FileHandle;

/// How the blocks of a copy are compared, and which files they are of.
pub(super) struct ByBlocks {
    hasher: Hasher,
    /// Bytes that a file has at least.
    least: u64,
    files: HashMap<ObjectId, Compared>,
    /// What the next answer to a listing names.
    has_old: Vec<ObjectId>,
}

/// A file whose hashes come.
struct Compared {
    /// The inode that is compared.
    handle: FileHandle,
    /// It was compared up to here.
    reached: u64,
    differs: bool,
}

impl ByBlocks {
    pub(super) fn new(hash: &BlockHash, least: u64) -> ByBlocks {
        ByBlocks { hasher: Hasher::new(hash), least, files: HashMap::new(), has_old: Vec::new() }
    }
}

impl Session {
    /// Takes an item that is about blocks, and gives the answer to it.
    pub(super) fn take_blocks(
        &mut self,
        replica: &mut Replica,
        ItemHeader { number, item }: &ItemHeader,
    ) -> Result<Vec<TargetMessage>, Fault> {
        match item {
            LaneItem::Owed { objects } => return self.call(replica, *number, objects),
            LaneItem::ByBlocks { hash, least } => self.by_blocks = Some(ByBlocks::new(hash, *least)),
            LaneItem::Hashes { object, offset, size, hashes } => {
                let differing = self.compare_blocks(replica, *object, (*offset, *size), hashes)?;
                return Ok(vec![TargetMessage::Hashed { item: *number, differing }]);
            }
            LaneItem::Hole { object, offset, end, size } => {
                self.take_hole(replica, *object, Hole { offset: *offset, end: *end, size: *size })?;
                return Ok(vec![TargetMessage::Hashed { item: *number, differing: 0 }]);
            }
            LaneItem::OpenBlocks { object } => self.open_blocks(replica, *object)?,
            LaneItem::CloseSame { object, size, attributes, xattrs } => {
                self.close_same(replica, *object, *size, attributes, xattrs)?
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    /// The content of a file is wanted, and there is content here. Where nothing but a doubt says that it
    /// differs, it is compared however short it is.
    pub(super) fn note_old(&mut self, entry: &ListedObject, status: &Stat) {
        let Some(by_blocks) = &mut self.by_blocks else { return };
        let size = status.st_size as u64;
        let looks_same = size == entry.size && inode::mtime(status) == entry.attributes.mtime;
        let least = if looks_same { 1 } else { by_blocks.least.max(1) };
        if entry.size.min(size) >= least {
            by_blocks.has_old.push(entry.object);
        }
    }

    /// Those of the listing that is answered now.
    pub(super) fn take_old(&mut self, listing: ItemNumber) -> Option<TargetMessage> {
        let objects = std::mem::take(&mut self.by_blocks.as_mut()?.has_old);
        (!objects.is_empty()).then_some(TargetMessage::HasOld { listing, objects })
    }

    /// What was compared of a file says nothing any more.
    pub(super) fn forget_compared(&mut self, object: ObjectId) {
        self.by_blocks.as_mut().and_then(|by_blocks| by_blocks.files.remove(&object));
    }

    pub(super) fn is_being_compared(&self, object: ObjectId) -> bool {
        self.by_blocks.as_ref().is_some_and(|by_blocks| by_blocks.files.contains_key(&object))
    }

    /// Whether what was compared of a file is what its id stands for.
    fn is_compared(&self, replica: &Replica, object: ObjectId) -> Result<Option<&Compared>, Fault> {
        let Some(compared) = self.by_blocks.as_ref().and_then(|by_blocks| by_blocks.files.get(&object))
        else {
            return Ok(None);
        };
        let is_it = replica.handle(object)? == Some(compared.handle) || planted::is(Planted::ClosesAnyInode);
        Ok(Some(compared).filter(|_| is_it))
    }

    /// Which blocks of a file differ, the first one in the lowest bit; none of what nobody asked for.
    fn compare_blocks(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        (offset, size): (u64, u64),
        hashes: &[u128],
    ) -> Result<u64, Fault> {
        let range = range_of((offset, size), hashes)?;
        if !self.is_comparing(object)? {
            return Ok(0);
        }
        let mut differing = 0;
        let done = self.compare_range(replica, object, range, hashes).map(|found| differing = found);
        self.or_leave_content(replica, object, done)?;
        Ok(differing)
    }

    fn compare_range(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        range: Range,
        hashes: &[u128],
    ) -> Result<u64, Fault> {
        if !self.goes_on_at(replica, object, (range.offset, range.size))? {
            return Ok(0);
        }
        let file = replica.readable(object)?;
        if replica.bad_by() == Some(BadBy::Anything) {
            // A sync may have failed: the kernel keeps what it could not write as if it had.
            let length = NonZeroU64::new(hashes.len() as u64 * HASH_BLOCK);
            let _ = rustix::fs::fadvise(&file, range.offset, length, rustix::fs::Advice::DontNeed);
        }
        failpoint::at("compare").map_err(Fault::system("read"))?;
        let Some(by_blocks) = &mut self.by_blocks else { return Ok(0) };
        // What cannot be read here is written anew.
        let own = by_blocks.hasher.hash(file.as_fd(), range, Reads::Passing).unwrap_or_default();
        let differing = if planted::is(Planted::TakesAllForSame) { 0 } else { differing(&own, hashes) };
        if let Some(compared) = by_blocks.files.get_mut(&object) {
            compared.differs |= differing != 0;
            compared.reached = range.size.min(range.offset + hashes.len() as u64 * HASH_BLOCK);
        }
        Ok(differing)
    }

    /// `false`: an op has removed it.
    fn is_comparing(&mut self, object: ObjectId) -> Result<bool, Fault> {
        if self.by_blocks.is_none() {
            return Err(Fault::Refused("hashes in a copy without any"));
        }
        let is_asked = self.asked.contains(object)?;
        if !is_asked {
            self.forget_compared(object);
        }
        Ok(is_asked)
    }

    /// `false`: what comes is not the next of this file.
    fn goes_on_at(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        (offset, size): (u64, u64),
    ) -> Result<bool, Fault> {
        if offset == 0 {
            self.begin_compared(replica, object, size)?;
        }
        let goes_on = self.is_compared(replica, object)?.is_some_and(|compared| compared.reached == offset);
        if !goes_on {
            self.forget_compared(object);
        }
        Ok(goes_on)
    }

    /// A file is to have a hole there, and has one then: nothing of it differs any more.
    fn take_hole(&mut self, replica: &mut Replica, object: ObjectId, hole: Hole) -> Result<(), Fault> {
        if !hole.is_of_a_file() {
            return Err(Fault::Refused("a hole that no file has"));
        }
        if !self.is_comparing(object)? {
            return Ok(());
        }
        let done = self.make_hole_of(replica, object, hole);
        self.or_leave_content(replica, object, done)
    }

    fn make_hole_of(&mut self, replica: &mut Replica, object: ObjectId, hole: Hole) -> Result<(), Fault> {
        if !self.goes_on_at(replica, object, (hole.offset, hole.size))? {
            return Ok(());
        }
        let file = replica.writable(object)?;
        // Whoever cannot say where data is has some.
        if next_data(file.as_fd(), hole.offset).unwrap_or(hole.offset) < hole.end {
            // Flags that have come meanwhile may have been set.
            replica.lifting(object, |_| make_hole(&file, hole.offset..hole.end))?;
        }
        if let Some(compared) = self.by_blocks.as_mut().and_then(|blocks| blocks.files.get_mut(&object)) {
            compared.reached = hole.end;
        }
        Ok(())
    }

    /// The file gets its size: behind what is compared, nothing of old content stays.
    fn begin_compared(&mut self, replica: &mut Replica, object: ObjectId, size: u64) -> Result<(), Fault> {
        let (file, handle) = (replica.writable(object)?, replica.known_handle(object)?);
        if inode::stat(&*file)?.st_size as u64 != size && !planted::is(Planted::KeepsItsSize) {
            guard::resizing(&file, size);
            file.set_len(size).map_err(Fault::system("truncate"))?;
        }
        let Some(by_blocks) = &mut self.by_blocks else { return Ok(()) };
        by_blocks.files.insert(object, Compared { handle, reached: 0, differs: false });
        match by_blocks.files.len() <= COMPARED_FILES_MAX {
            true => Ok(()),
            false => Err(Fault::Refused("hashes of more files at a time than are compared")),
        }
    }

    /// Bytes of blocks that differ come next, or the end.
    fn open_blocks(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        self.open = None;
        let is_awaited = self.is_compared(replica, object)?.is_some() || self.is_called(replica, object)?;
        if !self.asked.contains(object)? || !is_awaited {
            return Ok(());
        }
        let done = OpenFile::open(replica, object, Comes::Blocks).map(|open| self.open = Some(open));
        self.or_leave_content(replica, object, done)
    }

    /// The content is complete, if none of it differed.
    fn close_same(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        size: u64,
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Fault> {
        let is_same = self.asked.contains(object)?
            && self
                .is_compared(replica, object)?
                .is_some_and(|compared| compared.reached == size && !compared.differs);
        if !is_same {
            return Ok(());
        }
        let done = self.complete(replica, object, size, attributes, xattrs);
        self.or_leave_content(replica, object, done)
    }
}

/// What hashes are of.
///
/// Errors: no file has it.
pub(super) fn range_of((offset, size): (u64, u64), hashes: &[u128]) -> Result<Range, Fault> {
    let range = Range { offset, blocks: hashes.len(), size };
    if range.is_of_a_file() { Ok(range) } else { Err(Fault::Refused("hashes of what no file has")) }
}

/// Which blocks differ, the first one in the lowest bit.
pub(super) fn differing(own: &[u128], theirs: &[u128]) -> u64 {
    let differs = |index: usize| own.get(index) != Some(&theirs[index]);
    (0..theirs.len()).filter(|&index| differs(index)).fold(0, |bits, index| bits | 1 << index)
}

/// A range is zeros, and takes no room where the file system can do that. The end of a file stays.
pub(super) fn make_hole(file: &File, range: std::ops::Range<u64>) -> Result<(), Fault> {
    let end = range.end.min(inode::stat(file)?.st_size as u64);
    if range.start >= end {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    guard::content(file, range.start, range.end - range.start);
    // Also behind the end: the block that it lies in is a hole as a whole then.
    match fallocate(file, flags, range.start, range.end - range.start) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, range.start..end),
        done => done.map_err(Fault::system("punch a hole")),
    }
}

fn write_zeros(file: &File, range: std::ops::Range<u64>) -> Result<(), Fault> {
    let zeros = vec![0; HASH_BLOCK as usize];
    for at in range.clone().step_by(zeros.len()) {
        let len = (range.end - at).min(HASH_BLOCK) as usize;
        file.write_all_at(&zeros[..len], at).map_err(Fault::system("write"))?;
    }
    Ok(())
}
