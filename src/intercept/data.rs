//! Ops on content: open, read, write, size, ranges, sync.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use bytes::Bytes;
use parking_lot::RwLock;
use rustix::fs::{FallocateFlags, SeekFrom, Stat};
use std::collections::{HashMap, HashSet};

use super::appending::{append, refuse_all_but_appending};
use super::cached::ReadRanges;
use super::change::{Change, Part, Touched};
use super::clearing::{mode_after_write, set_mode};
use super::descriptors::reopen;
use super::error::{FsError, FsResult, Step};
use super::growth::Growing;
use super::mixing::Mixings;
use super::objects::{Node, NodeId};
use super::standing::Kind;
use super::volume::{Caller, Volume, mtime, permissions};
use crate::failpoint;
use crate::packet::{ContentResult, Op, Reserve};
use crate::sys::Identity;

/// How the kernel treats an open handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Reads come from the kernel's page cache, writes go through it to the daemon.
    Cached,
    /// Everything comes to the daemon; shared mappings fail with `ENODEV`.
    Direct,
}

/// An open file, with its descriptor for one call.
pub struct OpenFile {
    node: Arc<Node>,
    fd: Arc<OwnedFd>,
    pub mode: OpenMode,
    access: i32,
}

impl OpenFile {
    fn is_writable(&self) -> bool {
        self.access != libc::O_RDONLY
    }
}

/// A new handle, for a reply to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub handle: u64,
    pub mode: OpenMode,
    /// Others write past the kernel's page cache, which may have pages from before a write that
    /// is not answered yet: it has to drop them before this handle is used.
    pub has_stale_pages: bool,
}

/// An open file as it is known between calls: its descriptor may be closed meanwhile.
#[derive(Clone)]
pub(super) struct Entered {
    pub node: Arc<Node>,
    pub mode: OpenMode,
    pub access: i32,
    /// Where it is noted for the daemon that comes after this one.
    pub noted: Option<u32>,
}

impl Entered {
    /// A shared mapping of it may be written through.
    pub fn is_read_write(&self) -> bool {
        self.access == libc::O_RDWR && self.mode == OpenMode::Cached
    }
}

/// Open files by the number that the kernel holds.
#[derive(Default)]
pub struct Handles {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Entered>>,
}

impl Handles {
    pub fn len(&self) -> usize {
        self.open.read().len()
    }

    /// `note` gives where it is noted under its number.
    fn enter(&self, file: Entered, note: impl FnOnce(u64) -> Option<u32>) -> u64 {
        let handle = self.next.fetch_add(1, Relaxed) + 1;
        let noted = note(handle);
        self.enter_as(handle, Entered { noted, ..file });
        handle
    }

    pub fn enter_as(&self, handle: u64, file: Entered) {
        self.next.fetch_max(handle, Relaxed);
        let other = self.open.write().insert(handle, file);
        assert!(other.is_none(), "two open files have one number");
    }

    pub fn get(&self, handle: u64) -> FsResult<Entered> {
        self.open.read().get(&handle).cloned().ok_or(FsError::new(libc::EBADF, "open handle"))
    }

    fn each_read_write(&self, mut look: impl FnMut(&Arc<Node>)) {
        self.open.read().values().filter(|file| file.is_read_write()).for_each(|file| look(&file.node));
    }

    fn writers_of(&self, id: NodeId) -> HashSet<u64> {
        let writes = |file: &Entered| file.node.id == id && file.access != libc::O_RDONLY;
        let open = self.open.read();
        open.iter().filter(|(_, file)| writes(file)).map(|(handle, _)| *handle).collect()
    }

    fn remove(&self, handle: u64) -> Option<Entered> {
        let mut open = self.open.write();
        let file = open.remove(&handle);
        if open.capacity() > 1024 && open.len() < open.capacity() / 4 {
            open.shrink_to_fit();
        }
        file
    }
}

/// A write as the kernel hands it over.
#[derive(Clone, Copy)]
pub struct WriteRequest<'a> {
    pub handle: u64,
    /// Bytes from the start of the file.
    pub offset: u64,
    pub data: &'a [u8],
    /// The caller may not keep setuid and setgid.
    pub clear_privileges: bool,
    pub origin: Origin,
}

