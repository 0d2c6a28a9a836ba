//! One file-system change, with its results: what is sent is what the source has after the
//! change (owner, mode, times, link counts), never what the application asked for.

use std::fmt;

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::bounded::{Bounded, MarkerName, Name};
use crate::limits::{SYMLINK_LEN_MAX, XATTR_NAME_LEN_MAX, XATTR_VALUE_LEN_MAX};
use crate::sys::FileHandle;

/// Names a file, directory, symlink or special file for its whole life, set-wide: as the
/// source saw it at birth or first sight, never changed by a change of roles.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
pub struct ObjectId {
    /// Number of the epoch in which the object was first seen.
    pub birth_epoch: u32,
    /// Generation of the inode number, from the source's file system.
    pub generation: u32,
    /// Inode number on the source.
    pub inode: u64,
}

impl ObjectId {
    /// The id of an object that is seen for the first time, in this epoch.
    pub fn at_first_sight(birth_epoch: u32, handle: &FileHandle, inode: u64) -> ObjectId {
        ObjectId { birth_epoch, generation: handle.generation(), inode }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.birth_epoch, self.inode, self.generation)
    }
}

/// A time as file systems keep it: seconds and nanoseconds (0..1e9) since 1970, before it negative. Another one is
/// decoded from nobody: to the kernel larger numbers of nanoseconds are orders ("now", "leave it").
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Serialize, Deserialize,
)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

impl Timestamp {
    /// As a file system tells it. A damaged inode of ext4 has room for 1,073,741,823 nanoseconds: no target would take
    /// that, and all behind it would wait.
    pub fn of_status(seconds: i64, nanoseconds: u32) -> Timestamp {
        Timestamp { seconds, nanoseconds: nanoseconds.min(NANOSECONDS_MAX) }
    }
}

const NANOSECONDS_MAX: u32 = 999_999_999;

impl<Context> Decode<Context> for Timestamp {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let (seconds, nanoseconds) = (i64::decode(decoder)?, u32::decode(decoder)?);
        match nanoseconds {
            0..=NANOSECONDS_MAX => Ok(Timestamp { seconds, nanoseconds }),
            _ => Err(DecodeError::Other("a time of more than 999,999,999 nanoseconds")),
        }
    }
}
bincode::impl_borrow_decode!(Timestamp);

/// Where a symlink points, verbatim.
pub type SymlinkTarget = Bounded<SYMLINK_LEN_MAX>;
/// Name of an extended attribute, with its namespace (`user.x`).
pub type XattrName = Bounded<XATTR_NAME_LEN_MAX>;
/// Value of an extended attribute.
pub type XattrValue = Bounded<XATTR_VALUE_LEN_MAX>;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    pub dir: ObjectId,
    pub name: Name,
}

/// What a new object is, with what it can never change afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Birth {
    File,
    Directory,
    Symlink { target: SymlinkTarget },
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

/// Resulting owner, permission bits (`0o7777`) and mtime of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attributes {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timestamp,
}

/// Owner of an object (numeric).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// One extended attribute; POSIX ACLs are `system.posix_acl_access` and `system.posix_acl_default`
/// in the kernel's own format.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Xattr {
    pub name: XattrName,
    pub value: XattrValue,
}

/// As a link count: names of the object may be in the set, or out of it. What has none left here is gone.
pub const LINKS_UNKNOWN: u32 = u32::MAX;

/// The object whose name a rename took, and its link count on the source afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replaced {
    pub object: ObjectId,
    pub links: u32,
}

/// What becomes of what a name held that was removed on the source, where it is not removed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Keeping {
    /// It stays where it is, and gives way to whatever needs its name.
    InPlace,
    /// It is moved to a directory of this name, beside the replica, and removed after so many days.
    Aside { into: Name, days: u16 },
}

/// The character device 0/0 that `RENAME_WHITEOUT` leaves at the old name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Whiteout {
    pub object: ObjectId,
    pub attributes: Attributes,
}

/// How a range of a file was reserved or cleared (`fallocate`). The resulting size travels beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reserve {
    Allocate,
    AllocateKeepSize,
    PunchHole,
    ZeroRange,
    ZeroRangeKeepSize,
}

/// What changed of a file beside its bytes when its content changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContentResult {
    /// Size of the file after the change, in bytes.
    pub size: u64,
    pub mtime: Timestamp,
    /// Permission bits after the change where the change cleared setuid or setgid.
    pub mode: Option<u32>,
}

