//! After a call that failed: what it may have changed is looked at and told.
//!
//! A call can fail in the middle of what it does (a full or failing disk): `ZERO_RANGE` and punching
//! work block by block, a truncation sets the size before it frees blocks, an attribute is removed
//! before its new value finds no room. So nothing is concluded from the error. Content is read back
//! and sent in pieces, each as large as one write; other changes of the file may come between two
//! pieces, since the failed call has not returned yet. Names are looked at again. What
//! cannot be looked at is a [`Divergence`](super::Divergence).

use std::ffi::OsStr;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use rustix::fs::{AtFlags, SeekFrom, Stat};

use super::change::{Part, Touched};
use super::error::{FsError, FsResult, Step};
use super::objects::Node;
use super::parking::never_waits;
use super::volume::{Volume, c_name, mtime};
use crate::limits::PAYLOAD_LEN_MAX;
use crate::packet::{ContentResult, Op, Reserve};

/// A failed write may have touched whole pages: no larger block is written in part.
pub(super) const PAGE: u64 = 4096;

/// The shortest piece that is called a hole: below, zeros are sent. Above every block size.
const HOLE_MIN: u64 = 64 << 10;

impl FsError {
    /// The call may have done a part of its work. The other errors are answers of the kernel or the
    /// file system from before anything is changed.
    pub fn may_have_changed(&self) -> bool {
        const REFUSALS: [i32; 22] = [
            libc::EACCES,
            libc::EBADF,
            libc::EBUSY,
            libc::EEXIST,
            libc::EINVAL,
            libc::EISDIR,
            libc::ELOOP,
            libc::EMFILE,
            libc::EMLINK,
            libc::ENAMETOOLONG,
            libc::ENFILE,
            libc::ENODATA,
            libc::ENOENT,
            libc::ENOTDIR,
            libc::ENOTEMPTY,
            libc::EOPNOTSUPP,
            libc::EPERM,
            libc::ERANGE,
            libc::ESPIPE,
            libc::ESTALE,
            libc::ETXTBSY,
            libc::EXDEV,
        ];
        !REFUSALS.contains(&self.errno)
    }
}

impl Volume {
    /// Sends what the part of a write that failed has left in the pages that it touched; no lock may
    /// be held. A disk that is full fails it block by block, and some are written.
    pub fn send_failed_write(&self, handle: u64, range: Range<u64>) {
        let end = range.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        match self.node_of_handle(handle) {
            Ok(node) => self.send_again(&node, range.start - range.start % PAGE..end),
            Err(error) => self.divergence().note(&format!("a write failed half-way: {error}")),
        }
    }

    /// Sends what a range of a file holds now; no lock may be held. `range.end` may lie behind the
    /// end of the file.
    pub(super) fn send_again(&self, node: &Arc<Node>, range: Range<u64>) {
        if node.is_nameless.load(Relaxed) {
            return;
        }
        if let Err(error) = self.send_content(node, range, HOLE_MIN) {
            self.divergence().note(&format!("a call failed half-way, and what it left: {error}"));
        }
    }

    /// As [`Volume::send_again`]. Where zeros are `hole_min` bytes or more, none are sent.
    pub(super) fn send_content(&self, node: &Arc<Node>, range: Range<u64>, hole_min: u64) -> FsResult<()> {
        // A descriptor of the failed call may not be able to read.
        let fd = self.descriptors.open(node, libc::O_RDONLY)?;
        let mut at = range.start;
        while at < range.end {
            let next = self.send_piece(node, &fd, at..range.end, hole_min)?;
            assert!(at < next, "what a failed call left is sent without end");
            at = next;
        }
        Ok(())
    }

