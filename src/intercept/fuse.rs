//! The adapter between the kernel and a [`Volume`]: the only user of `fuser`.
//!
//! Each method unpacks a request, calls the volume, packs the reply; what is decided, is decided
//! elsewhere. An fsync is done by a pool of threads, so that slow disks never hold up the threads
//! that serve requests; a gate may hold its answer back, and no thread waits for that.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::Sender;
use fuser::{
    BackgroundSession, BsdFileFlags, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType,
    Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, Notifier, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session, SessionACL,
    TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::aside::{Aside, Carries};
use super::attributes::{Changes, SetTime};
use super::data::{OpenMode, Opened, Origin, Sync, WriteRequest};
use super::divergence::Divergence;
use super::error::{FsError, FsResult};
use super::gate::{DurabilityGate, SyncAnswer};
use super::growth::{Growing, start_looking};
use super::helpers::{Helpers, Place};
use super::listing::Listed;
use super::mounting::{self, ConnectionNumber};
use super::names::{AskedMode, At};
use super::objects::NodeId;
use super::volume::{Caller, Meta, Volume};
use crate::limits::{FUSE_WRITE_LEN_MAX, KERNEL_CACHE_TTL};
use crate::packet::Timestamp;
use crate::sys::{Identity, MountOptions};

/// Requests that the kernel may have under way in the background.
const BACKGROUND_MAX: u16 = 64;
/// Threads that serve requests: as many as CPUs, and enough that slow reads from disk leave some.
const THREADS_MIN: usize = 4;
/// Threads that sync: one slow disk flush must not queue behind another file's.
const SYNC_THREADS: usize = 4;
/// Threads for jobs that wait for the kernel.
const HELPERS: usize = 2;

/// Why a mount did not come up.
#[derive(Debug)]
pub enum MountError {
    /// The kernel lacks something that correctness needs.
    Kernel(String),
    Io(io::Error),
}

impl std::fmt::Display for MountError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            MountError::Kernel(what) => write!(f, "the kernel's FUSE lacks {what}"),
            MountError::Io(error) => write!(f, "{error}"),
        }
    }
}

/// A mount that is up and answers nothing yet: calls on it wait. Dropping it unmounts.
pub struct Mount {
    session: Option<Session<Adapter>>,
    mount_point: PathBuf,
    connection: ConnectionNumber,
}

/// A mount that serves. Dropping it detaches the mount.
pub struct Serving {
    session: Option<BackgroundSession>,
    mount_point: PathBuf,
    connection: ConnectionNumber,
}

impl Mount {
    /// Mounts over a directory. `name` is shown as the source of the mount. Without a gate syncs
    /// return when the local disk has everything.
    pub fn new(
        volume: Arc<Volume>,
        mount_point: &Path,
        name: &str,
        options: MountOptions,
        gate: Option<Arc<dyn DurabilityGate>>,
    ) -> Result<Mount, MountError> {
        let mut config = Config::default();
        let threads = std::thread::available_parallelism().map_or(2, usize::from).max(THREADS_MIN);
        config.n_threads = Some(threads);
        let missing = Arc::new(Mutex::new(None));
        let notifier = Arc::new(OnceLock::new());
        let adapter = Adapter {
            aside: volume.aside(threads),
            helpers: Helpers::start(HELPERS),
            sizes: start_looking(volume.clone()),
            sync: start_sync_threads(volume.divergence()),
            volume,
            gate,
            missing: missing.clone(),
            notifier: notifier.clone(),
        };
        let device = mounting::mount(mount_point, name, options).map_err(MountError::Io)?;
        let connection = mounting::connection_at(mount_point).inspect_err(|_| {
            let _ = mounting::detach(mount_point);
        });
        let connection = connection.map_err(MountError::Io)?;
        match Session::from_fd(adapter, device, SessionACL::All, config) {
            Ok(session) => {
                let _ = notifier.set(session.notifier());
                Ok(Mount { session: Some(session), mount_point: mount_point.to_owned(), connection })
            }
            Err(error) => {
                let _ = mounting::detach(mount_point);
                Err(missing.lock().take().map_or(MountError::Io(error), MountError::Kernel))
            }
        }
    }

