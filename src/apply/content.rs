//! Ops on the bytes and the attributes of one object. All of them can be done again.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::fault::Fault;
use super::inode;
use super::replica::Replica;
use crate::clone::guard;
use crate::failpoint;
use crate::packet::{ContentResult, ObjectId, Owner, Reserve, Timestamp, XattrName};
use crate::xattr::{FLAGS, Flags};

/// Zeros written at once where a file system cannot clear a range itself.
const ZEROS_LEN: u64 = 64 * 1024;

impl Replica {
    pub(super) fn write(
        &mut self,
        object: ObjectId,
        offset: u64,
        bytes: &[u8],
        result: &ContentResult,
    ) -> Result<(), Fault> {
        if self.is_relieved(object) {
            return Ok(());
        }
        self.write_untimed(object, offset, bytes, result)?;
        self.set_mtime_later(object, result.mtime)
    }

    /// [`Replica::write`] without the mtime.
    pub(super) fn write_untimed(
        &mut self,
        object: ObjectId,
        offset: u64,
        bytes: &[u8],
        result: &ContentResult,
    ) -> Result<(), Fault> {
        let file = self.writable(object)?;
        guard::content(&file, offset, bytes.len() as u64);
        self.writer().write_all_at(&file, bytes, offset).map_err(Fault::system("write"))?;
        self.content_changed(&file, result)
    }

    pub(super) fn resize(&mut self, object: ObjectId, result: &ContentResult) -> Result<(), Fault> {
        self.resize_untimed(object, result)?;
        self.set_mtime_later(object, result.mtime)
    }

    /// [`Replica::resize`] without the mtime.
    pub(super) fn resize_untimed(&mut self, object: ObjectId, result: &ContentResult) -> Result<(), Fault> {
        let file = self.writable(object)?;
        guard::resizing(&file, result.size);
        rustix::fs::ftruncate(&*file, result.size).map_err(Fault::system("truncate"))?;
        if result.size == 0 {
            self.relief_is_over(object)?;
        }
        self.content_changed(&file, result)
    }

    pub(super) fn reserve(
        &mut self,
        object: ObjectId,
        offset: u64,
        length: u64,
        how: Reserve,
        result: &ContentResult,
    ) -> Result<(), Fault> {
        if self.is_relieved(object) {
            return Ok(());
        }
        self.reserve_untimed(object, offset, length, how, result)?;
        self.set_mtime_later(object, result.mtime)
    }

    /// [`Replica::reserve`] without the mtime.
    pub(super) fn reserve_untimed(
        &mut self,
        object: ObjectId,
        offset: u64,
        length: u64,
        how: Reserve,
        result: &ContentResult,
    ) -> Result<(), Fault> {
        let file = self.writable(object)?;
        guard::content(&file, offset, length);
        match rustix::fs::fallocate(&*file, fallocate_flags(how), offset, length) {
            Err(Errno::NOTSUP | Errno::NOSYS) => reserve_by_hand(&file, offset, length, how, result)?,
            done => done.map_err(Fault::system("fallocate"))?,
        }
        self.content_changed(&file, result)
    }

    /// The owner goes first: a chown clears setuid, which the mode then says anew.
    pub(super) fn set_attributes(
        &mut self,
        object: ObjectId,
        mode: Option<u32>,
        owner: Option<Owner>,
        mtime: Option<Timestamp>,
    ) -> Result<(), Fault> {
        let file = self.object(object)?;
        if let Some(owner) = owner {
            inode::set_owner(&*file, owner)?;
            failpoint::at("owner").map_err(Fault::system("chown"))?;
        }
        if let Some(mode) = mode {
            inode::set_mode(&*file, self.policy().mode(&*file, mode)?)?;
        }
        mtime.map_or(Ok(()), |mtime| self.set_mtime_later(object, mtime))
    }

    pub(super) fn change_xattr(
        &mut self,
        object: ObjectId,
        name: &XattrName,
        value: Option<&[u8]>,
        mode: Option<u32>,
    ) -> Result<(), Fault> {
        if name.0 == FLAGS {
            let flags = value.map_or(Some(Flags::NONE), Flags::from_value);
            return self.set_flags_later(object, flags.ok_or(Fault::Refused("flags that nobody knows"))?);
        }
        let file = self.object(object)?;
        match value {
            Some(value) if self.policy().takes_xattr(name) => inode::set_xattr(&*file, name, value)?,
            Some(_) => {}
            None => inode::remove_xattr(&*file, name)?,
        }
        failpoint::at("xattr").map_err(Fault::system("set xattr"))?;
        mode.map_or(Ok(()), |mode| inode::set_mode(&*file, self.policy().mode(&*file, mode)?))
    }

    fn content_changed(&self, file: &File, result: &ContentResult) -> Result<(), Fault> {
        failpoint::at("content").map_err(Fault::system("write"))?;
        match result.mode {
            Some(mode) => inode::set_mode(file, self.policy().mode(file, mode)?),
            None => Ok(()),
        }
    }
}

fn fallocate_flags(how: Reserve) -> FallocateFlags {
    match how {
        Reserve::Allocate => FallocateFlags::empty(),
        Reserve::AllocateKeepSize => FallocateFlags::KEEP_SIZE,
        Reserve::PunchHole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        Reserve::ZeroRange => FallocateFlags::ZERO_RANGE,
        Reserve::ZeroRangeKeepSize => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
    }
}

/// For file systems that lack the mode: the same bytes and size, without the reservation.
fn reserve_by_hand(
    file: &File,
    offset: u64,
    length: u64,
    how: Reserve,
    result: &ContentResult,
) -> Result<(), Fault> {
    let size = file.metadata().map_err(Fault::system("stat"))?.len();
    if matches!(how, Reserve::PunchHole | Reserve::ZeroRange | Reserve::ZeroRangeKeepSize) {
        write_zeros(file, offset, offset.saturating_add(length).min(size))?;
    }
    if matches!(how, Reserve::Allocate | Reserve::ZeroRange) && size < result.size {
        rustix::fs::ftruncate(file, result.size).map_err(Fault::system("truncate"))?;
    }
    Ok(())
}

fn write_zeros(file: &File, mut offset: u64, end: u64) -> Result<(), Fault> {
    let zeros = [0; ZEROS_LEN as usize];
    while offset < end {
        let len = (end - offset).min(ZEROS_LEN);
        file.write_all_at(&zeros[..len as usize], offset).map_err(Fault::system("write zeros"))?;
        offset += len;
    }
    Ok(())
}
