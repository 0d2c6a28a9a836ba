//! Files whose content is complete and whose mtime is not set yet. Size and mtime are what a later copy compares: the
//! mtime is set only once the bytes are on disk, so that a power loss never leaves a file that looks copied and is not.
//!
//! ```text
//!  content complete ──> recent ── many ──> a sync begins ──> earlier ── many again, or the end ──> mtimes set
//! ```
//! The sync runs beside what comes next: waited for at once it was a fifth of the time of a copy of small files.

use std::collections::HashMap;
use std::io;
use std::thread::JoinHandle;

use super::Session;
use super::left_out::said_of;
use super::packets::is_of_one;
use super::planted::{self, Planted};
use crate::apply::fault::Fault;
use crate::apply::replica::{Replica, SyncOfFiles};
use crate::failpoint;
use crate::limits::UNSETTLED_BYTES_MAX;
use crate::packet::{LeftOut, ObjectId, Timestamp};

/// See the module.
#[derive(Default)]
pub(super) struct Unsettled {
    recent: HashMap<ObjectId, Timestamp>,
    /// Of the recent ones.
    bytes: u64,
    earlier: Option<Earlier>,
}

/// Those that were complete before a sync began.
struct Earlier {
    files: HashMap<ObjectId, Timestamp>,
    /// None once it has ended well.
    sync: Option<Syncing>,
}

/// A sync on a thread of its own, awaited when it is dropped: nobody has the replica open then.
struct Syncing {
    thread: Option<JoinHandle<io::Result<()>>>,
    /// It has ended, and nobody has asked yet.
    outcome: Option<io::Result<()>>,
}

impl Syncing {
    /// Errors: those of the sync; the system's, where there is no thread to be had.
    fn begin(sync: SyncOfFiles) -> io::Result<Syncing> {
        let thread = std::thread::Builder::new().name("settle".into());
        thread.spawn(move || sync.run()).map(|thread| Syncing { thread: Some(thread), outcome: None })
    }

    fn wait(&mut self) -> io::Result<()> {
        if let Some(thread) = self.thread.take() {
            let died = |_| Err(io::Error::other("the thread of a sync ended"));
            self.outcome = Some(thread.join().unwrap_or_else(died));
        }
        self.outcome.take().expect("a sync is awaited once")
    }

    /// Does not wait.
    fn has_failed(&mut self) -> bool {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.outcome = Some(self.wait());
        }
        matches!(self.outcome, Some(Err(_)))
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Unsettled {
    pub(super) fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// A packet has given a file another time; `false` where it is none of these.
    pub(super) fn replace(&mut self, object: ObjectId, mtime: Timestamp) -> bool {
        let earlier = self.earlier.as_mut().and_then(|earlier| earlier.files.get_mut(&object));
        match self.recent.get_mut(&object).or(earlier) {
            Some(_) if planted::is(Planted::OlderTime) => false,
            Some(there) => {
                *there = mtime;
                true
            }
            None => false,
        }
    }

    /// What one of these gets when its bytes are on the disk.
    pub(super) fn time_of(&self, object: ObjectId) -> Option<Timestamp> {
        let earlier = self.earlier.as_ref().and_then(|earlier| earlier.files.get(&object));
        self.recent.get(&object).or(earlier).copied()
    }

    pub(super) fn contains(&self, object: ObjectId) -> bool {
        self.time_of(object).is_some()
    }

    pub(super) fn forget(&mut self, object: ObjectId) {
        self.recent.remove(&object);
        if let Some(earlier) = &mut self.earlier {
            earlier.files.remove(&object);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.earlier.is_none()
    }

    /// Those that are complete wait for this sync.
    fn begin_sync(&mut self, sync: Syncing) {
        assert!(self.earlier.is_none(), "two syncs of files at once");
        let files = std::mem::take(&mut self.recent);
        self.bytes = 0;
        self.earlier = Some(Earlier { files, sync: Some(sync) });
    }
}

impl Session {
    /// The content of a file is complete.
    ///
    /// Errors: as [`Session::settle`]; it may be handed in again.
    pub(super) fn complete_with(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        mtime: Timestamp,
    ) -> Result<(), Fault> {
        // Where it waited for a sync before, it has other content now.
        self.unsettled.forget(object);
        self.unsettled.recent.insert(object, mtime);
        let Unsettled { recent, bytes, .. } = &self.unsettled;
        if recent.len() >= replica.unsettled_files() || *bytes >= UNSETTLED_BYTES_MAX {
            self.settle_earlier(replica)?;
            self.begin_to_settle(replica)?;
        }
        Ok(())
    }

    /// Makes the bytes durable, then sets the mtimes, of all.
    ///
    /// Errors: a sync that failed; faults of the whole replica, and it may be tried again.
    pub(super) fn settle(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        self.settle_earlier(replica)?;
        if self.unsettled.recent.is_empty() {
            return Ok(());
        }
        self.begin_to_settle(replica)?;
        self.settle_earlier(replica)
    }

    /// A sync that has failed is noted at once: the kernel has said it, and says it to nobody else.
    ///
    /// Errors: it has failed.
    pub(super) fn hear_of_sync(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        let sync = self.unsettled.earlier.as_mut().and_then(|earlier| earlier.sync.as_mut());
        if sync.is_some_and(Syncing::has_failed) { self.settle_earlier(replica) } else { Ok(()) }
    }

    fn begin_to_settle(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        let begun = replica.begin_sync_of_files().and_then(Syncing::begin);
        self.unsettled.begin_sync(begun.map_err(Fault::own("sync of copied files"))?);
        Ok(())
    }

    /// Waits for the sync that is under way, if one is, and sets the mtimes of those that waited for it.
    fn settle_earlier(&mut self, replica: &mut Replica) -> Result<(), Fault> {
        let Some(earlier) = &mut self.unsettled.earlier else { return Ok(()) };
        if let Some(mut sync) = earlier.sync.take()
            && let Err(error) = sync.wait().and_then(|()| failpoint::at("sync"))
        {
            self.unsettled.earlier = None;
            return Err(replica.sync_has_failed(error));
        }
        // The kernel says it to one of those who sync at a time.
        if replica.sync_failed() {
            return Err(Fault::Refused("times of files after a sync that failed"));
        }
        let files: Vec<_> = earlier.files.iter().map(|(&object, &mtime)| (object, mtime)).collect();
        let mut unset = LeftOut::default();
        for (object, mtime) in files {
            let set = failpoint::at("settle a file").map_err(Fault::system("set mtime"));
            match set.and_then(|()| replica.set_mtime_now(object, mtime)) {
                Ok(()) | Err(Fault::MissingObject(_) | Fault::Outside { .. }) => {}
                // Whatever item comes when it is tried has nothing to do with it.
                Err(fault) if is_of_one(replica, &fault) => unset.add(&said_of(replica, object, &fault)),
                Err(fault) => return Err(fault),
            }
            replica.close(object);
            self.incomplete.remove(object)?;
        }
        self.unsettled.earlier = None;
        // Nobody comes back to these, also where what is performed fails, and is tried again.
        self.left_out.merge(unset.clone());
        self.left_for_good.merge(unset);
        self.incomplete.write()
    }
}
