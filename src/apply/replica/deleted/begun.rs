//! A copy of what is kept that was put in its place, while the name that it is a copy of has not gone: who is killed
//! there finds it again, and keeps it once. `LIMBO/keeping-at`, as long as it is wanted:
//!
//! ```text
//!  the copy is made ── it is noted what it is a copy of, and where it will be ── it is there ── the name goes ── no note
//! ```
//! Both survive the death of the process, and neither a power loss: after that one more is kept.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::apply::replica::by_handle;
use crate::packet::Name;
use crate::sys::FileHandle;

const NOTE: &str = "keeping-at";
/// Two handles and a name.
const NOTE_LEN_MAX: u64 = 512;

/// What is a copy of an object, or is about to be.
pub(super) struct Begun {
    pub(super) of: FileHandle,
    dir: FileHandle,
    name: Name,
}

impl Begun {
    /// `name`: in this directory.
    pub(super) fn new(of: FileHandle, dir: &File, name: &[u8]) -> io::Result<Begun> {
        let name = Name::new(name).map_err(|_| Errno::INVAL)?;
        Ok(Begun { of, dir: FileHandle::of(dir.as_fd())?, name })
    }

    pub(super) fn note(&self, limbo: &File) -> io::Result<()> {
        let handle = |handle: &FileHandle| {
            let bytes = handle.as_bytes();
            [&handle.kind().to_le_bytes(), &[bytes.len() as u8][..], bytes].concat()
        };
        let note = [&handle(&self.of)[..], &handle(&self.dir), self.name.as_bytes()].concat();
        open(limbo, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?.write_all(&note)
    }

    /// What a process before this one has noted. `None`: nothing, or not all of it.
    pub(super) fn noted(limbo: &File) -> io::Result<Option<Begun>> {
        let mut note = Vec::new();
        match open(limbo, OFlags::RDONLY) {
            Ok(file) => file.take(NOTE_LEN_MAX).read_to_end(&mut note)?,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(decode(&note))
    }

    /// The directory and the name that were noted; `None` where they are gone.
    pub(super) fn place(&self, limbo: &File) -> Option<(File, Name)> {
        let dir = by_handle::open(limbo, &self.dir, libc::O_RDONLY | libc::O_DIRECTORY).ok()?;
        Some((File::from(dir), self.name.clone()))
    }
}

/// There is nothing to be found again.
pub(super) fn forget(limbo: &File) -> io::Result<()> {
    match rustix::fs::unlinkat(limbo, NOTE, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn decode(note: &[u8]) -> Option<Begun> {
    let (of, rest) = decode_handle(note)?;
    let (dir, name) = decode_handle(rest)?;
    Some(Begun { of, dir, name: Name::new(name).ok()? })
}

fn decode_handle(bytes: &[u8]) -> Option<(FileHandle, &[u8])> {
    let (kind, rest) = bytes.split_first_chunk::<4>()?;
    let (&len, rest) = rest.split_first()?;
    let (bytes, rest) = rest.split_at_checked(len.into())?;
    Some((FileHandle::from_parts(i32::from_le_bytes(*kind), bytes)?, rest))
}

fn open(limbo: &File, flags: OFlags) -> Result<File, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(limbo, NOTE, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}
