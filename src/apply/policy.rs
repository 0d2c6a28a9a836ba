//! What a target performs for its source, checked before anything of an op is done.
//!
//! Values that no source can have are orders to the kernel or to the product itself: they are
//! refused ([`permit`]). What a source can have and this target does not allow it is *withheld*
//! ([`Policy`]), in replication and in resynchronisation alike, counted, and never an error:
//!
//! | not allowed | the replica has instead |
//! |---|---|
//! | device node | an empty regular file of the same name, owner, mode and times, so that later ops on its id find it; `trusted.standin.withheld` says what it stands for (`char 1:3`) |
//! | setuid, setgid | the mode without the bit; on directories setgid stays: it gives no rights, it says which group new entries get |
//! | `security.*` | nothing: the attribute is left out, and taken away where it was |
//!
//! What the file system of the replica has no room for (flags of inodes, times out of its range) is treated
//! alike.
//!
//! A whiteout (character device 0/0) is no device. When a target is allowed more later, the next
//! copy puts right what was withheld.

use std::borrow::Cow;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use rustix::fs::{FileType, Stat, XattrFlags};

use super::fault::Fault;
use super::inode;
use crate::limits::KEEP_DAYS_MAX;
use crate::packet::{
    Attributes, Birth, Bounded, Keeping, ListedObject, Op, Owner, Timestamp, WithheldCounts, Xattr, XattrName,
};
use crate::sys::proc_path;
use crate::words::Allow;
use crate::xattr::{self, FLAGS, Flags, OWN_PREFIX, WITHHELD_XATTR};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const SECURITY_PREFIX: &[u8] = b"security.";

/// How often something was withheld since the replica was opened.
#[derive(Debug, Default)]
pub struct Withheld {
    pub devices: AtomicU64,
    pub setuid_bits: AtomicU64,
    pub security_xattrs: AtomicU64,
    /// Modification times that the file system cut to what it can hold.
    pub times: AtomicU64,
    /// Flags that the file system has not.
    pub flags: AtomicU64,
}

impl Withheld {
    pub fn counts(&self) -> WithheldCounts {
        WithheldCounts {
            devices: self.devices.load(Relaxed),
            setuid_bits: self.setuid_bits.load(Relaxed),
            security_xattrs: self.security_xattrs.load(Relaxed),
            times: self.times.load(Relaxed),
            flags: self.flags.load(Relaxed),
        }
    }

    fn count(&self, counter: &AtomicU64, what: impl FnOnce() -> String) {
        let level = if counter.fetch_add(1, Relaxed) == 0 { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "not allowed on this target, left out: {}", what());
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Policy {
    allow: Allow,
    withheld: Arc<Withheld>,
    /// Flags that nobody here can set: bits of [`Flags`].
    untaken: Arc<AtomicU8>,
}

impl Policy {
    pub fn new(allow: Allow) -> Policy {
        let untaken = if may_set_flags() { Flags::NONE } else { Flags::HINDERING };
        Policy { allow, withheld: Arc::default(), untaken: Arc::new(AtomicU8::new(untaken.bits())) }
    }

    pub fn allow(&self) -> Allow {
        self.allow
    }

    /// From now on; what was withheld before stays counted.
    pub fn set_allow(&mut self, allow: Allow) {
        self.allow = allow;
    }

    pub fn withheld(&self) -> Arc<Withheld> {
        self.withheld.clone()
    }

    /// Sets the mtime of an object. What the file system cannot hold it cuts without a word
    /// (whole seconds, 1901 to 2038 or 2446): that is counted.
    pub(super) fn set_mtime(&self, fd: impl AsFd, mtime: Timestamp) -> Result<(), Fault> {
        inode::set_mtime(&fd, mtime)?;
        let held = inode::mtime(&inode::stat(&fd)?);
        if held != mtime && self.withheld.times.fetch_add(1, Relaxed) == 0 {
            log::warn!("the replica's file system cannot hold the time {mtime:?}: it has {held:?} instead");
        }
        Ok(())
    }

    /// What is made for an object that is born so on the source.
    pub(super) fn birth<'a>(&self, birth: &'a Birth) -> &'a Birth {
        if self.withholds_device(birth) { &Birth::File } else { birth }
    }

    fn withholds_device(&self, birth: &Birth) -> bool {
        match birth {
            Birth::CharDevice { major: 0, minor: 0 } => false,
            Birth::CharDevice { .. } | Birth::BlockDevice { .. } => !self.allow.device,
            Birth::File | Birth::Directory | Birth::Symlink { .. } | Birth::Fifo | Birth::Socket => false,
        }
    }

    /// Whether an object of the replica can stand for one that is born so: a placeholder has no
    /// content.
    pub(super) fn may_stand_for(&self, birth: &Birth, status: &Stat) -> bool {
        !self.withholds_device(birth) || status.st_size == 0
    }

    /// Counts and marks a placeholder; best effort: there are file systems without attributes.
    pub(super) fn mark_placeholder(&self, birth: &Birth, fd: impl AsFd) {
        let Some(text) = self.mark_of(birth) else { return };
        let path = proc_path(fd.as_fd());
        let _ = rustix::fs::setxattr(path, WITHHELD_XATTR, text.as_bytes(), XattrFlags::empty());
        self.withheld.count(&self.withheld.devices, || format!("device node {text}"));
    }

