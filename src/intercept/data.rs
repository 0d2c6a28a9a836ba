//! Ops on content: open, read, write, size, ranges, sync.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use parking_lot::RwLock;
use rustix::fs::{FallocateFlags, SeekFrom, Stat};
use std::collections::HashMap;

use super::clearing::{mode_after_write, set_mode};
use super::error::{FsError, FsResult, Step};
use super::objects::{Node, NodeId};
use super::volume::{Caller, Volume, mtime, permissions};
use crate::packet::{ContentResult, Op, Reserve};

/// How the kernel treats an open handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Reads come from the kernel's page cache, writes go through it to the daemon.
    Cached,
    /// Everything comes to the daemon; shared mappings fail with `ENODEV`.
    Direct,
}

/// What an open handle is to the rules of its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    CachedReadWrite,
    DirectWriter,
    /// Read-only, or a writer that needs no counting.
    Other,
}

/// An open file.
pub struct OpenFile {
    node: Arc<Node>,
    fd: Arc<OwnedFd>,
    pub mode: OpenMode,
    standing: Standing,
}

/// Open files by the number that the kernel holds.
#[derive(Default)]
pub struct Handles {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<OpenFile>>>,
}

impl Handles {
    pub fn len(&self) -> usize {
        self.open.read().len()
    }

    fn enter(&self, file: OpenFile) -> u64 {
        let handle = self.next.fetch_add(1, Relaxed) + 1;
        self.open.write().insert(handle, Arc::new(file));
        handle
    }

    fn get(&self, handle: u64) -> FsResult<Arc<OpenFile>> {
        self.open.read().get(&handle).cloned().ok_or(FsError::new(libc::EBADF, "open handle"))
    }

