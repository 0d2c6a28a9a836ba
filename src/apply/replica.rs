//! The replica directory: from object ids to descriptors, and never out of the directory.
//!
//! An id is resolved through the index (id -> file handle) and `open_by_handle_at`; a directory
//! is checked, at every use for a name in it, to lie below the root or in limbo. The last step is
//! always `*at()` with one checked name that is not followed: there are no paths to lead astray.
//! What is opened by its handle has to have a name in the replica ([`super::inside`]).
//! Performs no op by itself (see [`super::perform`]).

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::aside::Aside;
use super::begun::{Begun, Noted};
use super::by_handle;
use super::descriptors::{Access, Descriptors};
use super::durable::Points;
use super::fault::Fault;
use super::index::Index;
use super::inside::SeenNames;
use super::nameless::Nameless;
use super::policy::{Allow, Policy, Withheld};
use super::progress::{DataStatus, OpenError, Progress, Strange};
use super::times::Times;
use super::writer::Writer;
use crate::failpoint;
use crate::limits::TARGET_DESCRIPTORS;
use crate::packet::{Name, ObjectId, PacketHeader, Position, SetId, Timestamp};
use crate::store::{Symlink, own_directory};
use crate::sys::{FileHandle, proc_path};

/// Where a replica and what belongs to it lie. Limbo is on the file system of the root, beside it.
#[derive(Clone, Debug)]
pub struct Places {
    pub root: PathBuf,
    /// Temporary files, and objects without a name. Made if it is not there.
    pub limbo: PathBuf,
    /// Index, positions, pending times. Made if it is not there.
    pub state: PathBuf,
}

impl Places {
    /// The usual place of limbo: `.NAME.standin` beside the root.
    pub fn beside(root: &Path, state: &Path) -> Places {
        let mut name = std::ffi::OsString::from(".");
        name.push(root.file_name().unwrap_or_default());
        name.push(".standin");
        Places { root: root.to_owned(), limbo: root.with_file_name(name), state: state.to_owned() }
    }
}

/// See the module.
pub struct Replica {
    /// Opened for reading: `open_by_handle_at` takes no `O_PATH` descriptor, nor does `syncfs`.
    pub(super) root: File,
    limbo: File,
    pub(super) nameless: Nameless,
    state: PathBuf,
    pub(super) index: Index,
    descriptors: Descriptors,
    pub(super) times: Times,
    pub(super) progress: Progress,
    pub(super) begun: Begun,
    /// Why it could not come to rest, if so.
    pub(super) unrest: Option<DataStatus>,
    pub(super) policy: Policy,
    pub(super) writer: Writer,
    /// Path of the object of the op that is performed, as the source says.
    pub(super) hint: Vec<u8>,
    pub(super) seen: SeenNames,
    pub(super) points: Points,
    pub(super) sync_failed: bool,
    pub(super) aside: Aside,
    #[cfg(test)]
    pub hold: Arc<super::durable::Hold>,
}

impl Replica {
    /// Opens the replica of a set: an empty directory becomes one, a directory of another set or
    /// with files of unknown origin is refused and left untouched.
    pub fn open(places: &Places, set: SetId) -> Result<Replica, OpenError> {
        Self::open_as(places, set, Strange::Refuse)
    }

    /// [`Replica::open`], but a directory with files of unknown origin is taken over: bad until a
    /// resynchronisation has compared everything in it.
    pub fn open_or_adopt(places: &Places, set: SetId) -> Result<Replica, OpenError> {
        Self::open_as(places, set, Strange::Adopt)
    }

