//! The content of one file: its data between its holes.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::looks::Counts;
use crate::limits::READ_AHEAD;
use crate::packet::ObjectId;
use crate::pool::Pool;
use crate::reads::{Reads, read_up_to};

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
    pool: &'a Pool,
    /// Bytes of a piece.
    chunk: usize,
    by: By<'a>,
}

/// How data is read.
pub(super) enum By<'a> {
    Pieces(Reads),
    /// With what follows.
    Stretches(&'a mut Ahead),
}

impl By<'_> {
    pub fn again(&mut self) -> By<'_> {
        match self {
            By::Pieces(reads) => By::Pieces(*reads),
            By::Stretches(ahead) => By::Stretches(ahead),
        }
    }
}

/// What was read of one file, and not asked for yet: all of it at once leaves the page cache as it was, in parts it
/// would be read from the disk more than once.
#[derive(Default)]
pub(super) struct Ahead {
    of: Option<ObjectId>,
    /// Changes of the file that had begun, and ended, before it was read.
    begun: u64,
    /// It was changed between two looks.
    is_busy: bool,
    bytes: Vec<u8>,
    /// Where in the file they lie, and how many they are.
    at: u64,
    len: usize,
}

impl Ahead {
    /// For a look at a file that is as `counts` say: what was read before is given if nothing has begun to change the
    /// file since. `None`: it is written now, and the less is read at once the better.
    pub fn for_look(&mut self, object: ObjectId, counts: Counts) -> Option<&mut Ahead> {
        if self.of != Some(object) {
            (self.of, self.is_busy, self.len) = (Some(object), false, 0);
        } else if counts.begun != self.begun {
            self.is_busy = true;
        }
        self.begun = counts.begun;
        (counts.is_calm() && !self.is_busy).then_some(self)
    }

    /// Gives how many bytes of a file that has data up to `end` were read from `at` on; 0: it is shorter by now.
    fn read(&mut self, fd: &OwnedFd, buffer: &mut [u8], at: u64, end: u64) -> io::Result<usize> {
        let held = self.at..self.at + self.len as u64;
        if !held.contains(&at) {
            let end = (at / READ_AHEAD + 1).saturating_mul(READ_AHEAD).min(end);
            let want = (end - at) as usize;
            if want <= buffer.len() {
                return read_up_to(fd, &mut buffer[..want], at, Reads::Passing);
            }
            if self.bytes.len() < want {
                self.bytes.resize(want, 0);
            }
            self.len = 0;
            match read_up_to(fd, &mut self.bytes[..want], at, Reads::Passing) {
                Ok(len) => (self.at, self.len) = (at, len),
                // Perhaps behind what is asked for.
                Err(_) => return read_up_to(fd, buffer, at, Reads::Passing),
            }
        }
        let held = &self.bytes[(at - self.at) as usize..self.len];
        let len = held.len().min(buffer.len());
        buffer[..len].copy_from_slice(&held[..len]);
        Ok(len)
    }
}

/// The next of a file; pieces follow each other without a gap, up to its size.
pub(super) enum Piece {
    /// So many bytes of hole, then bytes at an offset.
    Bytes { hole: u64, offset: u64, bytes: Bytes },
    /// So many bytes of hole, then the end.
    End { hole: u64 },
}

impl<'a> Data<'a> {
    /// What lies in a range, in pieces of so many bytes at most.
    pub fn of(fd: &'a OwnedFd, range: Range<u64>, (pool, chunk): (&'a Pool, usize), by: By<'a>) -> Data<'a> {
        let Range { start: offset, end } = range;
        Data { fd, offset, end: offset, size: end.max(offset), pool, chunk, by }
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
        let got = match &mut self.by {
            By::Pieces(reads) => read_up_to(self.fd, buffer.as_mut(), self.offset, *reads)?,
            By::Stretches(ahead) => ahead.read(self.fd, buffer.as_mut(), self.offset, self.end)?,
        };
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    const CHUNK: usize = READ_AHEAD as usize / 4;
    const LEN: usize = 3 * READ_AHEAD as usize + 77;

    fn file() -> (File, OwnedFd) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![b'a'; LEN], 0).unwrap();
        let fd = file.try_clone().unwrap().into();
        (file, fd)
    }

    fn counts(begun: u64, ended: u64) -> Counts {
        Counts { begun, ended }
    }

    fn piece(fd: &OwnedFd, from: u64, by: By<'_>) -> Bytes {
        match Data::of(fd, from..LEN as u64, (&Pool::new(), CHUNK), by).next().unwrap() {
            Piece::Bytes { hole: 0, offset, bytes } if offset == from => bytes,
            _ => panic!("no bytes at {from}"),
        }
    }

    fn by(ahead: Option<&mut Ahead>) -> By<'_> {
        By::Stretches(ahead.expect("nobody writes"))
    }

    /// An end in the middle of a stretch, and pieces that do not fit into one.
    #[test]
    fn a_file_in_stretches_is_the_file() {
        let (file, fd) = file();
        for at in (0..LEN).step_by(97) {
            file.write_all_at(&[at as u8], at as u64).unwrap();
        }
        let mut expected = vec![0; LEN];
        file.read_exact_at(&mut expected, 0).unwrap();
        for chunk in [100_001, CHUNK - 1, CHUNK, CHUNK + 1] {
            let (mut found, mut ahead, pool) = (Vec::new(), Ahead::default(), Pool::new());
            let by = By::Stretches(&mut ahead);
            let mut data = Data::of(&fd, 0..LEN as u64, (&pool, chunk), by);
            while let Piece::Bytes { hole: 0, offset, bytes } = data.next().unwrap() {
                assert_eq!(offset, found.len() as u64);
                found.extend_from_slice(&bytes);
            }
            assert!(found == expected, "in pieces of {chunk}");
        }
    }

    #[test]
    fn what_was_read_ahead_is_given_until_a_change_begins() {
        let (file, fd) = file();
        let object = ObjectId { inode: 1, ..ObjectId::default() };
        let mut ahead = Ahead::default();
        assert!(piece(&fd, 0, by(ahead.for_look(object, counts(5, 5)))).iter().all(|byte| *byte == b'a'));
        file.write_all_at(&vec![b'b'; LEN], 0).unwrap();
        let at = CHUNK as u64;
        assert_eq!(piece(&fd, at, by(ahead.for_look(object, counts(5, 5))))[0], b'a', "it is in hand");
        assert!(ahead.for_look(object, counts(6, 5)).is_none(), "a change is under way");
        assert!(ahead.for_look(object, counts(6, 6)).is_none(), "it is written");
        let other = ObjectId { inode: 2, ..object };
        assert_eq!(piece(&fd, at, by(ahead.for_look(other, counts(5, 5))))[0], b'b');
        // Begun before anything was read.
        assert!(ahead.for_look(object, counts(7, 6)).is_none());
        assert_eq!(piece(&fd, at, by(ahead.for_look(object, counts(7, 7))))[0], b'b');
    }
}