    fn remove(&self, handle: u64) -> Option<Arc<OpenFile>> {
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
    /// Opens a file; `flags` are `libc::O_*`, of which only the access mode and `O_DIRECT` count.
    pub fn open(&self, node: NodeId, flags: i32) -> FsResult<(u64, OpenMode)> {
        let node = self.node(node)?;
        let fd = self.descriptors.open(&node, flags & libc::O_ACCMODE)?;
        if let Ok(stat) = rustix::fs::fstat(&fd) {
            self.seen(&node, &stat, || rustix::fs::fstat(&fd).ok());
        }
        Ok(self.enter_handle(&node, Arc::new(fd), flags))
    }

    /// Decides how the kernel treats the handle. A direct writer beside a shared mapping would
    /// lose bytes that two writers put on the halves of one page, so the two never meet: while
    /// a cached read-write handle is open every handle is cached, and while a direct writer is
    /// open a new read-write handle is direct.
    pub(super) fn enter_handle(&self, node: &Arc<Node>, fd: Arc<OwnedFd>, flags: i32) -> (u64, OpenMode) {
        let mut state = node.state.lock();
        let direct = flags & libc::O_DIRECT != 0;
        let (mode, standing) = match flags & libc::O_ACCMODE {
            libc::O_RDONLY if direct && state.cached_read_write == 0 => (OpenMode::Direct, Standing::Other),
            libc::O_RDONLY => (OpenMode::Cached, Standing::Other),
            libc::O_WRONLY if state.cached_read_write == 0 => (OpenMode::Direct, Standing::DirectWriter),
            libc::O_WRONLY => (OpenMode::Cached, Standing::Other),
            _ if state.direct_writers > 0 => (OpenMode::Direct, Standing::DirectWriter),
            _ if direct && state.cached_read_write == 0 => (OpenMode::Direct, Standing::DirectWriter),
            _ => (OpenMode::Cached, Standing::CachedReadWrite),
        };
        match standing {
            Standing::CachedReadWrite => {
                state.cached_read_write += 1;
                self.shared_writers.opened.fetch_add(1, Relaxed);
                self.shared_writers.open.fetch_add(1, Relaxed);
            }
            Standing::DirectWriter => state.direct_writers += 1,
            Standing::Other => {}
        }
        let file = OpenFile { node: node.clone(), fd, mode, standing };
        (self.handles.enter(file), mode)
    }

    /// Closes a handle: its last descriptor and mapping are gone.
    pub fn release(&self, handle: u64) {
        let Some(file) = self.handles.remove(handle) else { return };
        let mut state = file.node.state.lock();
        match file.standing {
            Standing::CachedReadWrite => {
                state.cached_read_write -= 1;
                self.shared_writers.open.fetch_sub(1, Relaxed);
            }
            Standing::DirectWriter => state.direct_writers -= 1,
            Standing::Other => {}
        }
    }

    /// Reads up to `buffer.len()` bytes at `offset`; less only at the end of the file.
    pub fn read(&self, handle: u64, offset: u64, buffer: &mut [u8]) -> FsResult<usize> {
        let file = self.handles.get(handle)?;
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
        Ok(done)
    }

    /// Writes; answers how many bytes were written, which is how many were captured.
    pub fn write(&self, caller: Caller, request: WriteRequest<'_>) -> FsResult<usize> {
        let file = self.handles.get(request.handle)?;
        let mut room = self.reserve(request.data.len())?;
        let payload = self.pool.copy_of(request.data);
        let _tree = self.shared_tree();
        let _state = file.node.state.lock();
        self.begin_change(&file.node, &*file.fd);
        if request.clear_privileges {
            clear_privileges(&file, caller)?;
        }
        let outcome = self.with_space(|| pwrite_all(&file.fd, &payload, request.offset));
        let stat = self.after_change(rustix::fs::fstat(&*file.fd).step("stat after a write"))?;
        self.end_change(&file.node, &stat);
        let result = content_result(&stat, request.clear_privileges);
        // A write that failed has still set the time, and perhaps the size: that is sent.
        let (op, payload) = match outcome {
            Ok(written) => (
                Op::Write { object: file.node.object, offset: request.offset, result },
                payload.slice(..written),
            ),
            Err(_) => (Op::Resize { object: file.node.object, result }, Bytes::new()),
        };
        self.append_content(&mut room, &file.node, &op, payload);
        outcome
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
        let mut room = self.reserve(0)?;
        let _tree = self.shared_tree();
        let _state = node.state.lock();
        self.resize_locked(caller, &node, handle, size, &mut room)
    }

    pub(super) fn resize_locked(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        handle: Option<u64>,
        size: u64,
        room: &mut crate::queue::Reservation,
    ) -> FsResult<()> {
        let own = handle.and_then(|handle| self.handles.get(handle).ok());
        let fd = match own {
            Some(file) if file.standing != Standing::Other || file.mode == OpenMode::Direct => {
                file.fd.clone()
            }
            _ => Arc::new(self.descriptors.open(node, libc::O_WRONLY)?),
        };
        self.begin_change(node, &*fd);
        rustix::fs::ftruncate(&*fd, size).step("truncate")?;
        let mut stat = self.after_change(rustix::fs::fstat(&*fd).step("stat after a truncate"))?;
        let cleared = if caller.uid == 0 { None } else { mode_after_write(caller, &stat) };
        if let Some(mode) = cleared {
            self.after_change(set_mode(&*fd, mode))?;
            stat.st_mode = stat.st_mode & libc::S_IFMT | mode;
        }
        // Clearing bits has changed it once more.
        if cleared.is_none() {
            self.end_change(node, &stat);
        }
        let op = Op::Resize { object: node.object, result: content_result(&stat, cleared.is_some()) };
        self.append_content(room, node, &op, Bytes::new());
        Ok(())
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
        let file = self.handles.get(handle)?;
        let mut room = self.reserve(0)?;
        let _tree = self.shared_tree();
        let _state = file.node.state.lock();
        self.begin_change(&file.node, &*file.fd);
        let cleared = caller.uid != 0 && clear_privileges(&file, caller)?;
        let flags = FallocateFlags::from_bits_retain(mode as u32);
        let outcome = rustix::fs::fallocate(&*file.fd, flags, offset, length).step("fallocate");
        let stat = self.after_change(rustix::fs::fstat(&*file.fd).step("stat after a fallocate"))?;
        self.end_change(&file.node, &stat);
        // A reservation that ran out of space half-way may have grown the file: what is there is sent.
        if let Err(error) = outcome {
            let op = Op::Resize { object: file.node.object, result: content_result(&stat, cleared) };
            self.append_content(&mut room, &file.node, &op, Bytes::new());
            return Err(error);
        }
        let result = content_result(&stat, cleared);
        let op = Op::Reserve { object: file.node.object, offset, length, how, result };
        self.append_content(&mut room, &file.node, &op, Bytes::new());
        Ok(())
    }

    /// Next data (`SEEK_DATA`) or hole (`SEEK_HOLE`) from `offset` on.
    pub fn seek(&self, handle: u64, offset: i64, whence: i32) -> FsResult<i64> {
        let file = self.handles.get(handle)?;
        let from = match whence {
            libc::SEEK_DATA => SeekFrom::Data(offset as u64),
            libc::SEEK_HOLE => SeekFrom::Hole(offset as u64),
            _ => return Err(FsError::new(libc::EINVAL, "seek")),
        };
        Ok(rustix::fs::seek(&*file.fd, from).step("seek")? as i64)
    }

    /// What an fsync of this handle has to sync. The caller does it, without any lock.
    pub fn sync_target(&self, handle: u64) -> FsResult<Arc<OwnedFd>> {
        Ok(self.handles.get(handle)?.fd.clone())
    }

    /// Whether the kernel sends an fsync itself after a synchronous write on this handle.
    pub fn kernel_syncs(&self, handle: u64) -> bool {
        self.handles.get(handle).is_ok_and(|file| file.mode == OpenMode::Cached)
    }

    pub(super) fn handle_fd(&self, handle: u64) -> Option<Arc<OwnedFd>> {
        self.handles.get(handle).ok().map(|file| file.fd.clone())
    }

    /// Changes of an object without a name are nobody's: it can never get one again.
    pub(super) fn append_content(
        &self,
        room: &mut crate::queue::Reservation,
        node: &Node,
        op: &Op,
        payload: Bytes,
    ) {
        if !node.is_nameless.load(Relaxed) {
            self.append(room, node, op, payload);
        }
    }
}

/// Writes all of it where the disk takes it; a short count only where something went wrong after
/// some bytes.
fn pwrite_all(fd: &OwnedFd, data: &[u8], offset: u64) -> FsResult<usize> {
    let mut done = 0;
    loop {
        match rustix::io::pwrite(fd, &data[done..], offset + done as u64) {
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) if done > 0 => return Ok(done),
            Err(errno) => return Err(FsError::new(errno.raw_os_error(), "write")),
        }
        if done == data.len() {
            return Ok(done);
        }
    }
}

/// Clears setuid and setgid before an unprivileged change; answers whether there was any.
fn clear_privileges(file: &OpenFile, caller: Caller) -> FsResult<bool> {
    let stat = rustix::fs::fstat(file.fd.as_fd()).step("stat")?;
    match mode_after_write(caller, &stat) {
        Some(mode) => set_mode(file.fd.as_fd(), mode).map(|()| true),
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
