//! Whom a fault hits: one object, or the whole replica.

use std::io::{self, Write};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::Replica;
use crate::apply::fault::Fault;
use crate::failpoint;

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::apply) enum Scope {
    /// The whole replica: nothing behind the op would fare better. The line is held.
    Target { is_full: bool },
    /// One object: everything else can go on without it.
    Object(Patience),
}

/// Whether waiting may mend a fault of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::apply) enum Patience {
    Some,
    /// The object was never here, or this file system can never hold what is asked for.
    None,
}

/// A disk with so much room is not full, in bytes: more than any attribute takes.
const ROOM: usize = 1 << 20;
const PROBE: &str = "probe";

impl Replica {
    /// Looks whom a fault hits; where the number does not tell, at whether the disk takes a file.
    pub(in crate::apply) fn scope(&self, fault: &Fault) -> Scope {
        let other = Scope::Target { is_full: false };
        match fault {
            Fault::MissingObject(_) | Fault::Refused(_) => Scope::Object(Patience::None),
            Fault::Mismatch(_) | Fault::Outside { .. } | Fault::Unsupported(_) => {
                Scope::Object(Patience::Some)
            }
            Fault::SyncFailed(_) => other,
            Fault::Own { error, .. } => Scope::Target { is_full: is_full(error) },
            Fault::Time { fault, .. } => match self.scope(fault) {
                Scope::Object(_) => Scope::Object(Patience::Some),
                target => target,
            },
            Fault::Attribute { error, .. } if is_full(error) => match self.takes_a_file(ROOM) {
                Ok(()) => Scope::Object(Patience::None),
                Err(_) => Scope::Target { is_full: true },
            },
            Fault::System { error, .. } if is_full(error) => Scope::Target { is_full: true },
            Fault::Attribute { error, .. } | Fault::System { error, .. } => self.scope_of(error),
        }
    }

    fn scope_of(&self, error: &io::Error) -> Scope {
        let whole = Scope::Target { is_full: false };
        match error.raw_os_error() {
            Some(
                libc::EROFS
                | libc::ENOMEM
                | libc::EMFILE
                | libc::ENFILE
                | libc::ENOBUFS
                | libc::EINTR
                | libc::ENODEV
                | libc::ENOTCONN
                | libc::ETIMEDOUT,
            )
            | None => whole,
            Some(
                libc::ENAMETOOLONG
                | libc::EMLINK
                | libc::EFBIG
                | libc::EOPNOTSUPP
                | libc::EILSEQ
                | libc::ERANGE
                | libc::E2BIG
                | libc::EOVERFLOW
                | libc::ENOSYS,
            ) => Scope::Object(Patience::None),
            // A damaged object, or a damaged disk.
            Some(libc::EIO | libc::EUCLEAN | libc::EBADMSG) => match self.takes_a_file(4096) {
                Ok(()) => Scope::Object(Patience::Some),
                Err(_) => whole,
            },
            Some(_) => Scope::Object(Patience::Some),
        }
    }

    /// Makes a file, writes it through to the disk, and takes it away again.
    fn takes_a_file(&self, len: usize) -> io::Result<()> {
        failpoint::at("probe")?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.limbo(), PROBE, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = std::fs::File::from(fd);
        let written = file.write_all(&vec![0xa5; len]).and_then(|()| file.sync_data());
        rustix::fs::unlinkat(self.limbo(), PROBE, AtFlags::empty())?;
        written
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}
