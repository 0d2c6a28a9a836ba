//! Which source object each inode of the replica stands for in this resynchronisation, so that
//! two of them never share one. An object is *seen* when its inode was claimed for it: a listing has
//! shown it, or a packet has made it.

use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::table::{Kept, Table};
use crate::apply::fault::Fault;
use crate::limits::CLAIMS_IN_MEMORY;
use crate::packet::ObjectId;
use crate::sys::FileHandle;

pub(super) struct Claims(Table<ObjectId>);

impl Claims {
    pub(super) fn start(path: &Path) -> Claims {
        Claims(Table::start(path, CLAIMS_IN_MEMORY))
    }

    /// Claims an inode for an id; `false` where another id has it.
    pub(super) fn claim(&mut self, handle: &FileHandle, id: ObjectId) -> Result<bool, Fault> {
        let claimant = self.0.get_or_insert(key(handle), id).map_err(Fault::own("claims"))?;
        Ok(claimant == id)
    }

    pub(super) fn claimant(&self, handle: &FileHandle) -> io::Result<Option<ObjectId>> {
        self.0.get(key(handle))
    }

    /// The inode stands for an id no more.
    pub(super) fn release(&mut self, handle: &FileHandle, id: ObjectId) -> Result<(), Fault> {
        let failed = Fault::own("claims");
        if self.0.get(key(handle)).map_err(Fault::own("claims"))? == Some(id) {
            self.0.remove(key(handle)).map(drop).map_err(failed)?;
        }
        Ok(())
    }
}

/// 128 bits of hash stand for the handle.
pub(super) fn key(handle: &FileHandle) -> u128 {
    xxh3_128_with_seed(handle.as_bytes(), handle.kind() as u64)
}

impl Kept for ObjectId {
    fn to_handle(self) -> FileHandle {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.birth_epoch.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.generation.to_le_bytes());
        bytes[8..].copy_from_slice(&self.inode.to_le_bytes());
        FileHandle::from_parts(0, &bytes).expect("16 bytes fit into a handle")
    }

    fn from_handle(handle: &FileHandle) -> Option<ObjectId> {
        let bytes: &[u8; 16] = handle.as_bytes().try_into().ok()?;
        let [birth_epoch, generation] =
            [0, 4].map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        let inode = u64::from_le_bytes(bytes[8..].try_into().ok()?);
        Some(ObjectId { birth_epoch, generation, inode })
    }
}
