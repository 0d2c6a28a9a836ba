//! Which source object each inode of the replica stands for in this resynchronisation, so that
//! two of them never share one.
//!
//! On disk (an [`Index`] the other way round), because a tree may have more objects than memory
//! should hold. Of no use after the session: it is emptied at the start of each.

use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::apply::fault::Fault;
use crate::apply::replica::{Index, remove_quietly};
use crate::packet::ObjectId;
use crate::sys::FileHandle;

pub(super) struct Claims(Index);

impl Claims {
    pub(super) fn start(path: &Path) -> Result<Claims, Fault> {
        remove_quietly(path);
        Index::open(path).map(Claims).map_err(Fault::own("claims"))
    }

    /// Claims an inode for an id; `false` where another id has it.
    pub(super) fn claim(&mut self, handle: &FileHandle, id: ObjectId) -> Result<bool, Fault> {
        match self.claimant(handle).map_err(Fault::own("claims"))? {
            Some(claimant) => Ok(claimant == id),
            None => {
                assert_eq!(id_of(&value(id)), Some(id), "a claim is another one when it is read");
                self.0.insert(key(handle), value(id)).map_err(Fault::own("claims"))?;
                Ok(true)
            }
        }
    }

    pub(super) fn claimant(&self, handle: &FileHandle) -> io::Result<Option<ObjectId>> {
        Ok(self.0.get(key(handle))?.and_then(|value| id_of(&value)))
    }
}

/// 128 bits of hash stand for the handle.
fn key(handle: &FileHandle) -> ObjectId {
    let hash = xxh3_128_with_seed(handle.as_bytes(), handle.kind() as u64);
    ObjectId { birth_epoch: (hash >> 96) as u32, generation: (hash >> 64) as u32, inode: hash as u64 }
}

/// An id in the clothes of a handle.
fn value(id: ObjectId) -> FileHandle {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&id.birth_epoch.to_le_bytes());
    bytes[4..8].copy_from_slice(&id.generation.to_le_bytes());
    bytes[8..].copy_from_slice(&id.inode.to_le_bytes());
    FileHandle::from_parts(0, &bytes).expect("16 bytes fit into a handle")
}

fn id_of(value: &FileHandle) -> Option<ObjectId> {
    let bytes: &[u8; 16] = value.as_bytes().try_into().ok()?;
    let [birth_epoch, generation] =
        [0, 4].map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    let inode = u64::from_le_bytes(bytes[8..].try_into().ok()?);
    Some(ObjectId { birth_epoch, generation, inode })
}