    /// Starts to answer.
    pub fn serve(mut self) -> io::Result<Serving> {
        let session = self.session.take().expect("a mount serves once").spawn()?;
        let (mount_point, connection) = (self.mount_point.clone(), self.connection);
        Ok(Serving { session: Some(session), mount_point, connection })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Calls that wait on a mount that never served get an error; a detached one goes with them.
        if self.session.is_some()
            && let Err(error) = mounting::detach(&self.mount_point)
        {
            log::error!("{} could not be unmounted: {error}", self.mount_point.display());
        }
    }
}

impl Serving {
    /// Unmounts if nothing here uses the mount (`EBUSY` otherwise). Another mount namespace may
    /// have it still: then requests go on coming until [`Serving::disconnect`].
    ///
    /// Errors: `EINVAL` also where what is mounted there is not ours.
    pub fn unmount(&self) -> io::Result<()> {
        self.check_on_top()?;
        mounting::unmount(&self.mount_point)
    }

    /// Takes the mount away from its users: open files go on working until the process ends.
    pub fn detach(&self) -> io::Result<()> {
        self.check_on_top()?;
        mounting::detach(&self.mount_point)
    }

    /// Ends the connection to the kernel, for whoever still has the mount: programs get errors, and
    /// nothing of theirs is acknowledged any more.
    pub fn disconnect(&self) -> io::Result<()> {
        mounting::abort(self.connection)
    }

