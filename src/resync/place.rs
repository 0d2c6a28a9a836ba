//! What was listed, and where people find it.

use std::fmt;
use std::sync::Arc;

use crate::packet::{Attributes, Birth, ListedObject, Name, ObjectId, Xattr};
use crate::sys::FileHandle;

/// An object that was listed, a regular file mostly.
#[derive(Clone)]
pub struct ListedFile {
    pub object: ObjectId,
    pub handle: FileHandle,
    /// `S_IFMT` bits.
    pub file_type: u32,
    /// The root has none.
    pub name: Option<Name>,
    pub size: u64,
    pub links: u32,
}

pub(super) fn say_nested(path: &TreePath) {
    log::warn!("{path}: another file system is mounted here; it is not part of the copy");
}

/// What a listed object takes in a listing, in bytes: fixed-width fields, lengths as u64.
pub(super) fn encoded_len(listed: &ListedObject) -> usize {
    let birth = match &listed.birth {
        Birth::Symlink { target } => 12 + target.0.len(),
        Birth::CharDevice { .. } | Birth::BlockDevice { .. } => 12,
        Birth::File | Birth::Directory | Birth::Fifo | Birth::Socket => 4,
    };
    let fixed = 8 + 16 + size_of::<Attributes>() + 8 + 8 + 4 + 1 + 1;
    fixed + listed.name.as_bytes().len() + birth + xattrs_len(&listed.xattrs)
}

fn xattrs_len(xattrs: &[Xattr]) -> usize {
    xattrs.iter().map(|xattr| 16 + xattr.name.0.len() + xattr.value.0.len()).sum()
}

/// Where an object was listed, relative to the root. Directories share their beginnings.
#[derive(Debug)]
pub struct TreePath(Option<(Arc<TreePath>, Name)>);

impl TreePath {
    pub fn root() -> Arc<TreePath> {
        Arc::new(TreePath(None))
    }

    /// Of a directory that is known by its id alone.
    pub fn of_id(id: ObjectId) -> Arc<TreePath> {
        let name = Name::new(format!("(directory {})", id.inode).as_bytes());
        name.map_or_else(|_| TreePath::root(), |name| TreePath::below(&TreePath::root(), name))
    }

    /// As [`TreePath::of_id`], of what need not be a directory.
    pub fn of_object(id: ObjectId) -> Arc<TreePath> {
        let name = Name::new(format!("(object {})", id.inode).as_bytes());
        name.map_or_else(|_| TreePath::root(), |name| TreePath::below(&TreePath::root(), name))
    }

    pub fn below(parent: &Arc<TreePath>, name: Name) -> Arc<TreePath> {
        Arc::new(TreePath(Some((parent.clone(), name))))
    }
}

impl TreePath {
    /// From the root on, with its slashes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (mut names, mut at) = (Vec::new(), self);
        while let Some((parent, name)) = &at.0 {
            names.push(name.as_bytes());
            at = parent;
        }
        names.reverse();
        names.join(&b'/')
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut names, mut at) = (Vec::new(), self);
        while let Some((parent, name)) = &at.0 {
            names.push(String::from_utf8_lossy(name.as_bytes()));
            at = parent;
        }
        if names.is_empty() {
            return f.write_str(".");
        }
        for (index, name) in names.iter().rev().enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { "/" })?;
        }
        Ok(())
    }
}

/// Frees a chain step by step: a tree may be deeper than the stack.
impl Drop for TreePath {
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some((parent, _)) = next {
            next = Arc::into_inner(parent).and_then(|mut node| node.0.take());
        }
    }
}
