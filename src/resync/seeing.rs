//! What an entry of a directory is: looked at through the directory, without following it and without
//! leaving the file system; the same looks for every kind of copy.

use std::collections::HashSet;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, fstat, openat2, statat, statx,
};

use super::CopyError;
use super::error::is_of_the_object;
use super::look::{LOOKED_AT, attributes, birth, stat, timestamp};
use super::place::{ListedFile, TreePath};
use crate::limits::XATTRS_INLINE_MAX;
use crate::packet::{Birth, Ids, LaneItem, LeftOut, ListedObject, Name, ObjectId, Timestamp, Xattr};
use crate::sys::{FileHandle, has_xattrs_at, is_no_mount, open_by_handle, proc_path};
use crate::xattr::{self, FLAGS, Flags};

/// Looks at one tree.
pub(super) struct Eyes {
    root: OwnedFd,
    /// Device of the root: what lies on another is a nested mount or subvolume.
    device: (u32, u32),
    ids: Ids,
    suspect_since: Option<Timestamp>,
    suspects: Arc<HashSet<ObjectId>>,
    is_replica: bool,
}

/// An entry that was looked at.
pub(super) struct Seen {
    pub listed: ListedObject,
    pub handle: FileHandle,
    /// `S_IFMT` bits.
    pub file_type: u32,
}

/// What a name holds.
pub(super) enum Sight {
    Here(Seen),
    /// Another file system, or a subvolume: no part of the tree.
    Nested,
    /// Nothing any more.
    Gone,
}

/// The root of a tree.
pub(super) struct Root {
    pub id: ObjectId,
    pub handle: FileHandle,
    pub item: LaneItem,
    /// Its attributes are sent in items of their own.
    pub large: Option<ListedFile>,
}

