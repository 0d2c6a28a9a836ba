//! The content of one file, as lane items: its data between its holes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use rustix::fs::{SeekFrom, Statx, seek};
use rustix::io::{Errno, pread};

use super::error::has_vanished;
use super::look::{attributes, stat, timestamp};
use super::walk::ListedFile;
use super::{CopyProgress, Gone, ItemSink};
use crate::limits::{CONTENT_CHUNK, XATTRS_INLINE_MAX};
use crate::packet::{Attributes, LaneItem, ObjectId};
use crate::pool::Pool;
use crate::sys::open_by_handle;
use crate::xattr;

/// Longest page of any processor that Linux runs on, in bytes.
const PAGE_MAX: u64 = 64 << 10;

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

/// Why an object could not be sent.
#[derive(Debug)]
pub(super) enum NotSent {
    Gone,
    /// It cannot be read: what could not be done, and why.
    Unreadable(&'static str, io::Error),
}

impl From<Gone> for NotSent {
    fn from(_: Gone) -> NotSent {
        NotSent::Gone
    }
}

fn unreadable(doing: &'static str) -> impl FnOnce(io::Error) -> NotSent {
    move |error| NotSent::Unreadable(doing, error)
}

/// What the target has of a file before its content comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OldCopy {
    None,
    /// Perhaps the only one that can still be read: the file is read once before it goes.
    Maybe,
}

/// Sends a file's content: [`LaneItem::OpenContent`], data, [`LaneItem::CloseContent`], and large
/// attributes behind it.
pub(super) fn send_file(
    mount: BorrowedFd<'_>,
    file: &ListedFile,
    old: OldCopy,
    sink: &mut impl ItemSink,
    pool: &Pool,
    progress: &CopyProgress,
) -> Result<Sent, NotSent> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOATIME;
    let fd = match open_by_handle(mount, &file.handle, flags) {
        Ok(fd) => fd,
        Err(error) if has_vanished(&error) => return Ok(Sent::Vanished),
        Err(error) => return Err(NotSent::Unreadable("open", error)),
    };
    let object = file.object;
    let before = stat(fd.as_fd()).map_err(unreadable("look at"))?;
    let size = before.stx_size;
    if old == OldCopy::Maybe {
        read_through(Data::new(&fd, size, pool)).map_err(unreadable("read"))?;
    }
    sink.send(LaneItem::OpenContent { object }, Bytes::new())?;
    let mut data = Data::new(&fd, size, pool);
    let hole = loop {
        match data.next().map_err(unreadable("read"))? {
            Piece::Bytes { hole, offset, bytes } => {
                CopyProgress::add(&progress.bytes_copied, bytes.len() as u64);
                sink.send(LaneItem::Content { object, hole, offset }, bytes)?;
            }
            Piece::End { hole } => break hole,
        }
    };
    let after = stat(fd.as_fd()).map_err(unreadable("look at"))?;
    let xattrs =
        xattr::read_replicated_up_to(&fd, XATTRS_INLINE_MAX).map_err(unreadable("read attributes of"))?;
    // Size and mtime of before the first read, also where they changed since: bytes that were read
    // too early never carry a label under which a later comparison would take them for good.
    let attributes = Attributes { mtime: timestamp(before.stx_mtime), ..attributes(&after) };
    let close = |attributes, xattrs| LaneItem::CloseContent { object, hole, size, attributes, xattrs };
    match xattrs {
        Some(xattrs) => _ = sink.send(close(attributes, xattrs), Bytes::new())?,
        None => {
            let private = Attributes { mode: attributes.mode & !0o077, ..attributes };
            sink.send(close(private, Vec::new()), Bytes::new())?;
            send_xattrs_of(fd.as_fd(), object, attributes, sink)?;
        }
    }
    CopyProgress::add(&progress.files_copied, 1);
    Ok(if is_same_content(&before, &after) && !data.was_cut { Sent::Whole } else { Sent::Changed })
}

/// Sends the attributes of an object that has more of them than a listing takes.
pub(super) fn send_xattrs(
    mount: BorrowedFd<'_>,
    listed: &ListedFile,
    sink: &mut impl ItemSink,
) -> Result<Sent, NotSent> {
    let fd = match open_by_handle(mount, &listed.handle, libc::O_PATH | libc::O_NOFOLLOW) {
        Ok(fd) => fd,
        Err(error) if has_vanished(&error) => return Ok(Sent::Vanished),
        Err(error) => return Err(NotSent::Unreadable("open", error)),
    };
    let attributes = attributes(&stat(fd.as_fd()).map_err(unreadable("look at"))?);
    send_xattrs_of(fd.as_fd(), listed.object, attributes, sink)?;
    Ok(Sent::Whole)
}

