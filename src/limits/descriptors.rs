//! Descriptors, of those that the system gives a process.

use super::LIVE_ENTRIES_IN_FLIGHT;

/// Descriptors of objects that the source keeps open at once (`O_PATH`), where the limit of open
/// files allows it: see [`Descriptors`].
pub const SOURCE_DESCRIPTORS: usize = 4096;

/// Descriptors of files that programs have open, kept at once; the others are opened again when
/// they are used.
pub const SOURCE_OPEN_FILES: usize = 65_536;

/// A daemon starts with no fewer descriptors: threads, connections and what is under way need some
/// two hundred.
pub const OPEN_FILES_MIN: usize = 1024;

/// How a source divides the descriptors that the system gives it: a quarter stays for
/// connections, embedded targets ([`target_descriptors`]) and what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Kept for objects (`O_PATH`).
    pub paths: usize,
    /// Kept for open files.
    pub files: usize,
    /// Directories that programs may have open: each needs one.
    pub directories: usize,
    /// Objects without a name that are still in use: each needs one.
    pub nameless: usize,
}

impl Descriptors {
    /// `limit` is the limit of open files of this process.
    pub fn of(limit: usize) -> Descriptors {
        Descriptors {
            paths: (limit / 8).min(SOURCE_DESCRIPTORS),
            files: (limit / 4).min(SOURCE_OPEN_FILES),
            directories: limit / 8,
            nameless: limit / 8,
        }
    }
}

/// Descriptors of objects that a target keeps open at once, where the limit of open files allows it.
pub const TARGET_DESCRIPTORS: usize = 512;

/// With those that all replicas of a process share: a file that a copy has made is still open when its content
/// comes, and when its time is set. In unit tests few, so that they give way to others.
pub const COPY_DESCRIPTORS: usize = if cfg!(test) { 768 } else { 10_752 };

/// Those of one replica, of `limit` that the process may have.
pub fn target_descriptors(limit: usize) -> usize {
    (limit / 8).min(TARGET_DESCRIPTORS)
}

/// Those that the replicas of a process share, of `limit` that it may have. A target that is no source, too, has
/// little else to open. What each of them has of its own is taken of them.
pub fn shared_descriptors(limit: usize, is_target_alone: bool) -> usize {
    if is_target_alone { limit / 2 } else { target_descriptors(limit) + limit / 8 }
}

/// Files that were copied and wait for a sync to have their mtime set, and as many that come while it runs: a copy
/// that is killed copies them again. So few that their descriptors are still open; in unit tests few, so that many a
/// copy comes to it.
const UNSETTLED_FILES_MAX: usize = if cfg!(test) { 4 } else { 4096 };
const UNSETTLED_FILES_MIN: usize = if cfg!(test) { 4 } else { 64 };

/// How many that are, where a replica can have so many descriptors: those that wait for their content have theirs,
/// too.
pub fn unsettled_files(descriptors: usize) -> usize {
    let left = descriptors.saturating_sub(LIVE_ENTRIES_IN_FLIGHT);
    (left / 2).clamp(UNSETTLED_FILES_MIN, UNSETTLED_FILES_MAX)
}

const _: () = assert!(cfg!(test) || COPY_DESCRIPTORS > LIVE_ENTRIES_IN_FLIGHT + 2 * UNSETTLED_FILES_MAX);
