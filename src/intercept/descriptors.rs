//! A bounded cache of `O_PATH` descriptors: every object can be reached by its handle, and those
//! in use need not be opened again each time. Evicts by the clock algorithm.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::error::{FsError, FsResult, Step};
use super::objects::Node;
use crate::sys::open_by_handle;

/// The cache. It holds no descriptors itself: they are in the nodes.
pub struct Descriptors {
    /// Any descriptor on the backing file system that is not `O_PATH`.
    mount: OwnedFd,
    capacity: usize,
    clock: Mutex<VecDeque<Weak<Node>>>,
}

impl Descriptors {
    pub fn new(mount: OwnedFd, capacity: usize) -> Descriptors {
        Descriptors { mount, capacity, clock: Mutex::default() }
    }

    /// An `O_PATH` descriptor of the object.
    pub fn of(&self, node: &Arc<Node>) -> FsResult<Arc<OwnedFd>> {
        let mut slot = node.descriptor.lock();
        node.recently_used.store(true, Relaxed);
        if let Some(fd) = &*slot {
            return Ok(fd.clone());
        }
        let Some(handle) = &node.handle else {
            return Err(FsError::stale("an object without handle or descriptor"));
        };
        let opened = open_by_handle(self.mount.as_fd(), handle, libc::O_PATH | libc::O_NOFOLLOW);
        let fd = Arc::new(opened.step("open by handle")?);
        *slot = Some(fd.clone());
        drop(slot);
        self.remember(node);
        Ok(fd)
    }

    /// A new descriptor of the object with these open flags.
    pub fn open(&self, node: &Node, flags: i32) -> FsResult<OwnedFd> {
        let cached = node.descriptor.lock().clone();
        match (&node.handle, cached) {
            // A nameless object may have no decodable handle any more; its descriptor still works.
            (_, Some(fd)) => reopen(fd.as_fd(), flags),
            (Some(handle), None) => open_by_handle(self.mount.as_fd(), handle, flags).step("open by handle"),
            (None, None) => Err(FsError::stale("an object without handle or descriptor")),
        }
    }

    /// Enters a node whose descriptor was just cached, and evicts others over the capacity.
    pub fn remember(&self, node: &Arc<Node>) {
        let mut clock = self.clock.lock();
        clock.push_back(Arc::downgrade(node));
        // Each turn of the hand either shortens the list or clears a mark: it ends.
        let mut turns = clock.len() * 2;
        while clock.len() > self.capacity && turns > 0 {
            turns -= 1;
            let Some(candidate) = clock.pop_front() else { return };
            let Some(node) = candidate.upgrade() else { continue };
            if node.keep_descriptor.load(Relaxed) {
                continue;
            }
            match node.descriptor.try_lock() {
                Some(mut slot) if !node.recently_used.swap(false, Relaxed) => *slot = None,
                _ => clock.push_back(candidate),
            }
        }
    }
}

/// Another descriptor of the same object, with these open flags.
pub fn reopen(fd: std::os::fd::BorrowedFd<'_>, flags: i32) -> FsResult<OwnedFd> {
    let flags = rustix::fs::OFlags::from_bits_retain((flags & !libc::O_NOFOLLOW) as u32)
        | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(crate::sys::proc_path(fd), flags, rustix::fs::Mode::empty()).step("reopen")
}
