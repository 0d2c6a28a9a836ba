//! What one session has preserved: in memory, in its log, and in its area. First come, first kept: what is
//! known of a thing is what it was as of the barrier, and is never replaced.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::limits::{BLOCK, CHUNK, LOOK_AT_ROOM_EVERY, REMEMBERED_MAX};
use super::looks::Looks;
use super::planted::{self, Planted};
use super::records::{Log, Record};
use super::room::must_be_free;
use crate::privileges::by_handle;
use crate::reads::{Reads, read_up_to};
use crate::sys::FileHandle;

/// Why a session cannot go on.
pub(super) type Broken = String;

/// A name, and what it held.
pub(super) type NameHeld = (Box<[u8]>, FileHandle);

/// Parts of a file: the first byte, and the one behind the last.
pub(super) type Ranges = Vec<(u64, u64)>;

/// Part of the area in which blocks of files lie, each at its place in a sparse file.
pub(super) const BLOCKS: &str = "blocks";
/// Part of the area in which objects wait that have no other name.
pub(super) const KEPT: &str = "kept";

/// See the module.
pub(super) struct Preserved {
    names: HashMap<FileHandle, HashMap<Box<[u8]>, Option<FileHandle>>>,
    looks: HashMap<FileHandle, Arc<Looks>>,
    /// Ranges of content, in whole blocks: first byte, and the one behind the last.
    content: HashMap<FileHandle, BTreeMap<u64, u64>>,
    born: HashSet<FileHandle>,
    remembered: usize,
    log: Log,
    blocks: File,
    kept: File,
    /// The file whose blocks were kept last.
    open: Option<(FileHandle, File)>,
    /// Bytes of the disk that blocks and kept objects take.
    room: u64,
    room_max: Option<u64>,
    /// Preserved since the free room was looked at.
    unlooked: u64,
}

impl Preserved {
    /// Nothing yet. `area`: an empty directory on the file system of the replica.
    pub(super) fn create(log: &Path, area: &File, room_max: Option<u64>) -> io::Result<Preserved> {
        for part in [BLOCKS, KEPT] {
            rustix::fs::mkdirat(area, part, Mode::RWXU)?;
        }
        Self::with(Log::create(log)?, area, room_max)
    }

    /// All that an older process of this boot has preserved.
    pub(super) fn open(log: &Path, area: &File, room_max: Option<u64>) -> io::Result<Preserved> {
        let mut records = Vec::new();
        let log = Log::open(log, |record| records.push(record))?;
        let mut preserved = Self::with(log, area, room_max)?;
        if planted::is(Planted::ForgetsAtRestart) {
            return Ok(preserved);
        }
        records.into_iter().for_each(|record| preserved.remember(record));
        preserved.room = room_of(&preserved.blocks)?.saturating_add(room_of(&preserved.kept)?);
        Ok(preserved)
    }

    fn with(log: Log, area: &File, room_max: Option<u64>) -> io::Result<Preserved> {
        Ok(Preserved {
            names: HashMap::new(),
            looks: HashMap::new(),
            content: HashMap::new(),
            born: HashSet::new(),
            remembered: 0,
            log,
            blocks: open_directory(area, BLOCKS)?,
            kept: open_directory(area, KEPT)?,
            open: None,
            room: 0,
            room_max,
            unlooked: LOOK_AT_ROOM_EVERY,
        })
    }

    fn remember(&mut self, record: Record) {
        self.remembered += 1;
        match record {
            Record::Name { dir, name, held } => {
                let names = self.names.entry(dir).or_default();
                if planted::is(Planted::NameTwice) {
                    names.insert(name, held);
                } else {
                    names.entry(name).or_insert(held);
                }
            }
            Record::Looks { object, looks } => _ = self.looks.entry(object).or_insert_with(|| looks.into()),
            Record::Content { object, from, to } => insert(self.content.entry(object).or_default(), from, to),
            Record::Born { object } => _ = self.born.insert(object),
        }
    }