    /// What the mark of an object says that is born so; `None`: it has none.
    fn mark_of(&self, birth: &Birth) -> Option<String> {
        let text = match birth {
            Birth::CharDevice { major, minor } => format!("char {major}:{minor}"),
            Birth::BlockDevice { major, minor } => format!("block {major}:{minor}"),
            Birth::File | Birth::Directory | Birth::Symlink { .. } | Birth::Fifo | Birth::Socket => {
                return None;
            }
        };
        self.withholds_device(birth).then_some(text)
    }

    /// Whether a file says what it stands for here, or that it is itself. What is no file is nothing else.
    pub(super) fn is_marked_so(&self, birth: &Birth, status: &Stat, fd: impl AsFd) -> bool {
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return true;
        }
        match (xattr::withheld(&fd), self.mark_of(birth)) {
            // There are file systems that hold no mark.
            (Ok(None), Some(_)) => !xattr::can_be_withheld(&fd),
            (Ok(held), mark) => held == mark,
            (Err(_), _) => false,
        }
    }

    /// A file of the source is no placeholder any more.
    pub(super) fn unmark(&self, fd: impl AsFd) -> Result<(), Fault> {
        let mark = xattr::withheld(&fd).map_err(Fault::system("read an attribute"))?;
        match mark.map(|_| rustix::fs::removexattr(proc_path(fd.as_fd()), WITHHELD_XATTR)) {
            Some(Err(error)) => Err(Fault::system("remove an attribute")(error)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// The mode that an object of this kind gets.
    pub(super) fn mode_of(&self, kind: FileType, mode: u32) -> u32 {
        let bits = if kind == FileType::Directory { SETUID } else { SETUID | SETGID };
        if self.allow.setuid || mode & bits == 0 {
            return mode;
        }
        self.withheld.count(&self.withheld.setuid_bits, || format!("mode {mode:04o}"));
        mode & !bits
    }

    /// [`Policy::mode_of`] an object behind a descriptor.
    pub(super) fn mode(&self, fd: impl AsFd, mode: u32) -> Result<u32, Fault> {
        if self.allow.setuid || mode & (SETUID | SETGID) == 0 {
            return Ok(mode);
        }
        Ok(self.mode_of(FileType::from_raw_mode(inode::stat(fd)?.st_mode), mode))
    }

    pub(super) fn attributes(&self, birth: &Birth, attributes: &Attributes) -> Attributes {
        let kind = if *birth == Birth::Directory { FileType::Directory } else { FileType::RegularFile };
        Attributes { mode: self.mode_of(kind, attributes.mode), ..*attributes }
    }

    fn untaken(&self) -> Flags {
        Flags::from_bits(self.untaken.load(Relaxed))
    }

    /// The flags that an object gets: those that can be set here.
    pub(super) fn flags(&self, flags: Flags) -> Flags {
        let taken = flags - self.untaken();
        if taken != flags {
            self.withheld.flags.fetch_add(1, Relaxed);
        }
        taken
    }

    /// The file system has none, or nobody here may set them: said once, and they are no difference. Gives those
    /// that are left to be tried.
    pub(super) fn flags_are_not_taken(&self, tried: Flags, error: &io::Error) -> Flags {
        self.withheld.flags.fetch_add(1, Relaxed);
        let is_hindering = tried.is_hindering() && error.raw_os_error() == Some(libc::EPERM);
        let refused = if is_hindering { Flags::HINDERING } else { Flags::from_bits(u8::MAX) };
        let before = self.untaken.fetch_or(refused.bits(), Relaxed);
        if before | refused.bits() != before {
            log::warn!(
                "flags of files and directories are left out, the replica takes them not or not all: {error}"
            );
        }
        tried - refused
    }

    /// Where it takes some alone, large sets of attributes are judged without them.
    pub(super) fn takes_all_flags(&self) -> bool {
        self.untaken() == Flags::NONE
    }

    /// Whether an attribute is set at all.
    pub(super) fn takes_xattr(&self, name: &XattrName) -> bool {
        if self.allow.security || !name.0.starts_with(SECURITY_PREFIX) {
            return true;
        }
        self.withheld.count(&self.withheld.security_xattrs, || String::from_utf8_lossy(&name.0).into_owned());
        false
    }

    pub(super) fn xattrs<'a>(&self, xattrs: &'a [Xattr]) -> Cow<'a, [Xattr]> {
        let has = |space: &[u8]| xattrs.iter().any(|xattr| xattr.name.0.starts_with(space));
        let takes_flags = self.takes_all_flags() || !has(FLAGS);
        if takes_flags && (self.allow.security || !has(SECURITY_PREFIX)) {
            return Cow::Borrowed(xattrs);
        }
        Cow::Owned(xattrs.iter().filter_map(|xattr| self.taken(xattr)).collect())
    }

    /// An attribute as it is set; flags as far as they can be.
    fn taken(&self, xattr: &Xattr) -> Option<Xattr> {
        if xattr.name.0 != FLAGS {
            return self.takes_xattr(&xattr.name).then(|| xattr.clone());
        }
        let flags = self.flags(Flags::from_value(&xattr.value.0)?);
        Some(Xattr { name: xattr.name.clone(), value: Bounded(flags.value()?) })
    }

    /// An entry of a listing as it is made here; its birth stays what it is on the source.
    pub(super) fn listed<'a>(&self, entry: &'a ListedObject) -> Cow<'a, ListedObject> {
        if self.allow == Allow::ALL && self.takes_all_flags() {
            return Cow::Borrowed(entry);
        }
        let attributes = self.attributes(&entry.birth, &entry.attributes);
        let xattrs = self.xattrs(&entry.xattrs);
        if attributes == entry.attributes && matches!(xattrs, Cow::Borrowed(_)) {
            return Cow::Borrowed(entry);
        }
        Cow::Owned(ListedObject { attributes, xattrs: xattrs.into_owned(), ..entry.clone() })
    }
}

