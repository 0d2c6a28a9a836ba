//! Why something could not be performed, whom that concerns, and so what may be done about it.
//! Nothing that a fault names was touched beyond what its text says.
//!
//! | [`Concern`] | what is done |
//! |---|---|
//! | one object | waited for, where that may help; then it is set aside, and everything else goes on |
//! | the whole replica | waited for at the head of the line, as long as it takes; a full one is relieved (`replica::relief`) |
//! | what was sent | nobody can perform it: as an object that waiting does not help |
//! | the proof | a sync failed: the session ends, and nothing is durable before a copy has begun |
//!
//! A copy does not wait for an object: what [`Fault::keeps_out_one`] says is left out of it at once,
//! and named. Anything else is tried again.

use std::fmt;
use std::io;

use crate::packet::{ObjectId, XattrName};

/// A fault of one op or item, with clear text (`Display`).
#[derive(Debug)]
pub enum Fault {
    /// The index has no such object, or its inode is gone.
    MissingObject(ObjectId),
    /// A name of the replica does not hold what the source has there: somebody else wrote here.
    Mismatch(String),
    /// An object of the replica was moved out of it.
    Outside { object: ObjectId, path: String },
    /// What the peer sent is never performed: impossible values, or forbidden by the policy.
    Refused(&'static str),
    /// The file system of the replica cannot do this at all.
    Unsupported(&'static str),
    /// A sync of the replica failed. Never tried again: the kernel may have dropped what it could
    /// not write, and the next sync would say that all is well.
    SyncFailed(io::Error),
    /// An extended attribute cannot be set or removed.
    Attribute { what: &'static str, name: XattrName, error: io::Error },
    /// The time of an object that an earlier op has changed cannot be set.
    Time { object: ObjectId, fault: Box<Fault> },
    /// A file of the product itself cannot be written: index, positions, pending times, limbo.
    Own { what: &'static str, error: io::Error },
    /// A system call failed.
    System { what: &'static str, error: io::Error },
}

/// Whom a fault concerns: see the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// One object: everything else can go on without it.
    Object(Patience),
    /// The whole replica: nothing behind would fare better.
    Replica { is_full: bool },
    /// The packet or item itself: no replica performs it.
    Packet,
    /// What was written before: it may not be there.
    Proof,
}

/// Whether waiting may mend a fault of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    Some,
    /// The object was never here, or this file system can never hold what is asked for.
    None,
}

/// A disk that takes a file of so many bytes is not full: more than any attribute takes.
const ROOM: usize = 1 << 20;
/// A disk that takes a file of so many bytes works.
const BLOCK: usize = 4096;

impl Fault {
    /// Wraps the error of a system call: `.map_err(Fault::system("write"))`.
    pub fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Fault {
        move |error| Fault::System { what, error: error.into() }
    }

    /// Wraps the error of a file of the product itself.
    pub fn own<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Fault {
        move |error| Fault::Own { what, error: error.into() }
    }

    /// Whom it concerns. `takes_a_file`: whether the replica's disk takes a file of so many bytes
    /// now; asked where the number of the error alone does not tell.
    pub fn concern(&self, takes_a_file: impl Fn(usize) -> bool) -> Concern {
        match self {
            Fault::MissingObject(_) => Concern::Object(Patience::None),
            Fault::Mismatch(_) | Fault::Outside { .. } | Fault::Unsupported(_) => {
                Concern::Object(Patience::Some)
            }
            Fault::Refused(_) => Concern::Packet,
            Fault::SyncFailed(_) => Concern::Proof,
            Fault::Time { fault, .. } => match fault.concern(takes_a_file) {
                Concern::Object(_) | Concern::Packet => Concern::Object(Patience::Some),
                whole => whole,
            },
            Fault::Own { error, .. } => Concern::Replica { is_full: tells(error) == Tells::Full },
            Fault::Attribute { error, .. } => match tells(error) {
                Tells::Full if takes_a_file(ROOM) => Concern::Object(Patience::None),
                tells => tells.concern(takes_a_file),
            },
            Fault::System { error, .. } => tells(error).concern(takes_a_file),
        }
    }

    /// Whether a copy leaves out the object that it hits: no other has it for it, and the next attempt
    /// would not fare better. A full or failing disk has it for all; what somebody else holds for a
    /// moment passes.
    pub fn keeps_out_one(&self) -> bool {
        match self {
            Fault::Attribute { error, .. } | Fault::System { error, .. } => match tells(error) {
                Tells::Never | Tells::Forbidden | Tells::Damaged => true,
                Tells::Full | Tells::Whole | Tells::Unreadable | Tells::Little => false,
            },
            Fault::Time { fault, .. } => fault.keeps_out_one(),
            Fault::MissingObject(_)
            | Fault::Mismatch(_)
            | Fault::Outside { .. }
            | Fault::Refused(_)
            | Fault::Unsupported(_)
            | Fault::SyncFailed(_)
            | Fault::Own { .. } => false,
        }
    }

    /// The number of the system's error, where one is behind the fault.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Fault::SyncFailed(error)
            | Fault::Attribute { error, .. }
            | Fault::Own { error, .. }
            | Fault::System { error, .. } => error.raw_os_error(),
            Fault::Time { fault, .. } => fault.errno(),
            Fault::MissingObject(_)
            | Fault::Mismatch(_)
            | Fault::Outside { .. }
            | Fault::Refused(_)
            | Fault::Unsupported(_) => None,
        }
    }

    /// The object that it names itself.
    pub fn object(&self) -> Option<ObjectId> {
        match self {
            Fault::MissingObject(object) | Fault::Outside { object, .. } | Fault::Time { object, .. } => {
                Some(*object)
            }
            Fault::Mismatch(_)
            | Fault::Refused(_)
            | Fault::Unsupported(_)
            | Fault::SyncFailed(_)
            | Fault::Attribute { .. }
            | Fault::Own { .. }
            | Fault::System { .. } => None,
        }
    }
}

/// What the number of a system's error tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    /// There is no room.
    Full,
    /// It hits everything: the file system is gone or read-only, the process lacks something.
    Whole,
    /// This file system never holds what is asked for.
    Never,
    /// Somebody forbids it for this object: a flag, a mount, a program that uses it.
    Forbidden,
    /// The object is damaged, or the file system.
    Damaged,
    /// The object cannot be read, or the disk.
    Unreadable,
    /// It is not as it was thought to be.
    Little,
}

