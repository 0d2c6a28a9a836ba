//! Flushes, by a pool of threads: slow disks never hold up the threads that serve requests. A gate
//! may hold an answer back, and no thread waits for that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::sync_error;
use crate::intercept::data::Sync;
use crate::intercept::divergence::Divergence;
use crate::intercept::error::FsResult;
use crate::intercept::gate::{DurabilityGate, SyncAnswer};
use crate::ranks;

/// One slow disk flush must not queue behind another file's.
const THREADS: usize = 4;

/// The threads. They end with the last clone.
#[derive(Clone)]
pub struct Syncs {
    jobs: Sender<Job>,
    gate: Option<Arc<dyn DurabilityGate>>,
}

/// A flush of a descriptor, and what to do with its outcome.
struct Job {
    fd: Arc<OwnedFd>,
    what: Sync,
    done: SyncAnswer,
}

impl Syncs {
    /// A disk that does not take what it has acknowledged is noted.
    pub fn start(gate: Option<Arc<dyn DurabilityGate>>, divergence: &Arc<Divergence>) -> Syncs {
        let (jobs, receiver) = unbounded();
        for number in 0..THREADS {
            let (receiver, divergence) = (receiver.clone(), divergence.clone());
            let builder = std::thread::Builder::new().name(format!("sync-{number}"));
            if let Err(error) = builder.spawn(move || flush_all(&receiver, &divergence)) {
                log::error!("a sync thread did not start: {error}");
            }
        }
        Syncs { jobs, gate }
    }

    pub fn run(&self, fd: Arc<OwnedFd>, what: Sync, reply: impl FnOnce(FsResult<()>) + Send + 'static) {
        let done: SyncAnswer =
            Box::new(move |outcome: io::Result<()>| reply(outcome.map_err(|error| sync_error(&error))));
        let done = match &self.gate {
            Some(gate) => gate.enter(done),
            None => done,
        };
        if let Err(lost) = self.jobs.send(Job { fd, what, done }) {
            (lost.0.done)(Err(io::Error::from_raw_os_error(libc::EIO)));
        }
    }
}

fn flush_all(jobs: &Receiver<Job>, divergence: &Divergence) {
    for job in jobs {
        ranks::assert_none_held("an fsync");
        let outcome = match job.what {
            Sync::Data => rustix::fs::fdatasync(&*job.fd),
            Sync::All => rustix::fs::fsync(&*job.fd),
        };
        let outcome = outcome.map_err(io::Error::from);
        divergence.note_sync("fsync of a file", job.fd.as_fd(), &outcome);
        (job.done)(outcome);
    }
}
