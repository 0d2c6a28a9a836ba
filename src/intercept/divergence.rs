//! What the source knows that its stream does not tell: a change that was made and could not be
//! captured, or one that was captured and that its own disk did not take.
//!
//! Noting it is all that a room has to do. The rest follows by itself: the status is critical, no
//! replica counts as good and its target is told so, no waiting call is complete, no sync counts
//! targets, until every target was compared with everything. What the disk lost stays: a copy would
//! take it from the targets, too.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

/// `linux/magic.h`.
const BTRFS_SUPER_MAGIC: i64 = 0x9123_683e;

/// See the module.
#[derive(Default)]
pub struct Divergence {
    noted: Mutex<Noted>,
    disk: OnceLock<String>,
    touched: OnceLock<String>,
}

#[derive(Default)]
struct Noted {
    /// The first one that not every target was compared for.
    why: Option<Arc<str>>,
    /// The first one of them that was a change.
    uncaptured: Option<Arc<str>>,
    count: u64,
}

impl Divergence {
    /// Notes it, with one line for people; the first reason stays. Any lock may be held.
    pub fn note(&self, why: &str) {
        log::error!("a change could not be captured, everything has to be compared again: {why}");
        self.add_uncaptured(why);
    }

    /// Notes that other names belong to the set than what the targets have: a copy brings them.
    pub fn compare(&self, why: &str) {
        log::info!("everything is compared: {why}");
        self.add(why);
    }

    fn add(&self, why: &str) {
        let mut noted = self.noted.lock();
        noted.why.get_or_insert_with(|| why.into());
        noted.count += 1;
    }

    fn add_uncaptured(&self, why: &str) {
        self.noted.lock().uncaptured.get_or_insert_with(|| why.into());
        self.add(why);
    }

    /// Why nothing that was known of targets before counts any more, if a change is missed.
    pub fn uncaptured(&self) -> Option<Arc<str>> {
        self.noted.lock().uncaptured.clone()
    }

    /// How many there were, ever.
    pub fn count(&self) -> u64 {
        self.noted.lock().count
    }

    /// Every target was compared with everything, for the first `count` of them.
    pub fn is_mended(&self, count: u64) {
        let mut noted = self.noted.lock();
        if noted.count == count && self.disk.get().is_none() {
            (noted.why, noted.uncaptured) = (None, None);
        }
    }

    /// Notes the outcome of a sync of the directory's own disk, `of` what: where the disk refuses what
    /// the kernel has acknowledged, the kernel drops it from its cache. The replicas have it then.
    pub fn note_sync(&self, of: &str, synced: BorrowedFd<'_>, outcome: &io::Result<()>) {
        let Err(error) = outcome else { return };
        if is_loss(error, synced) && self.disk.set(format!("{of}: {error}")).is_ok() {
            let why = format!("the directory's disk lost writes, {of}: {error}");
            log::error!("{why}; the replicas have them, everything has to be compared");
            self.add_uncaptured(&why);
        }
    }

    /// The first loss of [`Divergence::note_sync`].
    pub fn lost_by_disk(&self) -> Option<&str> {
        self.disk.get().map(String::as_str)
    }

    /// Notes an object whose change time moved without anything else: nearly always a hard link
    /// outside of the tree. The first one stays.
    pub fn note_touch(&self, path: &str) {
        if self.touched.set(path.to_owned()).is_ok() {
            log::info!("{path}: its change time moved past the mount, and nothing else");
        }
    }

    /// The first object of [`Divergence::note_touch`].
    pub fn touched(&self) -> Option<&str> {
        self.touched.get().map(String::as_str)
    }

    /// Why the targets may miss a change, if they may.
    pub fn why(&self) -> Option<Arc<str>> {
        self.noted.lock().why.clone()
    }
}

/// Whether a failed sync means that something was dropped. A full btrfs may have no room for the
/// record of the sync itself and keeps the data.
fn is_loss(error: &io::Error, synced: BorrowedFd<'_>) -> bool {
    let is_btrfs = || rustix::fs::fstatfs(synced).is_ok_and(|stat| stat.f_type == BTRFS_SUPER_MAGIC);
    match error.raw_os_error() {
        Some(libc::EIO) => true,
        Some(libc::ENOSPC | libc::EDQUOT) => !is_btrfs(),
        _ => false,
    }
}
