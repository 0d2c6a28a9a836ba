//! How many files this process may have open.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::failure::Failure;
use crate::limits::{OPEN_FILES_MIN, shared_descriptors};

/// The limit as it is now.
pub fn limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

static IS_TARGET_ALONE: AtomicBool = AtomicBool::new(false);

/// This process protects no directory: what a source would have open is its replicas'. To be said before one is opened.
pub fn for_targets_alone() {
    IS_TARGET_ALONE.store(true, Relaxed);
}

/// How many all replicas of this process share.
pub fn for_copies() -> usize {
    shared_descriptors(limit(), IS_TARGET_ALONE.load(Relaxed))
}

/// Raises it to the hard limit, which is the administrator's.
///
/// Errors: that is too low for a daemon.
pub fn raise() -> Result<(), Failure> {
    let mut asked = getrlimit(Resource::Nofile);
    asked.current = asked.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, asked).map_err(io::Error::from) {
        log::warn!("the limit of open files could not be raised: {error}");
    }
    match limit() {
        enough if enough >= OPEN_FILES_MIN => Ok(()),
        limit => Err(Failure::new(
            format!("Only {limit} files may be open at once; {OPEN_FILES_MIN} are needed at least."),
            "Nothing was started or changed.",
            "Raise the hard limit (ulimit -Hn, LimitNOFILE= of the unit) and start again.",
        )),
    }
}
