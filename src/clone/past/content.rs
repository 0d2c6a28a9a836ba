//! The content of a file as of the barrier.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use super::{Child, Differing, Past};
use crate::clone::limits::CHUNK;
use crate::clone::preserved::hex;
use crate::privileges::by_handle;
use crate::reads::{Reads, read_up_to};
use crate::sys::FileHandle;

/// A file to be read as of the barrier, from its begin to its end.
pub struct Content {
    handle: FileHandle,
    size: u64,
    /// What is in it now, below what was preserved.
    now: Option<File>,
    at: u64,
}

impl Content {
    pub fn of(object: &Differing) -> io::Result<Content> {
        Self::of_file(object.handle, object.looks.size, object.file.as_ref())
    }

    pub(super) fn of_child(child: &Child, size: u64) -> io::Result<Content> {
        Self::of_file(child.handle, size, child.file.as_ref())
    }

    fn of_file(handle: FileHandle, size: u64, file: Option<&File>) -> io::Result<Content> {
        let now = file.map(|file| by_handle::reopen_to_read(file.as_fd())).transpose()?;
        Ok(Content { handle, size, now, at: 0 })
    }

    /// The next bytes of it, and where they begin; `None` at its end.
    ///
    /// Errors: the system's; `NotFound` where somebody else than the daemon has removed it, with what was not preserved.
    pub fn next(&mut self, past: &mut Past) -> io::Result<Option<(u64, Vec<u8>)>> {
        let at = self.at;
        if at >= self.size {
            return Ok(None);
        }
        let mut bytes = vec![0; (self.size - at).min(CHUNK) as usize];
        if let Some(now) = &self.now {
            read_up_to(now, &mut bytes, at, Reads::Passing)?;
        }
        // Afterwards: what was changed while it was read had been preserved before.
        past.read_on()?;
        let preserved = past.overlay(&self.handle, at, &mut bytes)?;
        if self.now.is_none() && preserved < bytes.len() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "somebody else than standin has removed a file",
            ));
        }
        self.at += bytes.len() as u64;
        Ok(Some((at, bytes)))
    }
}

impl Past {
    /// Gives the parts of a file's bytes what was preserved of them; answers of how many.
    fn overlay(&self, handle: &FileHandle, at: u64, bytes: &mut [u8]) -> io::Result<u64> {
        let Some(ranges) = self.content.get(handle) else { return Ok(0) };
        let mut preserved = 0;
        let end = at + bytes.len() as u64;
        let blocks = self.blocks_of(handle)?;
        for (&from, &to) in ranges.range(..end).filter(|(_, to)| **to > at) {
            let (from, to) = (from.max(at), to.min(end));
            let part = &mut bytes[(from - at) as usize..(to - at) as usize];
            preserved += part.len() as u64;
            part.fill(0);
            if let Some(blocks) = &blocks {
                read_up_to(blocks, part, from, Reads::Cached)?;
            }
        }
        Ok(preserved)
    }

    /// Where the bytes of a file lie that were preserved; `None`: they are all zeros.
    pub(super) fn blocks_of(&self, handle: &FileHandle) -> io::Result<Option<File>> {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.blocks, &*hex(handle), flags, Mode::empty()) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