    /// Whether the connection to the kernel is over, and the last request was answered: nobody has
    /// the mount any more, or the connection was ended.
    pub fn ended(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// What mount tables show as its device (`major:minor`).
    pub fn device(&self) -> String {
        self.connection.device()
    }

    fn check_on_top(&self) -> io::Result<()> {
        match mounting::connection_at(&self.mount_point) {
            Ok(connection) if connection == self.connection => Ok(()),
            Ok(_) | Err(_) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        match self.session.take() {
            Some(session) if session.guard.is_finished() => {
                if let Err(error) = session.join() {
                    log::warn!("the FUSE session ended with an error: {error}");
                }
            }
            _ => _ = self.detach(),
        }
    }
}

/// Clones share everything; a change that has to wait takes one along.
#[derive(Clone)]
struct Adapter {
    volume: Arc<Volume>,
    aside: Aside,
    helpers: Helpers,
    /// Files whose size somebody waits for.
    sizes: Sender<NodeId>,
    sync: Sender<SyncJob>,
    gate: Option<Arc<dyn DurabilityGate>>,
    /// What the kernel lacks, found in the handshake.
    missing: Arc<Mutex<Option<String>>>,
    /// Set once the kernel is connected.
    notifier: Arc<OnceLock<Notifier>>,
}

/// A write request without its bytes.
struct Write {
    caller: Caller,
    ino: INodeNo,
    handle: FileHandle,
    offset: u64,
    clear_privileges: bool,
    origin: Origin,
    flags: OpenFlags,
    /// The disk was full, and until then it is tried again.
    no_space_until: Option<Instant>,
}

/// How long a write to a full disk waits for files that were removed and are about to be forgotten:
/// the kernel may be late with that on a busy machine.
const SPACE_PATIENCE: Duration = Duration::from_secs(5);
const SPACE_POLL: Duration = Duration::from_millis(20);

fn is_ahead(moment: Instant) -> bool {
    Instant::now() < moment
}

/// From here on this thread uses the caller's quota, and no blocks that are root's.
fn act_for(identity: Identity) {
    if let Err(error) = crate::sys::act_as(identity) {
        log::warn!("a change cannot be made as its caller, but only as root: {error}");
    }
}

/// A flush of a descriptor, and what to do with its outcome.
struct SyncJob {
    fd: Arc<std::os::fd::OwnedFd>,
    what: Sync,
    done: SyncAnswer,
}

fn start_sync_threads(divergence: &Arc<Divergence>) -> Sender<SyncJob> {
    let (sender, receiver) = crossbeam_channel::unbounded::<SyncJob>();
    for number in 0..SYNC_THREADS {
        let (receiver, divergence) = (receiver.clone(), divergence.clone());
        let started = std::thread::Builder::new().name(format!("sync-{number}")).spawn(move || {
            for job in receiver {
                let outcome = match job.what {
                    Sync::Data => rustix::fs::fdatasync(&*job.fd),
                    Sync::All => rustix::fs::fsync(&*job.fd),
                };
                let outcome = outcome.map_err(io::Error::from);
                divergence.note_sync("fsync of a file", job.fd.as_fd(), &outcome);
                (job.done)(outcome);
            }
        });
        if let Err(error) = started {
            log::error!("a sync thread did not start: {error}");
        }
    }
    sender
}

thread_local! {
    /// One buffer a thread for reads, as large as the largest one so far.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Adapter {
    /// Performs a change for its caller: at once, or on a worker where it might wait.
    fn change(&self, request: &Request, change: impl FnOnce(&Adapter) + Send + 'static) {
        let identity = caller(request).identity();
        if let Some(_serving) = self.aside.enter(Carries::Names) {
            act_for(identity);
            return change(self);
        }
        let adapter = self.clone();
        self.aside.park(move || {
            act_for(identity);
            change(&adapter);
        });
    }

    /// A change that may have to wait half-way.
    fn change_patiently(&self, request: &Request, change: impl FnOnce(&Adapter) + Send + 'static) {
        let (adapter, identity) = (self.clone(), caller(request).identity());
        self.aside.park(move || {
            act_for(identity);
            change(&adapter);
        });
    }

    /// The disk may have room in a moment: the write is tried again. Nothing waits meanwhile but the
    /// write.
    fn write_later(&self, what: Write, data: &[u8], reply: ReplyWrite) {
        let held = self.aside.hold(what.caller.uid, what.offset, data.len());
        if held.len < data.len() {
            return reply.error(Errno::ENOSPC);
        }
        let until = what.no_space_until.unwrap_or_else(|| Instant::now() + SPACE_PATIENCE);
        let what = Write { no_space_until: Some(until), ..what };
        let (adapter, data) = (self.clone(), data.to_vec());
        self.aside.park_later(SPACE_POLL, move || {
            adapter.write_now(what, &data, reply);
            drop(held);
        });
    }

    /// A write that has to wait: what it keeps of its bytes, and is then written.
    fn write_parked(&self, what: Write, data: &[u8], reply: ReplyWrite) {
        let adapter = self.clone();
        // Pages that are written back whole cannot be taken in part; they are few at a time.
        let held = match what.origin {
            Origin::PageCache => None,
            Origin::Program => Some(self.aside.hold(what.caller.uid, what.offset, data.len())),
        };
        let data = data[..held.as_ref().map_or(data.len(), |held| held.len)].to_vec();
        self.aside.park(move || {
            adapter.write_now(what, &data, reply);
            drop(held);
        });
    }

    fn write_now(&self, what: Write, data: &[u8], reply: ReplyWrite) {
        let Write { caller, ino, handle, offset, clear_privileges, origin, flags, .. } = what;
        act_for(caller.identity());
        let request = WriteRequest { handle: handle.0, offset, data, clear_privileges, origin };
        let growing = request.growing(caller);
        let range = offset..offset + data.len() as u64;
        let departed = self.volume.departed();
        let written = self.volume.write(caller, request);
        if clear_privileges && !written.is_ok_and(|written| !written.cleared) {
            self.forget_attributes(ino);
        }
        let written = match written {
            Ok(written) => written,
            Err(error)
                if self.volume.expects_space(error, departed) && what.no_space_until.is_none_or(is_ahead) =>
            {
                return self.write_later(what, data, reply);
            }
            Err(error) => {
                let volume = self.volume.clone();
                let answer = move |_: &Adapter| {
                    reply.error(errno(error));
                    volume.growth_answered(node(ino), growing);
                };
                return match error.may_have_changed() {
                    true => self.after_failed_write(handle, range, answer),
                    false => answer(self),
                };
            }
        };
        let volume = self.volume.clone();
        let answer = move |outcome: io::Result<()>| {
            match outcome {
                Ok(()) => reply.written(written.bytes as u32),
                Err(error) => reply.error(io_errno(&error)),
            }
            volume.growth_answered(node(ino), growing);
        };
        let failed = range.start + written.bytes as u64..range.end;
        let finish = move |adapter: &Adapter| match written.mixing {
            None => adapter.finish_write(handle, flags, answer),
            Some(mixing) => adapter.end_mixing(ino, handle, range, mixing, move |adapter| {
                adapter.finish_write(handle, flags, answer);
            }),
        };
        match failed.is_empty() {
            true => finish(self),
            false => self.after_failed_write(handle, failed, finish),
        }
    }

    /// Goes on when what a failed write, or the rest of a short one, has left is sent.
    fn after_failed_write(
        &self,
        handle: FileHandle,
        range: Range<u64>,
        go_on: impl FnOnce(&Adapter) + Send + 'static,
    ) {
        let adapter = self.clone();
        self.aside.park(move || {
            adapter.volume.send_failed_write(handle.0, range);
            go_on(&adapter);
        });
    }

    /// Goes on when the kernel has dropped the pages that may lack a direct write.
    fn end_mixing(
        &self,
        ino: INodeNo,
        handle: FileHandle,
        range: Range<u64>,
        mixing: u64,
        go_on: impl FnOnce(&Adapter) + Send + 'static,
    ) {
        let adapter = self.clone();
        self.wait_aside(move || {
            adapter.write_back(ino, range);
            adapter.volume.end_mixing(handle.0, mixing);
            go_on(&adapter);
        });
    }

    /// Answers a write when it is as durable as the handle asks for.
    fn finish_write(
        &self,
        handle: FileHandle,
        flags: OpenFlags,
        answer: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let Some(what) = synchronous(flags.0).filter(|_| !self.volume.kernel_syncs(handle.0)) else {
            return answer(Ok(()));
        };
        match self.volume.sync_target(handle.0) {
            Ok(fd) => self.sync(fd, what, answer),
            Err(error) => answer(Err(io::Error::from_raw_os_error(error.errno))),
        }
    }

    /// Runs what needs the serving threads meanwhile: on a helper, or on a thread of its own.
    fn wait_aside(&self, job: impl FnOnce() + Send + 'static) {
        let aside = self.aside.clone();
        self.helpers.run(move |place| match place {
            Place::Helper => job(),
            Place::Caller => aside.run(job),
        });
    }

    /// The daemon changed attributes that the kernel may have cached. Call it without any lock,
    /// before the reply: afterwards nobody sees the old ones.
    fn forget_attributes(&self, ino: INodeNo) {
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(ino, -1, 0)
        {
            log::debug!("cached attributes of {} were not there: {error}", ino.0);
        }
    }

    /// Goes on with an open when the kernel has no stale pages of the file.
    fn drop_stale_pages(&self, ino: INodeNo, opened: Opened, go_on: impl FnOnce() + Send + 'static) {
        if !opened.has_stale_pages {
            return go_on();
        }
        let adapter = self.clone();
        self.wait_aside(move || {
            adapter.write_back(ino, 0..i64::MAX as u64);
            go_on();
        });
    }

    /// Has the kernel write back what shared mappings hold in a range, and drop its pages, and waits
    /// for that. Needs serving threads meanwhile: only for helpers.
    fn write_back(&self, ino: INodeNo, range: Range<u64>) {
        let len = range.end - range.start;
        if let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(ino, range.start as i64, len as i64)
        {
            log::debug!("cached pages of {} were not there: {error}", ino.0);
        }
    }

    fn sync(
        &self,
        fd: Arc<std::os::fd::OwnedFd>,
        what: Sync,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) {
        let done: SyncAnswer = Box::new(done);
        let done = match &self.gate {
            Some(gate) => gate.enter(done),
            None => done,
        };
        let job = SyncJob { fd, what, done };
        if let Err(lost) = self.sync.send(job) {
            (lost.0.done)(Err(io::Error::from_raw_os_error(libc::EIO)));
        }
    }
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

fn node(ino: INodeNo) -> NodeId {
    NodeId(ino.0)
}

fn errno(error: FsError) -> Errno {
    log::debug!("answered {error}");
    Errno::from_i32(error.errno)
}

fn io_errno(error: &io::Error) -> Errno {
    Errno::from_i32(error.raw_os_error().unwrap_or(libc::EIO))
}

fn open_flags(mode: OpenMode) -> FopenFlags {
    match mode {
        OpenMode::Cached => FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH,
        OpenMode::Direct => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH,
    }
}

fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// `fuser` splits a time before 1970 into whole seconds and the rest by its own rule, which this
/// undoes: the pair that reaches the kernel is (seconds, nanoseconds) as the file system has it.
fn system_time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let nanoseconds = nanoseconds as u32;
    if seconds >= 0 {
        UNIX_EPOCH + Duration::new(seconds as u64, nanoseconds)
    } else {
        UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), 0) + Duration::new(0, nanoseconds)
    }
}

