//! The source daemon: the owner of the mount, the queue and the connections.

mod options;

pub(crate) use options::is_set_name;
pub use options::{ProtectOptions, Target, TargetError};

use crate::failure::Failure;

/// Protects a directory until it is told to stop; returns after the unmount.
///
/// Errors: whatever keeps the directory from being mounted or served, with what was left as it was.
pub fn run(options: ProtectOptions) -> Result<(), Failure> {
    Err(Failure::new(
        format!("{} cannot be protected: this build has no source daemon.", options.directory.display()),
        "Nothing was mounted or written.",
        "Use a build that has one.",
    ))
}
