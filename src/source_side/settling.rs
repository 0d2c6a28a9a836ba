//! What the source's own disk has when the protection ends.

use std::io;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::sync;

/// What is known of the source's own disk at the end.
pub enum Disk {
    /// It has everything.
    Settled,
    /// Everything may only be in the page cache.
    Unknown,
    /// A sync failed: nobody knows what it has, and the page cache may have dropped it, too.
    Failed,
}

/// At the deadline at the latest, or when `is_hasty`.
pub fn disk_after(
    settling: &Receiver<io::Result<()>>,
    deadline: Instant,
    is_hasty: impl Fn() -> bool,
) -> Disk {
    let look = || settling.recv_deadline(deadline.min(Instant::now() + sync::CALLER_POLL));
    let mut settled = look();
    while matches!(settled, Err(RecvTimeoutError::Timeout)) && Instant::now() < deadline && !is_hasty() {
        settled = look();
    }
    match settled {
        Ok(Ok(())) => Disk::Settled,
        Ok(Err(error)) => {
            log::error!(
                "the directory's disk could not be synced, the next start compares everything: {error}"
            );
            Disk::Failed
        }
        Err(_) => {
            log::warn!(
                "the directory's disk was not synced in time; after a restart of the host everything is compared"
            );
            Disk::Unknown
        }
    }
}