/// Where the bytes of a write come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A call of a program, which holds the file's lock in the kernel until it returns.
    Program,
    /// Whole pages that a shared mapping has changed, written back at any time.
    PageCache,
}

impl WriteRequest<'_> {
    /// The write as a change that may make the file longer.
    pub fn growing(&self, caller: Caller) -> Growing {
        let end = self.offset + self.data.len() as u64;
        Growing { writer: caller.pid, handle: Some(self.handle), offset: self.offset, end }
    }
}

/// What a write has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub bytes: usize,
    /// The file has lost setuid or setgid.
    pub cleared: bool,
    /// A shared mapping may have pages without these bytes: the kernel has to drop them, then
    /// [`Volume::end_mixing`] is called with this, and then the write is answered.
    pub mixing: Option<u64>,
}

/// Whether a write returns before or after its bytes are durable on the backing disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Contents and what is needed to read them back (`fdatasync`).
    Data,
    /// Everything (`fsync`).
    All,
}

impl Volume {
    /// Opens a file; `flags` are `libc::O_*`, of which only the access mode counts.
    pub fn open(&self, node: NodeId, flags: i32) -> FsResult<Opened> {
        if flags & libc::O_ACCMODE != libc::O_RDONLY {
            self.fence().check()?;
        }
        let node = self.node(node)?;
        let opened = self.enter_handle(&node, None, flags)?;
        if let Ok(fd) = self.descriptors.of_open(&node, self.profile.access(flags & libc::O_ACCMODE))
            && let Ok(stat) = rustix::fs::fstat(&*fd)
        {
            self.seen(&node, &stat, || rustix::fs::fstat(&*fd).ok());
        }
        Ok(opened)
    }

    pub(super) fn node_of_handle(&self, handle: u64) -> FsResult<Arc<Node>> {
        Ok(self.handles.get(handle)?.node)
    }

    /// What the kernel means by a handle, with its descriptor.
    fn file(&self, handle: u64) -> FsResult<OpenFile> {
        let Entered { node, mode, access, noted: _ } = self.handles.get(handle)?;
        let fd = self.descriptors.of_open(&node, access)?;
        Ok(OpenFile { node, fd, mode, access })
    }

    /// Enters a handle, with its descriptor where there is one already (`opened`), and decides how the
    /// kernel treats it. What reads is cached, so that it can be mapped; with `O_DIRECT` the kernel
    /// then goes past its cache by itself. What only writes is direct, which is faster, unless
    /// somebody may have the file mapped: it is safe beside a mapping too ([`super::mixing`]), but
    /// slower. What only appends is direct, and not to be mapped. Where the kernel gathers writes
    /// everything is cached, and what writes can be read.
    pub(super) fn enter_handle(
        &self,
        node: &Arc<Node>,
        opened: Option<Arc<OwnedFd>>,
        flags: i32,
    ) -> FsResult<Opened> {
        if let Some(opened) = self.opened_before() {
            return Ok(opened);
        }
        let access = self.profile.access(flags & libc::O_ACCMODE);
        self.descriptors.enter(node, access, opened)?;
        if let Err(error) = refuse_all_but_appending(node, flags) {
            self.descriptors.leave(node, access);
            return Err(error);
        }
        let is_append_only = node.is_append_only.load(SeqCst);
        let mut state = node.state.note();
        let mode = match access {
            libc::O_WRONLY | libc::O_RDWR if is_append_only && !self.profile.gathers() => OpenMode::Direct,
            libc::O_WRONLY if state.read_write == 0 => OpenMode::Direct,
            _ => OpenMode::Cached,
        };
        let file = Entered { node: node.clone(), mode, access, noted: None };
        if mode == OpenMode::Direct {
            state.direct_writers += 1;
        }
        let has_stale_pages = file.is_read_write() && state.read_write == 0 && state.direct_writers > 0;
        if file.is_read_write() {
            state.read_write += 1;
            node.may_be_mapped.store(true, SeqCst);
            self.shared_writers.opened.fetch_add(1, Relaxed);
            self.shared_writers.open.fetch_add(1, Relaxed);
        }
        drop(state);
        let kind = Kind::File { access, mode };
        let note = |handle| self.standing().and_then(|standing| standing.enter_handle(kind, handle, node.id));
        let opened = Opened { handle: self.handles.enter(file, note), mode, has_stale_pages };
        // Its last name may have gone while nobody had it open.
        if node.is_nameless.load(SeqCst) {
            self.keep_standing(node)?;
        }
        Ok(opened)
    }

