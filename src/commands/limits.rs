//! Bounds of this room, each with its reason.

use std::time::Duration;

/// Output of one command that is kept, in bytes: its end, where programs say what was wrong.
pub(super) const OUTPUT_MAX: usize = 64 << 10;

/// How often a runner looks whether its command has ended.
pub(super) const LOOKED_EVERY: Duration = Duration::from_millis(20);