/// Whether this process may make anything immutable or append-only at all.
fn may_set_flags() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|held| held.effective.contains(CapabilitySet::LINUX_IMMUTABLE))
}

/// Errors: nothing is kept so.
pub fn may_be_kept(keeping: &Keeping) -> Result<(), Fault> {
    match keeping {
        Keeping::Aside { days, .. } if !(1..=KEEP_DAYS_MAX).contains(days) => {
            Err(Fault::Refused("days that nothing is kept for"))
        }
        Keeping::Aside { .. } | Keeping::InPlace => Ok(()),
    }
}

/// Checks one op; [`Fault::Refused`] says why it is never performed.
pub fn permit(op: &Op) -> Result<(), Fault> {
    match op {
        Op::Create { dir_mtime, attributes, xattrs, .. } => {
            time(dir_mtime)?;
            attributes_of(attributes)?;
            xattrs.iter().try_for_each(|xattr| xattr_name(&xattr.name))
        }
        Op::Link { dir_mtime, .. } | Op::Unlink { dir_mtime, .. } | Op::RemoveDirectory { dir_mtime, .. } => {
            time(dir_mtime)
        }
        Op::Rename { from_mtime, to_mtime, object_mtime, whiteout, .. } => {
            [Some(from_mtime), Some(to_mtime), object_mtime.as_ref()]
                .into_iter()
                .flatten()
                .try_for_each(time)?;
            whiteout.as_ref().map_or(Ok(()), |whiteout| attributes_of(&whiteout.attributes))
        }
        Op::Exchange { left_mtime, left_object_mtime, right_mtime, right_object_mtime, .. } => {
            let objects = [left_object_mtime, right_object_mtime].into_iter().flatten();
            [left_mtime, right_mtime].into_iter().chain(objects).try_for_each(time)
        }
        Op::Write { result, .. } | Op::Resize { result, .. } => time(&result.mtime),
        Op::Reserve { offset, length, result, .. } => {
            time(&result.mtime)?;
            match offset.checked_add(*length) {
                Some(end) if end <= i64::MAX as u64 && *length > 0 => Ok(()),
                _ => Err(Fault::Refused("a range that no file has")),
            }
        }
        Op::SetAttributes { owner, mtime, .. } => {
            owner.as_ref().map_or(Ok(()), owner_of)?;
            mtime.as_ref().map_or(Ok(()), time)
        }
        Op::SetXattr { name, .. } | Op::RemoveXattr { name, .. } => xattr_name(name),
        Op::Barrier { .. } | Op::Unstage { .. } => Ok(()),
        Op::Stage { birth: Birth::Directory, .. } => Err(Fault::Refused("a directory without a name")),
        Op::Stage { attributes, xattrs, .. } => {
            attributes_of(attributes)?;
            xattrs.iter().try_for_each(|xattr| xattr_name(&xattr.name))
        }
        Op::Place { dir_mtime, .. } | Op::Leave { dir_mtime, .. } => time(dir_mtime),
        Op::Keep { dir_mtime, keeping, .. } => time(dir_mtime).and_then(|()| may_be_kept(keeping)),
    }
}

fn attributes_of(attributes: &Attributes) -> Result<(), Fault> {
    time(&attributes.mtime)?;
    owner_of(&Owner { uid: attributes.uid, gid: attributes.gid })
}

/// -1 means "leave it" to the kernel.
fn owner_of(owner: &Owner) -> Result<(), Fault> {
    if owner.uid == u32::MAX || owner.gid == u32::MAX {
        return Err(Fault::Refused("an owner of -1"));
    }
    Ok(())
}

/// Larger values are orders to the kernel ("now", "leave it").
fn time(time: &Timestamp) -> Result<(), Fault> {
    if time.nanoseconds >= 1_000_000_000 {
        return Err(Fault::Refused("a time of more than 999,999,999 nanoseconds"));
    }
    Ok(())
}

fn xattr_name(name: &XattrName) -> Result<(), Fault> {
    if name.0.starts_with(OWN_PREFIX) {
        return Err(Fault::Refused("an extended attribute of the product itself"));
    }
    Ok(())
}