fn send_xattrs_of(
    fd: BorrowedFd<'_>,
    object: ObjectId,
    attributes: Attributes,
    sink: &mut impl ItemSink,
) -> Result<(), NotSent> {
    let reads = "read attributes of";
    let names = xattr::replicated_names(fd).map_err(unreadable(reads))?;
    sink.send(LaneItem::Xattrs { object, attributes, names: names.clone() }, Bytes::new())?;
    for name in names {
        // One that is gone by now was removed since it was listed.
        if let Some(value) = xattr::get(fd, &name.0).map_err(unreadable(reads))? {
            sink.send(LaneItem::Xattr { object, name }, Bytes::from(value))?;
        }
    }
    sink.send(LaneItem::Attributes { object, attributes }, Bytes::new())?;
    Ok(())
}

pub(super) fn read_through(mut data: Data<'_>) -> io::Result<()> {
    while let Piece::Bytes { .. } = data.next()? {}
    Ok(())
}

fn is_same_content(before: &Statx, after: &Statx) -> bool {
    before.stx_size == after.stx_size
        && timestamp(before.stx_mtime) == timestamp(after.stx_mtime)
        && timestamp(before.stx_ctime) == timestamp(after.stx_ctime)
}

/// The data of a file from its beginning, in chunks, holes left out.
///
/// The end of a file is its size and nothing else. Where data is, the kernel is asked, but never
/// where it ends: with blocks smaller than a page, `SEEK_HOLE` may name the very offset that
/// `SEEK_DATA` gave (unwritten extents with dirty pages).
pub(super) struct Data<'a> {
    fd: &'a OwnedFd,
    /// Everything before it was given, as bytes or as a hole.
    offset: u64,
    /// End of the extent that is being read; at `offset` the next one must be sought.
    end: u64,
    /// Nothing is read beyond: a file that grows as fast as it is read would have no end.
    size: u64,
    /// An application cut it shorter while it was read: what is missing was given as a hole.
    was_cut: bool,
    pool: &'a Pool,
    /// Bytes of a piece.
    chunk: usize,
}

/// The next of a file; pieces follow each other without a gap, up to its size.
pub(super) enum Piece {
    /// So many bytes of hole, then bytes at an offset.
    Bytes { hole: u64, offset: u64, bytes: Bytes },
    /// So many bytes of hole, then the end.
    End { hole: u64 },
}

impl<'a> Data<'a> {
    pub fn new(fd: &'a OwnedFd, size: u64, pool: &'a Pool) -> Data<'a> {
        Data::from(fd, 0, size, pool, CONTENT_CHUNK)
    }

    /// What comes from an offset on, in pieces of so many bytes at most.
    pub fn from(fd: &'a OwnedFd, offset: u64, size: u64, pool: &'a Pool, chunk: usize) -> Data<'a> {
        Data { fd, offset, end: offset, size: size.max(offset), was_cut: false, pool, chunk }
    }

    pub fn next(&mut self) -> io::Result<Piece> {
        let reached = self.offset;
        if self.offset >= self.end {
            self.seek_extent()?;
        }
        let want = (self.end - self.offset).min(self.chunk as u64) as usize;
        if want == 0 {
            return Ok(Piece::End { hole: self.size - reached });
        }
        let mut buffer = self.pool.filled(want);
        let got = read_full(self.fd, buffer.as_mut(), self.offset)?;
        self.was_cut |= got < want;
        if got == 0 {
            (self.offset, self.end) = (self.size, self.size);
            return Ok(Piece::End { hole: self.size - reached });
        }
        let offset = self.offset;
        assert!(
            reached <= offset && offset + got as u64 <= self.size,
            "content goes back, or beyond its end"
        );
        self.offset += got as u64;
        Ok(Piece::Bytes { hole: offset - reached, offset, bytes: Bytes::from_owner(buffer).slice(..got) })
    }

    /// Steps over a hole, if one is here, to the next data: `offset..end`, empty only at the end.
    fn seek_extent(&mut self) -> io::Result<()> {
        let found = match seek(self.fd, SeekFrom::Data(self.offset)) {
            Ok(found) => found.clamp(self.offset, self.size),
            // No data up to the end.
            Err(Errno::NXIO) => self.size,
            // It does not know: everything is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => self.offset,
            Err(error) => return Err(error.into()),
        };
        let end = match seek(self.fd, SeekFrom::Hole(found)) {
            Ok(end) if end > found => end,
            // There is data; nobody says how far: as far as the longest page.
            Ok(_) => (found / PAGE_MAX + 1) * PAGE_MAX,
            // Cut shorter meanwhile: reading it says so.
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => self.size,
            Err(error) => return Err(error.into()),
        };
        assert!(self.offset <= found && found <= self.size, "data is looked for before what was sent");
        (self.offset, self.end) = (found, end.min(self.size));
        Ok(())
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
