//! One entry of a listing: keep, claim, adopt or make the object, and correct it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Statx, StatxFlags};
use rustix::io::Errno;

use super::left_out::shown;
use super::places::{is_apart, is_directory};
use super::{Existing, NameMatch, Session};
use crate::apply::create::make;
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::by_handle;
use crate::apply::replica::{Access, Came, Lack, Replica, c_name, open_beneath};
use crate::packet::{Birth, ListedObject, Name, ObjectId};
use crate::sys::{FileHandle, has_xattrs_at, is_no_mount};
use crate::xattr::Flags;

/// What a fault says that keeps an object from being made.
const MAKE: &str = "make an object";

/// An object of the replica, behind an `O_PATH` descriptor.
pub(super) struct Found {
    pub(super) file: Arc<File>,
    pub(super) handle: FileHandle,
    pub(super) status: Stat,
}

/// An object at its listed name.
enum Placed {
    /// The id was bound to it before.
    Kept(Found),
    /// It had the name, and nobody knows what its content is.
    Adopted(Found),
    /// It was just made, empty.
    Made(Found),
}

impl Session {
    /// Makes one name what the source has there; `true` where the content of a file is wanted.
    /// `was_seen`: it was shown before.
    pub(super) fn reconcile(
        &mut self,
        replica: &mut Replica,
        into: (ObjectId, &File),
        entry: &ListedObject,
        was_seen: bool,
    ) -> Result<bool, Fault> {
        if entry.object == self.root {
            return Err(Fault::Refused("the root directory inside itself"));
        }
        self.look_again_if_out(replica, into, entry)?;
        let bound = replica.handle(entry.object)?;
        if let Some(bound) = bound
            && replica.pending_flags(entry.object).is_none()
            && self.is_as_listed(into.1, entry, &bound)?
        {
            return Ok(false);
        }
        if self.stays(into.1, entry, bound)? {
            self.kept += 1;
            let is_directory = find_name(into.1, &entry.name)?.as_ref().is_some_and(is_directory);
            let why = match entry.birth {
                Birth::Directory => {
                    "what is there is no directory, and stays: nothing of what the replica has in it was brought"
                }
                _ if is_directory && self.rules.existing == Existing::KeepNewer => {
                    "a directory is there, and stays: what the replica has by this name was not brought"
                }
                _ => return Ok(false),
            };
            let path = shown(replica, into.1, Some(&entry.name));
            self.left_out.add(&format!("{}: {why}", path.display()));
            return Ok(false);
        }
        let bound = if was_seen { bound } else { self.unless_linked_out(replica, bound)? };
        let lack = self.lack(entry.object)?;
        self.outside.is_listed_now(entry.object);
        self.before_shown(entry, was_seen)?;
        let placed = self.place(replica, into, (entry, was_seen), bound)?;
        if entry.birth == Birth::Directory {
            self.shown_directory(entry.object, !matches!(placed, Placed::Kept(_)))?;
        }
        if entry.birth != Birth::File {
            let (Placed::Kept(found) | Placed::Adopted(found) | Placed::Made(found)) = placed;
            replica.policy().mark_placeholder(&entry.birth, &*found.file);
            return self.correct(replica, entry, &found, true).map(|()| false);
        }
        self.uncall_if_other(replica, entry.object)?;
        if self.asked.contains(entry.object)? {
            // Its content comes, and its attributes with it.
            return Ok(false);
        }
        let (found, in_doubt) = match placed {
            // It was compared, or has come, and packets have kept it as it is.
            Placed::Kept(found) if was_seen && lack != Some(Lack::Content) && !self.is_cut(entry, &found) => {
                return self.correct(replica, entry, &found, false).map(|()| false);
            }
            Placed::Kept(found) => (found, lack.is_some() || entry.suspect),
            Placed::Adopted(found) if self.rules.name_match == NameMatch::Compare => (found, entry.suspect),
            Placed::Adopted(found) | Placed::Made(found) => (found, true),
        };
        if differs(entry, &found.status, in_doubt) {
            self.want_content(replica, entry.object)?;
            self.note_old(entry, &found.status);
            return Ok(true);
        }
        // In this order: where it comes again, it was not shown to the end.
        self.correct(replica, entry, &found, true)?;
        self.incomplete.remove(entry.object).map(|()| false)
    }

