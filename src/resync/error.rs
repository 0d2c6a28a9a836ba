//! Why a copy stopped.

use std::fmt;
use std::io;

use super::Gone;

/// A copy that stopped before its end. The target's replica stays marked bad until a later copy
/// is complete.
#[derive(Debug)]
pub enum CopyError {
    /// The source could not read the root, or lacks what it needs to read anything.
    Read { doing: &'static str, path: String, error: io::Error },
    /// The target answered something that was not asked.
    Answer(String),
    /// The file system is none whose handles can be made of ids: what the target doubts cannot be
    /// listed again alone. A new copy lists everything.
    NoHandles,
    /// What has changed is not known any more. A new copy looks at everything.
    Owed,
    /// Change times do not tell what has changed, and why. A new copy looks at everything.
    ByTime(&'static str),
    /// More names are gone from the directory than may be without a person's word. Nothing was sent.
    ManyGone { gone: u64, of: u64 },
    /// The connection ended.
    Gone,
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CopyError::Read { doing, path, error } => write!(f, "cannot {doing} {path:?}: {error}"),
            CopyError::Answer(what) => write!(f, "the target's answer makes no sense: {what}"),
            CopyError::NoHandles => write!(f, "one directory alone cannot be listed again here"),
            CopyError::Owed => write!(f, "more has changed than could be noted"),
            CopyError::ByTime(why) => write!(f, "everything is compared: {why}"),
            CopyError::ManyGone { gone, of } => write!(f, "{gone} of {of} files are gone"),
            CopyError::Gone => write!(f, "the connection ended"),
        }
    }
}

impl std::error::Error for CopyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CopyError::Read { error, .. } => Some(error),
            CopyError::Answer(_)
            | CopyError::NoHandles
            | CopyError::Owed
            | CopyError::ByTime(_)
            | CopyError::ManyGone { .. }
            | CopyError::Gone => None,
        }
    }
}

impl From<Gone> for CopyError {
    fn from(_: Gone) -> CopyError {
        CopyError::Gone
    }
}

/// The fault is this object's: others can be read all the same. It is not where this process or
/// host lacks something that every object needs.
pub(super) fn is_of_the_object(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOSYS | libc::EOPNOTSUPP | libc::EINTR)
    )
}

/// The object went away between its listing and its reading: an application removed it.
pub(super) fn has_vanished(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE))
}