/// What could not be done with an object, and why.
pub(super) type NotRead = (&'static str, io::Error);

impl Eyes {
    /// `root` is a directory opened for reading.
    ///
    /// Errors: [`CopyError::Read`].
    pub fn new(root: OwnedFd, ids: Ids, suspect_since: Option<Timestamp>) -> Result<Eyes, CopyError> {
        let failed = |error| read_error("look at", &TreePath::root(), error);
        let status = stat(root.as_fd()).map_err(failed)?;
        let (device, suspects) = ((status.stx_dev_major, status.stx_dev_minor), Arc::default());
        Ok(Eyes { root, device, ids, suspect_since, suspects, is_replica: false })
    }

    /// The content of these is in doubt on the target, whatever it compares.
    pub fn suspect(&mut self, suspects: Arc<HashSet<ObjectId>>) {
        self.suspects = suspects;
    }

    /// Of a replica: what is marked as withheld there cannot be looked at.
    pub fn of_replica(self) -> Eyes {
        Eyes { is_replica: true, ..self }
    }

    /// A descriptor on the tree's file system, for opening by handle.
    pub fn root_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The root directory itself.
    ///
    /// Errors: [`CopyError::Read`].
    pub fn root(&self) -> Result<Root, CopyError> {
        let failed = |doing| move |error| read_error(doing, &TreePath::root(), error);
        let status = stat(self.root.as_fd()).map_err(failed("look at"))?;
        let handle = FileHandle::of(self.root.as_fd()).map_err(failed("get the file handle of"))?;
        let id = self.id(&handle, &status).map_err(failed("look up the id of"))?;
        let xattrs = xattr::read_replicated_up_to(&self.root, XATTRS_INLINE_MAX)
            .map_err(failed("read attributes of"))?;
        let (large, mut xattrs) = (xattrs.is_none(), xattrs.unwrap_or_default());
        xattrs.retain(|xattr| xattr.name.0 != FLAGS || !Flags::in_status(&status).is_hindering());
        let mut attributes = attributes(&status);
        if large {
            // Its owner's alone until the ACLs among them have come.
            attributes.mode &= !0o077;
        }
        let file_type = libc::S_IFDIR;
        let large =
            large.then_some(ListedFile { object: id, handle, file_type, name: None, size: 0, links: 1 });
        Ok(Root { id, handle, item: LaneItem::Root { object: id, attributes, xattrs }, large })
    }

    pub fn id(&self, handle: &FileHandle, status: &Statx) -> io::Result<ObjectId> {
        self.ids.of(handle, status.stx_ino)
    }

    /// As [`Ids::handle_of`].
    pub fn handle_of(&self, id: ObjectId, like: &FileHandle) -> io::Result<Option<FileHandle>> {
        self.ids.handle_of(id, like)
    }

    /// Whether it is on the tree's own file system.
    pub fn is_here(&self, status: &Statx) -> bool {
        (status.stx_dev_major, status.stx_dev_minor) == self.device
    }

    /// Whether it may have changed since the moment from which on everything is suspect, or was born since: a clock
    /// that was set back may have stamped the change.
    pub fn is_suspect(&self, status: &Statx) -> bool {
        let born = status.stx_mask & StatxFlags::BTIME.bits() != 0;
        let born = born.then(|| timestamp(status.stx_btime));
        let newest = Some(timestamp(status.stx_ctime)).max(born).map(latest);
        self.suspect_since.is_some_and(|since| newest >= Some(since))
    }

    /// Where a directory is now, from the root on; `None` where it is too deep to be told, or outside.
    pub fn path_of(&self, dir: BorrowedFd<'_>) -> Option<Vec<u8>> {
        let of = |fd| std::fs::read_link(proc_path(fd)).ok();
        let (root, path) = (of(self.root.as_fd())?, of(dir)?);
        Some(path.strip_prefix(root).ok()?.as_os_str().as_bytes().to_vec())
    }

    /// The path of what is no directory and has one name, from the root on; `None` where the system does not know it at this
    /// moment.
    pub fn only_name_of(&self, handle: &FileHandle) -> Option<Vec<u8>> {
        let fd = open_by_handle(self.root.as_fd(), handle, libc::O_PATH | libc::O_NOFOLLOW).ok()?;
        let path = self.path_of(fd.as_fd())?;
        let (status, named) = (fstat(&fd).ok()?, statat(&self.root, &*path, AtFlags::SYMLINK_NOFOLLOW).ok()?);
        let is_it = (status.st_dev, status.st_ino) == (named.st_dev, named.st_ino);
        (is_it && status.st_nlink == 1).then_some(path)
    }

    /// Opens a directory of the tree for reading.
    pub fn open_directory(&self, handle: &FileHandle) -> io::Result<OwnedFd> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOATIME;
        open_by_handle(self.root.as_fd(), handle, flags)
    }

    /// What a name holds, without opening it and without following it.
    pub fn status_at(&self, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Statx> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        Ok(statx(dir, name, flags, LOOKED_AT)?)
    }

    /// Looks at one entry.
    ///
    /// Errors: what could not be done with it. A name that is listed and cannot be found (`ESTALE`)
    /// has not vanished: it is damaged.
    pub fn see(&self, dir: BorrowedFd<'_>, name: &Name, raw: &CStr) -> Result<Sight, NotRead> {
        if let Some(seen) = self.see_plain(dir, name, raw) {
            return Ok(Sight::Here(seen));
        }
        let fd = match open_entry(dir, raw) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => return Ok(Sight::Nested),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Sight::Gone),
            Err(error) => return Err(("open", error)),
        };
        let status = stat(fd.as_fd()).map_err(|error| ("look at", error))?;
        if !self.is_here(&status) {
            return Ok(Sight::Nested);
        }
        if self.is_replica
            && let Some(what) = xattr::withheld(&fd).map_err(|error| ("read attributes of", error))?
        {
            return Err(("give", withheld(&what)));
        }
        let handle = FileHandle::of(fd.as_fd()).map_err(|error| ("get the file handle of", error))?;
        let listed = self
            .listed(name.clone(), fd.as_fd(), &status, &handle)
            .map_err(|error| ("read attributes of", error))?;
        Ok(Sight::Here(Seen { listed, handle, file_type: file_type(&status) }))
    }

    /// The quick look at most entries: a regular file without extended attributes. `None` where it is
    /// anything else, or cannot be told without opening it.
    fn see_plain(&self, dir: BorrowedFd<'_>, name: &Name, raw: &CStr) -> Option<Seen> {
        let status = self.status_at(dir, raw).ok()?;
        let is_file = FileType::from_raw_mode(u32::from(status.stx_mode)) == FileType::RegularFile;
        let is_here = self.is_here(&status) && is_no_mount(&status);
        let has_flags = Flags::in_status(&status) != Flags::NONE;
        if !is_file || !is_here || has_flags || has_xattrs_at(dir, raw).ok()? {
            return None;
        }
        let handle = FileHandle::at(dir, raw).ok()?;
        // Another file may have the name by now; then its directory has changed under the copy.
        if handle.inode() != Some(status.stx_ino) {
            return None;
        }
        let listed = self.listed_as(name.clone(), Birth::File, Some(Vec::new()), &status, &handle).ok()?;
        Some(Seen { listed, handle, file_type: libc::S_IFREG })
    }

    fn listed(
        &self,
        name: Name,
        fd: BorrowedFd<'_>,
        status: &Statx,
        handle: &FileHandle,
    ) -> io::Result<ListedObject> {
        let xattrs = xattr::read_replicated_up_to(fd, XATTRS_INLINE_MAX)?;
        self.listed_as(name, birth(fd, status)?, xattrs, status, handle)
    }

    /// `xattrs`: `None` where they come in items of their own.
    fn listed_as(
        &self,
        name: Name,
        birth: Birth,
        xattrs: Option<Vec<Xattr>>,
        status: &Statx,
        handle: &FileHandle,
    ) -> io::Result<ListedObject> {
        let (is_file, object) = (birth == Birth::File, self.id(handle, status)?);
        Ok(ListedObject {
            name,
            object,
            birth,
            attributes: attributes(status),
            large_xattrs: xattrs.is_none(),
            xattrs: xattrs.unwrap_or_default(),
            size: if is_file { status.stx_size } else { 0 },
            links: status.stx_nlink,
            suspect: is_file && (self.is_suspect(status) || self.suspects.contains(&object)),
        })
    }
}

