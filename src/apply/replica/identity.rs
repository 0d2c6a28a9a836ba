//! Whose replica a directory is: an extended attribute of its root, or, where the file system
//! has none, a file in the state directory that names the root by its file handle.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::packet::{DataState, Epoch, Position, SetId};
use crate::store;
use crate::sys::FileHandle;

/// Hidden from applications and never replicated.
pub const IDENTITY_XATTR: &str = "trusted.standin.replica";

/// What the root itself says. It only detects that a replica was set back to an older state: the
/// slot file is the proof of *durable*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub set: SetId,
    /// The durable position that was being made when this was written: never behind the slot.
    pub durable: Position,
    pub data: DataState,
    /// It was stood in for in this epoch.
    #[serde(default)]
    pub fence: Option<Epoch>,
}

/// Where the identity of one root is kept.
pub enum Keeper {
    Xattr,
    File { path: PathBuf, root: String },
}

#[derive(Serialize, Deserialize)]
struct Document {
    root: String,
    identity: Identity,
}

impl Keeper {
    /// Finds out where the identity is kept, and reads it.
    ///
    /// Errors: the system's; `InvalidData` where the attribute is not ours to read.
    pub fn find(root: &File, state: &Path) -> io::Result<(Keeper, Option<Identity>)> {
        let mut value = vec![0; 4096];
        match rustix::fs::fgetxattr(root, IDENTITY_XATTR, value.as_mut_slice()) {
            Ok(len) => Ok((Keeper::Xattr, Some(serde_json::from_slice(&value[..len])?))),
            Err(Errno::NODATA) if probe(root)? => Ok((Keeper::Xattr, None)),
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {
                let root = format!("{:?}", FileHandle::of(root.as_fd())?);
                let path = state.join("identity.json");
                let found = store::read_json::<Document>(&path)?.filter(|found| found.root == root);
                Ok((Keeper::File { path, root }, found.map(|found| found.identity)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the identity; durable with the next sync of the file system.
    pub fn write(&self, root: &File, identity: Identity) -> io::Result<()> {
        match self {
            Keeper::Xattr => {
                let value = serde_json::to_vec(&identity)?;
                Ok(rustix::fs::fsetxattr(root, IDENTITY_XATTR, &value, XattrFlags::empty())?)
            }
            Keeper::File { path, root } => {
                store::replace_json(path, &Document { root: root.clone(), identity })
            }
        }
    }
}

/// Whose replica a directory says to be; `state`: where it may say so, if not itself. Nothing
/// is changed.
pub fn set_of(root: &File, state: Option<&Path>) -> io::Result<Option<SetId>> {
    Ok(identity_of(root, state)?.map(|identity| identity.set))
}

/// Of which set a replica is, and in which epoch it was stood in for; as [`set_of`].
pub fn stood_in_of(root: &File, state: &Path) -> io::Result<Option<(SetId, Epoch)>> {
    let identity = identity_of(root, Some(state))?;
    Ok(identity.and_then(|identity| identity.fence.map(|fence| (identity.set, fence))))
}

fn identity_of(root: &File, state: Option<&Path>) -> io::Result<Option<Identity>> {
    let mut value = vec![0; 4096];
    match rustix::fs::fgetxattr(root, IDENTITY_XATTR, value.as_mut_slice()) {
        Ok(len) => Ok(Some(serde_json::from_slice::<Identity>(&value[..len])?)),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => state.map_or(Ok(None), |state| kept(root, state)),
        Err(error) => Err(error.into()),
    }
}

/// In which epoch a directory was stood in for, by its own mark; `None` where it is no replica.
pub fn fence_of(root: impl AsFd) -> io::Result<Option<Epoch>> {
    let mut value = vec![0; 4096];
    match rustix::fs::fgetxattr(root, IDENTITY_XATTR, value.as_mut_slice()) {
        Ok(len) => Ok(serde_json::from_slice::<Identity>(&value[..len])?.fence),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn kept(root: &File, state: &Path) -> io::Result<Option<Identity>> {
    let root = format!("{:?}", FileHandle::of(root.as_fd())?);
    let found = store::read_json::<Document>(&state.join("identity.json"))?;
    Ok(found.filter(|found| found.root == root).map(|found| found.identity))
}

/// Whether attributes of this kind can be set here: some file systems read "none" and set none.
fn probe(root: &File) -> io::Result<bool> {
    let name = "trusted.standin.probe";
    match rustix::fs::fsetxattr(root, name, b"", XattrFlags::empty()) {
        Ok(()) => rustix::fs::fremovexattr(root, name).map(|()| true).map_err(io::Error::from),
        Err(Errno::NOTSUP | Errno::PERM) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
