//! Why an op could not be performed. What hits the whole replica is retried at the head of the
//! line; what hits one object ([`super::replica`]) sets it aside in the end. Nothing that a fault
//! names was touched beyond what its text says.

use std::fmt;
use std::io;

use crate::packet::{ObjectId, XattrName};

/// A fault of one op, with clear text (`Display`).
#[derive(Debug)]
pub enum Fault {
    /// The index has no such object, or its inode is gone.
    MissingObject(ObjectId),
    /// A name of the replica does not hold what the source has there: somebody else wrote here.
    Mismatch(String),
    /// An object of the replica was moved out of it.
    Outside { object: ObjectId, path: String },
    /// What the op asks for is never performed: impossible values, or forbidden by the policy.
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

impl Fault {
    /// Wraps the error of a system call: `.map_err(Fault::system("write"))`.
    pub fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Fault {
        move |error| Fault::System { what, error: error.into() }
    }

    /// Wraps the error of a file of the product itself.
    pub fn own<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Fault {
        move |error| Fault::Own { what, error: error.into() }
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
