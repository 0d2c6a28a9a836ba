//! The adapter between the kernel and a [`Volume`]: with [`super::mount`] and [`super::convert`] the
//! only user of `fuser`.
//!
//! Each method unpacks a request, has it served, packs the reply; what is decided, is decided
//! elsewhere.
//!
//! [`Volume`]: super::Volume

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, Version, WriteFlags,
};
use parking_lot::Mutex;

use super::attributes::AskedAttributes;
use super::convert::{
    absent, attr, caller, device_of_kernel, errno, file_type, listing_flags, node, open_flags, set_time,
};
use super::data::{Opened, Origin, Sync};
use super::error::FsResult;
use super::flags::FlagCall;
use super::handshake::Arrivals;
use super::listing::Listed;
use super::mounting::{ConnectionNumber, set_background_max};
use super::names::{AskedMode, At};
use super::objects::NodeId;
use super::pages::Pages;
use super::serve::{Cache, Serve, Shown, WriteCall};
use super::volume::Meta;
use crate::limits::{FUSE_WRITE_LEN_MAX, KERNEL_CACHE_TTL};
use crate::ranks;

/// Requests that the kernel may have under way in the background.
const BACKGROUND_MAX: u16 = 64;

/// Without these the mount would be wrong, not only slow.
const NEEDED: [(InitFlags, &str); 4] = [
    (InitFlags::FUSE_HANDLE_KILLPRIV_V2, "HANDLE_KILLPRIV_V2 (Linux 5.12)"),
    (InitFlags::FUSE_POSIX_ACL, "POSIX_ACL"),
    (InitFlags::FUSE_DONT_MASK, "DONT_MASK"),
    (InitFlags::FUSE_MAX_PAGES, "MAX_PAGES"),
];

/// From here on a close writes back what the kernel has gathered also where nobody answers FLUSH.
const GATHERING: Version = Version(7, 36);
const FUSE_WRITEBACK_CACHE: InitFlags = InitFlags::FUSE_WRITEBACK_CACHE;

/// `NO_EXPORT_SUPPORT` (Linux 6.9): nobody is given a handle of a file, because it could be opened only
/// while the kernel happens to remember the file.
const WANTED: [InitFlags; 5] = [
    InitFlags::FUSE_NO_EXPORT_SUPPORT,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
];

/// The handlers of one mount.
pub struct Adapter {
    serve: Serve,
    /// What the kernel lacks, found in the handshake.
    missing: Arc<Mutex<Option<String>>>,
    arrivals: Arc<Arrivals>,
}

impl Adapter {
    pub fn new(serve: Serve, missing: Arc<Mutex<Option<String>>>, arrivals: Arc<Arrivals>) -> Adapter {
        Adapter { serve, missing, arrivals }
    }
}

/// What the kernel has cached, once it is connected.
#[derive(Default)]
pub struct KernelCache(OnceLock<Connected>);

struct Connected {
    notifier: Notifier,
    pages: Pages,
    connection: ConnectionNumber,
}

impl KernelCache {
    pub fn connect(&self, notifier: Notifier, pages: Pages, connection: ConnectionNumber) {
        let _ = self.0.set(Connected { notifier, pages, connection });
    }

    fn tell(&self, node: NodeId, tell: impl FnOnce(&Connected) -> io::Result<()>) {
        ranks::assert_none_held("a word to the kernel");
        if let Some(connected) = self.0.get()
            && let Err(error) = tell(connected)
        {
            log::debug!("nothing of {} was cached: {error}", node.0);
        }
    }
}

impl Cache for KernelCache {
    fn forget_attributes(&self, node: NodeId) {
        // Of pages nothing is said, so that this waits for none.
        self.tell(node, |connected| connected.notifier.inval_inode(INodeNo(node.0), -1, 0));
    }

    fn write_back(&self, node: NodeId, range: Range<u64>) {
        let (offset, len) = (range.start as i64, (range.end - range.start) as i64);
        self.tell(node, |connected| connected.pages.drop_pages(node, offset, len));
    }

