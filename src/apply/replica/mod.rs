//! The replica directory: from object ids to descriptors, and never out of the directory.
//!
//! ```text
//!  id ── index ── by_handle ── inside ── descriptors ──> a descriptor
//!                                                        policy, writer: what is done with it
//!  begun ── progress (page, slot, identity) ── times, flags ──> durable: what is proved, and how;
//!                                                        doubt: what was begun and is not proved
//!  fence: who is kept out
//!  presence: whether what is known is there
//!  limbo, nameless, aside, relief, incomplete: what is not where, or not what, it should be
//! ```
//! An id is resolved through the index (id -> file handle) and `open_by_handle_at`; a directory
//! is checked, at every use for a name in it, to lie below the root or in limbo. The last step is
//! always `*at()` with one checked name that is not followed: there are no paths to lead astray.
//! What is opened by its handle has to have a name in the replica ([`inside`]).
//! Performs no op by itself, and knows nothing of what does ([`super::perform`], [`super::reconcile`]):
//! its fields are its own.

mod aside;
mod begun;
pub(super) mod by_handle;
mod deleted;
mod descriptors;
mod doubt;
mod durable;
mod fence;
mod flags;
mod handles;
mod identity;
pub(super) mod incomplete;
mod index;
mod inside;
mod kept;
mod limbo;
mod linked;
mod nameless;
pub(super) mod noted;
mod opening;
mod page;
mod presence;
mod probe;
mod progress;
mod relief;
pub(super) mod slot;
pub(super) mod times;
pub(super) mod trees;
mod writer;

use std::cell::{Cell, RefCell};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use self::aside::Aside;
pub use self::aside::{AsideView, SetAside};
use self::begun::Begun;
pub(super) use self::deleted::{Deleted, GoesOn, KeptAs};
pub use self::descriptors::{Access, Came};
use self::descriptors::{Descriptors, GaveWay};
pub use self::durable::DurablePoint;
#[cfg(test)]
pub use self::durable::Hold;
use self::durable::Points;
pub(super) use self::durable::SyncOfFiles;
use self::flags::PendingFlags;
pub(super) use self::flags::flags_among;
pub use self::handles::are_passing;
pub use self::identity::{IDENTITY_XATTR, fence_of, set_of, stood_in_of};
pub(super) use self::incomplete::{Incomplete, Lack};
#[cfg(test)]
pub(super) use self::index::GROWTH_MEMORY as INDEX_GROWTH;
pub use self::index::Index;
pub(super) use self::inside::Remembered;
pub use self::inside::Run;
use self::inside::{Grounds, Placed, SeenNames};
pub(super) use self::limbo::{Copied, Delete, Limbo, ORPHANS, Resolved, WAITING};
use self::nameless::Nameless;
pub use self::noted::Why;
pub use self::opening::Places;
use self::progress::Progress;
pub use self::progress::{DataStatus, OpenError};
pub use self::progress::{Resting, known_of, resting, was_marked};
pub use self::relief::Relief;
use self::times::Times;
pub(super) use self::writer::Writer;
use super::fault::Fault;
use super::inode;
use super::policy::{Policy, Withheld};
use crate::clone::Sessions;
use crate::failpoint;
use crate::limits;
use crate::packet::{Name, ObjectId, Timestamp};
use crate::sys::{FileHandle, proc_path};
use crate::words::{Allow, OF_THE_DISK, RESERVED_NAME};
use crate::xattr::is_refusal;

/// Of what is kept of a replica on disk: its index, how far it is, what it has begun.
pub const FORMATS: [(&str, u64); 3] =
    [("index", index::VERSION), ("progress", page::MAGIC), ("begun", u64::from_le_bytes(begun::MAGIC))];

/// See the module.
pub struct Replica {
    /// Opened for reading: `open_by_handle_at` takes no `O_PATH` descriptor, nor does `syncfs`.
    root: File,
    /// Where it was opened.
    path: PathBuf,
    limbo: File,
    nameless: Nameless,
    state: PathBuf,
    index: Index,
    descriptors: Descriptors,
    times: Times,
    flags: PendingFlags,
    progress: Progress,
    begun: Begun,
    /// Why it could not come to rest, if so.
    unrest: Option<DataStatus>,
    policy: Policy,
    writer: Writer,
    /// Path of the object of the op that is performed, as the source says.
    hint: Vec<u8>,
    seen: SeenNames,
    placed: Placed,
    grounds: RefCell<Option<Grounds>>,
    /// What was written to has lost its name, as far as was seen.
    without_name: Cell<Option<ObjectId>>,
    points: Points,
    sync_failed: bool,
    aside: Aside,
    keeps_orphans: bool,
    has_rules: bool,
    clones: Arc<Sessions>,
    goes_on: Option<GoesOn>,
    #[cfg(test)]
    pub hold: Arc<self::durable::Hold>,
}

