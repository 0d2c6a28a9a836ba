//! The files of segments: made, preallocated, used again, removed; how many there may be.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::failpoint;
use crate::limits::{
    QUEUE_DISK_FLOOR, QUEUE_DISK_MIN, QUEUE_SEGMENT, QUEUE_SEGMENTS_MIN, QUEUE_SPARE_SEGMENTS,
};
use crate::store::{Symlink, own_directory};
use crate::words::DiskTrouble;

/// Where segments lie, and how much of the disk they may take.
#[derive(Clone, Debug)]
pub struct DiskPlace {
    /// Its own: made where it is missing; what lies there of segments is removed.
    pub directory: PathBuf,
    /// Of one segment, bytes.
    pub segment_len: u64,
    /// Of all, bytes; without, all that leaves the floor.
    pub limit: Option<u64>,
    /// Bytes of the disk that stay free.
    pub floor: u64,
}

impl DiskPlace {
    /// `limit` is at least [`QUEUE_DISK_MIN`].
    pub fn new(directory: PathBuf, limit: Option<u64>) -> DiskPlace {
        let segment_len = limit.map_or(QUEUE_SEGMENT, |limit| {
            assert!(limit >= QUEUE_DISK_MIN, "a limit was not checked");
            (limit / QUEUE_SEGMENTS_MIN).min(QUEUE_SEGMENT)
        });
        DiskPlace { directory, segment_len, limit, floor: QUEUE_DISK_FLOOR }
    }
}

/// One file. It is read at the same time as it is written, elsewhere.
pub(super) struct SegmentFile {
    file: File,
    name: String,
}

impl SegmentFile {
    pub(super) fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        failpoint::at("queue: write")?;
        self.file.write_all_at(bytes, at)
    }

    pub(super) fn read(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        failpoint::at("queue: read")?;
        self.file.read_exact_at(bytes, at)
    }
}

/// All files, for the one thread that writes.
pub(super) struct SegmentFiles {
    place: DiskPlace,
    /// Locked for as long as this lives.
    dir: File,
    names: u64,
    /// Files that there are.
    count: u64,
    spare: Vec<Arc<SegmentFile>>,
    /// The queue has ended.
    is_over: bool,
}

const NAME: &str = "segment-";

impl SegmentFiles {
    /// Errors: the directory cannot be made or is somebody else's; another process has it.
    pub(super) fn open(place: DiskPlace) -> io::Result<SegmentFiles> {
        let dir = own_directory(&place.directory, 0o700, Symlink::Own)?;
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => io::Error::new(io::ErrorKind::WouldBlock, "another daemon uses it"),
            error => error.into(),
        })?;
        let left = std::fs::read_dir(&place.directory)?.collect::<io::Result<Vec<_>>>()?;
        for entry in
            left.iter().filter(|entry| entry.file_name().as_encoded_bytes().starts_with(NAME.as_bytes()))
        {
            rustix::fs::unlinkat(&dir, entry.file_name(), AtFlags::empty())?;
        }
        Ok(SegmentFiles { place, dir, names: 0, count: 0, spare: Vec::new(), is_over: false })
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
        if self.free()? < self.place.segment_len + self.place.floor {
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
        if self.spare.len() < QUEUE_SPARE_SEGMENTS && !self.is_over {
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
        let disk = self.bytes() + self.free()?.saturating_sub(self.place.floor);
        Ok(self.place.limit.map_or(disk, |limit| limit.min(disk)))
    }

    fn free(&self) -> Result<u64, DiskTrouble> {
        let facts = rustix::fs::fstatvfs(&self.dir).map_err(|error| trouble(error.into()))?;
        Ok(facts.f_bavail * facts.f_frsize)
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
    /// None stay, and no more are made.
    pub(super) fn end(&mut self) {
        self.is_over = true;
        self.spare.clear();
        for number in 1..=self.names {
            let _ = rustix::fs::unlinkat(&self.dir, format!("{NAME}{number:08}"), AtFlags::empty());
        }
    }
}

impl Drop for SegmentFiles {
    fn drop(&mut self) {
        self.end();
    }
}

/// What an error of the disk means.
pub(super) fn trouble(error: io::Error) -> DiskTrouble {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskTrouble::NoSpace,
        _ => DiskTrouble::Failed { errno: error.raw_os_error().unwrap_or(libc::EIO) },
    }
}
