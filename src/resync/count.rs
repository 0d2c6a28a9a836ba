//! How large a tree is, counted beside a copy of it: for people alone, who want to know how long it takes.
//! What changes meanwhile is counted as it was met. Content is not read, and what waits to be counted is
//! bounded.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rustix::fs::{AtFlags, Dir, FileType, StatxFlags, statx};

use super::look::stat;
use super::progress::{CopyProgress, Size};
use crate::limits::{COUNTED_FROM, COUNTED_WAITING_MAX};
use crate::sets::{DirRules, Matcher};
use crate::sys::{FileHandle, open_by_handle};

/// Behind everything else that wants the processor.
const NICENESS: i32 = 19;

/// Entries between two words on how many there are.
const SAID_EVERY: u64 = 1000;

/// A count under way; it ends when it is dropped.
pub(super) struct Counting {
    _is_wanted: Sender<()>,
}

impl Counting {
    /// Counts what belongs to the set, on a thread of its own. Where it cannot, nobody learns how much there
    /// is.
    pub fn start(root: BorrowedFd<'_>, rules: Option<Arc<Matcher>>, progress: Arc<CopyProgress>) -> Counting {
        let (is_wanted, wanted) = bounded(0);
        let begun = Count::new(root, rules, wanted).and_then(|count| {
            let work = move || count.run(COUNTED_FROM, &progress);
            std::thread::Builder::new().name("count".into()).spawn(work).map(drop)
        });
        if let Err(error) = begun {
            log::warn!("the size of a copy is not counted: {error}");
        }
        Counting { _is_wanted: is_wanted }
    }
}

struct Count {
    root: OwnedFd,
    /// What lies on another one is no part of the tree.
    device: (u32, u32),
    rules: Option<Arc<Matcher>>,
    /// Disconnected: nobody wants to know any more.
    wanted: Receiver<()>,
    size: Size,
    met: u64,
    /// As the walk of a copy: directories by their handles.
    waiting: Vec<(FileHandle, Option<DirRules>)>,
    /// Not everything could wait.
    is_cut: bool,
}

/// Nobody wants to know any more.
struct Unwanted;

impl Count {
    fn new(root: BorrowedFd<'_>, rules: Option<Arc<Matcher>>, wanted: Receiver<()>) -> io::Result<Count> {
        let status = stat(root)?;
        let top = rules.as_ref().map(|matcher| matcher.root());
        Ok(Count {
            root: root.try_clone_to_owned()?,
            device: (status.stx_dev_major, status.stx_dev_minor),
            wanted,
            size: Size::default(),
            met: 0,
            waiting: vec![(FileHandle::of(root)?, top)],
            is_cut: false,
            rules,
        })
    }

    fn run(mut self, after: Duration, progress: &CopyProgress) {
        // Most copies are over sooner.
        if self.wanted.recv_timeout(after) == Err(crossbeam_channel::RecvTimeoutError::Disconnected) {
            return;
        }
        // Of this thread alone.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        if self.all(progress).is_ok() {
            progress.set_size(self.size, !self.is_cut);
        }
    }

    fn all(&mut self, progress: &CopyProgress) -> Result<(), Unwanted> {
        while let Some((handle, rules)) = self.waiting.pop() {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOATIME;
            // It is gone, or cannot be read: the copy says so.
            let Ok(dir) = open_by_handle(self.root.as_fd(), &handle, flags) else { continue };
            let Ok(entries) = Dir::read_from(&dir) else { continue };
            for entry in entries.flatten() {
                self.is_wanted()?;
                self.count(dir.as_fd(), entry.file_name(), rules.as_ref());
                self.met += 1;
                if self.met.is_multiple_of(SAID_EVERY) {
                    progress.set_size(self.size, false);
                }
            }
        }
        Ok(())
    }

    fn is_wanted(&self) -> Result<(), Unwanted> {
        if self.wanted.try_recv() == Err(TryRecvError::Disconnected) { Err(Unwanted) } else { Ok(()) }
    }

    fn count(&mut self, dir: BorrowedFd<'_>, name: &CStr, rules: Option<&DirRules>) {
        if matches!(name.to_bytes(), b"." | b"..") {
            return;
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let Ok(status) = statx(dir, name, flags, StatxFlags::BASIC_STATS) else { return };
        if (status.stx_dev_major, status.stx_dev_minor) != self.device {
            return;
        }
        match FileType::from_raw_mode(status.stx_mode.into()) {
            FileType::Directory => self.wait(dir, name, rules),
            FileType::RegularFile if self.has_file(name, rules) => {
                self.size.files += 1;
                // Each name its share.
                let share = status.stx_size / u64::from(status.stx_nlink.max(1));
                self.size.bytes = self.size.bytes.saturating_add(share);
            }
            _ => {}
        }
    }

    fn has_file(&self, name: &CStr, rules: Option<&DirRules>) -> bool {
        match (&self.rules, rules) {
            (Some(matcher), Some(rules)) => matcher.has_file(rules, name.to_bytes()),
            (None, _) | (_, None) => true,
        }
    }

    fn wait(&mut self, dir: BorrowedFd<'_>, name: &CStr, rules: Option<&DirRules>) {
        let below = match (&self.rules, rules) {
            (Some(matcher), Some(rules)) => match matcher.enter(rules, name.to_bytes()) {
                Some(below) => Some(below),
                None => return,
            },
            (None, _) | (_, None) => None,
        };
        if self.waiting.len() >= COUNTED_WAITING_MAX {
            self.is_cut = true;
        } else if let Ok(handle) = FileHandle::at(dir, name) {
            self.waiting.push((handle, below));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::path::Path;

    use super::*;
    use crate::sets::{Rule, Rules};

    fn counted(root: &Path, rules: &[Rule]) -> Option<(Size, bool)> {
        let matcher = (!rules.is_empty()).then(|| Arc::new(Matcher::new(&Rules(rules.to_vec())).unwrap()));
        let (is_wanted, wanted) = bounded(0);
        let progress = CopyProgress::new();
        let root = File::open(root).unwrap();
        Count::new(root.as_fd(), matcher, wanted).unwrap().run(Duration::ZERO, &progress);
        drop(is_wanted);
        progress.snapshot().size.map(|size| (size, progress.snapshot().is_counted))
    }

    fn tree() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        for (name, len) in [("one", 5), ("a/two", 100_000), ("a/b/three", 0)] {
            fs::write(root.join(name), vec![1; len]).unwrap();
        }
        fs::hard_link(root.join("a/two"), root.join("linked")).unwrap();
        std::os::unix::fs::symlink("one", root.join("symlink")).unwrap();
        temp
    }

    #[test]
    fn every_file_counts_once_with_its_size() {
        let temp = tree();
        assert_eq!(counted(temp.path(), &[]), Some((Size { files: 4, bytes: 100_005 }, true)));
        let of_set = counted(temp.path(), &[Rule::exclude("b/"), Rule::exclude("linked")]);
        assert_eq!(of_set, Some((Size { files: 2, bytes: 50_005 }, true)));
    }

    #[test]
    fn nothing_is_counted_for_nobody() {
        let temp = tree();
        let (is_wanted, wanted) = bounded(0);
        let root = File::open(temp.path()).unwrap();
        let count = Count::new(root.as_fd(), None, wanted).unwrap();
        drop(is_wanted);
        let progress = CopyProgress::new();
        count.run(Duration::ZERO, &progress);
        assert_eq!(progress.snapshot().size, None);
    }
}
