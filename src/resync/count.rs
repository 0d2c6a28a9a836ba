//! How large a tree is, counted beside a copy of it, for people alone, who want to know how long it takes; and before
//! one, whether most of it is gone. What changes meanwhile is counted as it was met. Content is not read, and
//! what waits to be counted is bounded.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use rustix::fs::{AtFlags, Dir, FileType, StatxFlags, statx};

use super::error::has_vanished;
use super::look::stat;
use super::progress::{CopyProgress, Size};
use super::{CopyError, Gone};
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
        let begun = Count::new(root, rules).and_then(|count| {
            let work = move || count.run(COUNTED_FROM, &progress, &wanted);
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
    size: Size,
    /// Of whatever is no directory.
    names: u64,
    met: u64,
    /// As the walk of a copy: directories by their handles.
    waiting: Vec<(FileHandle, Option<DirRules>)>,
    /// Not everything could wait.
    is_cut: bool,
    /// A directory could not be read.
    is_blind: bool,
}

/// Nobody wants to know any more.
struct Unwanted;

impl Count {
    fn new(root: BorrowedFd<'_>, rules: Option<Arc<Matcher>>) -> io::Result<Count> {
        let status = stat(root)?;
        let top = rules.as_ref().map(|matcher| matcher.root());
        Ok(Count {
            root: root.try_clone_to_owned()?,
            device: (status.stx_dev_major, status.stx_dev_minor),
            size: Size::default(),
            names: 0,
            met: 0,
            waiting: vec![(FileHandle::of(root)?, top)],
            is_cut: false,
            is_blind: false,
            rules,
        })
    }

    /// `wanted`: disconnected, nobody wants to know any more.
    fn run(mut self, after: Duration, progress: &CopyProgress, wanted: &Receiver<()>) {
        // Most copies are over sooner.
        if wanted.recv_timeout(after) == Err(crossbeam_channel::RecvTimeoutError::Disconnected) {
            return;
        }
        // Of this thread alone.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        let all = self.all(|count| {
            if count.met.is_multiple_of(SAID_EVERY) {
                progress.set_size(count.size, false);
            }
            if wanted.try_recv() == Err(TryRecvError::Disconnected) { Err(Unwanted) } else { Ok(()) }
        });
        if all.is_ok() {
            progress.set_size(self.size, !self.is_cut);
        }
    }

    /// `goes_on` is asked at each name.
    fn all<E>(&mut self, mut goes_on: impl FnMut(&Count) -> Result<(), E>) -> Result<(), E> {
        while let Some((handle, rules)) = self.waiting.pop() {
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOATIME;
            let dir = open_by_handle(self.root.as_fd(), &handle, flags);
            let entries = dir.and_then(|dir| Ok((Dir::read_from(&dir)?, dir)));
            let (entries, dir) = match entries {
                Ok(opened) => opened,
                // It is gone, or cannot be read: the copy says so.
                Err(error) => {
                    self.is_blind |= !has_vanished(&error);
                    continue;
                }
            };
            for entry in entries {
                let Ok(entry) = entry else {
                    self.is_blind = true;
                    break;
                };
                self.count(dir.as_fd(), entry.file_name(), rules.as_ref());
                self.met += 1;
                goes_on(self)?;
            }
        }
        Ok(())
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
            kind if self.has_file(name, rules) => {
                self.names += 1;
                if kind == FileType::RegularFile {
                    self.size.files += 1;
                    // Each name its share.
                    let share = status.stx_size / u64::from(status.stx_nlink.max(1));
                    self.size.bytes = self.size.bytes.saturating_add(share);
                }
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

/// How many names of whatever is no directory a target had, and how many percent of them may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamesHad {
    pub names: u64,
    pub percent: u8,
}

/// Enough was seen, or nobody wants to know.
enum Over {
    Enough,
    Unwanted,
}

impl NamesHad {
    /// How many names of the set are gone from a directory, where these are more than may be; it is looked no farther
    /// than that takes. `None`: they are not, or it cannot be told.
    ///
    /// Errors: [`CopyError::Gone`]; [`CopyError::Read`] of the root.
    pub fn missing(
        self,
        root: BorrowedFd<'_>,
        rules: Option<Arc<Matcher>>,
        mut goes_on: impl FnMut() -> Result<(), Gone>,
    ) -> Result<Option<u64>, CopyError> {
        let read = |error| CopyError::Read { doing: "look at", path: ".".into(), error };
        let mut count = Count::new(root, rules).map_err(read)?;
        let is_enough = |names: u64| {
            names.saturating_mul(100) >= self.names.saturating_mul(100 - u64::from(self.percent.min(100)))
        };
        let seen = count.all(|count| match goes_on() {
            Err(Gone) => Err(Over::Unwanted),
            Ok(()) if is_enough(count.names) => Err(Over::Enough),
            Ok(()) => Ok(()),
        });
        match seen {
            Err(Over::Unwanted) => Err(CopyError::Gone),
            Err(Over::Enough) => Ok(None),
            Ok(()) if count.is_cut || count.is_blind || is_enough(count.names) => Ok(None),
            Ok(()) => Ok(Some(self.names - count.names)),
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
        Count::new(root.as_fd(), matcher).unwrap().run(Duration::ZERO, &progress, &wanted);
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
        let count = Count::new(root.as_fd(), None).unwrap();
        drop(is_wanted);
        let progress = CopyProgress::new();
        count.run(Duration::ZERO, &progress, &wanted);
        assert_eq!(progress.snapshot().size, None);
    }

    #[test]
    fn most_of_a_tree_is_gone_or_not() {
        let temp = tree();
        let root = File::open(temp.path()).unwrap();
        let missing = |names, percent, rules: &[Rule]| {
            let matcher = Some(Arc::new(Matcher::new(&Rules(rules.to_vec())).unwrap()));
            NamesHad { names, percent }.missing(root.as_fd(), matcher, || Ok(())).unwrap()
        };
        // There are five.
        assert_eq!(missing(10, 50, &[]), None);
        assert_eq!(missing(11, 50, &[]), Some(6));
        assert_eq!(missing(5, 0, &[]), None);
        assert_eq!(missing(6, 0, &[]), Some(1));
        assert_eq!(missing(1_000_000, 100, &[]), None);
        assert_eq!(missing(10, 50, &[Rule::exclude("b/")]), Some(6));
        let unwanted = NamesHad { names: 9, percent: 1 }.missing(root.as_fd(), None, || Err(Gone));
        assert!(matches!(unwanted, Err(CopyError::Gone)));
    }
}
