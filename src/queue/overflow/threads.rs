//! The two threads that work with the disk. They end with the queue.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::super::list::Queue;
use super::spill::Spilled;
use crate::limits::{QUEUE_DISK_LOOK, QUEUE_DISK_RETRY};

impl Queue {
    /// From now on what memory has no room for goes to the disk, and comes back from there.
    ///
    /// Errors: there are no threads for it.
    pub fn work_with_disk(self: &Arc<Self>) -> io::Result<()> {
        let Some(overflow) = &self.overflow else { return Ok(()) };
        self.look_at_disk();
        let start = |name: &str, bell: &Receiver<()>, work: fn(&Weak<Queue>, &Receiver<()>)| {
            let (queue, bell) = (Arc::downgrade(self), bell.clone());
            std::thread::Builder::new().name(name.into()).spawn(move || work(&queue, &bell)).map(drop)
        };
        start("queue-write", &overflow.spill.1, write)?;
        start("queue-read", &overflow.read.1, read)
    }
}

fn write(queue: &Weak<Queue>, bell: &Receiver<()>) {
    let mut look_at = Instant::now();
    loop {
        let Some(queue) = queue.upgrade() else { return };
        let spilled = queue.spill_step();
        if spilled != Spilled::Some || Instant::now() >= look_at {
            queue.look_at_disk();
            look_at = Instant::now() + QUEUE_DISK_LOOK;
        }
        drop(queue);
        match spilled {
            Spilled::Some => {}
            Spilled::Stuck => std::thread::sleep(QUEUE_DISK_RETRY),
            Spilled::Nothing => match bell.recv_timeout(QUEUE_DISK_LOOK) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            },
        }
    }
}

fn read(queue: &Weak<Queue>, bell: &Receiver<()>) {
    loop {
        let Some(queue) = queue.upgrade() else { return };
        let has_read = queue.read_step();
        drop(queue);
        if has_read {
            continue;
        }
        match bell.recv_timeout(QUEUE_DISK_LOOK) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