/// File of the state directory: the rules of the set, where it has some.
pub(super) const RULES: &str = "rules";

impl Replica {
    /// Its clones.
    pub fn clones(&self) -> &Arc<Sessions> {
        &self.clones
    }

    /// Whether it may hold names that no packet tells of: its set has rules.
    pub fn has_rules(&self) -> bool {
        self.has_rules
    }

    /// By which it was brought into line.
    pub(super) fn note_rules(&mut self, has_rules: bool) {
        self.has_rules = has_rules;
    }

    /// From now on only this is allowed to the source; without it, everything.
    pub fn allow(mut self, allow: Allow) -> Replica {
        self.set_allow(allow);
        self
    }

    /// [`Replica::allow`] between two sessions.
    pub fn set_allow(&mut self, allow: Allow) {
        self.policy.set_allow(allow);
    }

    /// What was not allowed.
    pub fn withheld(&self) -> Arc<Withheld> {
        self.policy.withheld()
    }

    /// The root directory (open for reading).
    pub fn root(&self) -> &File {
        &self.root
    }

    /// The directory beside the root for temporary files and objects without a name.
    pub fn limbo(&self) -> &File {
        &self.limbo
    }

    /// What belongs to a replica that is a mount point, or to its disk, and to no source: limbo lies in it.
    pub(super) fn is_of_the_place(&self, dir: &File, name: &Name) -> Result<bool, Fault> {
        let limbo = FileHandle::of(self.limbo.as_fd()).map_err(handle_fault)?;
        if self.name_holds(dir, name)? == Some(limbo) {
            return Ok(true);
        }
        if name.as_bytes() != OF_THE_DISK.as_bytes() || !self.is_root(dir)? {
            return Ok(false);
        }
        let own = Name::new(RESERVED_NAME.as_bytes()).expect("a constant is a name");
        Ok(self.name_holds(&self.root, &own)? == Some(limbo))
    }

    fn is_root(&self, dir: &File) -> Result<bool, Fault> {
        let (stat, root) = (inode::stat(dir)?, inode::stat(&self.root)?);
        Ok((stat.st_dev, stat.st_ino) == (root.st_dev, root.st_ino))
    }

    /// The directory of small files about this replica.
    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What of the source's wishes is granted.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Descriptor of an object, good for names in it, attributes and xattrs (it may be `O_PATH`).
    ///
    /// Errors: [`Fault::MissingObject`] where the index does not know it or its inode is gone;
    /// [`Fault::Outside`] where it has no name in the replica any more.
    pub fn object(&mut self, id: ObjectId) -> Result<Arc<File>, Fault> {
        self.open_object(id, Access::Path)
    }

    /// Descriptor of a file, open for reading and writing.
    ///
    /// Errors: as [`Replica::object`]; [`Fault::Refused`] where it is not a regular file.
    pub fn writable(&mut self, id: ObjectId) -> Result<Arc<File>, Fault> {
        self.open_object(id, Access::Write)
    }

    /// A file that is open for writing already.
    pub(in crate::apply) fn held_to_write(&mut self, id: ObjectId) -> Option<Arc<File>> {
        self.descriptors.get(id, Access::Write)
    }

    /// A file of its own to be read from.
    ///
    /// Errors: as [`Replica::writable`].
    pub(super) fn readable(&mut self, id: ObjectId) -> Result<File, Fault> {
        let file = self.object(id)?;
        must_be_regular(file.as_fd())?;
        by_handle::reopen_to_read(file.as_fd()).map_err(Fault::system("open a file to read"))
    }

