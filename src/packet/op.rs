//! One file-system change, with its results: what is sent is what the source has after the
//! change (owner, mode, times, link counts), never what the application asked for.

use std::fmt;

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::limits::{NAME_LEN_MAX, SYMLINK_LEN_MAX, XATTR_NAME_LEN_MAX, XATTR_VALUE_LEN_MAX};
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

/// A time as file systems keep it: seconds and nanoseconds (0..1e9) since 1970, before it negative.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// Name of a directory entry: 1..=255 bytes, no `/`, no NUL, not `.` or `..`. Bytes, not UTF-8.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
pub struct Name(Box<[u8]>);

/// Why bytes are no [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName;

impl Name {
    /// Checks the bytes once; afterwards the type is the proof.
    pub fn new(bytes: &[u8]) -> Result<Name, BadName> {
        let bad = bytes.is_empty()
            || bytes.len() > NAME_LEN_MAX
            || bytes == b"."
            || bytes == b".."
            || bytes.iter().any(|&byte| byte == b'/' || byte == 0);
        if bad { Err(BadName) } else { Ok(Name(bytes.into())) }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_os_str(&self) -> &std::ffi::OsStr {
        std::os::unix::ffi::OsStrExt::from_bytes(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl<Context> Decode<Context> for Name {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = bounded_bytes(decoder, NAME_LEN_MAX)?;
        Name::new(&bytes).map_err(|BadName| DecodeError::Other("not a file name"))
    }
}
bincode::impl_borrow_decode!(Name);

/// Bytes whose length is bounded when they are decoded: at most `MAX` bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
pub struct Bounded<const MAX: usize>(pub Vec<u8>);

impl<const MAX: usize> fmt::Debug for Bounded<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

impl<Context, const MAX: usize> Decode<Context> for Bounded<MAX> {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        Ok(Bounded(bounded_bytes(decoder, MAX)?))
    }
}

impl<'de, Context, const MAX: usize> bincode::BorrowDecode<'de, Context> for Bounded<MAX> {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Decode::decode(decoder)
    }
}

/// Reads a length and that many bytes, refusing before it allocates.
fn bounded_bytes<D: Decoder>(decoder: &mut D, max: usize) -> Result<Vec<u8>, DecodeError> {
    use bincode::de::read::Reader;
    let len = u64::decode(decoder)?;
    if len > max as u64 {
        return Err(DecodeError::Other("bytes longer than their bound"));
    }
    decoder.claim_bytes_read(len as usize)?;
    let mut bytes = vec![0; len as usize];
    decoder.reader().read(&mut bytes)?;
    Ok(bytes)
}

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

/// The object whose name a rename took, and its link count on the source afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replaced {
    pub object: ObjectId,
    pub links: u32,
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
        }
    }
}