    fn add(&mut self, record: Record) -> Result<(), Broken> {
        if self.remembered >= REMEMBERED_MAX {
            return Err(format!("more than {REMEMBERED_MAX} things have changed since its barrier"));
        }
        self.log.add(&record).map_err(|error| format!("what is preserved cannot be noted: {error}"))?;
        self.remember(record);
        Ok(())
    }

    /// Room that it takes, in bytes.
    pub(super) fn room(&self) -> u64 {
        self.room + self.log.len()
    }

    // ---- before a change ----

    /// An object was just made.
    pub(super) fn born(&mut self, object: FileHandle) -> Result<(), Broken> {
        if self.born.contains(&object) { Ok(()) } else { self.add(Record::Born { object }) }
    }

    /// What a name holds is about to change.
    pub(super) fn name(
        &mut self,
        dir: (FileHandle, BorrowedFd<'_>),
        name: &[u8],
        held: Option<(FileHandle, BorrowedFd<'_>)>,
    ) -> Result<(), Broken> {
        if let Some((object, fd)) = held {
            self.attributes(object, fd)?;
        }
        if self.born.contains(&dir.0) {
            return Ok(());
        }
        self.attributes(dir.0, dir.1)?;
        let is_known = self.names.get(&dir.0).is_some_and(|names| names.contains_key(name));
        if is_known && !planted::is(Planted::NameTwice) {
            return Ok(());
        }
        let held = held.map(|(handle, _)| handle).filter(|handle| !self.born.contains(handle));
        self.add(Record::Name { dir: dir.0, name: name.into(), held })
    }

    /// Owner, mode, times, size, links or extended attributes of an object are about to change.
    pub(super) fn attributes(&mut self, object: FileHandle, fd: BorrowedFd<'_>) -> Result<(), Broken> {
        if self.looks.contains_key(&object) || self.born.contains(&object) {
            return Ok(());
        }
        let looks = Looks::of(fd).map_err(|error| format!("attributes cannot be read: {error}"))?;
        self.add(Record::Looks { object, looks })
    }

    /// Bytes of a file are about to change; `to` may lie behind its end.
    pub(super) fn content(
        &mut self,
        object: FileHandle,
        file: &File,
        (from, to): (u64, u64),
    ) -> Result<(), Broken> {
        self.attributes(object, file.as_fd())?;
        let Some(looks) = self.looks.get(&object) else { return Ok(()) };
        let end = if planted::is(Planted::AboveTheOldSize) { u64::MAX / 2 } else { looks.size };
        let from = from / BLOCK * BLOCK;
        let to = to.min(end).div_ceil(BLOCK).saturating_mul(BLOCK);
        let missing = match self.content.get(&object) {
            Some(known) => missing(known, from, to),
            None if from < to => vec![(from, to)],
            None => Vec::new(),
        };
        for (from, to) in missing {
            self.keep_range(object, file, (from, to))
                .map_err(|error| format!("content cannot be preserved: {error}"))?;
            self.add(Record::Content { object, from, to })?;
        }
        Ok(())
    }

    /// Copies a range into the area; what is a hole, or zeros, stays a hole there.
    fn keep_range(&mut self, object: FileHandle, file: &File, (mut at, to): (u64, u64)) -> io::Result<()> {
        let to = to.min(file.metadata()?.len());
        let mut buffer = vec![0; (to.saturating_sub(at)).min(CHUNK) as usize];
        while at < to {
            if to - at > BLOCK {
                match rustix::fs::seek(file, SeekFrom::Data(at)) {
                    Ok(data) => at = at.max(data / BLOCK * BLOCK),
                    // Nothing but a hole from here on.
                    Err(Errno::NXIO) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            let len = (to.saturating_sub(at)).min(CHUNK) as usize;
            let read = read_up_to(file, &mut buffer[..len], at, Reads::Cached)?;
            self.keep_bytes(object, &buffer[..read], at)?;
            if read < len {
                break;
            }
            at += len as u64;
        }
        Ok(())
    }

    fn keep_bytes(&mut self, object: FileHandle, bytes: &[u8], at: u64) -> io::Result<()> {
        for (index, run) in runs_of_data(bytes) {
            self.take_room(run.len() as u64)?;
            self.blocks_of(object)?.write_all_at(run, at + index as u64)?;
        }
        Ok(())
    }

    fn blocks_of(&mut self, object: FileHandle) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != object) {
            let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let file = rustix::fs::openat(&self.blocks, &*hex(&object), flags, mode)?;
            self.open = Some((object, File::from(file)));
        }
        let (_, file) = self.open.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }

    fn take_room(&mut self, bytes: u64) -> io::Result<()> {
        self.room += bytes;
        self.unlooked += bytes;
        if self.room_max.is_some_and(|max| self.room() > max) {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "its area is at its limit"));
        }
        if self.unlooked >= LOOK_AT_ROOM_EVERY {
            self.unlooked = 0;
            must_be_free(&self.blocks)?;
        }
        Ok(())
    }

