//! Giving objects of the replica their names, whatever is in the way and wherever they are.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Session;
use super::entry::{Found, find_handle, look_at};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::{Remembered, Replica, Why, by_handle, c_name, read_directory};
use crate::clone::guard;
use crate::packet::{Name, ObjectId, Timestamp};
use crate::sys::{FileHandle, proc_path};
use crate::xattr::{clear_hindering, is_refusal};

/// Whether an object cannot come into a directory that shares none with the one that it is in.
pub(super) fn is_apart(fault: &Fault) -> bool {
    matches!(fault, Fault::System { error, .. } if Errno::from_io_error(error) == Some(Errno::XDEV))
}

impl Session {
    /// What a name holds loses it, unless it is this object.
    pub(super) fn make_way(
        &mut self,
        replica: &mut Replica,
        dir: &File,
        name: &Name,
        keep: Option<FileHandle>,
    ) -> Result<(), Fault> {
        match replica.name_holds(dir, name)? {
            None => Ok(()),
            found if found == keep => Ok(()),
            // Where the replica is a mount point, limbo lies in it.
            Some(found) if self.own.contains(&found) => {
                Err(Fault::Refused("the replica's own directory as an object in it"))
            }
            Some(found) => {
                replica.places_changed();
                self.stayed.goes(dir, name, &found)?;
                self.limbo.take(dir, name, Why::InTheWay)
            }
        }
    }

    /// The object behind a handle, where it is in the replica or limbo. Somebody may have moved it
    /// out: with a name in the replica again it would be written to where it is now. Directories are
    /// asked when they are moved.
    pub(super) fn find_inside(
        &mut self,
        replica: &mut Replica,
        id: ObjectId,
        handle: &FileHandle,
    ) -> Result<Option<Found>, Fault> {
        let Some(found) = find_handle(replica, handle)? else { return Ok(None) };
        if is_directory(&found) || replica.remembered(&found.file)? == Remembered::Inside {
            return Ok(Some(found));
        }
        if !std::mem::replace(&mut self.has_searched, true) {
            replica.remember_names()?;
        }
        // Opened anew, it has the name that was just looked at.
        drop(found);
        let Some(found) = find_handle(replica, handle)? else { return Ok(None) };
        let is_inside = match replica.remembered(&found.file)? {
            Remembered::Inside => true,
            Remembered::Outside if found.status.st_nlink == 1 => false,
            // Another object would be made in the place of one that is here.
            Remembered::Outside | Remembered::Unknown => replica.is_inside(id, &found.file)?,
        };
        Ok(is_inside.then_some(found))
    }

    /// Gives an object of the replica this name, which is free: a directory moves, anything else gets
    /// a further name. `false` where it cannot come: it is gone, or outside.
    ///
    /// Errors: `EXDEV` between directories that share no objects, though they are of one file system: subvolumes (btrfs),
    /// other projects (`chattr +P`), other keys of fscrypt ([`is_apart`]).
    pub(super) fn bring_here(
        &mut self,
        replica: &mut Replica,
        into: (ObjectId, &File),
        name: &Name,
        id: ObjectId,
        found: &Found,
    ) -> Result<bool, Fault> {
        if is_directory(found) {
            return self.move_here(replica, into, name, id, found);
        }
        let link = || by_handle::link(&found.file, into.1.as_fd(), &c_name(name));
        let linked = match link() {
            Err(error) if is_refusal(error.raw_os_error()) && replica.lift(id)? => link(),
            linked => linked,
        };
        match linked.as_ref().err().and_then(Errno::from_io_error) {
            Some(Errno::NOENT) => Ok(false),
            _ => linked.map(|()| true).map_err(Fault::system("link an object to its name")),
        }
    }

    fn move_here(
        &mut self,
        replica: &mut Replica,
        (dir_id, dir): (ObjectId, &File),
        name: &Name,
        id: ObjectId,
        found: &Found,
    ) -> Result<bool, Fault> {
        if id == dir_id {
            return Err(Fault::Refused("a directory inside itself"));
        }
        for _ in 0..3 {
            let Some((parent, old)) = find_parent(replica, id, found)? else { return Ok(false) };
            let before = self.time_of_listed(replica, &parent)?;
            let from = if self.ruled.is_there() { self.was_at(replica, &parent, &old)? } else { None };
            guard::moving((&parent, old.as_bytes()), (dir, name.as_bytes()));
            match rustix::fs::renameat_with(&parent, c_name(&old), dir, c_name(name), RenameFlags::NOREPLACE)
            {
                Ok(()) => {
                    replica.places_changed();
                    self.ruled.has_moved(id, from);
                    // Not what may fail: tried again, it would find the directory where it belongs.
                    before.into_iter().for_each(|(parent, mtime)| replica.keep_mtime(parent, mtime));
                    return Ok(true);
                }
                Err(Errno::INVAL) if self.lies_below(dir, &found.handle)? => {
                    self.take_out(replica, dir_id, dir)?;
                }
                Err(Errno::PERM) if replica.lift(id)? | self.lift_parent(replica, &parent)? => {}
                // It moved meanwhile.
                Err(Errno::INVAL | Errno::NOENT) => return Ok(false),
                Err(error) => return Err(Fault::system("move a directory to its name")(error)),
            }
        }
        Ok(false)
    }

