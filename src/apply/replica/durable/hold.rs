//! A disk in a test's hand.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use parking_lot::{Condvar, Mutex};

use crate::apply::fault::Fault;

/// Syncs wait while it is closed.
#[derive(Default)]
pub struct Hold {
    closed: Mutex<bool>,
    broken: AtomicBool,
    record_broken: AtomicBool,
    opened: Condvar,
    waiting: AtomicU64,
}

impl Hold {
    pub fn close(&self) {
        *self.closed.lock() = true;
    }

    pub fn open(&self) {
        *self.closed.lock() = false;
        self.opened.notify_all();
    }

    /// Syncs that wait now.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(SeqCst)
    }

    /// The next sync fails; those after it succeed, as the kernel has it.
    pub fn break_once(&self) {
        self.broken.store(true, SeqCst);
    }

    /// The next sync fails, and so does the record of that.
    pub fn break_with_record(&self) {
        self.break_once();
        self.record_broken.store(true, SeqCst);
    }

    pub(super) fn write(&self) -> Result<(), Fault> {
        match self.record_broken.swap(false, SeqCst) {
            true => Err(Fault::Own { what: "position slot", error: io::ErrorKind::Other.into() }),
            false => Ok(()),
        }
    }

    pub(super) fn wait(&self) -> io::Result<()> {
        self.waiting.fetch_add(1, SeqCst);
        let mut closed = self.closed.lock();
        while *closed {
            self.opened.wait(&mut closed);
        }
        self.waiting.fetch_sub(1, SeqCst);
        match self.broken.swap(false, SeqCst) {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => Ok(()),
        }
    }
}
