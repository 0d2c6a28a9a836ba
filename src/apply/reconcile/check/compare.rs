//! One entry of a listing beside what the replica has of its name.

use std::fs::File;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, StatxFlags};

use super::Check;
use super::findings::Where;
use crate::apply::fault::Fault;
use crate::apply::inode;
use crate::apply::reconcile::entry::{Found, find_name, is_born_as, look_at, looks_as_listed};
use crate::apply::replica::Replica;
use crate::apply::replica::c_name;
use crate::packet::{
    Attributes, Birth, Bounded, DifferenceKind, ListedObject, Name, ObjectId, Xattr, XattrName,
};
use crate::sys::FileHandle;
use crate::xattr::{self, FLAGS};

impl Check {
    /// Compares the root directory.
    pub(super) fn root(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        attributes: &Attributes,
        xattrs: &[Xattr],
    ) -> Result<(), Fault> {
        let root = replica.root().try_clone().map_err(Fault::system("root"))?;
        let found = look_at(root)?;
        if replica.handle(object)? != Some(found.handle) {
            return Err(Fault::Refused("a comparison with another directory than was copied"));
        }
        let attributes = replica.policy().attributes(&Birth::Directory, attributes);
        let xattrs = replica.policy().xattrs(xattrs).into_owned();
        self.see(object)?;
        self.counts.compared += 1;
        let at = Where { dir: object, file: &found.file, name: None };
        self.attributes(replica, object, &attributes, &found, at);
        self.all_xattrs(replica, object, &xattrs, &found.file, at);
        Ok(())
    }

    /// Compares what a name holds; whether the source is to send more of it: a file's hashes, a directory's
    /// listing.
    pub(super) fn entry(
        &mut self,
        replica: &mut Replica,
        (dir, file): (ObjectId, &File),
        entry: &ListedObject,
    ) -> Result<bool, Fault> {
        let at = Where { dir, file, name: Some(&entry.name) };
        let bound = replica.handle(entry.object)?;
        let is_plain = bound.is_some_and(|bound| is_as_listed(file, entry, &bound))
            && replica.pending_time(entry.object).is_none()
            && replica.pending_flags(entry.object).is_none();
        if !is_plain && !self.look(replica, entry, at, bound)? {
            return Ok(false);
        }
        if entry.birth == Birth::Directory {
            if !self.is_seen(entry.object)? {
                self.see(entry.object)?;
                self.counts.compared += 1;
            }
            return self.directories.want(entry.object);
        }
        if self.is_seen(entry.object)? {
            return Ok(false);
        }
        self.see(entry.object)?;
        self.counts.compared += 1;
        Ok(self.hasher.is_some() && entry.birth == Birth::File && entry.size > 0)
    }

    /// The long way; `false` where the name does not hold the object.
    fn look(
        &mut self,
        replica: &mut Replica,
        entry: &ListedObject,
        at: Where<'_>,
        bound: Option<FileHandle>,
    ) -> Result<bool, Fault> {
        let (kind, bytes) = match find_name(at.file, &entry.name) {
            Ok(Some(found)) if Some(found.handle) == bound => {
                if self.is_born_so(replica, entry, &found) {
                    if !self.is_seen(entry.object)? {
                        self.all(replica, entry, &found, at);
                    }
                    return Ok(true);
                }
                (DifferenceKind::Type, 0)
            }
            Ok(Some(found)) if self.is_born_so(replica, entry, &found) => {
                (DifferenceKind::Object, entry.size)
            }
            Ok(Some(_)) => (DifferenceKind::Type, entry.size),
            Ok(None) => (DifferenceKind::Missing, entry.size),
            Err(_) => (DifferenceKind::Unreadable, 0),
        };
        if self.findings.is_new(at)? {
            match kind {
                DifferenceKind::Missing => self.counts.missing += 1,
                _ => self.counts.different += 1,
            }
            self.note(replica, kind, Some(entry.object), at, bytes);
        }
        Ok(false)
    }

    fn is_born_so(&self, replica: &Replica, entry: &ListedObject, found: &Found) -> bool {
        let policy = replica.policy();
        is_born_as(found, policy.birth(&entry.birth)).unwrap_or(false)
            && policy.may_stand_for(&entry.birth, &found.status)
    }

    /// Everything but content.
    fn all(&mut self, replica: &mut Replica, entry: &ListedObject, found: &Found, at: Where<'_>) {
        let size = found.status.st_size as u64;
        if entry.birth == Birth::File && size != entry.size {
            // What is short is found once more in its blocks.
            let is_counted = self.hasher.is_some() && size < entry.size;
            let bytes = if is_counted { 0 } else { size.abs_diff(entry.size) };
            self.differs(replica, DifferenceKind::Size, entry.object, at, bytes);
        }
        if !replica.policy().is_marked_so(&entry.birth, &found.status, &*found.file) {
            self.differs(replica, DifferenceKind::Type, entry.object, at, 0);
        }
        self.attributes(replica, entry.object, &entry.attributes, found, at);
        if !entry.large_xattrs {
            self.all_xattrs(replica, entry.object, &entry.xattrs, &found.file, at);
        }
    }