    /// Closes a handle: its last descriptor and mapping are gone.
    pub fn release(&self, handle: u64) {
        let Some(file) = self.handles.remove(handle) else { return };
        if let (Some(standing), Some(noted)) = (self.standing(), file.noted) {
            standing.remove_handle(noted);
        }
        self.settle_growth(&file.node, |growing| growing.handle == Some(handle));
        self.descriptors.leave(&file.node, file.access);
        if !file.node.open.lock().is_open() {
            self.standing().iter().for_each(|standing| standing.let_go(&file.node));
        }
        self.forget_untold(&file.node, handle);
        let mut state = file.node.state.note();
        if file.mode == OpenMode::Direct {
            assert!(state.direct_writers > 0, "a direct writer closes that had not opened");
            state.direct_writers -= 1;
        }
        if file.is_read_write() {
            assert!(state.read_write > 0, "a program closes for reading and writing that had not opened");
            state.read_write -= 1;
            file.node.may_be_mapped.store(state.read_write > 0, SeqCst);
            self.shared_writers.open.fetch_sub(1, Relaxed);
            if state.read_write == 0 {
                self.unlist(&file.node);
            }
        }
    }

    /// Whether it was opened for writing.
    pub(super) fn writes(&self, handle: u64) -> bool {
        self.handles.get(handle).is_ok_and(|file| file.access != libc::O_RDONLY)
    }

    /// Handles that may write to a file.
    pub(super) fn writers_of(&self, id: NodeId) -> HashSet<u64> {
        self.handles.writers_of(id)
    }

    pub(super) fn each_read_write(&self, look: impl FnMut(&Arc<Node>)) {
        self.handles.each_read_write(look);
    }