    fn open_as(places: &Places, set: SetId, strange: Strange) -> Result<Replica, OpenError> {
        let io = |what| move |error| OpenError::Io(what, error);
        let root = open_directory(&places.root)?;
        FileHandle::of(root.as_fd()).map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => OpenError::NoFileHandles,
            _ => OpenError::Io("file handle of the root", error),
        })?;
        own_directory(&places.state, 0o700, Symlink::Own).map_err(io("state directory of the replica"))?;
        let mut progress = Progress::open(&root, &places.state, set, strange)?;
        // Who may write beside the replica could have planted it.
        let limbo = own_directory(&places.limbo, 0o700, Symlink::Never)
            .and_then(|limbo| limbo.set_permissions(Permissions::from_mode(0o700)).map(|()| limbo))
            .map_err(io("place for temporary files"))?;
        if device(&root)? != device(&limbo)? {
            return Err(OpenError::LimboElsewhere);
        }
        let nameless = Nameless::open(&limbo).map_err(|error| OpenError::Io("open limbo", error.into()))?;
        let mut index = open_index(&places.state.join("index"), &mut progress)?;
        if progress.durable() == Position::default() && !progress.same_page_cache() {
            // Of another directory, or of none: nothing was ever durable in this one.
            index.clear().map_err(|error| OpenError::Io("object index", error))?;
        }
        let times = Times::open(&places.state.join("times"), progress.same_page_cache())
            .map_err(|error| OpenError::Io("pending times", error))?;
        let aside = Aside::open(places.state.join("aside"), progress.data().state);
        let begun = Begun::open(&places.state.join("begun"))
            .map_err(|error| OpenError::Io("record of what is begun", error))?;
        let descriptors = Descriptors::new(TARGET_DESCRIPTORS);
        let policy = Policy::new(Allow::ALL);
        Ok(Replica {
            root,
            limbo,
            nameless,
            state: places.state.clone(),
            index,
            descriptors,
            times,
            progress,
            begun,
            unrest: None,
            policy,
            writer: Writer::default(),
            hint: Vec::new(),
            seen: SeenNames::default(),
            points: Points::default(),
            sync_failed: false,
            aside,
            #[cfg(test)]
            hold: Arc::default(),
        })
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

    /// The directory of small files about this replica.
    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn index(&self) -> &Index {
        &self.index
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

    /// Descriptor of a directory that lies below the root or in limbo at this moment.
    ///
    /// Errors: as [`Replica::object`]; [`Fault::Outside`] where somebody moved it away.
    pub fn directory(&mut self, id: ObjectId) -> Result<Arc<File>, Fault> {
        let dir = self.object(id)?;
        if let Err(fault) = self.directory_inside(id, &dir) {
            self.descriptors.forget(id);
            return Err(fault);
        }
        Ok(dir)
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
        self.descriptors.forget(id);
        failpoint::at("bind").map_err(Fault::own("object index"))?;
        self.index.insert(id, handle).map_err(Fault::own("object index"))?;
        Ok(handle)
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
        self.seen.forget(id);
        failpoint::at("forget").map_err(Fault::own("object index"))?;
        self.index.remove(id).map(drop).map_err(Fault::own("object index"))
    }

    /// Forgets every object and pending time: a resynchronisation binds them anew.
    pub fn forget_all(&mut self) -> Result<(), Fault> {
        self.descriptors.clear();
        self.times.clear().map_err(Fault::own("pending times"))?;
        self.index.clear().map_err(Fault::own("object index"))
    }

    /// Keeps a descriptor that was just opened for what comes next.
    pub fn keep(&mut self, id: ObjectId, access: Access, file: Arc<File>) {
        self.descriptors.keep(id, access, file);
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

    /// Writes down that an op is performed from now on.
    pub(super) fn begin(
        &mut self,
        position: Position,
        packet: &PacketHeader,
        payload: &Bytes,
    ) -> Result<(), Fault> {
        let PacketHeader { path, op } = packet;
        let noted = Noted { position, path: &path.0, op, payload, allow: self.policy.allow() };
        self.begun.note(&noted).map_err(Fault::own("record of what is begun"))?;
        self.progress.begin(position).map_err(Fault::own("position slot"))
    }

    /// The mtime that an object gets once its directory or file is at rest.
    pub fn set_mtime_later(&mut self, id: ObjectId, mtime: Timestamp) -> Result<(), Fault> {
        if mtime.nanoseconds >= 1_000_000_000 {
            return Err(Fault::Refused("a time of more than 999,999,999 nanoseconds"));
        }
        failpoint::at("time").map_err(Fault::own("pending times"))?;
        self.times.add(id, mtime).map_err(Fault::own("pending times"))?;
        if self.times.is_full() { self.settle_times() } else { Ok(()) }
    }

    /// Sets all pending times now, and closes descriptors that can write.
    pub fn settle_times(&mut self) -> Result<(), Fault> {
        self.settle_times_or(|_, fault| Err(fault))
    }

    /// [`Replica::settle_times`]; `unset` decides what becomes of a time that cannot be set.
    pub fn settle_times_or(
        &mut self,
        mut unset: impl FnMut(ObjectId, Fault) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut stuck = Ok(());
        for (id, mtime) in self.times.pending() {
            failpoint::at("settle").map_err(Fault::own("pending times"))?;
            match self.settle_time(id, mtime) {
                Err(fault) if self.is_any_aside(&[id]) => log::debug!("its time is not set: {fault}"),
                Err(fault) => {
                    if let Err(fault) = unset(id, fault) {
                        stuck = Err(Fault::Time { object: id, fault: Box::new(fault) });
                    }
                }
                Ok(()) => {}
            }
        }
        // The others have theirs; all are set once more with it.
        stuck?;
        self.descriptors.close_writers();
        self.times.clear().map_err(Fault::own("pending times"))?;
        if !self.in_doubt() {
            self.unrest = None;
        }
        Ok(())
    }

    fn settle_time(&mut self, id: ObjectId, mtime: Timestamp) -> Result<(), Fault> {
        match self.object(id) {
            Ok(file) => self.policy.set_mtime(&*file, mtime),
            // It went with its last name, or was bound to an inode that went.
            Err(Fault::MissingObject(_)) => Ok(()),
            Err(fault @ Fault::Outside { .. }) => {
                log::warn!("its time is not set: {fault}");
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// When pending times want to be set, if there are any.
    pub fn next_deadline(&self) -> Option<std::time::Instant> {
        self.times.next_deadline()
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
            Access::Write => reopen_to_write(fd.as_fd())?,
        });
        self.descriptors.keep(id, access, file.clone());
        Ok(file)
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

/// Only a regular file is opened: a FIFO or a device would block or act.
fn reopen_to_write(fd: BorrowedFd<'_>) -> Result<File, Fault> {
    let mode = super::inode::stat(fd)?.st_mode;
    if rustix::fs::FileType::from_raw_mode(mode) != rustix::fs::FileType::RegularFile {
        return Err(Fault::Refused("content of something that is not a regular file"));
    }
    by_handle::reopen_to_write(fd).map_err(Fault::system("open a file to write"))
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

fn open_directory(path: &Path) -> Result<File, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        Err(rustix::io::Errno::NOTDIR) => Err(OpenError::NotADirectory),
        Err(error) => Err(OpenError::Io("open a directory", error.into())),
    }
}

fn device(dir: &File) -> Result<u64, OpenError> {
    rustix::fs::fstat(dir).map(|stat| stat.st_dev).map_err(|error| OpenError::Io("stat", error.into()))
}

/// A lost or damaged index beside a replica that has content means that nothing can be resolved.
fn open_index(path: &Path, progress: &mut Progress) -> Result<Index, OpenError> {
    let lost = !path.exists();
    let index = match Index::open(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            std::fs::rename(path, path.with_extension("damaged"))
                .map_err(|error| OpenError::Io("object index", error))?;
            progress.lose("the object index is damaged")?;
            Index::open(path)
        }
        opened => opened,
    };
    if lost {
        progress.lose("the object index is lost")?;
    }
    index.map_err(|error| OpenError::Io("object index", error))
}
