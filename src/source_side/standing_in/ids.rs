//! The ids of the objects of a replica, by their handles: its index has them the other way round.
//!
//! An object keeps its id for life, and a handle is of one object for ever: what was noted at the start stays
//! true while programs work, and what is born meanwhile is not in it.

use std::io;
use std::path::Path;

use parking_lot::Mutex;

use crate::apply::{Index, Replica};
use crate::packet::{KeptIds, ObjectId};
use crate::sys::FileHandle;

/// Length of an id as it is kept, in bytes.
const ID_LEN: usize = 16;

/// See the module. Keeps the replica from everybody else, too.
pub struct IdsOfReplica {
    replica: Mutex<Replica>,
    /// An index of its own, with ids for handles and handles for ids.
    by_handle: Mutex<Index>,
}

/// What a look at a replica's index has found.
pub struct Noted {
    pub by_handle: Index,
    /// The highest epoch in which one of its objects was born.
    pub newest_birth: u32,
}

impl Noted {
    /// Reads the index once and writes the other one to `path`. Nothing of the replica is changed.
    ///
    /// Errors: `Unsupported` where the layout of its handles is not known; the system's.
    pub fn of(replica: &Replica, path: &Path) -> io::Result<Noted> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut noted = Noted { by_handle: Index::open(path)?, newest_birth: 0 };
        replica.index().for_each(|id, handle| {
            noted.newest_birth = noted.newest_birth.max(id.birth_epoch);
            noted.by_handle.insert(key(&handle)?, value(id)?)
        })?;
        Ok(noted)
    }
}

impl IdsOfReplica {
    pub fn new(replica: Replica, noted: Noted) -> IdsOfReplica {
        IdsOfReplica { replica: Mutex::new(replica), by_handle: Mutex::new(noted.by_handle) }
    }
}

impl KeptIds for IdsOfReplica {
    fn id_of(&self, handle: &FileHandle) -> io::Result<Option<ObjectId>> {
        let kept = self.by_handle.lock().get(key(handle)?)?;
        kept.map(|kept| id(&kept)).transpose()
    }

    fn handle_of(&self, id: ObjectId) -> io::Result<Option<FileHandle>> {
        self.replica.lock().handle(id).map_err(|fault| io::Error::other(fault.to_string()))
    }
}

/// Under which an object's id is kept: what the file system calls it. No object is born in epoch 0.
fn key(handle: &FileHandle) -> io::Result<ObjectId> {
    let unknown = || io::Error::new(io::ErrorKind::Unsupported, "file handles of an unknown layout");
    let inode = handle.inode().ok_or_else(unknown)?;
    Ok(ObjectId { birth_epoch: 0, generation: handle.generation(), inode })
}

fn value(id: ObjectId) -> io::Result<FileHandle> {
    let mut bytes = [0; ID_LEN];
    bytes[..4].copy_from_slice(&id.birth_epoch.to_le_bytes());
    bytes[4..8].copy_from_slice(&id.generation.to_le_bytes());
    bytes[8..].copy_from_slice(&id.inode.to_le_bytes());
    FileHandle::from_parts(0, &bytes).ok_or(io::ErrorKind::InvalidData.into())
}

fn id(kept: &FileHandle) -> io::Result<ObjectId> {
    let bytes: &[u8; ID_LEN] = kept.as_bytes().try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let inode = u64::from(word(12)) << 32 | u64::from(word(8));
    Ok(ObjectId { birth_epoch: word(0), generation: word(4), inode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_whole() {
        for whole in [
            ObjectId { birth_epoch: 1, generation: 2, inode: 3 },
            ObjectId { birth_epoch: u32::MAX, generation: u32::MAX, inode: u64::MAX },
            ObjectId { birth_epoch: 7, generation: 0, inode: 0x0123_4567_89ab_cdef },
        ] {
            assert_eq!(id(&value(whole).unwrap()).unwrap(), whole);
        }
    }
}
