//! What one object's fault keeps out of a copy, while everything else goes on.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::packets::is_of_one;
use super::{Reconcile, Session, Stage};
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::replica::{Replica, flags_among, path_of};
use crate::packet::{
    Attributes, ItemHeader, LaneItem, LeftOut, Name, ObjectId, TargetMessage, Xattr, XattrName,
};
use crate::xattr::{FLAGS, Flags, is_replicated};

/// Free space above which a file system is not what has no room, in bytes: one extended attribute
/// takes 64 KiB at most.
const ROOM: u64 = 1 << 20;

/// As [`Fault::keeps_out_one`], for an extended attribute: too large for this file system is `ENOSPC`
/// however much room there is.
fn is_of_the_attribute(fd: impl AsFd, fault: &Fault) -> bool {
    let has_room =
        || rustix::fs::fstatvfs(fd).is_ok_and(|space| space.f_bavail.saturating_mul(space.f_frsize) > ROOM);
    fault.keeps_out_one() || fault.errno() == Some(libc::ENOSPC) && has_room()
}

impl Reconcile {
    /// A fault of one object was waited for: such faults are left out from now on. `false`: they were.
    pub fn be_lenient(&mut self) -> bool {
        match &mut self.stage {
            Stage::Rooted(session) => !std::mem::replace(&mut session.is_lenient, true),
            Stage::Resting | Stage::Begun(_) | Stage::Checking(_) | Stage::CheckOver { .. } => false,
        }
    }

