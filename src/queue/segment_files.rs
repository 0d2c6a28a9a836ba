//! The files of segments: made, preallocated, used again, removed; how many there may be.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::backlog::LeftSegment;
use super::segment::MAGIC;
use crate::failpoint;
use crate::limits::{
    QUEUE_DISK_FLOOR, QUEUE_DISK_MIN, QUEUE_SEGMENT, QUEUE_SEGMENTS_MIN, QUEUE_SPARE_SEGMENTS,
};
use crate::locked::Locked;
use crate::store::{Symlink, own_directory};
use crate::words::DiskTrouble;

/// Where segments lie, and how much of the disk they may take.
#[derive(Clone, Debug)]
pub struct DiskPlace {
    /// Its own: made where it is missing; what lies there of segments is removed, and nothing else may be there.
    pub directory: PathBuf,
    /// Of one segment, bytes.
    pub segment_len: u64,
    /// Of all, bytes; without, all that leaves the floor.
    pub limit: Option<u64>,
    /// Bytes of the disk that stay free.
    pub floor: u64,
    /// The protected directory or a replica lies on the same disk: it leaves them a good part.
    pub is_beside_others: bool,
}

impl DiskPlace {
    /// `limit` is at least [`QUEUE_DISK_MIN`].
    pub fn new(directory: PathBuf, limit: Option<u64>) -> DiskPlace {
        let segment_len = limit.map_or(QUEUE_SEGMENT, |limit| {
            assert!(limit >= QUEUE_DISK_MIN, "a limit was not checked");
            (limit / QUEUE_SEGMENTS_MIN).min(QUEUE_SEGMENT)
        });
        DiskPlace { directory, segment_len, limit, floor: QUEUE_DISK_FLOOR, is_beside_others: false }
    }

    /// On a disk that is not its own.
    pub fn beside_others(self) -> DiskPlace {
        DiskPlace { is_beside_others: true, ..self }
    }
}

/// One file. It is read at the same time as it is written, elsewhere.
pub(super) struct SegmentFile {
    file: File,
    name: String,
}

impl SegmentFile {
    fn open(dir: &File, name: &str) -> io::Result<SegmentFile> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        if number_of(name).is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let file = File::from(rustix::fs::openat(dir, name, flags, Mode::empty())?);
        Ok(SegmentFile { file, name: name.to_owned() })
    }

    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        failpoint::at("queue: write")?;
        self.file.write_all_at(bytes, at)
    }

    pub(super) fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        failpoint::at("queue: read")?;
        self.file.read_exact_at(bytes, at)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        failpoint::at("queue: sync")?;
        self.file.sync_data()
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// All files, for the one thread that writes.
pub(super) struct SegmentFiles {
    place: DiskPlace,
    /// Locked for as long as this lives.
    dir: Locked,
    names: u64,
    /// Files that there are.
    count: u64,
    spare: Vec<Arc<SegmentFile>>,
    /// These stay when the queue ends.
    kept: HashSet<String>,
    /// Of those, what nobody uses any more.
    waiting: Vec<Arc<SegmentFile>>,
    /// The queue has ended.
    is_over: bool,
}

const NAME: &str = "segment-";

/// Part of a disk that stays free where others need it, too: what programs write and replicas receive while a target is
/// away comes on top of what the queue holds of it.
const LEFT_PART: u64 = 4;
/// And no more than this, bytes: a quarter of a large disk can be more than what is free of it.
const LEFT_MAX: u64 = 4 << 30;

impl SegmentFiles {
    /// Errors: the directory cannot be made or is somebody else's; another process has it.
    pub(super) fn open(place: DiskPlace) -> io::Result<SegmentFiles> {
        SegmentFiles::open_with(place, &[], |_, _| Ok(())).map(|(files, _)| files)
    }

