//! Which id an object of a tree has.
//!
//! Mostly the one of its first sight: what the file system says of it, in the epoch of whoever looks. A replica
//! that is served in its source's place has objects that got their ids elsewhere: those are kept.

use std::io;
use std::sync::Arc;

use super::op::ObjectId;
use crate::sys::FileHandle;

/// Ids that objects of a tree have had before it was looked at here.
pub trait KeptIds: Send + Sync {
    /// The id of the object with this handle; `None` where it was born here.
    fn id_of(&self, handle: &FileHandle) -> io::Result<Option<ObjectId>>;

    /// The handle of the object with this id; `None` where none is kept.
    fn handle_of(&self, id: ObjectId) -> io::Result<Option<FileHandle>>;
}

/// See the module.
#[derive(Clone)]
pub struct Ids {
    birth_epoch: u32,
    kept: Option<Arc<dyn KeptIds>>,
}

impl From<u32> for Ids {
    /// All objects are seen for the first time in this epoch.
    fn from(birth_epoch: u32) -> Ids {
        Ids { birth_epoch, kept: None }
    }
}

impl Ids {
    /// Objects whose ids are kept have those; others are born in this epoch.
    pub fn kept(birth_epoch: u32, kept: Arc<dyn KeptIds>) -> Ids {
        Ids { birth_epoch, kept: Some(kept) }
    }

    /// The id of an object. Errors: what is kept cannot be read; any other id would be another object's.
    pub fn of(&self, handle: &FileHandle, inode: u64) -> io::Result<ObjectId> {
        let kept = self.kept.as_ref().map_or(Ok(None), |kept| kept.id_of(handle))?;
        Ok(kept.unwrap_or_else(|| ObjectId::at_first_sight(self.birth_epoch, handle, inode)))
    }

    /// The id of an object on a file system without handles, where none is kept.
    pub fn of_inode(&self, inode: u64) -> ObjectId {
        ObjectId { birth_epoch: self.birth_epoch, generation: 0, inode }
    }

    /// The handle of the object with this id on the file system of `like`; `None` where the layout of its
    /// handles is not known. It opens that object, or nothing.
    pub fn handle_of(&self, id: ObjectId, like: &FileHandle) -> io::Result<Option<FileHandle>> {
        let kept = self.kept.as_ref().map_or(Ok(None), |kept| kept.handle_of(id))?;
        Ok(kept.or_else(|| like.alike(id.inode, id.generation)))
    }
}
