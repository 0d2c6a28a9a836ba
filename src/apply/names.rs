//! Ops on names. What a name holds is compared with the op's object before it is taken away:
//! a mismatch means that somebody else wrote into the replica, and nothing is removed blindly.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, RenameFlags};
use rustix::io::Errno;

use super::create::{NameTaken, NewObject};
use super::fault::Fault;
use super::inode;
use super::perform::Doubt;
use super::replica::{Replica, by_handle, c_name};
use crate::clone::{guard, names_kept};
use crate::failpoint;
use crate::packet::{Attributes, Entry, LINKS_UNKNOWN, Name, ObjectId, Replaced, Whiteout};
use crate::sys::FileHandle;

impl Replica {
    pub(super) fn link(&mut self, object: ObjectId, at: &Entry, doubt: Doubt) -> Result<(), Fault> {
        let dir = self.directory(at.dir)?;
        let file = self.object(object)?;
        if doubt == Doubt::MayBeDone && self.name_holds(&dir, &at.name)? == Some(self.known_handle(object)?) {
            return self.leave_nameless(object);
        }
        match by_handle::link(&file, dir.as_fd(), &c_name(&at.name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(taken(&at.name)),
            result => result.map_err(Fault::system("link"))?,
        }
        self.leave_nameless(object)
    }

    /// Makes an object under no name of the replica.
    pub(super) fn stage(&mut self, new: NewObject<'_>, may_be_known: bool) -> Result<(), Fault> {
        // Of an attempt that was cut off, where nothing was written into it yet, or that came to nothing.
        self.leave_nameless(new.object)?;
        if may_be_known && self.names_here(new.object)? > 0 {
            // Its last other name may go before it gets this one.
            return self.named_nameless(new.object).map(drop);
        }
        let (place, name) = self.place_of_nameless(new.object)?;
        self.create(&place, &name, new, NameTaken::Fail).map(drop)
    }

    /// What was staged gets no name.
    pub(super) fn unstage(&mut self, object: ObjectId) -> Result<(), Fault> {
        self.leave_nameless(object)?;
        if self.names_here(object)? == 0 { self.forget_gone(object) } else { Ok(()) }
    }

    /// Gives a name to an object that has none, in the place of another one where that is said.
    pub(super) fn place(
        &mut self,
        object: ObjectId,
        at: &Entry,
        replaced: Option<&Replaced>,
        doubt: Doubt,
    ) -> Result<(), Fault> {
        let Some(replaced) = replaced else { return self.link(object, at, doubt) };
        let (dir, handle) = (self.directory(at.dir)?, self.known_handle(object)?);
        let done = doubt == Doubt::MayBeDone && self.name_holds(&dir, &at.name)? == Some(handle);
        let replaced = self.replaced_here(replaced, done)?;
        if !done {
            self.must_hold(&dir, &at.name, replaced.object)?;
            let (place, name) = self.named_nameless(object)?;
            self.keep_nameless(replaced.object, replaced.links)?;
            self.rename_names((&Arc::new(place), &name), (&dir, &at.name), RenameFlags::empty())?;
            failpoint::at("placed").map_err(Fault::system("rename"))?;
        }
        self.leave_nameless(object)?;
        if replaced.links == 0 { self.forget_gone(replaced.object) } else { Ok(()) }
    }

    pub(super) fn unlink(
        &mut self,
        at: &Entry,
        object: ObjectId,
        links: u32,
        doubt: Doubt,
    ) -> Result<(), Fault> {
        let dir = self.directory(at.dir)?;
        let done = doubt == Doubt::MayBeDone && self.name_holds(&dir, &at.name)?.is_none();
        let links = self.links_left(object, links, done)?;
        self.remove_name(at, object, links, AtFlags::empty(), doubt)?;
        if links == 0 { self.forget_gone(object) } else { Ok(()) }
    }

    /// The count on the source after a name is gone, or where nobody knows it, whether one is left here.
    /// `done`: the name is gone already.
    pub(super) fn links_left(&mut self, object: ObjectId, links: u32, done: bool) -> Result<u32, Fault> {
        match links {
            LINKS_UNKNOWN => Ok(u32::from(self.names_here(object)? > u64::from(!done))),
            links => Ok(links),
        }
    }

    fn replaced_here(&mut self, replaced: &Replaced, done: bool) -> Result<Replaced, Fault> {
        let Replaced { object, links } = *replaced;
        Ok(Replaced { object, links: self.links_left(object, links, done)? })
    }

    /// Links of it on this side.
    pub(super) fn names_here(&mut self, object: ObjectId) -> Result<u64, Fault> {
        match self.object(object) {
            Ok(file) => {
                let kept = self.handle(object)?.map_or(0, |handle| names_kept(self.limbo(), &handle));
                Ok(inode::stat(&*file)?.st_nlink.saturating_sub(kept))
            }
            // Or it was moved aside.
            Err(Fault::MissingObject(_) | Fault::Outside { .. }) => Ok(0),
            Err(fault) => Err(fault),
        }
    }

    /// The source has no link to it any more.
    pub(super) fn forget_gone(&mut self, object: ObjectId) -> Result<(), Fault> {
        self.leave_nameless(object)?;
        self.forget(object)?;
        self.relief_is_over(object)
    }

    pub(super) fn remove_directory(
        &mut self,
        at: &Entry,
        object: ObjectId,
        doubt: Doubt,
    ) -> Result<(), Fault> {
        match self.remove_name(at, object, 0, AtFlags::REMOVEDIR, doubt) {
            // What is below is left out by a rule, by now or always.
            Err(Fault::System { error, .. })
                if self.has_rules() && error.raw_os_error() == Some(libc::ENOTEMPTY) =>
            {
                self.leave(at, object, doubt)
            }
            done => done.and_then(|()| self.forget(object)),
        }
    }

    /// A directory goes, with all below: aside, and as if nothing of it had ever been here.
    pub(super) fn leave(&mut self, at: &Entry, object: ObjectId, doubt: Doubt) -> Result<(), Fault> {
        let dir = self.directory(at.dir)?;
        if doubt == Doubt::None || self.name_holds(&dir, &at.name)?.is_some() {
            self.must_hold(&dir, &at.name, object)?;
            let file = self.object(object)?;
            self.each_left_below(&file, |replica, id| replica.forget(id))?;
            failpoint::at("forgotten").map_err(Fault::system("leave"))?;
            self.put_aside(&dir, &at.name)?;
            self.places_changed();
        }
        self.forget(object)
    }

    fn remove_name(
        &mut self,
        at: &Entry,
        object: ObjectId,
        links: u32,
        flags: AtFlags,
        doubt: Doubt,
    ) -> Result<(), Fault> {
        let dir = self.directory(at.dir)?;
        if doubt == Doubt::MayBeDone && self.name_holds(&dir, &at.name)?.is_none() {
            return Ok(());
        }
        self.must_hold(&dir, &at.name, object)?;
        self.keep_nameless(object, links)?;
        let what = if flags == AtFlags::REMOVEDIR { "remove a directory" } else { "unlink" };
        guard::going(&*dir, at.name.as_bytes());
        rustix::fs::unlinkat(&*dir, at.name.as_bytes(), flags).map_err(Fault::system(what))
    }

    pub(super) fn rename(
        &mut self,
        from: &Entry,
        to: &Entry,
        object: ObjectId,
        replaced: Option<&Replaced>,
        whiteout: Option<&Whiteout>,
        doubt: Doubt,
    ) -> Result<(), Fault> {
        let (from_dir, to_dir) = (self.directory(from.dir)?, self.directory(to.dir)?);
        let done = doubt == Doubt::MayBeDone && {
            let handle = Some(self.known_handle(object)?);
            self.name_holds(&to_dir, &to.name)? == handle && self.name_holds(&from_dir, &from.name)? != handle
        };
        let replaced = replaced.map(|replaced| self.replaced_here(replaced, done)).transpose()?;
        let replaced = replaced.as_ref();
        if !done {
            self.must_hold(&from_dir, &from.name, object)?;
            let mut flags = RenameFlags::NOREPLACE;
            if let Some(replaced) = replaced {
                self.must_hold(&to_dir, &to.name, replaced.object)?;
                self.keep_nameless(replaced.object, replaced.links)?;
                flags = RenameFlags::empty();
            }
            if whiteout.is_some() {
                flags |= RenameFlags::WHITEOUT;
            }
            self.rename_names((&from_dir, &from.name), (&to_dir, &to.name), flags)?;
            failpoint::at("renamed").map_err(Fault::system("rename"))?;
        }
        if let Some(Replaced { object, links: 0 }) = replaced {
            self.forget_gone(*object)?;
        }
        whiteout.map_or(Ok(()), |whiteout| self.adopt_whiteout(&from_dir, &from.name, whiteout))
    }

    pub(super) fn exchange(
        &mut self,
        left: (&Entry, ObjectId),
        right: (&Entry, ObjectId),
        doubt: Doubt,
    ) -> Result<(), Fault> {
        let (left_dir, right_dir) = (self.directory(left.0.dir)?, self.directory(right.0.dir)?);
        if doubt == Doubt::MayBeDone
            && self.name_holds(&left_dir, &left.0.name)? == Some(self.known_handle(right.1)?)
            && self.name_holds(&right_dir, &right.0.name)? == Some(self.known_handle(left.1)?)
        {
            return Ok(());
        }
        self.must_hold(&left_dir, &left.0.name, left.1)?;
        self.must_hold(&right_dir, &right.0.name, right.1)?;
        let (left, right) = (left.0.name.as_bytes(), right.0.name.as_bytes());
        guard::exchanging((&*left_dir, left), (&*right_dir, right));
        rustix::fs::renameat_with(&*left_dir, left, &*right_dir, right, RenameFlags::EXCHANGE)
            .map_err(Fault::system("exchange"))
    }

    /// Errors: [`Fault::Mismatch`] where the name holds nothing or something else.
    pub(super) fn must_hold(&self, dir: &File, name: &Name, object: ObjectId) -> Result<(), Fault> {
        let known = self.known_handle(object)?;
        match self.name_holds(dir, name)? {
            Some(found) if found == known => Ok(()),
            Some(_) => Err(Fault::Mismatch(format!(
                "{name:?} is not object {object}: somebody else put something in its place"
            ))),
            None => Err(Fault::Mismatch(format!("{name:?} (object {object}) is not there any more"))),
        }
    }

    fn rename_names(
        &self,
        (from_dir, from): (&Arc<File>, &Name),
        (to_dir, to): (&Arc<File>, &Name),
        flags: RenameFlags,
    ) -> Result<(), Fault> {
        guard::moving((&**from_dir, from.as_bytes()), (&**to_dir, to.as_bytes()));
        let rename =
            |flags| rustix::fs::renameat_with(&**from_dir, from.as_bytes(), &**to_dir, to.as_bytes(), flags);
        match rename(flags) {
            Err(Errno::EXIST) if flags.contains(RenameFlags::NOREPLACE) => Err(taken(to)),
            // A file system without "no replace": looked at first, then renamed.
            Err(Errno::INVAL) if flags == RenameFlags::NOREPLACE => match self.name_holds(to_dir, to)? {
                None => rename(RenameFlags::empty()).map_err(Fault::system("rename")),
                Some(_) => Err(taken(to)),
            },
            result => result.map_err(Fault::system("rename")),
        }
    }

    fn adopt_whiteout(&mut self, dir: &File, name: &Name, whiteout: &Whiteout) -> Result<(), Fault> {
        let file = self.open_name(dir, name)?;
        let stat = inode::stat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != 0 {
            return Err(Fault::Mismatch(format!("{name:?} is not the whiteout that the rename left")));
        }
        let attributes = Attributes {
            mode: self.policy().mode_of(FileType::CharacterDevice, whiteout.attributes.mode),
            ..whiteout.attributes
        };
        inode::make_attributes(&file, &attributes, &[])?;
        let _handle: FileHandle = self.bind(whiteout.object, &file)?;
        self.set_mtime_later(whiteout.object, whiteout.attributes.mtime)
    }
}

fn taken(name: &Name) -> Fault {
    Fault::Mismatch(format!("{name:?} is already there, it was not made by the source"))
}
