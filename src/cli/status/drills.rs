//! Drills beside the replicas that they are of.

use std::path::Path;

use crate::cli::args::Common;
use crate::cli::drill;
use crate::control::Status;
use crate::drill::expected::Expected;

/// Those of these replicas that are expected to pass now and then.
pub(super) fn drills(common: &Common, status: &Status) -> Vec<Expected> {
    let Some(target) = status.target() else { return Vec::new() };
    let mut drills = drill::expected(common);
    drills.retain(|one| {
        let set = &one.last.set;
        target.replicas.iter().any(|replica| replica.name == *set || replica.directory == Path::new(set))
    });
    drills
}

/// As people read it.
pub(super) fn drill_lines(drills: &[Expected]) -> String {
    drills.iter().map(|one| format!("\ndrill {}  {}\n", one.file, one.words())).collect()
}
