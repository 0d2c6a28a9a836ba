//! Names of sets, and of what is called after them.

use std::path::{Path, PathBuf};

/// Ending of socket files in the run directory.
pub const SOCKET_SUFFIX: &str = ".sock";

/// What belongs to a replica that is a mount point, in its root: never replicated, compared, or an orphan.
pub const RESERVED_NAME: &str = ".standin.limbo";

/// What `mkfs` makes in the root of ext file systems; a check of the disk would make it anew.
pub const OF_THE_DISK: &str = "lost+found";

/// The socket of a set's daemon.
pub fn socket_path(run: &Path, name: &str) -> PathBuf {
    run.join(format!("{name}{SOCKET_SUFFIX}"))
}

/// Bytes.
pub const SET_NAME_LEN_MAX: usize = 64;

/// Whether a text can name a replication set: it becomes a file name on both sides.
pub fn is_set_name(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+');
    !name.is_empty() && name.len() <= SET_NAME_LEN_MAX && !name.starts_with('.') && name.chars().all(plain)
}