    /// The path of a name in the replica when this copy began, from the root on; `None` where that is not known.
    fn was_at(&self, replica: &Replica, dir: &File, name: &Name) -> Result<Option<Vec<u8>>, Fault> {
        let Ok(path) = std::fs::read_link(proc_path(dir.as_fd())) else { return Ok(None) };
        let (mut above, mut behind) =
            (dir.try_clone().map_err(Fault::own("a directory"))?, vec![name.as_bytes()]);
        for part in path.iter().rev() {
            let Some(id) = self.id_of(replica, &above)? else { return Ok(None) };
            let top = if id == self.root { Some(Some(&b""[..])) } else { self.ruled.was_at(id) };
            if let Some(top) = top {
                behind.extend(top);
                behind.reverse();
                return Ok(top.map(|_| behind.join(&b'/')));
            }
            behind.push(part.as_bytes());
            above = open_parent(&above)?;
        }
        Ok(None)
    }

    /// What is known gets its flags back at rest, for it may have been shown. Anything else has none until then.
    fn lift_parent(&self, replica: &mut Replica, parent: &File) -> Result<bool, Fault> {
        match self.id_of(replica, parent)? {
            Some(id) => replica.lift(id),
            None => Ok(clear_hindering(parent)),
        }
    }

    /// A name that stayed in a directory of the source goes from there: the directory keeps the time that it has, or
    /// is about to get. One whose listing is to come gets its time by that.
    fn time_of_listed(&self, replica: &Replica, dir: &File) -> Result<Option<(ObjectId, Timestamp)>, Fault> {
        let handle = FileHandle::of(dir.as_fd()).map_err(Fault::system("file handle"))?;
        let claimant = self.claims.claimant(&handle).map_err(Fault::system("claims"))?;
        let Some(id) = claimant.map_or_else(|| self.listed_id(&handle), |id| Ok(Some(id)))? else {
            return Ok(None);
        };
        let held = inode::mtime(&inode::stat(dir)?);
        Ok(Some((id, replica.pending_time(id).unwrap_or(held))))
    }

    /// A directory that lies below one that is to come into it: it goes to limbo, and whoever had it
    /// is listed again. (The other way round everything below would be lost.)
    fn take_out(&mut self, replica: &mut Replica, id: ObjectId, dir: &File) -> Result<(), Fault> {
        let found = look_at(dir.try_clone().map_err(Fault::system("directory"))?)?;
        let Some((parent, name)) = find_parent(replica, id, &found)? else { return Ok(()) };
        let holder = self.id_of(replica, &parent)?;
        holder.map_or(Ok(false), |holder| replica.lift(holder))?;
        self.limbo.take(&parent, &name, Why::InTheWay)?;
        replica.places_changed();
        match holder {
            Some(holder) => self.doubt(holder),
            None => Ok(()),
        }
    }

    /// Whether a directory lies below the one of this handle.
    fn lies_below(&self, dir: &File, above: &FileHandle) -> Result<bool, Fault> {
        let handle_of = |dir: &File| FileHandle::of(dir.as_fd()).map_err(Fault::system("file handle"));
        let mut at = dir.try_clone().map_err(Fault::system("directory"))?;
        let mut handle = handle_of(&at)?;
        while !self.own.contains(&handle) {
            at = open_parent(&at)?;
            let parent = handle_of(&at)?;
            if parent == *above {
                return Ok(true);
            }
            if parent == handle {
                break;
            }
            handle = parent;
        }
        Ok(false)
    }
}

pub(super) fn is_directory(found: &Found) -> bool {
    FileType::from_raw_mode(found.status.st_mode) == FileType::Directory
}

fn open_parent(dir: &File) -> Result<File, Fault> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, c"..", flags, Mode::empty())
        .map(File::from)
        .map_err(Fault::system("open the parent of a directory"))
}

/// Where a directory lies now; `None` where that is not in the replica or its limbo.
fn find_parent(replica: &mut Replica, id: ObjectId, found: &Found) -> Result<Option<(File, Name)>, Fault> {
    match replica.directory(id) {
        Ok(_) => {}
        Err(Fault::Outside { path, .. }) => {
            log::warn!("directory {id} was moved out of the replica, to {path}");
            return Ok(None);
        }
        Err(Fault::MissingObject(_)) => return Ok(None),
        Err(fault) => return Err(fault),
    }
    let parent = open_parent(&found.file)?;
    let holds = |name: &Name| replica.name_holds(&parent, name).map(|held| held == Some(found.handle));
    let path = std::fs::read_link(proc_path(found.file.as_fd()));
    let guess = path.ok().and_then(|path| Name::new(path.file_name()?.as_encoded_bytes()).ok());
    if let Some(name) = guess
        && holds(&name)?
    {
        return Ok(Some((parent, name)));
    }
    // A path longer than the kernel tells, or a rename in this moment.
    for entry in read_directory(&parent)? {
        let entry = entry.map_err(Fault::system("list a directory"))?;
        if entry.ino() == found.status.st_ino
            && let Ok(name) = Name::new(entry.file_name().to_bytes())
            && holds(&name)?
        {
            return Ok(Some((parent, name)));
        }
    }
    Ok(None)
}