    /// Reads up to `buffer.len()` bytes at `offset`; less only at the end of the file.
    pub fn read(&self, handle: u64, offset: u64, buffer: &mut [u8]) -> FsResult<usize> {
        let file = self.file(handle)?;
        let mut done = 0;
        while done < buffer.len() {
            match rustix::io::pread(&*file.fd, &mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) if done > 0 => break,
                Err(errno) => return Err(FsError::new(errno.raw_os_error(), "read")),
            }
        }
        file.node.read.lock().note(offset, buffer.len() as u64);
        if file.node.is_mixing.load(SeqCst) {
            file.node.state.note().mixings.note_read(offset, &buffer[..done]);
        }
        Ok(done)
    }

    /// Writes; says how much, which is how much was captured.
    pub fn write(&self, caller: Caller, request: WriteRequest<'_>) -> FsResult<Written> {
        let file = self.file(request.handle)?;
        let end = request.offset.saturating_add(request.data.len() as u64);
        let touched = Touched::object(&file.node, &file.fd, Part::Content(request.offset..end));
        let prepared = self.prepare(touched, request.data.len())?;
        let payload = self.pool.copy_of(request.data);
        let mut change = prepared.lock()?;
        let payload = match request.origin {
            Origin::Program => {
                change.will_grow(request.growing(caller), &file.fd)?;
                payload
            }
            Origin::PageCache => {
                self.refuse_gap(&file.node, &file.fd, request.offset)?;
                self.mixed(&change.state().mixings, request.offset, payload)
            }
        };
        let mixing = match file.mode == OpenMode::Direct && change.state().read_write > 0 {
            true => Some(begin_mixing(&file, &mut change.state().mixings, request.offset, &payload)?),
            false => None,
        };
        let cleared = match request.clear_privileges {
            true => clear_privileges(&mut change, &file, caller),
            false => Ok(false),
        };
        self.note_content(&file.node, change.state(), &file.fd);
        let write = || match file.node.is_append_only.load(SeqCst) {
            true => append(&file.fd, &payload, request.offset),
            false => pwrite_all(&file.fd, &payload, request.offset),
        };
        let outcome = cleared.and_then(|cleared| Ok((change.make(write)?, cleared)));
        let stat = change.stat_after(&file.fd);
        if let (Some(id), false) = (mixing, outcome.is_ok() && stat.is_ok()) {
            end_mixing(&file.node, &mut change.state().mixings, id);
        }
        let (object, result) = (file.node.object, content_result(&stat?, request.clear_privileges));
        match outcome {
            Ok((bytes, _)) => {
                assert!(bytes <= payload.len(), "{bytes} bytes are written of {}", payload.len());
                let op = Op::Write { object, offset: request.offset, result };
                change.append(&op, payload.slice(..bytes));
            }
            // A write that failed has still set the time, and perhaps the size: that is sent.
            Err(_) if change.is_made() => change.append(&Op::Resize { object, result }, Bytes::new()),
            Err(_) => change.unchanged(),
        }
        let (bytes, cleared) = outcome?;
        Ok(Written { bytes, cleared, mixing })
    }

    /// What a write-back writes beside direct writes that its pages may lack.
    fn mixed(&self, mixings: &Mixings, offset: u64, payload: Bytes) -> Bytes {
        let Some(mixed) = mixings.mix(offset, &payload) else { return payload };
        assert_eq!(mixed.len(), payload.len(), "a write-back is as long as its pages");
        self.pool.copy_of(&mixed)
    }

    /// The kernel has dropped the pages that may lack a direct write.
    pub fn end_mixing(&self, handle: u64, id: u64) {
        if let Ok(file) = self.handles.get(handle) {
            end_mixing(&file.node, &mut file.node.state.note().mixings, id);
        }
    }

    /// Sets the size of a file in bytes. An unprivileged caller clears setuid and setgid.
    pub(super) fn resize(
        &self,
        caller: Caller,
        node: NodeId,
        handle: Option<u64>,
        size: u64,
    ) -> FsResult<()> {
        let node = self.node(node)?;
        let fd = self.descriptors.of(&node)?;
        let mut change = self.prepare(Touched::object(&node, &fd, Part::Size(size)), 0)?.lock()?;
        let outcome = self.resize_locked(&mut change, caller, &node, handle, size);
        drop(change);
        self.after_resize(&node, outcome)
    }

    /// No lock is held.
    pub(super) fn after_resize(&self, node: &Arc<Node>, outcome: Result<(), FailedResize>) -> FsResult<()> {
        outcome.map_err(|failed| {
            if let Some(from) = failed.changed_from {
                self.send_again(node, from..u64::MAX);
            }
            failed.error
        })
    }

    pub(super) fn resize_locked(
        &self,
        change: &mut Change<'_>,
        caller: Caller,
        node: &Arc<Node>,
        handle: Option<u64>,
        size: u64,
    ) -> Result<(), FailedResize> {
        let own = handle.and_then(|handle| self.file(handle).ok());
        let fd = match own {
            Some(file) if file.is_writable() => file.fd.clone(),
            _ => Arc::new(self.descriptors.open(node, libc::O_WRONLY)?),
        };
        change.will_grow(Growing::to(caller.pid, handle, size), &fd)?;
        self.note_content(node, change.state(), &fd);
        let before = rustix::fs::fstat(&*fd).step("stat")?.st_size as u64;
        if let Err(error) = change.make(|| rustix::fs::ftruncate(&*fd, size).step("truncate")) {
            if !error.may_have_changed() {
                return Err(error.into());
            }
            let result = content_result(&change.stat_after(&fd)?, false);
            change.tell(&Op::Resize { object: node.object, result }, Bytes::new());
            return Err(FailedResize { error, changed_from: Some(before.min(size) & !(BLOCK_MAX - 1)) });
        }
        let mut stat = change.stat_after(&fd)?;
        let cleared = if caller.uid == 0 { None } else { mode_after_write(caller, &stat) };
        let mut outcome = Ok(());
        if let Some(mode) = cleared {
            outcome = change.make(|| set_mode(&*fd, mode));
            stat = change.stat_after(&fd)?;
        }
        let op = Op::Resize { object: node.object, result: content_result(&stat, cleared.is_some()) };
        change.tell(&op, Bytes::new());
        Ok(outcome?)
    }

    /// Reserves, punches or zeroes a range; `mode` as `fallocate(2)`.
    ///
    /// Errors: `EOPNOTSUPP` for modes that FUSE does not pass or the file system lacks.
    pub fn fallocate(
        &self,
        caller: Caller,
        handle: u64,
        offset: u64,
        length: u64,
        mode: i32,
    ) -> FsResult<()> {
        let how = match mode {
            0 => Reserve::Allocate,
            libc::FALLOC_FL_KEEP_SIZE => Reserve::AllocateKeepSize,
            m if m == libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE => Reserve::PunchHole,
            libc::FALLOC_FL_ZERO_RANGE => Reserve::ZeroRange,
            m if m == libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE => Reserve::ZeroRangeKeepSize,
            _ => return Err(FsError::new(libc::EOPNOTSUPP, "fallocate mode")),
        };
        let file = self.file(handle)?;
        let range = offset..offset.saturating_add(length);
        let touched = Touched::object(&file.node, &file.fd, Part::Content(range.clone()));
        let mut change = self.prepare(touched, 0)?.lock()?;
        change.will_grow(Growing::to(caller.pid, Some(handle), range.end), &file.fd)?;
        let cleared = match caller.uid {
            0 => Ok(false),
            _ => clear_privileges(&mut change, &file, caller),
        };
        let flags = FallocateFlags::from_bits_retain(mode as u32);
        self.note_content(&file.node, change.state(), &file.fd);
        let reserve = || rustix::fs::fallocate(&*file.fd, flags, offset, length).step("fallocate");
        let outcome = cleared.and_then(|_| change.make(reserve));
        if !change.is_made() {
            change.unchanged();
            return outcome;
        }
        let (object, stat) = (file.node.object, change.stat_after(&file.fd)?);
        let result = content_result(&stat, cleared != Ok(false));
        // A reservation that ran out of space half-way may have grown the file: what is there is sent.
        let op = match outcome {
            Ok(()) => Op::Reserve { object, offset, length, how, result },
            Err(_) => Op::Resize { object, result },
        };
        change.append(&op, Bytes::new());
        if outcome.is_err_and(|error| clears(how) && error.may_have_changed()) {
            self.send_again(&file.node, offset & !(BLOCK_MAX - 1)..range.end);
        }
        outcome
    }

    /// Next data (`SEEK_DATA`) or hole (`SEEK_HOLE`) from `offset` on.
    ///
    /// What a shared mapping has stored in a hole is not on the disk yet, perhaps: while there may
    /// be such a mapping, what it may have of a hole is data.
    pub fn seek(&self, handle: u64, offset: i64, whence: i32) -> FsResult<i64> {
        let file = self.file(handle)?;
        // The kernel searches under the file's own lock.
        self.settle_growth(&file.node, |_| true);
        let is_mapped = file.node.may_be_mapped.load(Relaxed);
        let on_disk = match whence {
            libc::SEEK_DATA => seek_on_disk(&file.fd, SeekFrom::Data(offset as u64)),
            libc::SEEK_HOLE => seek_on_disk(&file.fd, SeekFrom::Hole(offset as u64)),
            _ => return Err(FsError::new(libc::EINVAL, "seek")),
        };
        let size = rustix::fs::fstat(&*file.fd).step("stat")?.st_size;
        if !is_mapped || offset < 0 || offset >= size {
            return on_disk;
        }
        let read = file.node.read.lock();
        match whence {
            libc::SEEK_DATA => {
                let cached = read.next_read(offset as u64).map(|at| at as i64).filter(|at| *at < size);
                match (on_disk, cached) {
                    (Ok(data), Some(cached)) => Ok(data.min(cached)),
                    (Err(error), Some(cached)) if error.errno == libc::ENXIO => Ok(cached),
                    (on_disk, _) => on_disk,
                }
            }
            _ => next_hole(&file.fd, &read, on_disk?, size),
        }
    }

    /// Owner and group of an open file: for them their own pages are written back.
    pub fn owner(&self, handle: u64) -> FsResult<Identity> {
        let stat = rustix::fs::fstat(&*self.file(handle)?.fd).step("stat")?;
        Ok(Identity { uid: stat.st_uid, gid: stat.st_gid })
    }

    /// What an fsync of this handle has to sync. The caller does it, without any lock.
    pub fn sync_target(&self, handle: u64) -> FsResult<Arc<OwnedFd>> {
        Ok(self.file(handle)?.fd)
    }

    /// The kernel asked for an fsync, which it does under the file's own lock.
    pub fn note_fsync(&self, handle: u64) {
        if let Ok(file) = self.handles.get(handle) {
            self.settle_growth(&file.node, |_| true);
        }
    }

    /// Whether the kernel sends an fsync itself after a synchronous write on this handle.
    pub fn kernel_syncs(&self, handle: u64) -> bool {
        self.handles.get(handle).is_ok_and(|file| file.mode == OpenMode::Cached)
    }

    pub(super) fn handle_fd(&self, handle: u64) -> Option<Arc<OwnedFd>> {
        self.file(handle).ok().map(|file| file.fd)
    }
}

