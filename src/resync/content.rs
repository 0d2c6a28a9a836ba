//! The content of one file: its data between its holes.

use std::io;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::fs::{SeekFrom, seek};
use rustix::io::{Errno, pread};

use crate::limits::CONTENT_CHUNK;
use crate::pool::Pool;

/// Longest page of any processor that Linux runs on, in bytes.
const PAGE_MAX: u64 = 64 << 10;

/// What the target has of a file before its content comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OldCopy {
    None,
    /// Perhaps the only one that can still be read: the file is read once before it goes.
    Maybe,
}

pub(super) fn read_through(mut data: Data<'_>) -> io::Result<()> {
    while let Piece::Bytes { .. } = data.next()? {}
    Ok(())
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