    /// A file that nothing is known to lack has another size than its source: whatever has made it, what was
    /// vouched for is not so.
    fn is_cut(&self, entry: &ListedObject, found: &Found) -> bool {
        self.vouching.is_some() && found.status.st_size as u64 != entry.size
    }

    pub(super) fn want_content(&mut self, replica: &mut Replica, object: ObjectId) -> Result<(), Fault> {
        // On disk before anybody is told to send it.
        self.incomplete.add_soon(object)?;
        // Its time says that it is complete, and comes with the last of its content.
        self.unsettled.forget(object);
        replica.forget_time(object);
        self.asked.ask(object)
    }

    /// What a file waits for; one whose content has come only waits for its time.
    pub(super) fn lack(&self, object: ObjectId) -> Result<Option<Lack>, Fault> {
        if self.unsettled.contains(object) { Ok(None) } else { self.incomplete.lack(object) }
    }

    /// Corrects owner, mode and xattrs at once, and the mtime where nothing can change it later.
    fn correct(
        &mut self,
        replica: &mut Replica,
        entry: &ListedObject,
        found: &Found,
        with_time: bool,
    ) -> Result<(), Fault> {
        match entry.large_xattrs {
            // They come, and the mode with them.
            true => replica.lifting(entry.object, |_| inode::restrict(&*found.file, &entry.attributes))?,
            false => {
                let object = (entry.object, &*found.file);
                self.make_attributes(replica, object, &entry.attributes, &entry.xattrs)?;
            }
        }
        if entry.birth == Birth::File {
            replica.lifting(entry.object, |replica| replica.policy().unmark(&*found.file))?;
        }
        // A directory gets its mtime after its last entry.
        if with_time
            && entry.birth != Birth::Directory
            && inode::mtime(&found.status) != entry.attributes.mtime
        {
            let mtime = entry.attributes.mtime;
            replica.lifting(entry.object, |replica| replica.policy().set_mtime(&*found.file, mtime))?;
        }
        Ok(())
    }

    /// The quick answer for most files of most copies: all of it is as it should be. Without opening
    /// it, and `false` where anything is not plain.
    fn is_as_listed(&mut self, dir: &File, entry: &ListedObject, bound: &FileHandle) -> Result<bool, Fault> {
        let is_plain = entry.birth == Birth::File
            && !(entry.suspect || entry.large_xattrs)
            && entry.xattrs.is_empty()
            && !self.asked.contains(entry.object)?
            && self.incomplete.lack(entry.object)?.is_none();
        Ok(is_plain && looks_as_listed(dir, entry, bound) && self.claims.claim(bound, entry.object)?)
    }

    /// Puts the object of an entry at its name.
    fn place(
        &mut self,
        replica: &mut Replica,
        into: (ObjectId, &File),
        (entry, was_seen): (&ListedObject, bool),
        bound: Option<FileHandle>,
    ) -> Result<Placed, Fault> {
        let (_, dir) = into;
        if bound.is_none()
            && entry.birth == Birth::File
            && let Some(made) = self.make_where_free(replica, dir, entry)?
        {
            return Ok(Placed::Made(made));
        }
        let existing = find_name(dir, &entry.name)?;
        match existing {
            Some(found) if Some(found.handle) == bound => {
                if self.fits(replica, &found, entry)? {
                    return Ok(Placed::Kept(found));
                }
                self.place_other(replica, into, (entry, was_seen), Some(found), None)
            }
            existing => self.place_other(replica, into, (entry, was_seen), existing, bound),
        }
    }

