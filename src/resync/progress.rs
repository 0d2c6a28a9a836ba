//! How far a copy is, for whoever asks while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::weighed::Expected;
use crate::limits::FILE_WEIGHT;

/// Counters of one copy. Written by the copy's thread, read by anyone.
#[derive(Debug)]
pub struct CopyProgress {
    pub(super) started: SystemTime,
    pub(super) directories: AtomicU64,
    pub(super) files: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) files_compared: AtomicU64,
    pub(super) files_identical: AtomicU64,
    pub(super) files_copied: AtomicU64,
    pub(super) bytes_copied: AtomicU64,
    pub(super) bytes_compared: AtomicU64,
    pub(super) bytes_identical: AtomicU64,
    pub(super) bytes_settled: AtomicU64,
    /// And whether that is all.
    size: Mutex<Option<(Size, bool)>>,
    expected: Mutex<Option<Expected>>,
    pub(super) orphans: AtomicU64,
    pub(super) current: Mutex<String>,
}

/// How large a tree is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Names of regular files.
    pub files: u64,
    /// Their size in bytes; a file with several names counts once.
    pub bytes: u64,
}

/// [`CopyProgress`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressSnapshot {
    /// When the copy began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// Directories listed completely.
    pub directories: u64,
    /// Names of everything else that were listed.
    pub files: u64,
    /// Size of the listed files in bytes; a file with several names counts once.
    pub bytes: u64,
    /// Regular files whose listing the target has answered.
    pub files_compared: u64,
    /// Of these, what the target had already.
    pub files_identical: u64,
    /// Files whose content was sent.
    pub files_copied: u64,
    /// Content sent, in bytes (holes not counted).
    pub bytes_copied: u64,
    /// Content that both sides compared block by block, in bytes.
    #[serde(default)]
    pub bytes_compared: u64,
    /// Content that the target had, by size and time or by hashes, in bytes.
    #[serde(default)]
    pub bytes_identical: u64,
    /// Of the size of all files, so much is in line, in bytes.
    #[serde(default)]
    pub bytes_settled: u64,
    /// Of the whole tree, as far as it has been counted.
    #[serde(default)]
    pub size: Option<Size>,
    /// It is counted to its end.
    #[serde(default)]
    pub is_counted: bool,
    /// Of a copy of what is owed, once that is known.
    #[serde(default)]
    pub expected: Option<Expected>,
    /// What the target moved aside, once it says so.
    pub orphans: u64,
    /// Where the copy is, relative to the directory's root.
    pub current: String,
}

impl ProgressSnapshot {
    /// How much of the copy is done, from 0 to 1, as far as can be told.
    pub fn share_done(&self) -> f64 {
        if let Some(expected) = &self.expected {
            return self.share_of(expected);
        }
        let done = self.files_identical + self.files_copied;
        let (done, all) = match self.size.filter(|_| self.is_counted) {
            Some(Size { files, bytes }) => (
                self.bytes_settled.saturating_add(FILE_WEIGHT * done),
                bytes.saturating_add(FILE_WEIGHT * files),
            ),
            // Of what was listed.
            None => (done, self.files_compared),
        };
        share(done, all)
    }

    /// How much of a copy there is to do is known: its end can be foreseen.
    pub fn has_known_end(&self) -> bool {
        match &self.expected {
            Some(expected) => expected.content.at_most.is_some(),
            None => self.is_counted,
        }
    }

    /// What a listing beside it finds in line is none of what is owed.
    fn share_of(&self, Expected { files, content, .. }: &Expected) -> f64 {
        let bytes = self.bytes_copied.max(self.bytes_compared);
        let all = content.at_most.unwrap_or(content.at_least.max(bytes));
        let done = bytes.min(all).saturating_add(FILE_WEIGHT * self.files_copied.min(*files));
        share(done, all.saturating_add(FILE_WEIGHT * files))
    }
}

fn share(done: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { (done as f64 / all as f64).min(1.0) }
}