    /// As [`SegmentFiles::open`]; what an earlier queue has left stays, from the end on as far as it can be opened.
    pub(super) fn open_with<T>(
        place: DiskPlace,
        left_behind: &[LeftSegment],
        open: impl Fn(&LeftSegment, SegmentFile) -> io::Result<T>,
    ) -> io::Result<(SegmentFiles, Vec<T>)> {
        let dir = own_directory(&place.directory, 0o700, Symlink::Never)?;
        let in_use = || io::Error::new(io::ErrorKind::WouldBlock, "another daemon uses it");
        let dir = Locked::now(dir)?.ok_or_else(in_use)?;
        let left = std::fs::read_dir(&place.directory)?.collect::<io::Result<Vec<_>>>()?;
        // All of them first: where something is not its own nothing is removed.
        for entry in &left {
            let is_left = left_behind.iter().any(|left| entry.file_name() == *left.name);
            if !is_left && !is_segment(&dir, &entry.file_name())? {
                let text = format!("{} is no part of a queue; nothing was removed", entry.path().display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
        }
        let mut opened = Vec::new();
        for left in left_behind.iter().rev() {
            match SegmentFile::open(&dir, &left.name).and_then(|file| open(left, file)) {
                Ok(segment) => opened.push(segment),
                Err(error) => {
                    log::warn!("{} of the queue is not as it was left: {error}", left.name);
                    break;
                }
            }
        }
        opened.reverse();
        let stays: Vec<&str> =
            left_behind[left_behind.len() - opened.len()..].iter().map(|left| &*left.name).collect();
        for entry in left.iter().filter(|entry| !stays.iter().any(|name| entry.file_name() == *name)) {
            rustix::fs::unlinkat(&dir, entry.file_name(), AtFlags::empty())?;
        }
        let names = stays.iter().filter_map(|name| number_of(name)).max().unwrap_or_default();
        // A start that fails leaves them as they are.
        let kept = stays.iter().map(|name| (*name).to_owned()).collect();
        let (count, spare) = (stays.len() as u64, Vec::new());
        Ok((
            SegmentFiles { place, dir, names, count, spare, kept, waiting: Vec::new(), is_over: false },
            opened,
        ))
    }

    /// These stay when the queue ends, and are on the disk with their names.
    pub(super) fn keep(&mut self, names: HashSet<String>) -> io::Result<()> {
        if !names.is_empty() {
            rustix::fs::fsync(&*self.dir)?;
        }
        self.kept = names;
        std::mem::take(&mut self.waiting).into_iter().for_each(|file| self.give_back(file));
        Ok(())
    }

    pub(super) fn segment_len(&self) -> u64 {
        self.place.segment_len
    }

    /// A file that nobody uses, with room for a segment.
    ///
    /// Errors: why there is none; it may be otherwise soon.
    pub(super) fn take(&mut self) -> Result<Arc<SegmentFile>, DiskTrouble> {
        if self.is_over {
            return Err(DiskTrouble::AtLimit);
        }
        if let Some(file) = self.spare.pop() {
            return Ok(file);
        }
        if self.place.limit.is_some_and(|limit| (self.count + 1) * self.place.segment_len > limit) {
            return Err(DiskTrouble::AtLimit);
        }
        let (free, floor) = self.room()?;
        if free < self.place.segment_len + floor {
            return Err(DiskTrouble::NoSpace);
        }
        let file = self.make().map_err(trouble)?;
        self.count += 1;
        Ok(file)
    }

    fn make(&mut self) -> io::Result<Arc<SegmentFile>> {
        failpoint::at("queue: make")?;
        self.names += 1;
        let name = format!("{NAME}{:08}", self.names);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::openat(&self.dir, &name, flags, Mode::RUSR | Mode::WUSR)?);
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.place.segment_len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(Arc::new(SegmentFile { file, name })),
            Err(error) => {
                self.remove(&name);
                Err(error.into())
            }
        }
    }

    /// Nobody reads or writes it any more, or whoever reads it does not believe it.
    pub(super) fn give_back(&mut self, file: Arc<SegmentFile>) {
        if self.kept.contains(&file.name) {
            return self.waiting.push(file);
        }
        if self.spare.len() < QUEUE_SPARE_SEGMENTS && !self.is_over && !self.is_in_the_way() {
            return self.spare.push(file);
        }
        self.remove(&file.name);
        self.count -= 1;
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.count * self.place.segment_len
    }

    /// What all files may come to, as the disk is now.
    pub(super) fn capacity(&self) -> Result<u64, DiskTrouble> {
        let (free, floor) = self.room()?;
        let disk = self.bytes() + free.saturating_sub(floor);
        Ok(self.place.limit.map_or(disk, |limit| limit.min(disk)))
    }

    /// Bytes of the disk that are free, and that have to stay so.
    fn room(&self) -> Result<(u64, u64), DiskTrouble> {
        let facts = rustix::fs::fstatvfs(&self.dir).map_err(|error| trouble(error.into()))?;
        let floor = match self.place.is_beside_others {
            true => self.place.floor.max(left_to_others(facts.f_blocks * facts.f_frsize)),
            false => self.place.floor,
        };
        Ok((facts.f_bavail * facts.f_frsize, floor))
    }

