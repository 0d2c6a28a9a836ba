//! Room for readers: changes that would wait for the queue leave the threads that serve requests.
//!
//! While a target hangs, every writer waits in [`Queue::reserve`]. If they waited in the threads
//! of the mount, as many writers as there are threads would stop every reader too. From the
//! moment when the queue is nearly full, each change runs on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use parking_lot::Mutex;

use crate::limits::{ASIDE_MAX, PAYLOAD_LEN_MAX};
use crate::queue::Queue;

/// Stack of a thread that performs one change, bytes.
const STACK: usize = 512 << 10;

/// Decides where a change runs, and runs it there. Clones share their count.
#[derive(Clone)]
pub struct Aside {
    queue: Arc<Queue>,
    running: Arc<AtomicUsize>,
    /// Bytes that all serving threads together can ask for at once.
    margin: usize,
}

impl Aside {
    /// `threads` serve requests.
    pub fn new(queue: Arc<Queue>, threads: usize) -> Aside {
        // With very many threads and a small queue most of it stays usable.
        let margin = (threads * (PAYLOAD_LEN_MAX + (64 << 10))).min(queue.limit() / 2);
        Aside { queue, running: Arc::default(), margin }
    }

    /// Whether a change that begins now might wait.
    ///
    /// While this says no, nothing runs aside and what the serving threads can ask for at once
    /// fits: none of them waits.
    pub fn is_needed(&self) -> bool {
        let running = self.running.load(SeqCst);
        running < ASIDE_MAX && (running > 0 || !self.queue.has_room(self.margin))
    }

    /// Runs the change on a thread of its own; here, if there is none to be had.
    pub fn run(&self, change: impl FnOnce() + Send + 'static) {
        let change = Arc::new(Mutex::new(Some(change)));
        let running = Running::begin(self.running.clone());
        let spawned = std::thread::Builder::new().name("waiting".into()).stack_size(STACK).spawn({
            let change = change.clone();
            move || {
                let _running = running;
                let change = change.lock().take();
                change.into_iter().for_each(|change| change());
            }
        });
        if let Err(error) = spawned {
            log::warn!("no thread for a writer that waits for room: {error}");
            let change = change.lock().take();
            change.into_iter().for_each(|change| change());
        }
    }
}

/// Counted while it lives.
struct Running(Arc<AtomicUsize>);

impl Running {
    fn begin(count: Arc<AtomicUsize>) -> Running {
        count.fetch_add(1, SeqCst);
        Running(count)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}
