//! Bounds of this room, each with its reason.

use std::time::Duration;

/// Output of one command that is kept, in bytes: its end, where programs say what was wrong.
pub(super) const OUTPUT_MAX: usize = 64 << 10;

/// A killed command ends within this time, or hangs in the kernel (a frozen file system, a server that is gone): nobody
/// waits for that.
pub const KILLED_WITHIN: Duration = Duration::from_secs(5);

/// A runner answers so long after that at the latest, on a host that is busy; one that does not is stopped or stuck.
pub(super) const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A runner that was told to end does so within this time; then it is killed.
pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// How often a runner looks whether its command has ended.
pub(super) const LOOKED_EVERY: Duration = Duration::from_millis(20);
