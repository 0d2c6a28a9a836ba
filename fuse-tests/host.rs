//! Starts and stops the product for a test, on the normal disk.

use tempfile::TempDir;

/// An empty directory on the normal disk (the build directory's): a tmpfs has other holes, xattrs
/// and handles than what users protect.
pub fn dir_on_disk() -> TempDir {
    let base = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    tempfile::Builder::new().prefix("standin-test-").tempdir_in(base).expect("a temporary directory")
}
