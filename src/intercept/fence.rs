//! Whether the directory may still be changed: not once somebody else writes the set.
//!
//! Raised once, for the rest of the process. A change that has its locks goes on to its op; every later one
//! fails with `EROFS` and has changed nothing. What the kernel has gathered, or a program has stored through a
//! mapping, is refused when it is written back, as by a disk that takes no more: see [`super::refusals`].

use std::sync::OnceLock;

use super::error::{FsError, FsResult};
use crate::packet::Epoch;

/// Who writes the set instead, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fenced {
    pub epoch: Epoch,
    /// A target, as it was typed.
    pub told_by: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Fence(OnceLock<Fenced>);

impl Fence {
    /// Answers whether it was not up before.
    pub fn raise(&self, fenced: Fenced) -> bool {
        self.0.set(fenced).is_ok()
    }

    pub fn raised(&self) -> Option<&Fenced> {
        self.0.get()
    }

    /// Errors: `EROFS` where the set is written elsewhere.
    pub(super) fn check(&self) -> FsResult<()> {
        match self.0.get() {
            None => Ok(()),
            Some(_) => Err(FsError::new(libc::EROFS, "the set is written elsewhere, in a higher epoch")),
        }
    }
}