/// Notes a direct write and what is there before it.
fn begin_mixing(file: &OpenFile, mixings: &mut Mixings, offset: u64, new: &Bytes) -> FsResult<u64> {
    // The handle is write-only.
    let fd = reopen(file.fd.as_fd(), libc::O_RDONLY)?;
    let mut old = vec![0; new.len()];
    let mut done = 0;
    while done < old.len() {
        match rustix::io::pread(&fd, &mut old[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(FsError::new(errno.raw_os_error(), "read before a write")),
        }
    }
    file.node.is_mixing.store(true, SeqCst);
    Ok(mixings.begin(offset, old, new.clone()))
}

fn end_mixing(node: &Node, mixings: &mut Mixings, id: u64) {
    mixings.end(id);
    node.is_mixing.store(!mixings.is_empty(), SeqCst);
}

/// Content on either side of a range that its blocks reach to may be touched with it; the largest
/// block that a file system here has.
const BLOCK_MAX: u64 = 64 << 10;

/// A change of size that failed.
pub(super) struct FailedResize {
    error: FsError,
    /// From this byte on the content may be another one.
    changed_from: Option<u64>,
}

impl From<FsError> for FailedResize {
    fn from(error: FsError) -> FailedResize {
        FailedResize { error, changed_from: None }
    }
}

/// Whether bytes that were there go.
fn clears(how: Reserve) -> bool {
    match how {
        Reserve::Allocate | Reserve::AllocateKeepSize => false,
        Reserve::PunchHole | Reserve::ZeroRange | Reserve::ZeroRangeKeepSize => true,
    }
}

/// Writes all of it where the disk takes it; a short count only where something went wrong after
/// some bytes.
pub(super) fn pwrite_all(fd: &OwnedFd, data: &[u8], offset: u64) -> FsResult<usize> {
    // In tests the disk may refuse each piece.
    const PIECE: usize = if cfg!(test) { 4096 } else { usize::MAX };
    let mut done = 0usize;
    loop {
        let piece = &data[done..data.len().min(done.saturating_add(PIECE))];
        let written = failpoint::at("write a piece").step("write");
        match written.and_then(|()| rustix::io::pwrite(fd, piece, offset + done as u64).step("write")) {
            Ok(count) => done += count,
            Err(error) if error.errno == libc::EINTR => continue,
            Err(_) if done > 0 => return Ok(done),
            Err(error) => return Err(error),
        }
        if done == data.len() {
            return Ok(done);
        }
    }
}

fn seek_on_disk(fd: &OwnedFd, from: SeekFrom) -> FsResult<i64> {
    Ok(rustix::fs::seek(fd, from).step("seek")? as i64)
}

/// The first part from a hole of the disk on that is one there and was not read. The end of the
/// file is a hole.
fn next_hole(fd: &OwnedFd, read: &ReadRanges, mut hole: i64, size: i64) -> FsResult<i64> {
    loop {
        let unread = (read.next_unread(hole as u64) as i64).min(size);
        if unread == hole || unread == size {
            return Ok(unread);
        }
        hole = seek_on_disk(fd, SeekFrom::Hole(unread as u64))?;
        if hole == unread {
            return Ok(hole);
        }
    }
}

/// Clears setuid and setgid before an unprivileged change; answers whether there was any.
fn clear_privileges(change: &mut Change<'_>, file: &OpenFile, caller: Caller) -> FsResult<bool> {
    let stat = rustix::fs::fstat(file.fd.as_fd()).step("stat")?;
    match mode_after_write(caller, &stat) {
        Some(mode) => change.make(|| set_mode(file.fd.as_fd(), mode)).map(|()| true),
        None => Ok(false),
    }
}

fn content_result(stat: &Stat, with_mode: bool) -> ContentResult {
    ContentResult {
        size: stat.st_size as u64,
        mtime: mtime(stat),
        mode: with_mode.then(|| permissions(stat)),
    }
}
