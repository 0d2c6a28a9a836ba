//! Files that are append-only on the disk (`chattr +a`): logs that nobody may change.
//!
//! The kernel does not know of the flag on the mount, and lets through what the disk's file system
//! would refuse. So its rules are applied here: who writes has to have said `O_APPEND`, and each
//! write begins where the file ends. Where the kernel gathers writes a write-back begins with the
//! page: what the disk has of it must be the same.
//!
//! The file system lets nobody set a time of such a file to anything but now. One that the kernel has
//! gathered is left out: the disk has that of the write-back.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::SeqCst;

use super::attributes::AskedAttributes;
use super::data::pwrite_all;
use super::error::{FsError, FsResult, Step};
use super::objects::Node;
use crate::words::Profile;

/// Errors: `EPERM`, as the file system gives it; `flags` are those of the open call.
pub(super) fn refuse_all_but_appending(node: &Node, flags: i32) -> FsResult<()> {
    let reads_or_appends = flags & libc::O_ACCMODE == libc::O_RDONLY || flags & libc::O_APPEND != 0;
    match reads_or_appends || !node.is_append_only.load(SeqCst) {
        true => Ok(()),
        false => Err(FsError::new(libc::EPERM, "open an append-only file to change it")),
    }
}

/// Writes what is behind the end: the descriptor writes nowhere else, whatever it is told. The object
/// is locked.
pub(super) fn append(fd: &OwnedFd, data: &[u8], offset: u64) -> FsResult<usize> {
    let refused = FsError::new(libc::EPERM, "change an append-only file");
    let size = rustix::fs::fstat(fd).step("stat")?.st_size as u64;
    let there = size.checked_sub(offset).ok_or(refused)?.min(data.len() as u64) as usize;
    if !holds(fd, &data[..there], offset) {
        return Err(refused);
    }
    match &data[there..] {
        [] => Ok(data.len()),
        rest => Ok(there + pwrite_all(fd, rest, size)?),
    }
}

fn holds(fd: &OwnedFd, wanted: &[u8], offset: u64) -> bool {
    let mut found = vec![0; wanted.len()];
    let read = rustix::io::pread(fd, &mut found, offset);
    wanted.is_empty() || (read == Ok(wanted.len()) && found == wanted)
}

/// Whether it is a time that the kernel has gathered and that cannot be set.
pub(super) fn leaves_time(node: &Node, profile: Profile, changes: &AskedAttributes) -> bool {
    let nothing_else = AskedAttributes { mtime: changes.mtime, ..AskedAttributes::default() };
    profile.gathers() && *changes == nothing_else && node.is_append_only.load(SeqCst)
}
