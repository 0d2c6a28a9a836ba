//! The log of what was preserved: a record is in it before the change that it is about.
//!
//! ```text
//!  "standin clone 1\n" | record | record | ...      record: length u32, crc32c u32, bytes
//! ```
//! It lies in the page cache: a killed process loses nothing, a power loss whatever was not written back, so
//! that it counts in the same boot alone. A torn last record is of a change that was not made.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::limits::RECORD_LEN_MAX;
use super::looks::Looks;
use crate::sys::FileHandle;

pub(super) const HEAD: &[u8] = b"standin clone 1\n";
const FRAME: usize = 8;

/// One thing that was preserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// What a name held.
    Name {
        dir: FileHandle,
        name: Box<[u8]>,
        held: Option<FileHandle>,
    },
    Looks {
        object: FileHandle,
        looks: Looks,
    },
    /// A range of content lies in the area, or is a hole.
    Content {
        object: FileHandle,
        from: u64,
        to: u64,
    },
    /// It was made after the barrier.
    Born {
        object: FileHandle,
    },
}

/// See the module.
pub(super) struct Log {
    file: File,
    len: u64,
}

impl Log {
    pub(super) fn create(path: &Path) -> io::Result<Log> {
        let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(HEAD)?;
        Ok(Log { file, len: HEAD.len() as u64 })
    }

    /// Opens what an older process has written, and gives it to `each`; what is torn at its end is cut off.
    ///
    /// Errors: the system's; `InvalidData` where it is no such log, or damaged.
    pub(super) fn open(path: &Path, mut each: impl FnMut(Record)) -> io::Result<Log> {
        let bytes = std::fs::read(path)?;
        let mut rest = bytes.strip_prefix(HEAD).ok_or(io::ErrorKind::InvalidData)?;
        while let Some((record, behind)) = next(rest)? {
            each(record);
            rest = behind;
        }
        let len = (bytes.len() - rest.len()) as u64;
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(len)?;
        Ok(Log { file, len })
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Errors: part of it may be there; nothing is to follow.
    pub(super) fn add(&mut self, record: &Record) -> io::Result<()> {
        let body = encode(record);
        if body.len() > RECORD_LEN_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut framed = Vec::with_capacity(FRAME + body.len());
        framed.extend_from_slice(&(body.len() as u32).to_le_bytes());
        framed.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        framed.extend_from_slice(&body);
        self.file.write_all(&framed)?;
        self.len += framed.len() as u64;
        Ok(())
    }
}

/// The first record, and what is behind it; `None` where it was never written whole.
///
/// Errors: it was, and is damaged.
pub(super) fn next(bytes: &[u8]) -> io::Result<Option<(Record, &[u8])>> {
    let Some((frame, rest)) = bytes.split_at_checked(FRAME) else { return Ok(None) };
    let word = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().expect("4 bytes"));
    let len = word(0) as usize;
    if len > RECORD_LEN_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let Some((body, behind)) = rest.split_at_checked(len) else { return Ok(None) };
    let record = Some(body).filter(|body| crc32c::crc32c(body) == word(4)).and_then(decode);
    let record = record.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((record, behind)))
}

fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    match record {
        Record::Name { dir, name, held } => {
            out.push(1);
            put_handle(&mut out, dir);
            put_bytes(&mut out, name);
            out.push(u8::from(held.is_some()));
            held.iter().for_each(|held| put_handle(&mut out, held));
        }
        Record::Looks { object, looks } => {
            out.push(2);
            put_handle(&mut out, object);
            put_looks(&mut out, looks);
        }
        Record::Content { object, from, to } => {
            out.push(3);
            put_handle(&mut out, object);
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&to.to_le_bytes());
        }
        Record::Born { object } => {
            out.push(4);
            put_handle(&mut out, object);
        }
    }
    out
}

fn put_looks(out: &mut Vec<u8>, looks: &Looks) {
    let Looks { mode, uid, gid, size, mtime, links, device, xattrs } = looks;
    [*mode, *uid, *gid, mtime.1].iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    out.extend_from_slice(&mtime.0.to_le_bytes());
    [*size, *links, *device].iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    out.extend_from_slice(&(xattrs.len() as u32).to_le_bytes());
    for (name, value) in xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn put_handle(out: &mut Vec<u8>, handle: &FileHandle) {
    out.extend_from_slice(&handle.kind().to_le_bytes());
    out.push(handle.as_bytes().len() as u8);
    out.extend_from_slice(handle.as_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn decode(body: &[u8]) -> Option<Record> {
    let mut rest = Rest(body);
    let record = match rest.byte()? {
        1 => Record::Name {
            dir: rest.handle()?,
            name: rest.bytes()?.into(),
            held: match rest.byte()? {
                0 => None,
                _ => Some(rest.handle()?),
            },
        },
        2 => Record::Looks { object: rest.handle()?, looks: rest.looks()? },
        3 => Record::Content { object: rest.handle()?, from: rest.u64()?, to: rest.u64()? },
        4 => Record::Born { object: rest.handle()? },
        _ => return None,
    };
    rest.0.is_empty().then_some(record)
}

/// What is left of a record.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    fn handle(&mut self) -> Option<FileHandle> {
        let (kind, len) = (self.u32()? as i32, self.byte()? as usize);
        FileHandle::from_parts(kind, self.take(len)?)
    }

    fn looks(&mut self) -> Option<Looks> {
        let (mode, uid, gid, nanoseconds) = (self.u32()?, self.u32()?, self.u32()?, self.u32()?);
        let mtime = (self.u64()? as i64, nanoseconds);
        let (size, links, device, count) = (self.u64()?, self.u64()?, self.u64()?, self.u32()?);
        let mut xattrs = Vec::new();
        for _ in 0..count {
            xattrs.push((self.bytes()?.to_vec(), self.bytes()?.to_vec()));
        }
        Some(Looks { mode, uid, gid, size, mtime, links, device, xattrs })
    }
}