impl Seen {
    pub fn as_listed(&self) -> ListedFile {
        ListedFile {
            object: self.listed.object,
            handle: self.handle,
            file_type: self.file_type,
            name: Some(self.listed.name.clone()),
            size: self.listed.size,
            links: self.listed.links,
        }
    }
}

fn withheld(what: &str) -> io::Error {
    io::Error::other(format!(
        "the replica was not allowed to have it ({what}), and has an empty file in its place"
    ))
}

fn file_type(status: &Statx) -> u32 {
    u32::from(status.stx_mode) & libc::S_IFMT
}

/// When a change at the latest was made that was stamped so: a time without a fraction is mostly of a
/// file system that keeps whole seconds, or two.
fn latest(stamp: Timestamp) -> Timestamp {
    let coarse = Timestamp { seconds: stamp.seconds.saturating_add(2), ..stamp };
    if stamp.nanoseconds == 0 { coarse } else { stamp }
}

/// Opens an entry without following it and without stepping onto another mount (`EXDEV`).
fn open_entry(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(dir, name, flags, Mode::empty(), ResolveFlags::NO_XDEV)?)
}

/// Names and counts what cannot be read.
///
/// Errors: the fault is not the object's.
pub(super) fn leave(
    left_out: &mut LeftOut,
    doing: &'static str,
    path: &TreePath,
    error: io::Error,
) -> Result<(), CopyError> {
    if !is_of_the_object(&error) {
        return Err(read_error(doing, path, error));
    }
    log::warn!("{path}: left out of the copy: cannot {doing} it: {error}");
    left_out.add(&format!("{path}: the source cannot {doing} it: {error}"));
    Ok(())
}

pub(super) fn read_error(doing: &'static str, path: &TreePath, error: io::Error) -> CopyError {
    CopyError::Read { doing, path: path.to_string(), error }
}