    /// Descriptor of a directory that lies below the root or in limbo at this moment, or did when the
    /// first of the frames that came with this one was performed.
    ///
    /// Errors: as [`Replica::object`]; [`Fault::Outside`] where somebody moved it away.
    pub fn directory(&mut self, id: ObjectId) -> Result<Arc<File>, Fault> {
        let dir = self.object(id)?;
        if self.placed.has(id) {
            return Ok(dir);
        }
        if let Err(fault) = self.directory_inside(id, &dir) {
            self.descriptors.forget(id);
            return Err(fault);
        }
        self.placed.note(id);
        Ok(dir)
    }

    /// Where directories lie is asked anew, or not, as frames came together.
    pub(super) fn begin_frame(&mut self, run: Run) {
        self.placed.begin_frame(run);
    }

    /// What is done besides frames asks for itself.
    pub(super) fn end_frame(&mut self) {
        self.placed.end_frame();
    }

    /// Something was moved: where directories lie is asked anew.
    pub(super) fn places_changed(&mut self) {
        self.placed.clear();
    }

    /// [`Replica::places_changed`], and what was found inside once may be outside now.
    pub(super) fn places_are_others(&mut self) {
        self.placed.clear();
        self.descriptors.clear();
    }

    /// Handle of an object; `None` where it is not known.
    pub fn handle(&self, id: ObjectId) -> Result<Option<FileHandle>, Fault> {
        self.index.get(id).map_err(Fault::own("object index"))
    }

    /// Handle of an object that must be known.
    pub fn known_handle(&self, id: ObjectId) -> Result<FileHandle, Fault> {
        self.handle(id)?.ok_or(Fault::MissingObject(id))
    }

    /// Binds an id to the object behind a descriptor, in place of what it was bound to.
    pub fn bind(&mut self, id: ObjectId, fd: impl AsFd) -> Result<FileHandle, Fault> {
        let handle = FileHandle::of(fd.as_fd()).map_err(handle_fault)?;
        self.bind_to(id, handle)?;
        Ok(handle)
    }

    /// [`Replica::bind`], of an object whose handle is at hand.
    pub fn bind_to(&mut self, id: ObjectId, handle: FileHandle) -> Result<(), Fault> {
        self.descriptors.forget(id);
        failpoint::at("bind").map_err(Fault::own("object index"))?;
        self.index.insert(id, handle).map_err(Fault::own("object index"))
    }

    /// Binds the id of the source's root directory to the replica's.
    pub fn bind_root(&mut self, id: ObjectId) -> Result<FileHandle, Fault> {
        let root = self.root.try_clone().map_err(Fault::own("root"))?;
        self.bind(id, &root)
    }

    /// Forgets an object for good: its last name went.
    pub fn forget(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.descriptors.forget(id);
        self.times.forget(id);
        self.flags.forget(id);
        self.seen.forget(id);
        failpoint::at("forget").map_err(Fault::own("object index"))?;
        self.index.remove(id).map(drop).map_err(Fault::own("object index"))
    }

    /// Forgets every object and pending time: a resynchronisation binds them anew.
    pub fn forget_all(&mut self) -> Result<(), Fault> {
        self.descriptors.clear();
        self.times.clear().map_err(Fault::own("pending times"))?;
        self.flags.clear().map_err(Fault::own("pending flags"))?;
        self.index.clear().map_err(Fault::own("object index"))
    }

    /// Keeps a descriptor that was just opened for what comes next.
    pub fn keep(&mut self, id: ObjectId, access: Access, came: Came, file: Arc<File>) {
        if let Some(gone) = self.descriptors.keep(id, access, came, file) {
            self.settle_at_leave(&gone);
        }
    }

    /// A new file's pending time is set while its descriptor is at hand: it is hardly written again,
    /// and to open it once more for that costs as much as to make it. Where the time cannot be set, or
    /// what is in the file may not be all, it stays pending.
    /// It is done with: its descriptor gives way before those of files that wait.
    pub(in crate::apply) fn close(&mut self, id: ObjectId) {
        self.descriptors.forget(id);
    }

    fn settle_at_leave(&mut self, GaveWay { id, file, came }: &GaveWay) {
        if *came == Came::New
            && self.progress.bad_by().is_none()
            && let Some(mtime) = self.times.of(*id)
            && self.policy.set_mtime(&**file, mtime).is_ok()
        {
            self.times.forget(*id);
        }
    }