    /// Whether it holds what programs and replicas need now: others have filled the disk since it was taken.
    pub(super) fn is_in_the_way(&self) -> bool {
        let free = self.room().map_or(u64::MAX, |(free, _)| free);
        self.place.is_beside_others && self.count > 0 && free < self.place.floor
    }

    fn remove(&self, name: &str) {
        if self.is_over {
            return;
        }
        if let Err(error) = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            log::warn!(
                "{} of the queue cannot be removed: {error}",
                self.place.directory.join(name).display()
            );
        }
    }
}

impl SegmentFiles {
    /// No more are made, and none stay but those that are kept.
    pub(super) fn end(&mut self) {
        self.is_over = true;
        self.spare.clear();
        for name in (1..=self.names).map(|number| format!("{NAME}{number:08}")) {
            if !self.kept.contains(&name) {
                let _ = rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
            }
        }
    }
}

impl Drop for SegmentFiles {
    fn drop(&mut self) {
        self.end();
        // Only where nothing is in it.
        let _ = std::fs::remove_dir(&self.place.directory);
    }
}

/// Of a disk of so many bytes.
fn left_to_others(all: u64) -> u64 {
    (all / LEFT_PART).min(LEFT_MAX)
}

/// What a daemon that was killed has left of a queue, where none is put any more.
pub fn remove_left(directory: &Path) {
    if directory.is_dir()
        && let Err(error) = SegmentFiles::open(DiskPlace::new(directory.to_owned(), None))
    {
        log::warn!("what is left of a queue in {} cannot be removed: {error}", directory.display());
    }
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(NAME)?.parse().ok()
}

/// Whether it is a file of this product: by its name, and how it begins. One that was not written yet is empty.
fn is_segment(dir: &File, name: &OsStr) -> io::Result<bool> {
    let digits = name.as_encoded_bytes().strip_prefix(NAME.as_bytes()).unwrap_or_default();
    if digits.len() < 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Ok(false);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut begin = [0; MAGIC.len()];
    let is_empty = match file.read_exact_at(&mut begin, 0) {
        Ok(()) => begin == [0; MAGIC.len()],
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => file.metadata()?.len() == 0,
        Err(error) => return Err(error),
    };
    Ok(is_empty || begin == *MAGIC)
}

/// What an error of the disk means.
pub(super) fn trouble(error: io::Error) -> DiskTrouble {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskTrouble::NoSpace,
        _ => DiskTrouble::Failed { errno: error.raw_os_error().unwrap_or(libc::EIO) },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place(directory: &Path) -> DiskPlace {
        DiskPlace::new(directory.to_owned(), Some(QUEUE_DISK_MIN))
    }

    /// Files of others that happened to be called alike were removed without a word.
    #[test]
    fn only_its_own_files_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("queue");
        let mut files = SegmentFiles::open(place(&dir)).unwrap();
        let (written, empty) = (files.take().unwrap(), files.take().unwrap());
        written.write(MAGIC, 0).unwrap();
        let kept = |name: &str| fs::copy(dir.join(name), root.path().join(name)).unwrap();
        let names = [written.name.clone(), empty.name.clone()];
        names.iter().for_each(|name| _ = kept(name));
        drop(files);
        assert!(!dir.exists(), "nothing is left of it");

        fs::create_dir(&dir).unwrap();
        names.iter().for_each(|name| fs::rename(root.path().join(name), dir.join(name)).unwrap());
        for (name, content) in
            [("segment-notes.txt", "mine"), ("segment-00000009", "mine too"), ("web.conf", "a setting")]
        {
            fs::write(dir.join(name), content).unwrap();
            let refused = SegmentFiles::open(place(&dir)).err().expect("it is somebody's").to_string();
            assert!(refused.contains(name), "{refused}");
            assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), content);
            assert!(names.iter().all(|name| dir.join(name).exists()), "nothing was removed");
            fs::remove_file(dir.join(name)).unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.join("segment-00000007")).unwrap();
        SegmentFiles::open(place(&dir)).err().expect("a link is no segment");
        fs::remove_file(dir.join("segment-00000007")).unwrap();
        remove_left(&dir);
        assert!(!dir.exists(), "what a killed daemon left goes");

        fs::create_dir(root.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", &dir).unwrap();
        SegmentFiles::open(place(&dir)).err().expect("another directory than was named");
    }
}
