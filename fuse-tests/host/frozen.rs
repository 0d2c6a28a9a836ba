//! A disk that answers nothing.

use std::path::Path;
use std::process::Command;

use super::{require_program, run};

/// It is frozen until this is dropped.
pub struct Frozen<'a>(&'a Path);

impl Frozen<'_> {
    /// `at`: where it is mounted.
    pub fn disk(at: &Path) -> Frozen<'_> {
        run(Command::new(require_program("fsfreeze")).arg("-f").arg(at));
        Frozen(at)
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(self.0).status();
    }
}
