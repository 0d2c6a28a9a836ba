//! Bounded caches of descriptors: every object can be reached by its handle, and those in use need
//! not be opened again each time. Evict by the clock algorithm.
//!
//! - `O_PATH` descriptors of objects
//! - descriptors of open files: one for each object and access mode, however many handles programs
//!   have on it. One that was evicted is opened again, so that open files cost no descriptors but
//!   those that are kept; no user can take them from the others

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustix::fs::{IFlags, OFlags};

use super::error::{FsError, FsResult, Step};
use super::objects::Node;
use crate::sys::open_by_handle;
use crate::xattr::Flags;

/// The cache. It holds no descriptors itself: they are in the nodes.
pub struct Descriptors {
    /// Any descriptor on the backing file system that is not `O_PATH`.
    mount: OwnedFd,
    capacity: usize,
    clock: Mutex<VecDeque<Weak<Node>>>,
    file_capacity: usize,
    file_clock: Mutex<VecDeque<(Weak<Node>, usize)>>,
}

/// Descriptors of an object that programs have open, by access mode (`O_ACCMODE`).
#[derive(Default)]
pub struct OpenDescriptors([OpenDescriptor; 4]);

#[derive(Default)]
struct OpenDescriptor {
    /// Handles of programs.
    handles: u32,
    /// `None` while it is evicted.
    fd: Option<Arc<OwnedFd>>,
    recently_used: bool,
}

impl OpenDescriptors {
    /// Whether a program has the object open.
    pub fn is_open(&self) -> bool {
        self.0.iter().any(|open| open.handles > 0)
    }
}

/// The access mode in open flags, as an index.
fn access(flags: i32) -> usize {
    (flags & libc::O_ACCMODE) as usize & 3
}

impl Descriptors {
    /// Keeps `capacity` descriptors of objects and `file_capacity` of open files.
    pub fn new(mount: OwnedFd, capacity: usize, file_capacity: usize) -> Descriptors {
        Descriptors { mount, capacity, clock: Mutex::default(), file_capacity, file_clock: Mutex::default() }
    }

    /// A program opens the object: counts until [`Descriptors::leave`]. `opened` is the descriptor
    /// where there is one already; otherwise another program's serves, or one is opened.
    pub fn enter(&self, node: &Arc<Node>, flags: i32, opened: Option<Arc<OwnedFd>>) -> FsResult<()> {
        // Where another program's descriptor serves, nobody else asks the disk.
        if access(flags) != access(libc::O_RDONLY) && node.is_immutable.load(SeqCst) {
            let is_still = Flags::of(&*self.of(node)?).step("look at flags")? - Flags::APPEND_ONLY;
            match is_still.is_hindering() {
                true => return Err(FsError::new(libc::EPERM, "open an immutable file to change it")),
                false => node.is_immutable.store(false, SeqCst),
            }
        }
        let mut entered = node.open.lock();
        let slot = &mut entered.0[access(flags)];
        if slot.fd.is_none() {
            let open = || self.open_to_use(node, flags & libc::O_ACCMODE).map(Arc::new);
            slot.fd = Some(opened.map_or_else(open, Ok)?);
            slot.handles += 1;
            drop(entered);
            self.remember_file(node, access(flags));
        } else {
            slot.handles += 1;
        }
        Ok(())
    }

    /// A program has had it open since before this daemon.
    pub fn enter_again(&self, node: &Node, flags: i32) {
        node.open.lock().0[access(flags)].handles += 1;
    }

    /// A program has closed it.
    pub fn leave(&self, node: &Node, flags: i32) {
        let mut open = node.open.lock();
        let slot = &mut open.0[access(flags)];
        assert!(slot.handles > 0, "a program closes a file that none has open");
        slot.handles -= 1;
        let gone = if slot.handles == 0 { slot.fd.take() } else { None };
        drop(open);
        drop(gone);
    }

    /// The descriptor of an object that a program has open.
    pub fn of_open(&self, node: &Arc<Node>, flags: i32) -> FsResult<Arc<OwnedFd>> {
        let mut open = node.open.lock();
        let slot = &mut open.0[access(flags)];
        slot.recently_used = true;
        if let Some(fd) = &slot.fd {
            return Ok(fd.clone());
        }
        let fd = Arc::new(self.open_to_use(node, flags & libc::O_ACCMODE)?);
        // Closed meanwhile: this call is the last one.
        if slot.handles > 0 {
            slot.fd = Some(fd.clone());
            drop(open);
            self.remember_file(node, access(flags));
        }
        Ok(fd)
    }

    /// For a program. Of an append-only file the file system gives nobody another descriptor for
    /// writing than one that appends.
    fn open_to_use(&self, node: &Node, access: i32) -> FsResult<OwnedFd> {
        if access == libc::O_RDONLY {
            return self.open(node, access);
        }
        let opened = self.open(node, access);
        let is_refused = opened.as_ref().is_err_and(|error| error.errno == libc::EPERM);
        let opened = if is_refused { self.open(node, access | libc::O_APPEND) } else { opened };
        node.is_append_only.store(is_refused && opened.is_ok(), SeqCst);
        opened
    }

    /// Flags were set or taken away on the disk; the object is locked. A descriptor that appends would write
    /// nowhere else, whatever it is told.
    pub fn flags_are(&self, node: &Node, flags: IFlags) {
        let is_append_only = flags.contains(IFlags::APPEND);
        node.is_immutable.store(flags.contains(IFlags::IMMUTABLE), SeqCst);
        let open = node.open.lock();
        if !is_append_only {
            for fd in open.0.iter().filter_map(|slot| slot.fd.as_ref()) {
                let flags = rustix::fs::fcntl_getfl(fd).map(|flags| flags - OFlags::APPEND);
                if let Err(error) = flags.and_then(|flags| rustix::fs::fcntl_setfl(fd, flags)) {
                    log::warn!("a file can only be appended to until it is closed: {error}");
                    return;
                }
            }
        }
        node.is_append_only.store(is_append_only, SeqCst);
    }

    fn remember_file(&self, node: &Arc<Node>, access: usize) {
        let mut clock = self.file_clock.lock();
        clock.push_back((Arc::downgrade(node), access));
        let mut turns = clock.len() * 2;
        while clock.len() > self.file_capacity && turns > 0 {
            turns -= 1;
            let Some(candidate) = clock.pop_front() else { return };
            let Some(node) = candidate.0.upgrade() else { continue };
            let Some(mut open) = node.open.try_lock() else {
                clock.push_back(candidate);
                continue;
            };
            let slot = &mut open.0[candidate.1];
            match slot.fd.is_some() && std::mem::take(&mut slot.recently_used) {
                true => clock.push_back(candidate),
                false => slot.fd = None,
            }
        }
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

    /// A new descriptor of the object with these open flags. Only of files and directories: the kernel
    /// opens fifos and devices itself, and here a fifo would wait for its other end.
    pub fn open(&self, node: &Node, flags: i32) -> FsResult<OwnedFd> {
        if !matches!(node.file_type, libc::S_IFREG | libc::S_IFDIR) {
            return Err(FsError::new(libc::EINVAL, "open what is no file"));
        }
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