/// One file-system change. A new kind goes at the end and raises the version of the wire; what else
/// it needs stands in `docs/architecture.md`, "To add an op".
///
/// `links` is the resulting link count of the object on the source. `*_mtime` is the resulting
/// mtime of the directory that the name is in. Where an op has a payload, it is named.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Op {
    /// A new object with its first name. Its attributes and xattrs are what it has on the
    /// source, so nothing is inherited on the target.
    Create {
        at: Entry,
        dir_mtime: Timestamp,
        object: ObjectId,
        birth: Birth,
        attributes: Attributes,
        xattrs: Vec<Xattr>,
    },
    /// A further name (`link`).
    Link {
        object: ObjectId,
        at: Entry,
        dir_mtime: Timestamp,
        links: u32,
    },
    /// A name of a non-directory goes.
    Unlink {
        at: Entry,
        dir_mtime: Timestamp,
        object: ObjectId,
        links: u32,
    },
    RemoveDirectory {
        at: Entry,
        dir_mtime: Timestamp,
        object: ObjectId,
    },
    /// A name moves and may take the place of another. Both directories may be one.
    ///
    /// `object_mtime` is given for a directory, and where the rename changed it: some file systems
    /// take a new `..` for a change of the directory that moves.
    Rename {
        from: Entry,
        from_mtime: Timestamp,
        to: Entry,
        to_mtime: Timestamp,
        object: ObjectId,
        object_mtime: Option<Timestamp>,
        replaced: Option<Replaced>,
        whiteout: Option<Whiteout>,
    },
    /// Two names change their objects. `*_mtime` as with a rename.
    Exchange {
        left: Entry,
        left_mtime: Timestamp,
        left_object: ObjectId,
        left_object_mtime: Option<Timestamp>,
        right: Entry,
        right_mtime: Timestamp,
        right_object: ObjectId,
        right_object_mtime: Option<Timestamp>,
    },
    /// Bytes at an offset. Payload: the bytes.
    Write {
        object: ObjectId,
        offset: u64,
        result: ContentResult,
    },
    /// The size changed (`truncate`); `result.size` is the new one.
    Resize {
        object: ObjectId,
        result: ContentResult,
    },
    /// A range was reserved, punched or zeroed.
    Reserve {
        object: ObjectId,
        offset: u64,
        length: u64,
        how: Reserve,
        result: ContentResult,
    },
    /// Attributes were set. `owner` is given when a chown happened, with the mode after it.
    SetAttributes {
        object: ObjectId,
        mode: Option<u32>,
        owner: Option<Owner>,
        mtime: Option<Timestamp>,
    },
    /// An extended attribute was set; `mode` where that changed it (ACLs). Payload: the value.
    SetXattr {
        object: ObjectId,
        name: XattrName,
        mode: Option<u32>,
    },
    RemoveXattr {
        object: ObjectId,
        name: XattrName,
        mode: Option<u32>,
    },
    /// Everything before is one consistent state: the target sets pending times, and makes it
    /// durable where asked, before it acknowledges.
    Barrier {
        durable: bool,
        /// Of a marker: somebody on the target may want to see this very state.
        name: Option<MarkerName>,
    },
    /// An object that was no part of the set and is about to get a name in it: it is made, under no name.
    /// Its content follows. `may_be_known`: another name of it may be in the set, then it is left as it is.
    Stage {
        object: ObjectId,
        may_be_known: bool,
        birth: Birth,
        attributes: Attributes,
        xattrs: Vec<Xattr>,
    },
    /// A name of an object that had none in the set; it may take the place of another one.
    Place {
        object: ObjectId,
        at: Entry,
        dir_mtime: Timestamp,
        replaced: Option<Replaced>,
    },
    /// A name goes, and the directory that it held is no part of the set any more, nor anything below it.
    Leave {
        at: Entry,
        dir_mtime: Timestamp,
        object: ObjectId,
    },
    /// An object that was staged gets no name.
    Unstage {
        object: ObjectId,
    },
    /// A name is gone on the source, and what it held is kept. Of a directory `links` is 0.
    Keep {
        at: Entry,
        dir_mtime: Timestamp,
        object: ObjectId,
        links: u32,
        keeping: Keeping,
    },
}

impl Op {
    /// Short name for status and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Create { .. } => "create",
            Op::Link { .. } => "link",
            Op::Unlink { .. } => "unlink",
            Op::RemoveDirectory { .. } => "rmdir",
            Op::Rename { .. } => "rename",
            Op::Exchange { .. } => "exchange",
            Op::Write { .. } => "write",
            Op::Resize { .. } => "truncate",
            Op::Reserve { .. } => "fallocate",
            Op::SetAttributes { .. } => "set attributes",
            Op::SetXattr { .. } => "set xattr",
            Op::RemoveXattr { .. } => "remove xattr",
            Op::Barrier { .. } => "barrier",
            Op::Stage { .. } => "stage",
            Op::Place { .. } => "place",
            Op::Leave { .. } => "leave",
            Op::Unstage { .. } => "unstage",
            Op::Keep { .. } => "keep",
        }
    }
}
