//! Bounds of changes of role.

use std::time::Duration;

use super::RECONNECT_DELAY_MAX;

/// How far the epoch of a source may be above what its target knows: more changes of role than anybody makes,
/// and few enough that a source which lies about its own cannot use them up for all others.
pub const EPOCHS_RAISED_MAX: u32 = 1 << 16;

/// Epochs of a history of which all is kept, 60 bytes each: as many as a person reads.
pub const EPOCHS_KEPT_MAX: usize = 32;

/// Epochs before those of which it is kept that they were, 12 bytes each: a change of role every day for two years. Of
/// one before them nothing is proved, and a person is asked.
pub const EPOCHS_NAMED_MAX: usize = 1024;

/// A source that is called answers within this, or counts as silent where somebody wants to stand in for it: a round
/// trip of milliseconds, lost several times over, and a host that is busy. With it a failover serves within 5 s.
pub const CALLED_SOURCE_ANSWERS: Duration = Duration::from_secs(2);

/// How often a target daemon looks whether somebody wants to stand in with a replica: an open and a lock each.
pub const WANTED_LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often a source that stands in looks for what the target daemon of its replica has noted of others: as soon as
/// people see it.
pub const OTHERS_LOOK_EVERY: Duration = Duration::from_secs(1);

/// A source that was not taken in, for its version, lives as long as this after it came last: it comes again within
/// [`RECONNECT_DELAY_MAX`], and may miss one attempt.
pub const TURNED_AWAY_LIVES: Duration = RECONNECT_DELAY_MAX.saturating_mul(2);
