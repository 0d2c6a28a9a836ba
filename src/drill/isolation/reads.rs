//! What the commands of a drill read of the clone, seen by its first process; and the damage of that in a later pass.
//!
//! A read by a call is an event of the clone's mount (fanotify); where it was, and what was read through a mapping, is
//! seen by what lies in memory afterwards: before, nothing of the clone does but what a process has mapped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
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
    /// Files, all of them.
    pub files: u64,
    /// What is to be damaged of it.
    pub targets: Vec<Target>,
    /// More files were opened than are known at a time.
    pub is_cut: bool,
}

/// What was done to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    pub path: String,
    pub bytes: u64,
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
    files: BTreeMap<String, Use>,
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
        let mut files = 0;
        for (path, usage) in &known.files {
            // What was removed meanwhile cannot be damaged.
            let Ok(file) = self.open(path, OFlags::RDONLY) else { continue };
            let (Ok((blocks, size)), true) =
                (blocks_in_memory(&file), file.metadata().is_ok_and(|meta| meta.is_file()))
            else {
                continue;
            };
            let now = count(&blocks);
            if !usage.is_read && now <= usage.blocks && !(usage.is_opened && now > 0) {
                continue;
            }
            // Read past the memory.
            let whole = blocks.is_empty().then(|| 0..size.div_ceil(BLOCK));
            let blocks: Vec<Range<u64>> = blocks.into_iter().chain(whole).collect();
            let spots = spots(&blocks, size);
            if !spots.is_empty() {
                files += 1;
                targets.push(Target { path: path.clone(), spots });
            }
        }
        Seen { files, targets: some(targets), is_cut: known.is_cut }
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<File> {
        open(&self.root, path, flags)
    }
}

/// Of what the clone holds itself, and no symlink.
fn open(root: &OwnedFd, path: &str, flags: OFlags) -> io::Result<File> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
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
            let path = path.ok().and_then(|path| Some(path.strip_prefix(at).ok()?.to_str()?.to_owned()));
            // A name that is no text, or above the clone: not known, and never damaged.
            let Some(path) = path.filter(|path| !path.is_empty()) else { continue };
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

/// Turns every bit of these blocks over. Gives what was done, without files that are not there any more.
///
/// Errors: the disk's.
pub(super) fn damage(at: &Path, targets: &[Target]) -> io::Result<Vec<Damaged>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(at, flags, Mode::empty())?;
    let mut done = Vec::new();
    for target in targets {
        let file = match open(&root, &target.path, OFlags::RDWR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(|error| named(&target.path, &error))?,
        };
        let mut bytes = 0;
        for spot in &target.spots {
            bytes +=
                turn_over(&file, spot.offset, spot.length).map_err(|error| named(&target.path, &error))?;
        }
        file.sync_all()?;
        done.push(Damaged { path: target.path.clone(), bytes });
    }
    done.retain(|one| one.bytes > 0);
    Ok(done)
}

fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

/// Never beyond the end.
fn turn_over(file: &File, offset: u64, length: u64) -> io::Result<u64> {
    let mut part = vec![0; length as usize];
    let mut count = 0;
    while count < part.len() {
        match file.read_at(&mut part[count..], offset + count as u64)? {
            0 => break,
            more => count += more,
        }
    }
    part.truncate(count);
    part.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&part, offset)?;
    Ok(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::damage::Spot;

    #[test]
    fn damage_stays_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), "outside").unwrap();
        fs::write(dir.path().join("a"), vec![7; 30_000]).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        let target = |path: &str, spots: Vec<Spot>| Target { path: path.into(), spots };
        let spot = |offset, length| Spot { offset, length };
        let targets = [
            target("a", vec![spot(8192, 8192), spot(24_576, 8192), spot(90_000, 8192)]),
            target("gone", vec![spot(0, 8192)]),
        ];
        let done = damage(dir.path(), &targets).unwrap();
        assert_eq!(done, [Damaged { path: "a".into(), bytes: 8192 + 30_000 - 24_576 }]);
        let content = fs::read(dir.path().join("a")).unwrap();
        let wanted = |at: usize| if (8192..16_384).contains(&at) || at >= 24_576 { !7 } else { 7 };
        assert!(content.iter().enumerate().all(|(at, byte)| *byte == wanted(at)) && content.len() == 30_000);
        for path in ["link", "../outside"] {
            assert!(damage(dir.path(), &[target(path, vec![spot(0, 9)])]).is_err());
        }
        assert_eq!(fs::read(outside.path()).unwrap(), b"outside");
    }

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
