//! Calls that reach an object without a name ([`crate::privileges::by_handle`]); what a clone needs is kept
//! before an object gets another one.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::clone::guard;
use crate::privileges::by_handle;
pub(in crate::apply) use crate::privileges::by_handle::open;
pub(super) use crate::privileges::by_handle::{reopen_to_read, reopen_to_write};

/// Gives the object behind a descriptor another name.
pub(in crate::apply) fn link(object: &File, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    guard::linking(object.as_fd(), dir, name.to_bytes());
    by_handle::link(object, dir, name)
}