impl Tells {
    fn concern(self, takes_a_file: impl Fn(usize) -> bool) -> Concern {
        match self {
            Tells::Full => Concern::Replica { is_full: true },
            Tells::Whole => Concern::Replica { is_full: false },
            Tells::Never => Concern::Object(Patience::None),
            Tells::Damaged | Tells::Unreadable if !takes_a_file(BLOCK) => Concern::Replica { is_full: false },
            Tells::Forbidden | Tells::Damaged | Tells::Unreadable | Tells::Little => {
                Concern::Object(Patience::Some)
            }
        }
    }
}

fn tells(error: &io::Error) -> Tells {
    use libc::{E2BIG, EACCES, EBADMSG, EBUSY, EDQUOT, EFBIG, EILSEQ, EINTR, EIO, EMFILE, EMLINK};
    use libc::{ENAMETOOLONG, ENFILE, ENOBUFS, ENODEV, ENOMEM, ENOSPC, ENOSYS, ENOTCONN, EOPNOTSUPP};
    use libc::{EOVERFLOW, EPERM, ERANGE, EROFS, ETIMEDOUT, ETXTBSY, EUCLEAN, EXDEV};
    let Some(number) = error.raw_os_error() else { return Tells::Whole };
    match number {
        ENOSPC | EDQUOT => Tells::Full,
        EROFS | ENOMEM | EMFILE | ENFILE | ENOBUFS | EINTR | ENODEV | ENOTCONN | ETIMEDOUT => Tells::Whole,
        ENAMETOOLONG | EMLINK | EFBIG | EOPNOTSUPP | EILSEQ | ERANGE | E2BIG | EOVERFLOW | ENOSYS => {
            Tells::Never
        }
        EPERM | EACCES | ETXTBSY | EBUSY | EXDEV => Tells::Forbidden,
        EUCLEAN | EBADMSG => Tells::Damaged,
        EIO => Tells::Unreadable,
        _ => Tells::Little,
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::MissingObject(object) => write!(f, "object {object} is not in the replica"),
            Fault::Mismatch(text) => write!(f, "{text}"),
            Fault::Outside { object, path } => {
                write!(f, "object {object} was moved out of the replica, to {path}: move it back")
            }
            Fault::Refused(why) => write!(f, "refused: {why}"),
            Fault::Unsupported(what) => write!(f, "the replica's file system has no {what}"),
            Fault::SyncFailed(error) => write!(f, "a sync of the replica failed: {error}"),
            Fault::Attribute { what, name, error } => write!(f, "{what} {name:?}: {error}"),
            Fault::Time { object, fault } => write!(f, "the time of object {object}: {fault}"),
            Fault::Own { what, error } | Fault::System { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Bounded;

    const WAITS: Concern = Concern::Object(Patience::Some);
    const NEVER: Concern = Concern::Object(Patience::None);
    const WHOLE: Concern = Concern::Replica { is_full: false };
    const FULL: Concern = Concern::Replica { is_full: true };

    fn system(number: i32) -> Fault {
        Fault::System { what: "call", error: io::Error::from_raw_os_error(number) }
    }

    fn attribute(number: i32) -> Fault {
        let name = Bounded(b"user.x".to_vec());
        Fault::Attribute { what: "set", name, error: io::Error::from_raw_os_error(number) }
    }

    fn time(fault: Fault) -> Fault {
        Fault::Time { object: ObjectId::default(), fault: Box::new(fault) }
    }

    /// Fault, whom it concerns while the disk works, and while it does not, and whether a copy goes on
    /// without the object.
    #[test]
    fn whom_a_fault_concerns() {
        let failed = || io::Error::from_raw_os_error(libc::EIO);
        let table = [
            (system(libc::ENOSPC), FULL, FULL, false),
            (system(libc::EDQUOT), FULL, FULL, false),
            (system(libc::EROFS), WHOLE, WHOLE, false),
            (system(libc::EMFILE), WHOLE, WHOLE, false),
            (system(libc::ENAMETOOLONG), NEVER, NEVER, true),
            (system(libc::EPERM), WAITS, WAITS, true),
            (system(libc::ENOENT), WAITS, WAITS, false),
            (system(libc::EIO), WAITS, WHOLE, false),
            (system(libc::EUCLEAN), WAITS, WHOLE, true),
            (attribute(libc::ENOSPC), NEVER, FULL, false),
            (attribute(libc::EOPNOTSUPP), NEVER, NEVER, true),
            (Fault::Own { what: "index", error: failed() }, WHOLE, WHOLE, false),
            (Fault::own("index")(io::ErrorKind::InvalidData), WHOLE, WHOLE, false),
            (time(system(libc::EPERM)), WAITS, WAITS, true),
            (time(system(libc::ENAMETOOLONG)), WAITS, WAITS, true),
            (time(system(libc::EROFS)), WHOLE, WHOLE, false),
            (Fault::MissingObject(ObjectId::default()), NEVER, NEVER, false),
            (Fault::Mismatch(String::new()), WAITS, WAITS, false),
            (Fault::Refused("impossible"), Concern::Packet, Concern::Packet, false),
            (Fault::SyncFailed(failed()), Concern::Proof, Concern::Proof, false),
            (
                Fault::SyncFailed(io::Error::from_raw_os_error(libc::EUCLEAN)),
                Concern::Proof,
                Concern::Proof,
                false,
            ),
        ];
        for (fault, working, failing, is_left_out) in table {
            assert_eq!(fault.concern(|_| true), working, "{fault}");
            assert_eq!(fault.concern(|_| false), failing, "{fault}");
            assert_eq!(fault.keeps_out_one(), is_left_out, "{fault}");
        }
    }
}
