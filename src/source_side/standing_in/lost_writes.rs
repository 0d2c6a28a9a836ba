//! What only this host had before its directory became a replica is taken out before that is served.

use std::path::Path;

use super::LEFT_ALONE;
use crate::clone::lost_writes_of;
use crate::failure::Failure;
use crate::words::ProtectOptions;

/// A clone ends where its replica is served.
pub(super) fn refuse(options: &ProtectOptions, state: &Path) -> Result<(), Failure> {
    let kept = lost_writes_of(state);
    let Some(name) = kept.first() else { return Ok(()) };
    Err(Failure::new(
        format!(
            "What only {} had when it became a replica is kept as its clone '{name}', and goes when the replica is served.",
            options.tree().display()
        ),
        LEFT_ALONE,
        format!(
            "While its target daemon runs take it out: standin lost-writes extract --to DIR. To give it up: standin clone stop \
             {name} --force."
        ),
    ))
}
