//! A target in the process of its source: the same sessions, without a listener and without a network.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::{Replicas, start_session};
use crate::link::{Feed, SourceLink, direct};
use crate::paced::Paced;

/// See the module.
pub struct Within {
    replicas: Arc<dyn Replicas>,
    stopping: Arc<AtomicBool>,
    sessions: Mutex<Vec<JoinHandle<()>>>,
}

impl Within {
    pub fn new(replicas: Arc<dyn Replicas>) -> Within {
        Within { replicas, stopping: Arc::default(), sessions: Mutex::default() }
    }

    /// A link to it that sends what `feed` gives.
    pub fn connect(&self, feed: impl Feed) -> io::Result<SourceLink> {
        let (source, target) = direct(feed);
        let session =
            start_session(target, self.replicas.clone(), self.stopping.clone(), Arc::new(Paced::of_known()))?;
        let mut sessions = self.sessions.lock();
        sessions.retain(|session| !session.is_finished());
        sessions.push(session);
        Ok(source)
    }

    /// Ends every session and waits for it.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        for session in std::mem::take(&mut *self.sessions.lock()) {
            if session.join().is_err() {
                log::error!("a session thread panicked");
            }
        }
    }
}