    /// An item that cannot be performed for a fault of one object is left out: the replica stays bad for
    /// it. Gives the answers.
    ///
    /// Errors: it cannot be kept that nothing more of it comes.
    pub fn leave_item(
        &mut self,
        ItemHeader { number, item }: &ItemHeader,
        fault: &Fault,
    ) -> Result<Vec<TargetMessage>, Fault> {
        let Stage::Rooted(session) = &mut self.stage else { return Ok(Vec::new()) };
        session.left_out.add(&format!("the target: {}: {fault}", item.name()));
        match item {
            LaneItem::Listing { dir, .. } => {
                // A doubt that it was to answer would hold up the end of the copy for ever.
                session.listing = None;
                session.directories.drop_doubt(*dir)?;
                Ok(vec![TargetMessage::Wanted { listing: *number, objects: Vec::new() }])
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl Session {
    /// Whether a fault leaves out the object that it hits.
    pub(super) fn keeps_out(&self, replica: &Replica, fault: &Fault) -> bool {
        fault.keeps_out_one() || self.is_lenient && is_of_one(replica, fault)
    }

    /// Owner, extended attributes, mode and flags; an attribute that cannot be set is left out.
    pub(super) fn make_attributes(
        &mut self,
        replica: &mut Replica,
        (object, file): (ObjectId, &File),
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Fault> {
        let (held, wanted) = (Flags::of(file).map_err(Fault::system("look at flags"))?, flags_among(xattrs));
        if held.is_hindering() {
            replica.lift(object)?;
        }
        inode::make_attributes_or(file, attributes, xattrs, |name, fault| {
            self.leave_attribute(replica, file, name, fault)
        })?;
        if wanted != held || replica.pending_flags(object).is_some() {
            replica.set_flags_later(object, wanted)?;
        }
        Ok(())
    }

    /// Begins with the attributes of an object that come one by one.
    pub(super) fn open_xattrs(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        attributes: &Attributes,
        names: &[XattrName],
    ) -> Result<(), Fault> {
        let done = self.keep_only(replica, object, attributes, names);
        self.or_leave_xattrs(replica, object, done)
    }

    pub(super) fn take_xattr(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        name: &XattrName,
        value: &[u8],
    ) -> Result<(), Fault> {
        let done = self.set_xattr(replica, object, name, value);
        self.or_leave_xattrs(replica, object, done)
    }

    /// All attributes of an object have come.
    pub(super) fn close_xattrs(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        attributes: &Attributes,
    ) -> Result<(), Fault> {
        let done = self.set_owner_and_mode(replica, object, attributes).and_then(|()| match &self.vouching {
            // What is owed of an object that is no file comes in no other item.
            Some(_) => self.set_time(replica, object, attributes.mtime),
            None => Ok(()),
        });
        self.or_leave_xattrs(replica, object, done)
    }

    /// As [`Session::or_leave_content`]; an object that was left out is not here.
    fn or_leave_xattrs(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        done: Result<(), Fault>,
    ) -> Result<(), Fault> {
        match done {
            // An op has removed it since it was listed, or it was left out.
            Err(Fault::MissingObject(_)) => Ok(()),
            // Or one has taken it out of the set: where it comes back all of it is asked for.
            Err(Fault::Outside { path, .. }) if replica.lies_aside(&path)? => Ok(()),
            Err(fault) if self.keeps_out(replica, &fault) => {
                self.leave_object(replica, object, &fault);
                Ok(())
            }
            done => done,
        }
    }

    /// Drops the attributes that the source does not have, before the others come.
    fn keep_only(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        attributes: &Attributes,
        names: &[XattrName],
    ) -> Result<(), Fault> {
        replica.lift(object)?;
        if names.iter().all(|name| name.0 != FLAGS) {
            replica.set_flags_later(object, Flags::NONE)?;
        }
        let file = replica.object(object)?;
        let mode = replica.policy().mode(&*file, attributes.mode)?;
        let attributes = Attributes { mode, ..*attributes };
        self.without_acl = None;
        inode::restrict(&*file, &attributes)?;
        inode::make_owner(&*file, &attributes)?;
        inode::drop_xattrs(&*file, |name| {
            names.binary_search(name).is_ok() && replica.policy().takes_xattr(name)
        })
        .map(drop)
    }

    fn set_xattr(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        name: &XattrName,
        value: &[u8],
    ) -> Result<(), Fault> {
        if !is_replicated(&name.0) {
            return Err(Fault::Refused("an extended attribute that is not replicated"));
        }
        if name.0 == FLAGS {
            return replica.change_xattr(object, name, Some(value), None);
        }
        replica.lift(object)?;
        let file = replica.object(object)?;
        if !replica.policy().takes_xattr(name) || inode::get_xattr(&*file, &name.0)?.as_deref() == Some(value)
        {
            return Ok(());
        }
        match inode::set_xattr(&*file, name, value) {
            Err(fault) => {
                self.leave_attribute(replica, &file, name, fault)?;
                if inode::mode_without(name, 0o777) != 0o777 {
                    self.without_acl = Some(object);
                }
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn set_owner_and_mode(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        attributes: &Attributes,
    ) -> Result<(), Fault> {
        replica.lift(object)?;
        let file = replica.object(object)?;
        let mut mode = replica.policy().mode(&*file, attributes.mode)?;
        if self.without_acl == Some(object) {
            mode &= !0o070;
        }
        inode::make_owner(&*file, attributes)?;
        inode::set_mode(&*file, mode)
    }

    fn leave_attribute(
        &mut self,
        replica: &Replica,
        file: &File,
        name: &XattrName,
        fault: Fault,
    ) -> Result<(), Fault> {
        if !is_of_the_attribute(file, &fault) {
            return Err(fault);
        }
        let (path, name) = (shown(replica, file, None), String::from_utf8_lossy(&name.0));
        let path = path.display();
        self.leave(&format!("{path}: its attribute {name:?}"), &fault);
        Ok(())
    }

    /// A name of a directory holds what cannot be made what the source has.
    pub(super) fn leave_name(&mut self, replica: &Replica, dir: &File, name: &Name, fault: &Fault) {
        self.leave(&shown(replica, dir, Some(name)).display().to_string(), fault);
    }

    /// An object whose content or attributes are not taken.
    pub(super) fn leave_object(&mut self, replica: &mut Replica, object: ObjectId, fault: &Fault) {
        self.left_out.add(&said_of(replica, object, fault));
    }

    /// An object whose content is not taken in this session. It counts also where what is performed fails after
    /// that, and is tried again: nobody comes back to what was let go of.
    pub(super) fn leave_for_good(&mut self, replica: &mut Replica, object: ObjectId, fault: &Fault) {
        let mut one = LeftOut::default();
        one.add(&said_of(replica, object, fault));
        self.left_out.merge(one.clone());
        self.left_for_good.merge(one);
    }

    pub(super) fn leave(&mut self, what: &str, fault: &Fault) {
        self.left_out.add(&said(what, fault));
    }

    /// What is left out from here on counts only where what is performed now succeeds.
    pub(super) fn begin_to_leave_out(&mut self) -> LeftOut {
        self.left_for_good = LeftOut::default();
        self.left_out.clone()
    }

    /// It comes again, and counts once. `before`: as it began.
    pub(super) fn comes_again(&mut self, before: LeftOut) {
        self.left_out = before;
        self.left_out.merge(std::mem::take(&mut self.left_for_good));
    }
}

/// How an object is named that is left out, and why.
pub(super) fn said_of(replica: &mut Replica, object: ObjectId, fault: &Fault) -> String {
    let path = match replica.object(object) {
        Ok(file) => shown(replica, &file, None).display().to_string(),
        Err(_) => format!("object {object}"),
    };
    said(&path, fault)
}

fn said(what: &str, fault: &Fault) -> String {
    log::warn!("{what}: left out of the copy: {fault}");
    format!("{what}: the target: {fault}")
}

/// Where an object lies in the replica, for people.
pub(super) fn shown(replica: &Replica, file: &File, name: Option<&Name>) -> PathBuf {
    let path = path_of(file.as_fd()).unwrap_or_default();
    let root = path_of(replica.root().as_fd()).unwrap_or_default();
    let below = path.strip_prefix(&root).unwrap_or(&path);
    name.map_or_else(|| below.to_owned(), |name| below.join(name.as_os_str()))
}
