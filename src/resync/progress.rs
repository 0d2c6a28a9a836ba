//! How far a copy is, for whoever asks while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

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
    pub(super) orphans: AtomicU64,
    pub(super) current: Mutex<String>,
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
    /// Of it, what the target had.
    #[serde(default)]
    pub bytes_identical: u64,
    /// What the target moved aside, once it says so.
    pub orphans: u64,
    /// Where the copy is, relative to the directory's root.
    pub current: String,
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
            orphans: self.orphans.load(Relaxed),
            current: self.current.lock().clone(),
        }
    }

    pub(super) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Relaxed);
    }

    pub(super) fn set_current(&self, path: String) {
        *self.current.lock() = path;
    }
}
