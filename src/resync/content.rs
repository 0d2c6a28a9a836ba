//! The content of one file, as lane items: its data between its holes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{SeekFrom, Statx, seek};
use rustix::io::{Errno, pread};

use super::error::has_vanished;
use super::look::{attributes, stat, timestamp};
use super::walk::{ListedFile, TreePath, check_xattrs, read_error};
use super::{CopyError, CopyProgress, ItemSink};
use crate::limits::CONTENT_CHUNK;
use crate::packet::{Attributes, LaneItem};
use crate::queue::Pool;
use crate::sys::open_by_handle;
use crate::xattr;

/// How sending a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was sent whole, as it is.
    Whole,
    /// An application changed it meanwhile: it was labelled as it was before, so that the next
    /// comparison finds a difference.
    Changed,
    /// It was removed before it was opened: nothing was sent.
    Vanished,
}

/// Sends a file's content: [`LaneItem::OpenContent`], data, [`LaneItem::CloseContent`].
pub(super) fn send_file(
    mount: BorrowedFd<'_>,
    file: &ListedFile,
    path: &TreePath,
    sink: &mut impl ItemSink,
    pool: &Pool,
    progress: &CopyProgress,
) -> Result<Sent, CopyError> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOATIME;
    let fd = match open_by_handle(mount, &file.handle, flags) {
        Ok(fd) => fd,
        Err(error) if has_vanished(&error) => return Ok(Sent::Vanished),
        Err(error) => return Err(read_error("open", path, error)),
    };
    let object = file.object;
    let before = stat(fd.as_fd()).map_err(|error| read_error("look at", path, error))?;
    sink.send(LaneItem::OpenContent { object }, Bytes::new())?;
    let mut data = Data { fd: &fd, offset: 0, end: 0, size: before.stx_size, pool };
    while let Some((offset, bytes)) = data.next().map_err(|error| read_error("read", path, error))? {
        CopyProgress::add(&progress.bytes_copied, bytes.len() as u64);
        sink.send(LaneItem::Content { object, offset }, bytes)?;
    }
    let after = stat(fd.as_fd()).map_err(|error| read_error("look at", path, error))?;
    let xattrs =
        xattr::read_replicated(&fd).map_err(|error| read_error("read attributes of", path, error))?;
    check_xattrs(&xattrs, || path.to_string())?;
    let size = before.stx_size;
    // Size and mtime of before the first read, also where they changed since: bytes that were read
    // too early never carry a label under which a later comparison would take them for good.
    let attributes = Attributes { mtime: timestamp(before.stx_mtime), ..attributes(&after) };
    sink.send(LaneItem::CloseContent { object, size, attributes, xattrs }, Bytes::new())?;
    CopyProgress::add(&progress.files_copied, 1);
    Ok(if is_same_content(&before, &after) { Sent::Whole } else { Sent::Changed })
}

fn is_same_content(before: &Statx, after: &Statx) -> bool {
    before.stx_size == after.stx_size
        && timestamp(before.stx_mtime) == timestamp(after.stx_mtime)
        && timestamp(before.stx_ctime) == timestamp(after.stx_ctime)
}

/// The data of a file from its beginning, in chunks, holes left out.
struct Data<'a> {
    fd: &'a OwnedFd,
    offset: u64,
    /// End of the extent that is being read; at `offset` the next one must be sought.
    end: u64,
    /// Nothing is read beyond: a file that grows as fast as it is read would have no end.
    size: u64,
    pool: &'a Pool,
}

impl Data<'_> {
    /// The next chunk with its offset; `None` at the end.
    fn next(&mut self) -> io::Result<Option<(u64, Bytes)>> {
        if self.offset >= self.end && !self.seek_extent()? {
            return Ok(None);
        }
        let want = (self.end - self.offset).min(CONTENT_CHUNK as u64) as usize;
        let mut buffer = self.pool.filled(want);
        let got = read_full(self.fd, buffer.as_mut(), self.offset)?;
        if got == 0 {
            // Cut shorter by an application.
            return Ok(None);
        }
        let offset = self.offset;
        self.offset += got as u64;
        Ok(Some((offset, Bytes::from_owner(buffer).slice(..got))))
    }

    fn seek_extent(&mut self) -> io::Result<bool> {
        if self.offset >= self.size {
            return Ok(false);
        }
        self.offset = match seek(self.fd, SeekFrom::Data(self.offset)) {
            Ok(offset) => offset,
            // No data up to the end.
            Err(Errno::NXIO) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        self.end = match seek(self.fd, SeekFrom::Hole(self.offset)) {
            Ok(end) => end.min(self.size),
            Err(Errno::NXIO) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        Ok(self.offset < self.end)
    }
}

/// Reads until the buffer is full or the file ends; gives the bytes read.
fn read_full(fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match pread(fd, &mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(got)
}