    /// Handle of what a name holds; `None` where it holds nothing. A symlink is not followed.
    pub fn name_holds(&self, dir: &File, name: &Name) -> Result<Option<FileHandle>, Fault> {
        match FileHandle::at(dir.as_fd(), &c_name(name)) {
            Ok(handle) => Ok(Some(handle)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(handle_fault(error)),
        }
    }

    /// `O_PATH` descriptor of what a name holds: no symlink is followed, no mount is entered.
    pub fn open_name(&self, dir: impl AsFd, name: &Name) -> Result<File, Fault> {
        open_beneath(dir.as_fd(), name, OFlags::PATH, Mode::empty())
            .map(File::from)
            .map_err(Fault::system("open a name"))
    }

    /// The mtime that an object gets once its directory or file is at rest.
    pub fn set_mtime_later(&mut self, id: ObjectId, mtime: Timestamp) -> Result<(), Fault> {
        if mtime.nanoseconds >= 1_000_000_000 {
            return Err(Fault::Refused("a time of more than 999,999,999 nanoseconds"));
        }
        failpoint::at("time").map_err(Fault::own("pending times"))?;
        self.times.add(id, mtime);
        if self.times.is_full() { self.settle_times() } else { Ok(()) }
    }

    /// A time that it had, or was to get, is set later.
    pub(super) fn keep_mtime(&mut self, id: ObjectId, mtime: Timestamp) {
        self.times.add(id, mtime);
    }

    /// The time of an object that is pending.
    pub(super) fn pending_time(&self, id: ObjectId) -> Option<Timestamp> {
        self.times.of(id)
    }

    /// A time that is pending is not set any more.
    pub(super) fn forget_time(&mut self, id: ObjectId) {
        self.times.forget(id);
    }

    /// Sets all pending times and flags now, and closes descriptors that can write.
    pub fn settle_times(&mut self) -> Result<(), Fault> {
        self.settle_times_or(|_, _, fault| Err(fault))
    }

    /// [`Replica::settle_times`]; `unset` decides what becomes of a time that cannot be set.
    pub fn settle_times_or(
        &mut self,
        mut unset: impl FnMut(&Replica, ObjectId, Fault) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut stuck = Ok(());
        for (id, mtime) in self.times.pending() {
            failpoint::at("settle").map_err(Fault::own("pending times"))?;
            match self.settle_time(id, mtime) {
                Err(fault) if self.goes_aside_with_others(id, &fault) => {
                    log::debug!("its time is not set: {fault}");
                    self.goes_without_its_time(id);
                }
                Err(fault) => {
                    if let Err(fault) = unset(self, id, fault) {
                        stuck = Err(Fault::Time { object: id, fault: Box::new(fault) });
                    }
                }
                Ok(()) => self.has_its_time(id),
            }
        }
        // The others have theirs; all are set once more with it.
        stuck?;
        self.descriptors.close_writers();
        self.times.clear().map_err(Fault::own("pending times"))?;
        // A time cannot be set behind them.
        self.settle_flags_or(&mut unset)?;
        if !self.in_doubt() {
            self.unrest = None;
        }
        Ok(())
    }

    /// One whose id is about to be forgotten.
    pub(in crate::apply) fn settle_time_of(&mut self, id: ObjectId) -> Result<(), Fault> {
        self.settle_time_alone(id)?;
        self.settle_flags_before_it_goes(id)
    }

    /// [`Replica::settle_time_of`], but for its flags.
    pub(in crate::apply) fn settle_time_alone(&mut self, id: ObjectId) -> Result<(), Fault> {
        let Some(mtime) = self.times.of(id) else { return Ok(()) };
        failpoint::at("settle one").map_err(Fault::system("set mtime"))?;
        self.settle_time(id, mtime)
    }

    /// Sets the time of an object now, whatever flags it has.
    pub(in crate::apply) fn set_mtime_now(&mut self, id: ObjectId, mtime: Timestamp) -> Result<(), Fault> {
        self.lifting(id, |replica| {
            let file = replica.object(id)?;
            replica.policy.set_mtime(&*file, mtime)
        })
    }

    fn settle_time(&mut self, id: ObjectId, mtime: Timestamp) -> Result<(), Fault> {
        match self.set_mtime_now(id, mtime) {
            Ok(()) => {
                self.look_at_names(id);
                Ok(())
            }
            // It went with its last name, or was bound to an inode that went.
            Err(Fault::MissingObject(_)) => Ok(()),
            Err(fault @ Fault::Outside { .. }) => {
                log::warn!("its time is not set: {fault}");
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// What is pending is known to a process after this one.
    pub(super) fn log_times(&mut self) -> Result<(), Fault> {
        self.times.log().map_err(Fault::own("pending times"))
    }

    /// When pending times and flags want to be set, if there are any.
    pub fn next_deadline(&self) -> Option<std::time::Instant> {
        [self.times.next_deadline(), self.flags.next_deadline()].into_iter().flatten().max()
    }

    /// Files whose content has come that wait for one sync at most: their descriptors are still open then.
    pub(in crate::apply) fn unsettled_files(&self) -> usize {
        limits::unsettled_files(self.descriptors.most())
    }

    fn open_object(&mut self, id: ObjectId, access: Access) -> Result<Arc<File>, Fault> {
        failpoint::at("object").map_err(Fault::system("open by handle"))?;
        if let Some(file) = self.descriptors.get(id, access) {
            return Ok(file);
        }
        let handle = self.known_handle(id)?;
        let fd =
            self.open_handle(&handle, libc::O_PATH | libc::O_NOFOLLOW).map_err(|error| gone(id, error))?;
        let fd = File::from(fd);
        self.must_be_inside(id, &fd)?;
        let file = Arc::new(match access {
            Access::Path => fd,
            Access::Write => self.open_to_write(id, fd)?,
        });
        self.keep(id, access, Came::Known, file.clone());
        Ok(file)
    }

    /// What is immutable or append-only is opened by nobody.
    fn open_to_write(&mut self, id: ObjectId, fd: File) -> Result<File, Fault> {
        match reopen_to_write(fd.as_fd()) {
            Err(fault) if is_refusal(fault.errno()) && self.lift(id)? => reopen_to_write(fd.as_fd()),
            opened => opened,
        }
    }

    fn open_handle(&self, handle: &FileHandle, flags: i32) -> io::Result<OwnedFd> {
        by_handle::open(&self.root, handle, flags)
    }
}

/// Opens one name of a directory: no symlink is followed, no mount is entered.
pub(super) fn open_beneath(
    dir: BorrowedFd<'_>,
    name: &Name,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(dir, name.as_bytes(), flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode, resolve)
}

/// A name for calls that take C strings.
pub(super) fn c_name(name: &Name) -> CString {
    CString::new(name.as_bytes()).expect("a name has no NUL")
}

fn reopen_to_write(fd: BorrowedFd<'_>) -> Result<File, Fault> {
    must_be_regular(fd)?;
    by_handle::reopen_to_write(fd).map_err(Fault::system("open a file to write"))
}

/// Only a regular file is opened: a FIFO or a device would block or act.
fn must_be_regular(fd: BorrowedFd<'_>) -> Result<(), Fault> {
    let mode = inode::stat(fd)?.st_mode;
    if rustix::fs::FileType::from_raw_mode(mode) != rustix::fs::FileType::RegularFile {
        return Err(Fault::Refused("content of something that is not a regular file"));
    }
    Ok(())
}

/// Opens a directory for listing; the descriptor may be `O_PATH`.
pub(super) fn read_directory(dir: impl AsFd) -> Result<rustix::fs::Dir, Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd =
        rustix::fs::openat(dir, c".", flags, Mode::empty()).map_err(Fault::system("open a directory"))?;
    rustix::fs::Dir::new(fd).map_err(Fault::system("open a directory"))
}

/// Takes a file of the state directory away, best effort: a left-over one does no harm.
pub(super) fn remove_quietly(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::warn!("{}: cannot be removed: {error}", path.display());
    }
}

pub(super) fn path_of(fd: BorrowedFd<'_>) -> Result<PathBuf, Fault> {
    std::fs::read_link(proc_path(fd)).map_err(Fault::system("path of a directory"))
}

fn gone(id: ObjectId, error: io::Error) -> Fault {
    match error.raw_os_error() {
        Some(libc::ESTALE) => Fault::MissingObject(id),
        _ => Fault::System { what: "open by handle", error },
    }
}

pub(super) fn handle_fault(error: io::Error) -> Fault {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EOVERFLOW) => Fault::Unsupported("file handles that can be kept"),
        _ => Fault::System { what: "file handle", error },
    }
}