    fn attributes(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        wanted: &Attributes,
        found: &Found,
        at: Where<'_>,
    ) {
        let status = &found.status;
        let is_symlink = FileType::from_raw_mode(status.st_mode) == FileType::Symlink;
        if !is_symlink && status.st_mode & 0o7777 != wanted.mode & 0o7777 {
            self.differs(replica, DifferenceKind::Mode, object, at, 0);
        }
        if (status.st_uid, status.st_gid) != (wanted.uid, wanted.gid) {
            self.differs(replica, DifferenceKind::Owner, object, at, 0);
        }
        let held = replica.pending_time(object).unwrap_or(inode::mtime(status));
        if held != wanted.mtime && !self.times.makes(replica, wanted.mtime, held) {
            self.differs(replica, DifferenceKind::Mtime, object, at, 0);
        }
    }

    fn all_xattrs(
        &mut self,
        replica: &Replica,
        object: ObjectId,
        wanted: &[Xattr],
        file: &File,
        at: Where<'_>,
    ) {
        match xattr::read_replicated(file).map(|held| replica.with_pending_flags(object, held)) {
            Ok(held) if held == wanted => {}
            Ok(_) => self.differs(replica, DifferenceKind::Xattr, object, at, 0),
            Err(_) => self.differs(replica, DifferenceKind::Unreadable, object, at, 0),
        }
    }

    /// The names of extended attributes that come one by one.
    pub(super) fn xattr_names(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        names: &[XattrName],
    ) -> Result<(), Fault> {
        let Ok(file) = replica.object(object) else { return Ok(()) };
        let judges_flags = replica.policy().takes_all_flags();
        let is_judged = |name: &XattrName| judges_flags || name.0 != FLAGS;
        let mut wanted: Vec<&XattrName> =
            names.iter().filter(|name| is_judged(name) && replica.policy().takes_xattr(name)).collect();
        wanted.sort_unstable();
        let pending = replica.pending_flags(object);
        let held = xattr::replicated_names(&*file).map(|mut held| {
            if let Some(flags) = pending {
                held.retain(|name| name.0 != FLAGS);
                held.extend(flags.value().map(|_| Bounded(FLAGS.to_vec())));
                held.sort_unstable();
            }
            held.retain(is_judged);
            held
        });
        if !held.is_ok_and(|held| held.iter().eq(wanted)) {
            let at = Where { dir: object, file: &file, name: None };
            self.differs(replica, DifferenceKind::Xattr, object, at, 0);
        }
        Ok(())
    }

    pub(super) fn xattr(
        &mut self,
        replica: &mut Replica,
        object: ObjectId,
        name: &XattrName,
        value: &[u8],
    ) -> Result<(), Fault> {
        let Ok(file) = replica.object(object) else { return Ok(()) };
        let is_taken = match &name.0 {
            flags if flags == FLAGS => replica.policy().takes_all_flags(),
            _ => replica.policy().takes_xattr(name),
        };
        let held = match replica.pending_flags(object) {
            Some(flags) if name.0 == FLAGS => Ok(flags.value()),
            _ => xattr::get(&*file, &name.0),
        };
        if is_taken && !held.is_ok_and(|held| held.as_deref() == Some(value)) {
            let at = Where { dir: object, file: &file, name: None };
            self.differs(replica, DifferenceKind::Xattr, object, at, 0);
        }
        Ok(())
    }

    /// An object is not as it is on the source.
    pub(super) fn differs(
        &mut self,
        replica: &Replica,
        kind: DifferenceKind,
        object: ObjectId,
        at: Where<'_>,
        bytes: u64,
    ) {
        self.counts.different += u64::from(self.findings.is_first_of(object));
        self.note(replica, kind, Some(object), at, bytes);
    }
}

/// The quick answer for most files: all of it but its content is as it should be.
fn is_as_listed(dir: &File, entry: &ListedObject, bound: &FileHandle) -> bool {
    let is_plain = entry.birth == Birth::File && !entry.large_xattrs && entry.xattrs.is_empty();
    is_plain && looks_as_listed(dir, entry, bound)
}

/// Size of a regular file, in bytes; 0 of anything else.
pub(super) fn size_of(dir: &File, name: &Name) -> u64 {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let status = rustix::fs::statx(dir.as_fd(), c_name(name), flags, StatxFlags::BASIC_STATS);
    let is_file = |mode| FileType::from_raw_mode(u32::from(mode)) == FileType::RegularFile;
    status.ok().filter(|status| is_file(status.stx_mode)).map_or(0, |status| status.stx_size)
}