impl Default for CopyProgress {
    fn default() -> CopyProgress {
        CopyProgress {
            started: SystemTime::now(),
            directories: AtomicU64::new(0),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            files_compared: AtomicU64::new(0),
            files_identical: AtomicU64::new(0),
            files_copied: AtomicU64::new(0),
            bytes_copied: AtomicU64::new(0),
            bytes_compared: AtomicU64::new(0),
            bytes_identical: AtomicU64::new(0),
            bytes_settled: AtomicU64::new(0),
            size: Mutex::new(None),
            expected: Mutex::new(None),
            orphans: AtomicU64::new(0),
            current: Mutex::new(String::new()),
        }
    }
}

impl CopyProgress {
    /// A copy that begins now.
    pub fn new() -> CopyProgress {
        CopyProgress::default()
    }

    /// Notes what the target said at the end.
    pub fn set_orphans(&self, orphans: u64) {
        self.orphans.store(orphans, Relaxed);
    }

    /// The counters now. They are read one by one: sums may be a moment apart.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let size = *self.size.lock();
        ProgressSnapshot {
            started_unix_ms: self
                .started
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64),
            directories: self.directories.load(Relaxed),
            files: self.files.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            files_compared: self.files_compared.load(Relaxed),
            files_identical: self.files_identical.load(Relaxed),
            files_copied: self.files_copied.load(Relaxed),
            bytes_copied: self.bytes_copied.load(Relaxed),
            bytes_compared: self.bytes_compared.load(Relaxed),
            bytes_identical: self.bytes_identical.load(Relaxed),
            bytes_settled: self.bytes_settled.load(Relaxed),
            size: size.map(|(size, _)| size),
            is_counted: size.is_some_and(|(_, is_all)| is_all),
            expected: *self.expected.lock(),
            orphans: self.orphans.load(Relaxed),
            current: self.current.lock().clone(),
        }
    }

    /// So much it is to do, of what is owed alone.
    pub fn expect(&self, expected: Expected) {
        *self.expected.lock() = Some(expected);
    }

    /// So much there is at least, or in all.
    pub(super) fn set_size(&self, size: Size, is_all: bool) {
        *self.size.lock() = Some((size, is_all));
    }

    pub(super) fn add(counter: &AtomicU64, amount: u64) {
        // Sizes are what anybody says, up to 2^63 - 1 a file.
        let added = |count: u64| Some(count.saturating_add(amount));
        let _ = counter.fetch_update(Relaxed, Relaxed, added);
    }

    pub(super) fn set_current(&self, path: String) {
        *self.current.lock() = path;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resync::Weight;

    #[test]
    fn of_what_is_owed_is_done_what_was_sent() {
        let content = Weight { at_least: 0, at_most: Some(10 * FILE_WEIGHT) };
        let expected = Expected { objects: 9, files: 2, content };
        let mut progress = ProgressSnapshot { expected: Some(expected), ..ProgressSnapshot::default() };
        assert!(progress.has_known_end() && progress.share_done() == 0.0);
        (progress.files_identical, progress.bytes_identical) = (500, 1 << 40);
        assert_eq!(progress.share_done(), 0.0, "they were listed beside it");
        (progress.files_copied, progress.bytes_copied) = (1, 5 * FILE_WEIGHT);
        assert_eq!(progress.share_done(), 0.5);
        (progress.files_copied, progress.bytes_copied) = (3, 50 * FILE_WEIGHT);
        assert_eq!(progress.share_done(), 1.0, "programs have changed more since");
        let content = Weight { at_least: FILE_WEIGHT, at_most: None };
        progress.expected = Some(Expected { content, ..expected });
        assert!(!progress.has_known_end() && progress.share_done() <= 1.0);
    }

    #[test]
    fn what_is_done_is_of_what_was_counted() {
        let mut progress = ProgressSnapshot { files_identical: 2, files_compared: 4, ..Default::default() };
        assert_eq!(progress.share_done(), 0.5);
        progress.size = Some(Size { files: 100, bytes: 0 });
        assert_eq!(progress.share_done(), 0.5, "it is still counted");
        progress.is_counted = true;
        assert_eq!(progress.share_done(), 0.02);
        progress.size = Some(Size { files: 2, bytes: 10 * FILE_WEIGHT });
        assert_eq!(progress.share_done(), 2.0 / 12.0);
        progress.bytes_settled = 100 * FILE_WEIGHT;
        assert_eq!(progress.share_done(), 1.0, "it grows meanwhile");
        assert_eq!(ProgressSnapshot::default().share_done(), 0.0);
    }
}