/// `fuser` hands (−2 s, 800,000,000 ns) over as 1970 minus 2.8 s: the true time is minus the
/// seconds plus the nanoseconds.
fn set_time(time: TimeOrNow) -> SetTime {
    let TimeOrNow::SpecificTime(time) = time else { return SetTime::Now };
    SetTime::At(match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timestamp { seconds: after.as_secs() as i64, nanoseconds: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            Timestamp { seconds: -(before.as_secs() as i64), nanoseconds: before.subsec_nanos() }
        }
    })
}

fn attr(meta: &Meta) -> FileAttr {
    let stat = &meta.stat;
    FileAttr {
        ino: INodeNo(meta.node.0),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: system_time(stat.st_atime, stat.st_atime_nsec as i64),
        mtime: system_time(stat.st_mtime, stat.st_mtime_nsec as i64),
        ctime: system_time(stat.st_ctime, stat.st_ctime_nsec as i64),
        crtime: UNIX_EPOCH,
        kind: file_type(stat.st_mode),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: kernel_device(stat.st_rdev),
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}

/// A device number as FUSE carries it (the kernel's `new_encode_dev`).
fn kernel_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

fn device_of_kernel(device: u32) -> (u32, u32) {
    ((device & 0xf_ff00) >> 8, (device & 0xff) | ((device >> 12) & 0xf_ff00))
}

fn reply_entry(reply: ReplyEntry, outcome: FsResult<Meta>) {
    match outcome {
        Ok(meta) => reply.entry(&KERNEL_CACHE_TTL, &attr(&meta), Generation(u64::from(meta.generation))),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_attr(reply: ReplyAttr, outcome: FsResult<Meta>) {
    match outcome {
        Ok(meta) => reply.attr(&KERNEL_CACHE_TTL, &attr(&meta)),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_empty(reply: ReplyEmpty, outcome: FsResult<()>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

/// A name that does not exist, which the kernel may remember: node 0.
fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// Adds a name to a listing without telling the kernel what it stands for; answers whether the
/// listing is full. The kernel takes no attributes of `.`, of `..` and of a name that claims to be
/// the root, and no lookup is counted.
fn add_bare(reply: &mut ReplyDirectoryPlus, entry: &Listed, number: NodeId) -> bool {
    let attr = FileAttr { ino: INodeNo(number.0), kind: file_type(entry.kind.as_raw_mode()), ..absent() };
    reply.add(attr.ino, entry.next_offset, &entry.name, &Duration::ZERO, &attr, Generation(0))
}

fn reply_xattr(reply: ReplyXattr, size: u32, outcome: FsResult<Vec<u8>>) {
    match outcome {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(error)),
    }
}

/// Without these the mount would be wrong, not only slow.
const NEEDED: [(InitFlags, &str); 4] = [
    (InitFlags::FUSE_HANDLE_KILLPRIV_V2, "HANDLE_KILLPRIV_V2 (Linux 5.12)"),
    (InitFlags::FUSE_POSIX_ACL, "POSIX_ACL"),
    (InitFlags::FUSE_DONT_MASK, "DONT_MASK"),
    (InitFlags::FUSE_MAX_PAGES, "MAX_PAGES"),
];

/// `NO_EXPORT_SUPPORT` (Linux 6.9): nobody is given a handle of a file, because it could be opened only
/// while the kernel happens to remember the file.
const WANTED: [InitFlags; 5] = [
    InitFlags::FUSE_NO_EXPORT_SUPPORT,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
];

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for (flag, name) in NEEDED {
            if config.add_capabilities(flag).is_err() {
                *self.missing.lock() = Some(name.to_owned());
                return Err(io::Error::from_raw_os_error(libc::ENOSYS));
            }
        }
        for flag in WANTED {
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(FUSE_WRITE_LEN_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.volume.lookup(node(parent), name) {
            Err(error) if error.errno == libc::ENOENT => {
                reply.entry(&KERNEL_CACHE_TTL, &absent(), Generation(0));
            }
            outcome => reply_entry(reply, outcome),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.volume.forget(node(ino), count);
    }

    /// With a handle the kernel asks for itself, and uses what it takes over; without one it asks
    /// for a program, which sees the answer in any case.
    fn getattr(&self, request: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        if let Some(handle) = handle {
            return reply_attr(reply, self.volume.getattr(node(ino), Some(handle.0)));
        }
        let asked = Box::new(move |outcome| reply_attr(reply, outcome));
        if self.volume.ask_attributes(node(ino), request.pid(), asked) {
            let _ = self.sizes.send(node(ino));
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes =
            Changes { mode, uid, gid, size, atime: atime.map(set_time), mtime: mtime.map(set_time) };
        let handle = handle.map(|handle| handle.0);
        let caller = caller(request);
        self.change(request, move |adapter| {
            reply_attr(reply, adapter.volume.setattr(caller, node(ino), handle, changes));
            if let Some(size) = size {
                adapter.volume.growth_answered(node(ino), Growing::to(caller.pid, handle, size));
            }
        });
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.volume.readlink(node(ino)) {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (caller, name) = (caller(request), name.to_owned());
        let asked = AskedMode { mode, umask };
        self.change(request, move |adapter| {
            let at = At { parent: node(parent), name: &name };
            reply_entry(reply, adapter.volume.mknod(caller, at, asked, device_of_kernel(rdev)));
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (caller, name) = (caller(request), name.to_owned());
        self.change(request, move |adapter| {
            let at = At { parent: node(parent), name: &name };
            reply_entry(reply, adapter.volume.mkdir(caller, at, AskedMode { mode, umask }));
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(request, move |adapter| {
            reply_empty(reply, adapter.volume.unlink(At { parent: node(parent), name: &name }));
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(request, move |adapter| {
            reply_empty(reply, adapter.volume.rmdir(At { parent: node(parent), name: &name }));
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (caller, name, target) = (caller(request), name.to_owned(), target.to_owned());
        self.change(request, move |adapter| {
            let at = At { parent: node(parent), name: &name };
            reply_entry(reply, adapter.volume.symlink(caller, at, &target));
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, newname) = (name.to_owned(), newname.to_owned());
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        self.change(request, move |adapter| {
            let from = At { parent: node(parent), name: &name };
            let to = At { parent: node(newparent), name: &newname };
            reply_empty(reply, adapter.volume.rename(from, to, flags));
        });
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let newname = newname.to_owned();
        self.change(request, move |adapter| {
            let at = At { parent: node(newparent), name: &newname };
            reply_entry(reply, adapter.volume.link(node(ino), at));
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let open = move |adapter: &Adapter| match adapter.volume.open(node(ino), flags.0) {
            Ok(opened) => adapter.drop_stale_pages(ino, opened, move || {
                reply.opened(FileHandle(opened.handle), open_flags(opened.mode));
            }),
            Err(error) => reply.error(errno(error)),
        };
        // A truncation on the way is a change.
        match flags.0 & libc::O_TRUNC {
            0 => open(self),
            _ => self.change(request, open),
        }
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size as usize {
                buffer.resize(size as usize, 0);
            }
            match self.volume.read(handle.0, offset, &mut buffer[..size as usize]) {
                Ok(count) => reply.data(&buffer[..count]),
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn write(
        &self,
        kernel: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let clear_privileges = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let origin = match write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            true => Origin::PageCache,
            false => Origin::Program,
        };
        let mut caller = caller(kernel);
        if origin == Origin::PageCache
            && let Ok(owner) = self.volume.owner(handle.0)
        {
            (caller.uid, caller.gid) = (owner.uid, owner.gid);
        }
        let no_space_until = None;
        let what = Write { caller, ino, handle, offset, clear_privileges, origin, flags, no_space_until };
        match self.aside.enter(Carries::Content) {
            Some(_serving) => self.write_now(what, data, reply),
            None => self.write_parked(what, data, reply),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.volume.release(handle.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let what = if datasync { Sync::Data } else { Sync::All };
        self.volume.note_fsync(handle.0);
        match self.volume.sync_target(handle.0) {
            Ok(fd) => self.sync(fd, what, move |outcome| match outcome {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(io_errno(&error)),
            }),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.volume.opendir(caller(request), node(ino)) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let outcome = self.volume.readdir(handle.0, offset, |entry| {
            let kind = file_type(entry.kind.as_raw_mode());
            !reply.add(INodeNo(entry.node.0), entry.next_offset, kind, &entry.name)
        });
        match outcome {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let outcome = self.volume.readdir(handle.0, offset, |entry| {
            let seen = if entry.is_dot() { Ok(None) } else { self.volume.lookup_listed(handle.0, entry) };
            let meta = match seen {
                Ok(Some(meta)) => meta,
                Ok(None) if !entry.is_dot() => return true,
                Ok(None) => return !add_bare(&mut reply, entry, entry.node),
                // Its name is in the directory, as everybody would see on the disk itself.
                Err(error) => {
                    log::warn!("{} is listed without attributes: {error}", entry.name.display());
                    return !add_bare(&mut reply, entry, NodeId::ROOT);
                }
            };
            let generation = Generation(u64::from(meta.generation));
            let attr = attr(&meta);
            let full =
                reply.add(attr.ino, entry.next_offset, &entry.name, &KERNEL_CACHE_TTL, &attr, generation);
            if full {
                self.volume.forget(meta.node, 1);
            }
            !full
        });
        match outcome {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.volume.releasedir(handle.0);
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let what = if datasync { Sync::Data } else { Sync::All };
        match self.volume.sync_directory_target(handle.0) {
            Ok(fd) => self.sync(Arc::new(fd), what, move |outcome| match outcome {
                Ok(()) => reply.ok(),
                Err(error) => reply.error(io_errno(&error)),
            }),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.volume.statfs() {
            Ok(fs) => reply.statfs(
                fs.f_blocks,
                fs.f_bfree,
                fs.f_bavail,
                fs.f_files,
                fs.f_ffree,
                fs.f_bsize as u32,
                fs.f_namemax as u32,
                fs.f_frsize as u32,
            ),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (caller, name, value) = (caller(request), name.to_owned(), value.to_owned());
        self.change(request, move |adapter| {
            reply_empty(reply, adapter.volume.setxattr(caller, node(ino), &name, &value, flags));
        });
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, self.volume.getxattr(node(ino), name));
    }

    fn listxattr(&self, _request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, self.volume.listxattr(node(ino)));
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.change(request, move |adapter| reply_empty(reply, adapter.volume.removexattr(node(ino), &name)));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (caller, name) = (caller(request), name.to_owned());
        self.change(request, move |adapter| {
            let at = At { parent: node(parent), name: &name };
            match adapter.volume.create(caller, at, AskedMode { mode, umask }, flags) {
                Ok((meta, opened)) => {
                    adapter.drop_stale_pages(INodeNo(meta.node.0), opened, move || {
                        reply.created(
                            &KERNEL_CACHE_TTL,
                            &attr(&meta),
                            Generation(u64::from(meta.generation)),
                            FileHandle(opened.handle),
                            open_flags(opened.mode),
                        );
                    });
                }
                Err(error) => reply.error(errno(error)),
            }
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request);
        self.change_patiently(request, move |adapter| {
            let outcome = adapter.volume.fallocate(caller, handle.0, offset, length, mode);
            if caller.uid != 0 {
                adapter.forget_attributes(ino);
            }
            reply_empty(reply, outcome);
            let end = offset.saturating_add(length);
            adapter.volume.growth_answered(node(ino), Growing::to(caller.pid, Some(handle.0), end));
        });
    }

    /// No ioctl is passed: the kernel then says that the file has none.
    fn ioctl(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _flags: fuser::IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: fuser::ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn lseek(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.volume.seek(handle.0, offset, whence) {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(errno(error)),
        }
    }

    /// The kernel then reads and writes, and every byte is captured.
    fn copy_file_range(
        &self,
        _request: &Request,
        _ino_in: INodeNo,
        _handle_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _handle_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }
}

/// What a write with these open flags has to sync before it returns.
fn synchronous(flags: i32) -> Option<Sync> {
    match flags & libc::O_SYNC {
        0 => None,
        libc::O_DSYNC => Some(Sync::Data),
        _ => Some(Sync::All),
    }
}
