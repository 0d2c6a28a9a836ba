//! Reads of content that leave the page cache as it was (`RWF_DONTCACHE`, since Linux 6.14).

use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;

use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};

/// `RWF_DONTCACHE` (`linux/fs.h`).
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// How pages are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// What was not in memory is not afterwards.
    Passing,
    /// It is read again soon.
    Cached,
}

/// Reads until the buffer is full or the file ends, from an offset in bytes on; gives the bytes read.
///
/// Errors: those of `pread(2)`.
pub fn read_up_to(fd: impl AsFd, buffer: &mut [u8], at: u64, reads: Reads) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match read_some(&fd, &mut buffer[got..], at + got as u64, reads) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(got)
}

fn read_some(fd: impl AsFd, buffer: &mut [u8], at: u64, reads: Reads) -> rustix::io::Result<usize> {
    if reads == Reads::Passing {
        match preadv2(&fd, &mut [IoSliceMut::new(buffer)], at, DONTCACHE) {
            // The kernel or the file system has no such reads.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {}
            done => return done,
        }
    }
    pread(fd, buffer, at)
}
