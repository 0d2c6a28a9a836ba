//! Objects whose last name here went while the source still counts links: it has a name outside the
//! set there (a hard-linked backup, a deduplicated file). A program that has it open goes on writing
//! it, and may give it a name again (`ln /proc/PID/fd/N`): it waits in limbo, under its id, and
//! packets go on reaching it. The end of the next copy empties the place: the mount it was open
//! through is gone by then.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::by_handle;
use super::{Replica, c_name};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::clone::guard;
use crate::packet::{Name, ObjectId};
use crate::sys::FileHandle;

const NAMELESS: &str = "nameless";

/// The place in limbo, once there was need of it.
#[derive(Default)]
pub(super) struct Nameless(Option<File>);

impl Nameless {
    pub(super) fn open(limbo: &File) -> Result<Nameless, Errno> {
        match open_directory(limbo) {
            Ok(dir) => Ok(Nameless(Some(dir))),
            Err(Errno::NOENT) => Ok(Nameless(None)),
            Err(error) => Err(error),
        }
    }

    fn or_make(&mut self, limbo: &File) -> Result<&File, Fault> {
        if self.0.is_none() {
            match rustix::fs::mkdirat(limbo, NAMELESS, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Fault::system("make a directory in limbo")(error)),
            }
            let dir = open_directory(limbo).map_err(Fault::system("open a directory of limbo"))?;
            self.0 = Some(dir);
        }
        self.0.as_ref().ok_or(Fault::Refused("no place in limbo"))
    }
}

impl Replica {
    /// Before an object loses a name: what would have none left here, and has one on the source,
    /// gets one in limbo. `links`: the source's count afterwards.
    pub(in crate::apply) fn keep_nameless(&mut self, object: ObjectId, links: u32) -> Result<(), Fault> {
        if links == 0 {
            return Ok(());
        }
        let file = self.object(object)?;
        if inode::stat(&*file)?.st_nlink > 1 {
            return Ok(());
        }
        match self.name_nameless(object, &file) {
            // No further names on this file system: what comes later finds nothing.
            Err(Fault::System { error, .. })
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK)
                ) =>
            {
                Ok(())
            }
            done => done.map(drop),
        }
    }

    /// Where an object waits that has no name, and how it is called there.
    pub(in crate::apply) fn place_of_nameless(&mut self, object: ObjectId) -> Result<(File, Name), Fault> {
        let limbo = self.limbo().try_clone().map_err(Fault::own("limbo"))?;
        let place = self.nameless.or_make(&limbo)?.try_clone().map_err(Fault::own("limbo"))?;
        Ok((place, name_of(object)))
    }

    /// As [`Replica::place_of_nameless`], and the object has its name there.
    pub(in crate::apply) fn named_nameless(&mut self, object: ObjectId) -> Result<(File, Name), Fault> {
        let file = self.object(object)?;
        self.name_nameless(object, &file)
    }

    fn name_nameless(&mut self, object: ObjectId, file: &File) -> Result<(File, Name), Fault> {
        let handle = FileHandle::of(file.as_fd()).map_err(super::handle_fault)?;
        let (place, name) = self.place_of_nameless(object)?;
        for _ in 0..2 {
            match by_handle::link(file, place.as_fd(), &c_name(&name)) {
                Ok(()) => return Ok((place, name)),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::EXIST) if self.name_holds(&place, &name)? == Some(handle) => {
                        return Ok((place, name));
                    }
                    // Of an object that had the id before.
                    Some(Errno::EXIST) => take_away(&place, &name)?,
                    _ => return Err(Fault::System { what: "keep an object without a name", error }),
                },
            }
        }
        Err(Fault::Mismatch(format!("{name:?} in limbo is not object {object}")))
    }

    /// An object has a name again, or is gone from the source.
    pub(in crate::apply) fn leave_nameless(&mut self, object: ObjectId) -> Result<(), Fault> {
        self.nameless.0.as_ref().map_or(Ok(()), |place| take_away(place, &name_of(object)))
    }

    /// Nothing that waits here can get a name any more.
    pub(in crate::apply) fn empty_nameless(&mut self) -> Result<(), Fault> {
        let Some(place) = &self.nameless.0 else { return Ok(()) };
        for entry in Dir::read_from(place).map_err(Fault::system("list limbo"))? {
            let entry = entry.map_err(Fault::system("list limbo"))?;
            if let Ok(name) = Name::new(entry.file_name().to_bytes()) {
                take_away(place, &name)?;
            }
        }
        Ok(())
    }
}

fn name_of(object: ObjectId) -> Name {
    let text = format!("{}-{}-{}", object.birth_epoch, object.inode, object.generation);
    Name::new(text.as_bytes()).expect("three numbers are a name")
}

fn take_away(place: &File, name: &Name) -> Result<(), Fault> {
    guard::going(place, name.as_bytes());
    match rustix::fs::unlinkat(place, name.as_bytes(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Fault::system("unlink in limbo")(error)),
    }
}

fn open_directory(limbo: &File) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(limbo, NAMELESS, flags, Mode::empty()).map(File::from)
}
