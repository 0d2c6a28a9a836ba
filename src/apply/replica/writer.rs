//! Writing the bytes of files.
//!
//! Long writes leave nothing behind in the page cache (`RWF_DONTCACHE`, since Linux 6.14): nobody
//! reads a replica, so the memory stays with those who need it; and the disk starts at once,
//! instead of at the next durable point, which then has little left to wait for.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::io::{Errno, ReadWriteFlags};

use crate::limits::UNCACHED_WRITE_MIN;

/// `RWF_DONTCACHE` (`linux/fs.h`).
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// A part of a page that is written later would have to be read back first.
const PAGE: u64 = 4096;

/// Writes into the files of one file system.
#[derive(Clone, Default)]
pub(in crate::apply) struct Writer {
    /// The kernel or the file system has no such writes.
    cached_only: Arc<AtomicBool>,
}

impl Writer {
    /// Writes all the bytes.
    pub(in crate::apply) fn write_all_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let done = if self.is_long(bytes, offset) { self.write_uncached(file, bytes, offset)? } else { 0 };
        assert!(done <= bytes.len(), "{done} bytes are written of {}", bytes.len());
        file.write_all_at(&bytes[done..], offset + done as u64)
    }

    fn is_long(&self, bytes: &[u8], offset: u64) -> bool {
        let whole_pages = offset.is_multiple_of(PAGE) && (bytes.len() as u64).is_multiple_of(PAGE);
        bytes.len() >= UNCACHED_WRITE_MIN && whole_pages && !self.cached_only.load(Relaxed)
    }

    /// Answers how many bytes were written; the rest has to go the ordinary way.
    fn write_uncached(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match rustix::io::pwritev2(file, &[IoSlice::new(bytes)], offset, DONTCACHE) {
            Ok(count) => Ok(count),
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                self.cached_only.store(true, Relaxed);
                Ok(0)
            }
            Err(Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_writes_arrive_whole() {
        let file = tempfile::tempfile().unwrap();
        let writer = Writer::default();
        let bytes: Vec<u8> = (0..2 * UNCACHED_WRITE_MIN).map(|n| (n % 251) as u8).collect();
        let mut expected = Vec::new();
        let mut at = 0;
        for len in [UNCACHED_WRITE_MIN, 1, 2 * UNCACHED_WRITE_MIN, UNCACHED_WRITE_MIN - 1, 4096] {
            writer.write_all_at(&file, &bytes[..len], at).unwrap();
            expected.extend_from_slice(&bytes[..len]);
            at += len as u64;
        }
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found == expected && file.metadata().unwrap().len() == at);
    }

    /// Without the call the bytes still go, and it is not tried again.
    #[test]
    fn where_the_cache_cannot_be_avoided_it_is_used() {
        let writer = Writer::default();
        let bytes = vec![7; UNCACHED_WRITE_MIN];
        assert!(writer.is_long(&bytes, 4096) && !writer.is_long(&bytes, 1));
        // A pipe-like target refuses positions at all; a memory file has no such writes.
        let memory = File::from(rustix::fs::memfd_create("bytes", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        writer.write_all_at(&memory, &bytes, 4096).unwrap();
        assert_eq!(memory.metadata().unwrap().len(), 4096 + UNCACHED_WRITE_MIN as u64);
        assert!(writer.cached_only.load(Relaxed) && !writer.is_long(&bytes, 4096));
    }
}
