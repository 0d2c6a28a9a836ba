//! Whether the directory's own disk takes what programs write.
//!
//! The kernel acknowledges a write that is in memory and writes it back later. What the disk refuses
//! then is dropped from memory, and only a sync is told (`syncfs(2)`: once for each open file
//! description, Linux 5.8). A program that never syncs learns nothing; the replicas have what the
//! directory has lost.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::ground::Ground;
use crate::intercept::Divergence;
use crate::limits::source_sync_every;
use crate::ranks;

/// Looks until it is dropped.
pub struct WritebackWatch {
    _end: Sender<()>,
}

impl WritebackWatch {
    /// Looks at every moment that `limits` names, if there were changes since the last one, on a
    /// thread of its own: a sync may take long, or hang.
    pub fn begin(ground: &Ground) -> io::Result<WritebackWatch> {
        let (backing, divergence) = (ground.backing.try_clone()?, ground.volume.divergence().clone());
        let (queue, mut seen) = (ground.queue.clone(), ground.queue.last().sequence);
        let (end, ended) = bounded(0);
        let look = move || {
            while ended.recv_timeout(source_sync_every()) == Err(RecvTimeoutError::Timeout) {
                let last = queue.last().sequence;
                if std::mem::replace(&mut seen, last) != last {
                    let _noted = sync(&backing, &divergence);
                }
            }
        };
        std::thread::Builder::new().name("writeback".into()).spawn(look)?;
        Ok(WritebackWatch { _end: end })
    }
}

/// Syncs the backing file system and notes what it has lost.
pub fn sync(backing: &OwnedFd, divergence: &Arc<Divergence>) -> io::Result<()> {
    ranks::assert_none_held("a sync of the file system");
    let outcome = rustix::fs::syncfs(backing).map_err(io::Error::from);
    divergence.note_sync("a sync of its file system", backing.as_fd(), &outcome);
    outcome
}
