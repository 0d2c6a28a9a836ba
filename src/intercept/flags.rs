//! Flags of inodes (`chattr`): the few calls of `ioctl` that a mount answers.
//!
//! The kernel asks for the flags before it sets any, compares them with what the program wants, and lets
//! only `CAP_LINUX_IMMUTABLE` change whether something is immutable or append-only; it knows nothing of
//! them otherwise. What they forbid the disk's file system forbids, when the daemon does it. What was stored
//! before a file becomes immutable is written back before.
//!
//! What is carried to targets is an op like those of attributes ([`crate::xattr::FLAGS`]). The others that
//! can be set are how this disk is written to, and stay here; what changes the format of a file cannot be set.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use rustix::fs::IFlags;

use super::error::{FsError, FsResult, Step};
use super::objects::NodeId;
use super::serve::Serve;
use super::volume::{Caller, Volume};
use crate::packet::{Bounded, Op};
use crate::xattr::{FLAGS, Flags};

/// Numbers of `FS_IOC_…` (`linux/fs.h`).
const GET_FLAGS: u32 = 0x8008_6601;
const SET_FLAGS: u32 = 0x4008_6602;
const GET_XFLAGS: u32 = 0x801c_581f;
const SET_XFLAGS: u32 = 0x401c_5820;
/// Length of `struct fsxattr`: flags, extent size, extents, project, extent size of copies, padding.
const FSXATTR_LEN: usize = 28;

/// What can be set.
const SETTABLE: [(IFlags, u32); 5] = [
    (IFlags::IMMUTABLE, 0x08),
    (IFlags::APPEND, 0x10),
    (IFlags::SYNC, 0x20),
    (IFlags::NOATIME, 0x40),
    (IFlags::NODUMP, 0x80),
];

/// What a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagCall {
    Get,
    /// As XFS shows them.
    GetX,
    /// All that it is to have.
    Set(IFlags),
    /// What it is to have of those that the other call shows; the rest stays.
    SetX(IFlags),
}

impl FlagCall {
    /// `None`: another call, which no file has.
    pub fn of(number: u32, data: &[u8]) -> Option<FlagCall> {
        let word = || data.first_chunk().map(|word| u32::from_ne_bytes(*word));
        match number {
            GET_FLAGS => Some(FlagCall::Get),
            GET_XFLAGS => Some(FlagCall::GetX),
            SET_FLAGS => Some(FlagCall::Set(IFlags::from_bits_retain(word()?))),
            SET_XFLAGS => {
                let (word, rest) = (word()?, data.get(4..)?);
                let known = SETTABLE.iter().fold(0, |all, (_, bit)| all | bit);
                let is_known = word & !known == 0 && rest.iter().all(|byte| *byte == 0);
                let set = SETTABLE.iter().filter(|(_, bit)| word & bit != 0);
                is_known.then(|| FlagCall::SetX(set.fold(IFlags::empty(), |all, (flag, _)| all | *flag)))
            }
            _ => None,
        }
    }

    /// What it is to have, which has these; `None`: it only asks.
    fn wanted(self, before: IFlags) -> Option<IFlags> {
        match self {
            FlagCall::Get | FlagCall::GetX => None,
            FlagCall::Set(wanted) => Some(wanted),
            FlagCall::SetX(wanted) => {
                let shown = SETTABLE.iter().fold(IFlags::empty(), |all, (flag, _)| all | *flag);
                Some(before.difference(shown) | wanted)
            }
        }
    }

    /// What the program gets.
    fn answer(self, flags: IFlags, room: usize) -> Vec<u8> {
        let mut answer = match self {
            FlagCall::Get => flags.bits().to_ne_bytes().to_vec(),
            FlagCall::GetX => {
                let has = SETTABLE.iter().filter(|(flag, _)| flags.contains(*flag));
                let mut answer = has.fold(0, |all, (_, bit)| all | bit).to_ne_bytes().to_vec();
                answer.resize(FSXATTR_LEN, 0);
                answer
            }
            FlagCall::Set(_) | FlagCall::SetX(_) => Vec::new(),
        };
        answer.truncate(room);
        answer
    }
}

