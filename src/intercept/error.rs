//! What an application is told when a call fails, and where it failed.

use std::fmt;
use std::io;

use crate::queue::Closed;

/// An errno for the application, with the step that failed for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsError {
    pub errno: i32,
    pub step: &'static str,
}

const HIDDEN: &str = "a name on another device";

pub type FsResult<T> = Result<T, FsError>;

impl FsError {
    pub fn new(errno: i32, step: &'static str) -> FsError {
        FsError { errno, step }
    }

    /// The node or handle that the kernel named is not known.
    pub fn stale(step: &'static str) -> FsError {
        FsError::new(libc::ESTALE, step)
    }

    /// The name belongs to a directory that is not part of the tree: a subvolume, or whatever else
    /// has a device number of its own. Nobody sees it; changes of its name fail as with a mount.
    pub fn hidden() -> FsError {
        FsError::new(libc::EBUSY, HIDDEN)
    }

    pub fn is_hidden(&self) -> bool {
        self.step == HIDDEN
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for FsError {}

/// The product is stopping: the change was not made.
impl From<Closed> for FsError {
    fn from(_: Closed) -> FsError {
        FsError::new(libc::EIO, "the queue is closed")
    }
}

/// Names the step of a failed system call.
pub trait Step<T> {
    fn step(self, step: &'static str) -> FsResult<T>;
}

impl<T> Step<T> for Result<T, rustix::io::Errno> {
    fn step(self, step: &'static str) -> FsResult<T> {
        self.map_err(|errno| FsError::new(errno.raw_os_error(), step))
    }
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: &'static str) -> FsResult<T> {
        self.map_err(|error| FsError::new(error.raw_os_error().unwrap_or(libc::EIO), step))
    }
}
