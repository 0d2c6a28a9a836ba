//! Flags of an inode (`chattr(1)`) that mean the same on every file system: nobody changes it, nobody
//! changes what is in it already, no backup by `dump` takes it. The others are a matter of the disk
//! (compression, extents, checksums, journalling), or say how it is written to (synchronously) and read.
//!
//! They travel among the extended attributes, by a name that is none ([`FLAGS`]): whatever shows, compares
//! or sends attributes does so with flags. The value is one byte: immutable 1, append-only 2, no dump 4.
//! Only files and directories have any here: nobody can set one of what cannot be opened.

use std::io;
use std::ops::Sub;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, IFlags, Statx, StatxAttributes, StatxFlags, statx};

use crate::privileges::by_handle;

/// The name: file systems have attributes of namespaces that they know only.
pub const FLAGS: &[u8] = b"standin.flags";

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    pub const NONE: Flags = Flags(0);
    pub const IMMUTABLE: Flags = Flags(1);
    pub const APPEND_ONLY: Flags = Flags(2);
    pub const NO_DUMP: Flags = Flags(4);
    /// What keeps an object, or the names in it, from being changed.
    pub const HINDERING: Flags = Flags(3);

    /// Bit, in a status, for `ioctl`.
    const KINDS: [(u8, StatxAttributes, IFlags); 3] = [
        (1, StatxAttributes::IMMUTABLE, IFlags::IMMUTABLE),
        (2, StatxAttributes::APPEND, IFlags::APPEND),
        (4, StatxAttributes::NODUMP, IFlags::NODUMP),
    ];

    /// Of the object behind a descriptor (`O_PATH` is enough).
    pub fn of(fd: impl AsFd) -> io::Result<Flags> {
        Ok(Flags::in_status(&statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)?))
    }

    /// Of an object that was looked at.
    pub fn in_status(status: &Statx) -> Flags {
        let kind = FileType::from_raw_mode(u32::from(status.stx_mode));
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Flags::NONE;
        }
        let has = |attribute| status.stx_attributes.contains(attribute);
        let kinds = Flags::KINDS.into_iter();
        Flags(kinds.filter(|(_, attribute, _)| has(*attribute)).fold(0, |all, (bit, ..)| all | bit))
    }

    /// Out of those that `ioctl` tells.
    pub fn in_all(all: IFlags) -> Flags {
        let kinds = Flags::KINDS.into_iter();
        Flags(kinds.filter(|(.., flag)| all.contains(*flag)).fold(0, |all, (bit, ..)| all | bit))
    }

    /// As `ioctl` takes them.
    pub fn in_ioctl(self) -> IFlags {
        let kinds = Flags::KINDS.into_iter().filter(|(bit, ..)| self.0 & bit != 0);
        kinds.fold(IFlags::empty(), |all, (.., flag)| all | flag)
    }

    /// `None`: no value that [`Flags::value`] gives.
    pub fn from_value(value: &[u8]) -> Option<Flags> {
        match value {
            &[bits @ 1..=7] => Some(Flags(bits)),
            _ => None,
        }
    }

    /// As an attribute; there is none where there are no flags.
    pub fn value(self) -> Option<Vec<u8>> {
        (self != Flags::NONE).then(|| vec![self.0])
    }

    pub fn is_hindering(self) -> bool {
        self.0 & Flags::HINDERING.0 != 0
    }

    pub fn bits(self) -> u8 {
        self.0
    }

    /// Unknown bits are left out.
    pub fn from_bits(bits: u8) -> Flags {
        Flags(bits & 7)
    }

    /// Gives an object exactly these of the flags; what it has of others stays.
    ///
    /// Errors: `ENOTTY` or `EOPNOTSUPP` where the file system has none; `EPERM` without
    /// `CAP_LINUX_IMMUTABLE`.
    pub fn set(self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let file = open(fd)?;
        let before = rustix::fs::ioctl_getflags(&file)?;
        let after = Flags::KINDS.into_iter().fold(before, |all, (bit, _, flag)| match self.0 & bit {
            0 => all - flag,
            _ => all | flag,
        });
        if after != before {
            rustix::fs::ioctl_setflags(&file, after)?;
        }
        Ok(())
    }
}