    /// The name does not hold the object that the id is bound to.
    fn place_other(
        &mut self,
        replica: &mut Replica,
        into: (ObjectId, &File),
        (entry, was_seen): (&ListedObject, bool),
        existing: Option<Found>,
        bound: Option<FileHandle>,
    ) -> Result<Placed, Fault> {
        let (_, dir) = into;
        let living = match bound {
            Some(handle) => self.find_inside(replica, entry.object, &handle)?,
            None => None,
        };
        if let Some(found) = living
            && self.fits(replica, &found, entry)?
        {
            if existing.is_some() {
                self.make_way(replica, dir, &entry.name, None)?;
            }
            match self.bring_here(replica, into, &entry.name, entry.object, &found) {
                // Another one is made here, and gets everything: that is all there is of it.
                Err(fault) if is_apart(&fault) && !was_seen && !self.has_other_names(entry) => {}
                brought => {
                    if brought? {
                        return Ok(Placed::Kept(found));
                    }
                }
            }
        } else if let Some(found) = existing {
            if self.adopts()
                && !is_shared(&found, entry)
                && !self.is_linked_out(replica, &found)?
                && self.fits(replica, &found, entry)?
            {
                if entry.birth == Birth::File {
                    self.incomplete.add(entry.object)?;
                }
                replica.bind_to(entry.object, found.handle)?;
                return Ok(Placed::Adopted(found));
            }
            self.make_way(replica, dir, &entry.name, None)?;
        }
        let found = self.make(replica, dir, entry)?;
        Ok(Placed::Made(found))
    }

    /// A file may have names that this session does not show: they are to be one with this one.
    fn has_other_names(&self, entry: &ListedObject) -> bool {
        self.vouching.is_some() && entry.birth != Birth::Directory && entry.links > 1
    }

    /// Makes an empty object at a free name, root's alone until its attributes come.
    fn make(&mut self, replica: &mut Replica, dir: &File, entry: &ListedObject) -> Result<Found, Fault> {
        let made = make(dir.as_fd(), &entry.name, replica.policy().birth(&entry.birth), 0o700);
        self.take_made(replica, entry, made.map_err(|error| Fault::System { what: MAKE, error })?)
    }

    /// As [`Session::make`]; `None` where the name is taken. Looking first is a call more for each file
    /// of a copy to nothing.
    fn make_where_free(
        &mut self,
        replica: &mut Replica,
        dir: &File,
        entry: &ListedObject,
    ) -> Result<Option<Found>, Fault> {
        match make(dir.as_fd(), &entry.name, replica.policy().birth(&entry.birth), 0o700) {
            Ok(made) => self.take_made(replica, entry, made).map(Some),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(Fault::System { what: MAKE, error }),
        }
    }

    fn take_made(
        &mut self,
        replica: &mut Replica,
        entry: &ListedObject,
        (file, access): (File, Access),
    ) -> Result<Found, Fault> {
        let found = look_at(file)?;
        replica.bind_to(entry.object, found.handle)?;
        replica.keep(entry.object, access, Came::Known, found.file.clone());
        if !self.claims.claim(&found.handle, entry.object)? {
            return Err(Fault::Refused("a new object that is another one already"));
        }
        Ok(found)
    }

    /// Whether an object can be the entry's: of its kind, and no other id's. Claims it if so.
    fn fits(&mut self, replica: &Replica, found: &Found, entry: &ListedObject) -> Result<bool, Fault> {
        if self.own.contains(&found.handle) {
            return Err(Fault::Refused("the replica's own directory as an object in it"));
        }
        let policy = replica.policy();
        Ok(is_born_as(found, policy.birth(&entry.birth))?
            && policy.may_stand_for(&entry.birth, &found.status)
            && self.claims.claim(&found.handle, entry.object)?)
    }
}

