//! Names of sets, and of what is called after them.

use std::path::{Path, PathBuf};

/// Ending of socket files in the run directory.
pub const SOCKET_SUFFIX: &str = ".sock";

/// The socket of a set's daemon.
pub fn socket_path(run: &Path, name: &str) -> PathBuf {
    run.join(format!("{name}{SOCKET_SUFFIX}"))
}

/// Whether a text can name a replication set: it becomes a file name on both sides.
pub fn is_set_name(name: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.chars().all(plain)
}