    /// Answers where the next piece begins; the end of the range where there is none.
    fn send_piece(&self, node: &Arc<Node>, fd: &OwnedFd, range: Range<u64>, hole_min: u64) -> FsResult<u64> {
        // Where nobody may wait, nothing is piled up either.
        if never_waits() && !self.has_room(2 * PAYLOAD_LEN_MAX) {
            return Err(FsError::new(libc::EAGAIN, "room for what is read back"));
        }
        let touched = Touched::object(node, fd, Part::Content(range.clone()));
        let mut change = self.prepare(touched, PAYLOAD_LEN_MAX)?.lock_to_tell()?;
        let stat = change.look(rustix::fs::fstat(fd).step("stat"))?;
        let end = range.end.min(stat.st_size as u64);
        if range.start >= end {
            change.unchanged();
            return Ok(range.end);
        }
        let result = ContentResult { size: stat.st_size as u64, mtime: mtime(&stat), mode: None };
        let (object, offset) = (node.object, range.start);
        let (op, payload, next) = match change.look(hole_from(fd, offset))?.min(end) {
            hole_end if hole_end == end || hole_end >= offset.saturating_add(hole_min) => {
                let (length, how) = (hole_end - offset, Reserve::PunchHole);
                (Op::Reserve { object, offset, length, how, result }, Bytes::new(), hole_end)
            }
            _ => {
                let data_end = change.look(data_until(fd, offset))?.min(end);
                let len = (data_end - offset).min(PAYLOAD_LEN_MAX as u64);
                let payload = change.look(self.read_back(fd, offset, len))?;
                let next = offset + payload.len() as u64;
                (Op::Write { object, offset, result }, payload, next)
            }
        };
        change.append(&op, payload);
        Ok(next)
    }

    /// At most so many bytes, at least one.
    fn read_back(&self, fd: &OwnedFd, offset: u64, len: u64) -> FsResult<Bytes> {
        let mut bytes = vec![0; len as usize];
        loop {
            match rustix::io::pread(fd, &mut bytes, offset) {
                Ok(0) => return Err(FsError::new(libc::EIO, "read back")),
                Ok(count) => return Ok(self.pool.copy_of(&bytes[..count])),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(FsError::new(errno.raw_os_error(), "read back")),
            }
        }
    }

    /// After a call on a name that failed: it must hold what it held before (`None`: nothing). The
    /// directory's lock is held.
    pub(super) fn name_must_hold(&self, dir: impl AsFd, name: &OsStr, before: Option<&Stat>) {
        let now =
            c_name(name).and_then(|name| match rustix::fs::statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(rustix::io::Errno::NOENT) => Ok(None),
                found => found.map(Some).step("look at a name again"),
            });
        let inode = |stat: &Stat| (stat.st_dev, stat.st_ino);
        match now {
            Ok(now) if now.as_ref().map(inode) == before.map(inode) => {}
            Ok(_) => self.divergence().note("a call on a name failed, and had changed it"),
            Err(error) => self.divergence().note(&format!("a call on a name failed: {error}")),
        }
    }
}

/// Where data begins at or behind `offset`: `offset` itself in data, the largest number where only
/// a hole follows.
fn hole_from(fd: &OwnedFd, offset: u64) -> FsResult<u64> {
    match rustix::fs::seek(fd, SeekFrom::Data(offset)) {
        Ok(data) => Ok(data),
        Err(rustix::io::Errno::NXIO) => Ok(u64::MAX),
        // No holes are known here.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(offset),
        Err(errno) => Err(FsError::new(errno.raw_os_error(), "look for data")),
    }
}

/// Where the data at `offset` ends. The kernel may answer `offset` itself, where blocks are smaller
/// than a page: that is no end.
fn data_until(fd: &OwnedFd, offset: u64) -> FsResult<u64> {
    match rustix::fs::seek(fd, SeekFrom::Hole(offset)) {
        Ok(hole) if hole > offset => Ok(hole),
        Ok(_) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => Ok(u64::MAX),
        Err(errno) => Err(FsError::new(errno.raw_os_error(), "look for a hole")),
    }
}
