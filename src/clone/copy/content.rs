//! The content of a file as of the barrier: what is in it now, below what was preserved.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::{Stopped, failed};
use crate::clone::limits::{CHUNK, LOOK_AT_ROOM_EVERY};
use crate::clone::planted::{self, Planted};
use crate::clone::room::must_be_free;
use crate::clone::session::Session;
use crate::reads::{Reads, read_up_to};
use crate::sys::{FileHandle, share_range};

/// Copies a file of so many bytes as of the barrier.
pub(super) fn copy(
    session: &Session,
    handle: &FileHandle,
    from: &File,
    into: &File,
    size: u64,
) -> Result<(), Stopped> {
    copy_now(session, from, into, size)?;
    // Afterwards: what was changed while it was copied had been preserved before.
    let (ranges, blocks) = session.content_of(handle)?;
    for (start, end) in ranges {
        overlay(blocks.as_ref(), into, (start, end))
            .map_err(failed("what was preserved cannot be copied"))?;
    }
    if planted::is(Planted::AboveTheOldSize) {
        return Ok(());
    }
    rustix::fs::ftruncate(into, size).map_err(failed("a file cannot be given its size"))
}

fn copy_now(session: &Session, from: &File, into: &File, size: u64) -> Result<(), Stopped> {
    let mut buffer = Vec::new();
    let (mut at, mut shares) = (0, true);
    must_be_free(into).map_err(failed("there is no room for the copy"))?;
    let mut unlooked = 0;
    while at < size {
        if session.stops.load(Relaxed) {
            return Err(Stopped::Told);
        }
        match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => at = data,
            // A hole up to the end, or it is shorter by now.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(failed("a file cannot be read")(error)),
        }
        if unlooked >= LOOK_AT_ROOM_EVERY {
            unlooked = 0;
            must_be_free(into).map_err(failed("there is no room for the copy"))?;
        }
        let hole = rustix::fs::seek(from, SeekFrom::Hole(at)).unwrap_or(u64::MAX);
        let end = hole.min(size).min(at / CHUNK * CHUNK + CHUNK);
        if end <= at {
            // It has changed in between: what there was is preserved.
            at = at.saturating_add(1).max(end);
            continue;
        }
        shares = shares && share(from, into, (at, end));
        if !shares {
            let len = (end - at) as usize;
            buffer.resize(len, 0);
            let read = read_up_to(from, &mut buffer, at, Reads::Passing);
            let read = read.map_err(failed("a file cannot be read"))?;
            into.write_all_at(&buffer[..read], at).map_err(failed("a file cannot be written"))?;
        }
        session.bytes.fetch_add(end - at, Relaxed);
        unlooked += if shares { 0 } else { end - at };
        at = end;
    }
    Ok(())
}

/// Whether the file system lets both have the same blocks.
fn share(from: &File, into: &File, (start, end): (u64, u64)) -> bool {
    share_range(from.as_fd(), into.as_fd(), start, end - start).is_ok()
}

/// Gives a range what was preserved of it.
fn overlay(blocks: Option<&File>, into: &File, (start, end): (u64, u64)) -> io::Result<()> {
    let end = end.min(i64::MAX as u64);
    clear(into, (start, end))?;
    let Some(blocks) = blocks else { return Ok(()) };
    let (mut at, mut buffer) = (start, vec![0; CHUNK as usize]);
    while at < end {
        match rustix::fs::seek(blocks, SeekFrom::Data(at)) {
            Ok(data) => at = data,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        }
        let hole = rustix::fs::seek(blocks, SeekFrom::Hole(at))?;
        let len = hole.min(end).saturating_sub(at).min(CHUNK) as usize;
        if len == 0 {
            break;
        }
        let read = read_up_to(blocks, &mut buffer[..len], at, Reads::Cached)?;
        into.write_all_at(&buffer[..read], at)?;
        at += len as u64;
    }
    Ok(())
}

/// A range becomes a hole, as far as there is anything.
fn clear(into: &File, (start, end): (u64, u64)) -> io::Result<()> {
    let end = end.min(into.metadata()?.len());
    if start >= end {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(into, flags, start, end - start) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = vec![0; CHUNK as usize];
            let mut at = start;
            while at < end {
                let len = (end - at).min(CHUNK) as usize;
                into.write_all_at(&zeros[..len], at)?;
                at += len as u64;
            }
            Ok(())
        }
        done => Ok(done?),
    }
}