impl Sub for Flags {
    type Output = Flags;

    fn sub(self, without: Flags) -> Flags {
        Flags(self.0 & !without.0)
    }
}

/// Whether a change was refused in a way that flags refuse it.
pub fn is_refusal(errno: Option<i32>) -> bool {
    errno == Some(libc::EPERM)
}

/// Whether a file system, or whoever is above it, takes no flags, whatever is done.
pub fn are_untaken(error: &io::Error) -> bool {
    let untaken = [libc::ENOTTY, libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL, libc::EPERM];
    error.raw_os_error().is_some_and(|errno| untaken.contains(&errno))
}

/// Takes away what hinders a change of what lies at a descriptor; `false` where nothing does, or that
/// cannot be taken away.
pub fn clear_hindering(fd: impl AsFd) -> bool {
    let fd = fd.as_fd();
    let Ok(held) = Flags::of(fd) else { return false };
    held.is_hindering() && (held - Flags::HINDERING).set(fd).is_ok()
}

/// Not what would wait or act when it is opened: [`Flags::of`] has said that it is a file or a directory.
fn open(fd: BorrowedFd<'_>) -> io::Result<std::fs::File> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) {
        return Err(io::Error::from_raw_os_error(libc::ENOTTY));
    }
    by_handle::reopen_to_look(fd)
}

/// Makes something immutable for this thread, and for those that it starts: without the capability that it takes
/// they cannot change that. And ends it.
#[cfg(test)]
pub fn immutable(path: &std::path::Path, is_immutable: bool) {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let can = |can| {
        let mut now = capabilities(None).unwrap();
        now.effective.set(CapabilitySet::LINUX_IMMUTABLE, can);
        set_capabilities(None, now).unwrap();
    };
    can(true);
    let file = std::fs::File::open(path).unwrap();
    let flags = if is_immutable { Flags::IMMUTABLE } else { Flags::NONE };
    let done = flags.set(file.as_fd());
    can(!is_immutable);
    done.unwrap();
}

/// When it is dropped nothing below a directory has flags any more: it can be removed.
#[cfg(test)]
pub struct Unflagged(pub std::path::PathBuf);

#[cfg(test)]
impl Unflagged {
    pub fn clear(&self) {
        let mut waiting = vec![self.0.clone()];
        while let Some(path) = waiting.pop() {
            let kind = std::fs::symlink_metadata(&path).map(|status| status.file_type());
            if kind.as_ref().is_ok_and(|kind| kind.is_dir() || kind.is_file())
                && let Ok(file) = std::fs::File::open(&path)
                && Flags::of(&file).is_ok_and(|held| held != Flags::NONE)
            {
                let _ = Flags::NONE.set(file.as_fd());
            }
            if kind.is_ok_and(|kind| kind.is_dir()) {
                waiting.extend(
                    std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()),
                );
            }
        }
    }
}

#[cfg(test)]
impl Drop for Unflagged {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn flags_are_read_as_they_were_set() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = std::fs::File::create(&path).unwrap();
        if let Err(error) = Flags::NO_DUMP.set(file.as_fd()) {
            eprintln!("NOT TESTED: no flags here: {error}");
            return;
        }
        for bits in [4, 1, 2, 7, 6, 0] {
            let flags = Flags::from_bits(bits);
            // Others can be taken away only where nothing hinders; the call itself does not mind.
            flags.set(file.as_fd()).unwrap();
            assert_eq!(Flags::of(&file).unwrap(), flags);
            let o_path = rustix::fs::open(&path, OFlags::PATH, Mode::empty()).unwrap();
            assert_eq!(Flags::of(&o_path).unwrap(), flags);
            assert_eq!(flags.value().and_then(|value| Flags::from_value(&value)).unwrap_or_default(), flags);
            assert_eq!(clear_hindering(&o_path), flags.is_hindering());
            assert_eq!(Flags::of(&file).unwrap(), flags - Flags::HINDERING);
        }
    }

    #[test]
    fn impossible_values_are_none() {
        for value in [&[][..], &[0], &[8], &[1, 1]] {
            assert_eq!(Flags::from_value(value), None, "{value:?}");
        }
    }
}