/// A file that nobody knows, with more names than its like on the source: what else has its
/// content must not be written through it.
// The count has other widths on other processors.
#[allow(clippy::useless_conversion)]
fn is_shared(found: &Found, entry: &ListedObject) -> bool {
    entry.birth == Birth::File && found.status.st_nlink > entry.links.max(1).into()
}

fn differs(entry: &ListedObject, status: &Stat, in_doubt: bool) -> bool {
    let is_empty = entry.size == 0 && status.st_size == 0;
    status.st_size as u64 != entry.size
        || !is_empty && (in_doubt || inode::mtime(status) != entry.attributes.mtime)
}

/// What fails here fails again, and is told, where the file is looked at in full.
pub(super) fn looks_as_listed(dir: &File, entry: &ListedObject, bound: &FileHandle) -> bool {
    let name = c_name(&entry.name);
    let wanted = &entry.attributes;
    let is_the_same = |status: Statx| {
        FileType::from_raw_mode(u32::from(status.stx_mode)) == FileType::RegularFile
            && status.stx_size == entry.size
            && (status.stx_mtime.tv_sec, status.stx_mtime.tv_nsec)
                == (wanted.mtime.seconds, wanted.mtime.nanoseconds)
            && (status.stx_uid, status.stx_gid) == (wanted.uid, wanted.gid)
            && u32::from(status.stx_mode) & 0o7777 == wanted.mode & 0o7777
            && Flags::in_status(&status) == Flags::NONE
            && is_no_mount(&status)
    };
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, &name, flags, StatxFlags::BASIC_STATS).is_ok_and(is_the_same)
        && FileHandle::at(dir.as_fd(), &name).is_ok_and(|found| found == *bound)
        && has_xattrs_at(dir.as_fd(), &name).is_ok_and(|has| !has)
}

pub(super) fn find_name(dir: &File, name: &Name) -> Result<Option<Found>, Fault> {
    match open_beneath(dir.as_fd(), name, OFlags::PATH, Mode::empty()) {
        Ok(fd) => look_at(File::from(fd)).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(Fault::system("open a name")(error)),
    }
}

/// The object of a handle, where it still has a name.
pub(super) fn find_handle(replica: &Replica, handle: &FileHandle) -> Result<Option<Found>, Fault> {
    match by_handle::open(replica.root(), handle, libc::O_PATH | libc::O_NOFOLLOW) {
        Ok(fd) => Ok(Some(look_at(File::from(fd))?).filter(|found| found.status.st_nlink > 0)),
        Err(error) if error.raw_os_error() == Some(libc::ESTALE) => Ok(None),
        Err(error) => Err(Fault::system("open by handle")(error)),
    }
}

pub(super) fn look_at(file: File) -> Result<Found, Fault> {
    let handle = FileHandle::of(file.as_fd()).map_err(Fault::system("file handle"))?;
    let status = inode::stat(&file)?;
    Ok(Found { file: Arc::new(file), handle, status })
}

/// Same kind, same device numbers, same symlink target: what an object can never change.
pub(super) fn is_born_as(found: &Found, birth: &Birth) -> Result<bool, Fault> {
    let device = (rustix::fs::major(found.status.st_rdev), rustix::fs::minor(found.status.st_rdev));
    Ok(match (FileType::from_raw_mode(found.status.st_mode), birth) {
        (FileType::RegularFile, Birth::File)
        | (FileType::Directory, Birth::Directory)
        | (FileType::Fifo, Birth::Fifo)
        | (FileType::Socket, Birth::Socket) => true,
        (FileType::CharacterDevice, Birth::CharDevice { major, minor })
        | (FileType::BlockDevice, Birth::BlockDevice { major, minor }) => device == (*major, *minor),
        (FileType::Symlink, Birth::Symlink { target }) => {
            let link = rustix::fs::readlinkat(&*found.file, c"", Vec::new());
            link.map_err(Fault::system("read a symlink"))?.as_bytes() == target.0
        }
        _ => false,
    })
}