    fn let_all_through(&self, all: bool) {
        let most = if all { u16::MAX } else { BACKGROUND_MAX };
        if let Some(connected) = self.0.get()
            && let Err(error) = set_background_max(connected.connection, most)
        {
            log::warn!("reads may wait behind writes that wait for room in the queue: {error}");
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let refused = |missing: &str| {
            *self.missing.lock() = Some(missing.to_owned());
            Err(io::Error::from_raw_os_error(libc::ENOSYS))
        };
        for (flag, name) in NEEDED {
            if config.add_capabilities(flag).is_err() {
                return refused(name);
            }
        }
        if self.serve.volume().profile.gathers()
            && (config.kernel_abi() < GATHERING || config.add_capabilities(FUSE_WRITEBACK_CACHE).is_err())
        {
            return refused("WRITEBACK_CACHE as --profile batch needs it (Linux 5.17)");
        }
        for flag in WANTED {
            let _ = config.add_capabilities(flag);
        }
        let _ = config.set_max_write(FUSE_WRITE_LEN_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.serve.lookup(node(parent), name) {
            Ok(None) => reply.entry(&KERNEL_CACHE_TTL, &absent(), Generation(0)),
            Ok(Some(meta)) => reply_entry(reply, Ok(meta)),
            Err(error) => reply_entry(reply, Err(error)),
        }
    }

    fn forget(&self, _request: &Request, ino: INodeNo, count: u64) {
        self.serve.volume().forget(node(ino), count);
    }

    fn getattr(&self, request: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let handle = handle.map(|handle| handle.0);
        self.serve.getattr(request.pid(), node(ino), handle, move |outcome| {
            reply_attr(reply, outcome, KERNEL_CACHE_TTL)
        });
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
            AskedAttributes { mode, uid, gid, size, atime: atime.map(set_time), mtime: mtime.map(set_time) };
        let handle = handle.map(|handle| handle.0);
        let last = self.serve.attributes_told_last(request.pid());
        let answer = move |outcome| reply_attr(reply, outcome, last);
        self.serve.setattr(caller(request), node(ino), handle, changes, answer);
    }

    fn readlink(&self, _request: &Request, ino: INodeNo, reply: ReplyData) {
        match self.serve.volume().readlink(node(ino)) {
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
        let (asked, device) = (AskedMode { mode, umask }, device_of_kernel(rdev));
        let answer = move |outcome| reply_entry(reply, outcome);
        self.serve.mknod(caller(request), at(parent, name), asked, device, answer);
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
        let answer = move |outcome| reply_entry(reply, outcome);
        self.serve.mkdir(caller(request), at(parent, name), AskedMode { mode, umask }, answer);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = move |outcome| reply_empty(reply, outcome);
        self.serve.unlink(caller(request), at(parent, name), answer);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = move |outcome| reply_empty(reply, outcome);
        self.serve.rmdir(caller(request), at(parent, name), answer);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let answer = move |outcome| reply_entry(reply, outcome);
        self.serve.symlink(caller(request), at(parent, name), target, answer);
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
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let answer = move |outcome| reply_empty(reply, outcome);
        self.serve.rename(caller(request), at(parent, name), at(newparent, newname), flags, answer);
    }

    fn link(&self, request: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let answer = move |outcome| reply_entry(reply, outcome);
        self.serve.link(caller(request), node(ino), at(newparent, newname), answer);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        // Where the flush helper closes a descriptor the kernel has to write back first.
        let without = match self.serve.volume().is_flush_helper(request.pid()) {
            true => FopenFlags::FOPEN_NOFLUSH,
            false => FopenFlags::empty(),
        };
        self.serve.open(caller(request), node(ino), flags.0, move |outcome| match outcome {
            Ok(opened) => reply.opened(FileHandle(opened.handle), open_flags(opened.mode) - without),
            Err(error) => reply.error(errno(error)),
        });
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
        self.serve.read(handle.0, offset, size as usize, |outcome| match outcome {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let origin = match write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) {
            true => Origin::PageCache,
            false => Origin::Program,
        };
        let call = WriteCall {
            caller: caller(request),
            node: node(ino),
            handle: handle.0,
            offset,
            clear_privileges: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            origin,
            flags: flags.0,
        };
        self.serve.write(call, data, move |outcome| match outcome {
            Ok(written) => reply.written(written as u32),
            Err(error) => reply.error(errno(error)),
        });
    }

    /// Where the kernel gathers writes a close writes them back without our word, and `ENOSYS` saves
    /// asking for it ([`GATHERING`]).
    fn flush(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        _owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        match self.serve.volume().profile.gathers() {
            true => reply.error(Errno::ENOSYS),
            false => reply.ok(),
        }
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.serve.release(caller(request), (node(ino), handle.0), move || reply.ok());
    }

    fn fsync(&self, request: &Request, ino: INodeNo, handle: FileHandle, datasync: bool, reply: ReplyEmpty) {
        let answer = move |outcome| reply_empty(reply, outcome);
        self.serve.fsync(caller(request), (node(ino), handle.0), what_of(datasync), answer);
    }

    fn opendir(&self, request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.serve.volume().opendir(caller(request), node(ino)) {
            Ok(opened) => reply.opened(FileHandle(opened.handle), listing_flags(opened.keeps)),
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
        let outcome = self.serve.volume().readdir(handle.0, offset, |entry| {
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
        let outcome = self.serve.readdirplus(handle.0, offset, |entry, shown| !add(&mut reply, entry, shown));
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
        self.serve.volume().releasedir(handle.0);
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
        self.serve.fsyncdir(handle.0, what_of(datasync), move |outcome| reply_empty(reply, outcome));
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.serve.volume().statfs() {
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
        let answer = move |outcome| reply_empty(reply, outcome);
        self.serve.setxattr(caller(request), node(ino), (name, value), flags, answer);
    }

    fn getxattr(&self, _request: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, self.serve.volume().getxattr(node(ino), name));
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, self.serve.volume().listxattr(caller(request), node(ino)));
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = move |outcome| reply_empty(reply, outcome);
        self.serve.removexattr(caller(request), node(ino), name, answer);
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
        let asked = AskedMode { mode, umask };
        let last = self.serve.attributes_told_last(request.pid());
        let answer = move |outcome| reply_create(reply, outcome, last);
        self.serve.create(caller(request), at(parent, name), asked, flags, answer);
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
        let (file, range) = ((node(ino), handle.0), (offset, length));
        let answer = move |outcome| reply_empty(reply, outcome);
        self.serve.fallocate(caller(request), file, range, mode, answer);
    }

    /// No kernel asks this of such a mount: it is how each thread is found before it serves. A request lies at the
    /// beginning of its thread's buffer.
    fn bmap(&self, request: &Request, _ino: INodeNo, _blocksize: u32, _index: u64, reply: fuser::ReplyBmap) {
        reply.error(Errno::ENOSYS);
        self.arrivals.arrive(std::ptr::from_ref(request).addr());
    }

    /// No other is passed: the kernel then says that the file has none.
    fn ioctl(
        &self,
        request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _flags: fuser::IoctlFlags,
        number: u32,
        data: &[u8],
        room: u32,
        reply: fuser::ReplyIoctl,
    ) {
        let Some(call) = FlagCall::of(number, data) else { return reply.error(Errno::ENOTTY) };
        self.serve.flags(caller(request), node(ino), call, room as usize, move |outcome| match outcome {
            Ok(answer) => reply.ioctl(0, &answer),
            Err(error) => reply.error(errno(error)),
        });
    }

    fn lseek(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        self.serve.seek((node(ino), handle.0), offset, whence, move |found| match found {
            Ok(found) => reply.offset(found),
            Err(error) => reply.error(errno(error)),
        });
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

fn at(parent: INodeNo, name: &OsStr) -> At<'_> {
    At { parent: node(parent), name }
}

fn what_of(datasync: bool) -> Sync {
    if datasync { Sync::Data } else { Sync::All }
}

fn reply_entry(reply: ReplyEntry, outcome: FsResult<Meta>) {
    match outcome {
        Ok(meta) => reply.entry(&KERNEL_CACHE_TTL, &attr(&meta), Generation(u64::from(meta.generation))),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_attr(reply: ReplyAttr, outcome: FsResult<Meta>, last: Duration) {
    match outcome {
        Ok(meta) => reply.attr(&last, &attr(&meta)),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_empty(reply: ReplyEmpty, outcome: FsResult<()>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn reply_create(reply: ReplyCreate, outcome: FsResult<(Meta, Opened)>, last: Duration) {
    match outcome {
        Ok((meta, opened)) => reply.created(
            &last,
            &attr(&meta),
            Generation(u64::from(meta.generation)),
            FileHandle(opened.handle),
            open_flags(opened.mode),
        ),
        Err(error) => reply.error(errno(error)),
    }
}

/// Adds an entry to a listing; answers whether the listing is full.
fn add(reply: &mut ReplyDirectoryPlus, entry: &Listed, shown: &Shown) -> bool {
    let meta = match shown {
        Shown::Full(meta) => meta,
        Shown::Bare(number) => return add_bare(reply, entry, *number),
    };
    let generation = Generation(u64::from(meta.generation));
    let attr = attr(meta);
    reply.add(attr.ino, entry.next_offset, &entry.name, &KERNEL_CACHE_TTL, &attr, generation)
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
