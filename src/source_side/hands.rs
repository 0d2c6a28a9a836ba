//! The director's hands: what takes long, one thing at a time, on a thread of its own.

use std::io;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::mark::Mark;
use super::start::{Mounted, Start};
use super::stop::{Busy, Drain, Drained, Unmount};
use super::upgrade::{Held, Hold};
use crate::failure::Failure;

/// What they are told to do.
pub enum Job {
    Start(Box<Start>),
    Unmount(Unmount),
    Drain(Drain),
    Hold(Box<Hold>),
}

/// What came of it.
pub enum Done {
    Started(Result<Mounted, Failure>),
    /// With the moment before the mount went.
    Unmounted(Result<Mark, Box<Busy>>),
    Drained(Drained),
    Held(Box<Result<Held, Failure>>),
}

/// See the module. Dropped, they end after what they do.
pub struct Hands {
    jobs: Sender<Job>,
    /// Disconnected: a fault of the program ended them.
    pub done: Receiver<Done>,
}

impl Hands {
    pub fn start() -> io::Result<Hands> {
        // One job is given at a time, after the one before it is done.
        let (jobs, orders) = bounded::<Job>(1);
        let (outcomes, done) = bounded(1);
        let work = move || orders.iter().map(Job::run).all(|done| outcomes.send(done).is_ok());
        std::thread::Builder::new().name("hands".into()).spawn(work)?;
        Ok(Hands { jobs, done })
    }

    pub fn give(&self, job: Job) {
        assert!(self.jobs.is_empty(), "the hands are given one thing more before they have begun the last");
        // If they are gone, `done` says so.
        let _ = self.jobs.send(job);
    }
}

impl Job {
    fn run(self) -> Done {
        match self {
            Job::Start(start) => Done::Started(start.run()),
            Job::Unmount(unmount) => Done::Unmounted(unmount.run()),
            Job::Drain(drain) => Done::Drained(drain.run()),
            Job::Hold(hold) => Done::Held(Box::new(hold.run())),
        }
    }
}
