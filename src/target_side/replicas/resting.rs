//! Replicas that no source works on come to rest: what they hold is made durable.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use super::Store;
use crate::apply::Fault;
use crate::limits::{REST_INTERVAL, WANTED_LOOK_EVERY};
use crate::target_side::SharedApplier;
use crate::target_side::seat::View;

/// Looks after the replicas now and then, on a thread of its own, until it is dropped.
pub struct Resting {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Resting {
    pub fn start(store: Arc<Store>) -> io::Result<Resting> {
        let (end, ended) = bounded(0);
        let rest = move || {
            let mut rested = Instant::now();
            while ended.recv_timeout(WANTED_LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                store.let_go_of_wanted();
                if rested.elapsed() >= REST_INTERVAL {
                    store.rest();
                    rested = Instant::now();
                }
            }
        };
        let thread = std::thread::Builder::new().name("rest".into()).spawn(rest)?;
        Ok(Resting { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Resting {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that looks after replicas panicked");
        }
    }
}

/// A session that begins meanwhile does not wait for the disk.
pub(super) fn rest(shared: &SharedApplier, view: &Mutex<View>) -> Result<(), Fault> {
    let Some(mut applier) = shared.try_lock().filter(|applier| !applier.is_at_rest()) else { return Ok(()) };
    applier.come_to_rest();
    view.lock().update(&applier);
    let point = applier.begin_durable()?;
    drop(applier);
    let synced = point.sync();
    let mut applier = shared.lock();
    let done = applier.finish_durable(&point, synced);
    view.lock().update(&applier);
    done
}
