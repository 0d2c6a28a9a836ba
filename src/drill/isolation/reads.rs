//! What the commands of a drill read of the clone, seen by its first process.
//!
//! A read by a call is an event of the clone's mount (fanotify); where it was, and what was read through a mapping, is
//! seen by what lies in memory afterwards: before, nothing of the clone does but what a process has mapped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Advice, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::drill::damage::{Target, some, spots};
use crate::drill::limits::{BLOCK, LOOKED_AT, WATCHED_MAX};
use crate::sys::{accesses, in_memory, proc_path, watch_reads};

/// What a check has read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Files, all of them, each by one of its names.
    pub files: u64,
    /// What is to be damaged of it.
    pub targets: Vec<Target>,
    /// More files were opened than are known at a time.
    pub is_cut: bool,
}

/// Of one file, since the check began.
#[derive(Clone, Copy, Default)]
struct Use {
    is_opened: bool,
    is_read: bool,
    /// Blocks in memory when it began.
    blocks: u64,
}

#[derive(Default)]
struct Known {
    files: BTreeMap<PathBuf, Use>,
    is_cut: bool,
}

/// Watches the clone of this process's drill.
pub(super) struct Reads {
    at: PathBuf,
    root: OwnedFd,
    queue: Arc<OwnedFd>,
    known: Arc<Mutex<Known>>,
}

impl Reads {
    /// Begins, with nothing of the clone in memory. Needs `CAP_SYS_ADMIN`; starts a thread, which has what capabilities this
    /// one has: [`Reads::follow`] does it when they are given up.
    pub(super) fn begin(at: &Path) -> io::Result<Reads> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(at, flags, Mode::empty())?;
        rustix::fs::syncfs(&root)?;
        forget_all(at);
        let queue = Arc::new(watch_reads(root.as_fd())?);
        Ok(Reads { at: at.to_owned(), root, queue, known: Arc::default() })
    }

    /// Takes what comes, so that little waits.
    pub(super) fn follow(&self) -> io::Result<()> {
        let (queue, known, at) = (self.queue.clone(), self.known.clone(), self.at.clone());
        let take = move || {
            loop {
                let mut queued = [PollFd::new(&*queue, PollFlags::IN)];
                match rustix::event::poll(&mut queued, None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return,
                }
                drain(&queue, &mut known.lock().unwrap_or_else(PoisonError::into_inner), &at);
            }
        };
        std::thread::Builder::new().name("reads".into()).spawn(take).map(|_| ())
    }

    /// A check begins.
    pub(super) fn check_begins(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        drain(&self.queue, &mut known, &self.at);
        for (path, usage) in &mut known.files {
            let blocks = self.open(path, OFlags::RDONLY).and_then(|file| {
                rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
                Ok(count(&blocks_in_memory(&file)?.0))
            });
            *usage = Use { blocks: blocks.unwrap_or(0), ..Use::default() };
        }
    }

    /// What it has read.
    pub(super) fn check_ended(&self) -> Seen {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        drain(&self.queue, &mut known, &self.at);
        let mut targets = Vec::new();
        // One may have several names, by each of which it was read.
        let mut files = BTreeSet::new();
        for (path, usage) in &known.files {
            // What was removed meanwhile cannot be damaged.
            let Ok(file) = self.open(path, OFlags::RDONLY) else { continue };
            let (Ok((blocks, size)), Ok(status)) = (blocks_in_memory(&file), file.metadata()) else {
                continue;
            };
            if !status.is_file() {
                continue;
            }
            let now = count(&blocks);
            if !usage.is_read && now <= usage.blocks && !(usage.is_opened && now > 0) {
                continue;
            }
            // Read past the memory.
            let whole = blocks.is_empty().then(|| 0..size.div_ceil(BLOCK));
            let blocks: Vec<Range<u64>> = blocks.into_iter().chain(whole).collect();
            let spots = spots(&blocks, size);
            if !spots.is_empty() && files.insert((status.dev(), status.ino())) {
                targets.push(Target { path: path.clone(), spots });
            }
        }
        Seen { files: files.len() as u64, targets: some(targets), is_cut: known.is_cut }
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<File> {
        open(&self.root, path, flags)
    }
}

/// Of what the clone holds itself, and no symlink.
pub(super) fn open(root: &OwnedFd, path: &Path, flags: OFlags) -> io::Result<File> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Which say nothing of what is not opened, and are refused there.
    let opened =
        if flags.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::NONBLOCK | OFlags::NOCTTY };
    let flags = flags | opened;
    Ok(rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?.into())
}

fn drain(queue: &OwnedFd, known: &mut Known, at: &Path) {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    loop {
        let found = accesses(queue.as_fd()).unwrap_or_default();
        if found.is_empty() {
            return;
        }
        for access in found.into_iter().filter(|access| access.by != own) {
            let path = fs::read_link(proc_path(access.file.as_fd()));
            let path = path.ok().and_then(|path| Some(path.strip_prefix(at).ok()?.to_owned()));
            // A name above the clone: not known, and never damaged.
            let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else { continue };
            if known.files.len() >= WATCHED_MAX && !known.files.contains_key(&path) {
                known.is_cut = true;
                continue;
            }
            let usage = known.files.entry(path).or_default();
            usage.is_opened = true;
            usage.is_read |= access.is_read;
        }
    }
}

/// Blocks of which a part lies in memory, in order, and the size of the file.
fn blocks_in_memory(file: &File) -> io::Result<(Vec<Range<u64>>, u64)> {
    let (size, page) = (file.metadata()?.len(), rustix::param::page_size() as u64);
    let mut found: Vec<Range<u64>> = Vec::new();
    let mut from = 0;
    while from < size {
        let length = LOOKED_AT.min(size - from);
        for (number, is_there) in (from / page..).zip(in_memory(file.as_fd(), from, length as usize)?) {
            let (first, last) = (number * page / BLOCK, (number * page + page - 1) / BLOCK);
            match found.last_mut() {
                _ if !is_there => {}
                Some(part) if first <= part.end => part.end = part.end.max(last + 1),
                Some(_) | None => found.push(first..last + 1),
            }
        }
        from += length;
    }
    Ok((found, size))
}

fn count(blocks: &[Range<u64>]) -> u64 {
    blocks.iter().map(|part| part.end - part.start).sum()
}

/// Lets go of what lies in memory of all files below: on the disk it is the same. What cannot be opened is left as it is.
fn forget_all(at: &Path) {
    let mut directories = vec![at.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    if let Ok(file) = rustix::fs::open(entry.path(), flags, Mode::empty()) {
                        let _ = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed);
                    }
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_was_read_lies_in_memory() {
        let whole: Vec<Range<u64>> = std::iter::once(0..128).collect();
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("a");
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let now = || blocks_in_memory(&File::open(&path).unwrap()).unwrap();
        assert_eq!(now(), (whole, 1 << 20));
        forget_all(dir.path());
        assert_eq!(now(), (vec![], 1 << 20));
        File::open(&path).unwrap().read_at(&mut [0; 1], 700_000).unwrap();
        let (parts, _) = now();
        assert!(
            parts.iter().any(|part| part.contains(&(700_000 / BLOCK))) && count(&parts) < 128,
            "{parts:?}"
        );
    }
}