    /// Whether an object that is about to lose its last name is of the barrier, and not kept yet.
    pub(super) fn wants(&self, object: &FileHandle) -> bool {
        !self.born.contains(object)
    }

    pub(super) fn keeps(&self, object: &FileHandle) -> io::Result<bool> {
        match rustix::fs::statat(&self.kept, &*hex(object), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives an object that loses its last name one in the area.
    pub(super) fn keep(&mut self, object: FileHandle, fd: &File) -> Result<(), Broken> {
        if planted::is(Planted::LastNameIsLost) {
            return Ok(());
        }
        let name = std::ffi::CString::new(hex(&object)).expect("digits have no NUL");
        match by_handle::link(fd, self.kept.as_fd(), &name) {
            Ok(()) => {
                let blocks = rustix::fs::fstat(fd).map_or(0, |stat| stat.st_blocks);
                self.take_room(u64::try_from(blocks).unwrap_or_default().saturating_mul(512))
                    .map_err(|error| format!("what was removed cannot be kept: {error}"))
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::EXIST) => Ok(()),
                // It cannot lose its name either (immutable), or the copy will miss it and say so.
                Some(Errno::PERM | Errno::MLINK) => Ok(()),
                _ => Err(format!("what was removed cannot be kept: {error}")),
            },
        }
    }

    /// It is gone: nothing of it has to be known.
    pub(super) fn forget_born(&mut self, object: &FileHandle) {
        self.born.remove(object);
    }

    // ---- for the copy ----

    /// What a name held; `None` where nothing was noted of it.
    pub(super) fn held(&self, dir: &FileHandle, name: &[u8]) -> Option<Option<FileHandle>> {
        self.names.get(dir)?.get(name).copied()
    }

    /// All names of a directory of which something was noted, and that held something.
    pub(super) fn names_held(&self, dir: &FileHandle) -> Vec<NameHeld> {
        let names = self.names.get(dir).into_iter().flatten();
        names.filter_map(|(name, held)| Some((name.clone(), (*held)?))).collect()
    }

    pub(super) fn looks_of(&self, object: &FileHandle) -> Option<Arc<Looks>> {
        self.looks.get(object).cloned()
    }

    /// Ranges of a file's content, and where the bytes of them lie; `None`: all of it is holes.
    pub(super) fn content_of(&self, object: &FileHandle) -> io::Result<(Ranges, Option<File>)> {
        let Some(ranges) = self.content.get(object) else { return Ok((Vec::new(), None)) };
        let ranges = ranges.iter().map(|(from, to)| (*from, *to)).collect();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.blocks, &*hex(object), flags, Mode::empty()) {
            Ok(file) => Ok((ranges, Some(File::from(file)))),
            Err(Errno::NOENT) => Ok((ranges, None)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Runs of whole blocks that are not all zeros, and where they begin.
fn runs_of_data(bytes: &[u8]) -> Vec<(usize, &[u8])> {
    let is_data = |block: &[u8]| block.iter().any(|byte| *byte != 0);
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (index, block) in bytes.chunks(BLOCK as usize).enumerate() {
        let at = index * BLOCK as usize;
        if !is_data(block) {
            continue;
        }
        match runs.last_mut() {
            Some((_, end)) if *end == at => *end = at + block.len(),
            _ => runs.push((at, at + block.len())),
        }
    }
    runs.into_iter().map(|(from, to)| (from, &bytes[from..to])).collect()
}

/// Parts of a range that are in none of these.
fn missing(known: &BTreeMap<u64, u64>, from: u64, to: u64) -> Vec<(u64, u64)> {
    let (mut at, mut missing) = (from, Vec::new());
    let before = known.range(..=from).next_back();
    let within = known.range(from.saturating_add(1)..to.max(from.saturating_add(1)));
    for (&start, &end) in before.into_iter().chain(within) {
        if start > at {
            missing.push((at, start));
        }
        at = at.max(end);
    }
    if at < to {
        missing.push((at, to));
    }
    missing
}

/// Adds a range, which overlaps none; neighbours become one.
pub(super) fn insert(known: &mut BTreeMap<u64, u64>, mut from: u64, mut to: u64) {
    if let Some((&start, &end)) = known.range(..=from).next_back()
        && end >= from
    {
        (from, to) = (start, to.max(end));
        known.remove(&start);
    }
    while let Some((&start, &end)) = known.range(from..).next()
        && start <= to
    {
        to = to.max(end);
        known.remove(&start);
    }
    known.insert(from, to);
}

/// Bytes of the disk that the files of a directory take.
fn room_of(dir: &File) -> io::Result<u64> {
    let mut room = 0_u64;
    for entry in rustix::fs::Dir::read_from(dir)? {
        let stat = rustix::fs::statat(dir, entry?.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            room = room.saturating_add(u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512));
        }
    }
    Ok(room)
}

/// Name of what belongs to an object, in the area.
pub(super) fn hex(handle: &FileHandle) -> String {
    let bytes: String = handle.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{:x}-{bytes}", handle.kind())
}

pub(super) fn open_directory(parent: &File, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?))
}

/// Whether an object is one that a link keeps.
pub(super) fn is_linked(mode: u32) -> bool {
    FileType::from_raw_mode(mode) != FileType::Directory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_kept_once() {
        let mut known = BTreeMap::new();
        type Case<'a> = (u64, u64, &'a [(u64, u64)]);
        let table: [Case<'_>; 6] = [
            (10, 20, &[(10, 20)]),
            (12, 18, &[]),
            (0, 30, &[(0, 10), (20, 30)]),
            (40, 50, &[(40, 50)]),
            (25, 60, &[(30, 40), (50, 60)]),
            (60, 60, &[]),
        ];
        for (from, to, expected) in table {
            let found = missing(&known, from, to);
            assert_eq!(found, expected, "{from}..{to}");
            found.iter().for_each(|(from, to)| insert(&mut known, *from, *to));
        }
        assert_eq!(known.into_iter().collect::<Vec<_>>(), [(0, 60)]);
    }

    #[test]
    fn zeros_take_no_room() {
        let block = BLOCK as usize;
        let mut bytes = vec![0; 4 * block + 10];
        (bytes[block], bytes[3 * block - 1], bytes[4 * block + 9]) = (1, 2, 3);
        let found: Vec<(usize, usize)> =
            runs_of_data(&bytes).iter().map(|(at, run)| (*at, run.len())).collect();
        assert_eq!(found, [(block, 2 * block), (4 * block, 10)]);
    }
}