impl Serve {
    /// `room`: how many bytes the program takes.
    pub fn flags(
        &self,
        caller: Caller,
        node: NodeId,
        call: FlagCall,
        room: usize,
        reply: impl FnOnce(FsResult<Vec<u8>>) + Send + 'static,
    ) {
        if call.wanted(IFlags::empty()).is_none() {
            return reply(self.volume().inode_flags(node).map(|flags| call.answer(flags, room)));
        }
        // Nothing can be written, and no time set, once it is immutable.
        let cached = self.volume().may_be_mapped(node).then_some(node);
        self.written_back(cached, move |serve| {
            serve.settled(caller, node, move |serve| {
                serve.change(caller, move |serve| {
                    reply(serve.volume().set_inode_flags(caller, node, call).map(|()| Vec::new()));
                });
            });
        });
    }
}

impl Volume {
    fn inode_flags(&self, node: NodeId) -> FsResult<IFlags> {
        let file = self.open_for_flags(node)?;
        rustix::fs::ioctl_getflags(&file).step("get flags")
    }

    /// Errors: `EOPNOTSUPP` where other flags would change than those that can be set here; `EPERM` for who
    /// may not change them.
    fn set_inode_flags(&self, caller: Caller, node: NodeId, call: FlagCall) -> FsResult<()> {
        let kept = IFlags::IMMUTABLE | IFlags::APPEND;
        let asked = call.wanted(IFlags::empty()).unwrap_or(IFlags::empty());
        if node == NodeId::ROOT && asked.intersects(kept) {
            return Err(FsError::new(libc::EOPNOTSUPP, "make the root, which has a mark, unchangeable"));
        }
        let file = self.open_for_flags(node)?;
        let node = self.node(node)?;
        self.change_xattr(node.id, OsStr::from_bytes(FLAGS), 1, |change, fd, object| {
            let before = change.look(rustix::fs::ioctl_getflags(&file).step("get flags"))?;
            let stat = change.look(rustix::fs::fstat(fd).step("stat"))?;
            let wanted = call.wanted(before).unwrap_or(before);
            may_change(caller, stat.st_uid, before, wanted)?;
            if before != wanted {
                change.make(|| rustix::fs::ioctl_setflags(&file, wanted).step("set flags"))?;
                self.descriptors.flags_are(&node, wanted);
            }
            let name = Bounded(FLAGS.to_vec());
            let carried = change.look(Flags::of(fd).step("look at flags"))?;
            Ok(match carried.value() {
                Some(value) => (Op::SetXattr { object, name, mode: None }, self.pool.copy_of(&value)),
                None => (Op::RemoveXattr { object, name, mode: None }, Bytes::new()),
            })
        })
    }

    fn open_for_flags(&self, node: NodeId) -> FsResult<OwnedFd> {
        let node = self.node(node)?;
        self.descriptors.open(&node, libc::O_RDONLY | libc::O_NONBLOCK)
    }
}

/// The kernel has asked the same, since Linux 5.13.
fn may_change(caller: Caller, owner: u32, before: IFlags, wanted: IFlags) -> FsResult<()> {
    let changed = before.symmetric_difference(wanted);
    let settable = SETTABLE.iter().fold(IFlags::DIRSYNC, |all, (flag, _)| all | *flag);
    if !settable.contains(changed) {
        return Err(FsError::new(libc::EOPNOTSUPP, "set flags of the file's format"));
    }
    let is_forbidden = changed.intersects(IFlags::IMMUTABLE | IFlags::APPEND) && caller.uid != 0;
    match is_forbidden || caller.uid != 0 && caller.uid != owner {
        true => Err(FsError::new(libc::EPERM, "set flags")),
        false => Ok(()),
    }
}
