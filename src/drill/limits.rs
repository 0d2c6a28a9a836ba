//! Bounds of this room, each with its reason.

use std::time::Duration;

/// How often a readiness probe is tried again, and a clone is asked whether it is complete.
pub(super) const TRIED_EVERY: Duration = Duration::from_millis(200);

/// How often it is looked whether a process has gone that the kernel kills.
pub(super) const LOOKED_EVERY: Duration = Duration::from_millis(20);

/// What a command may take beyond its own time-out until it is given up from outside: killing it and reading
/// its last output.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// Making the namespaces and mounts: milliseconds; longer only where a host has thousands of mounts.
pub(super) const ISOLATE_MAX: Duration = Duration::from_secs(60);

/// From the beginning of a drill: what a daemon may take until a clone that it was asked for has begun or is given up.
/// It waits 10 s for a moment between two packets.
pub(super) const LATE_MAX: Duration = Duration::from_secs(20);

/// Reports of interrupted drills whose clones are looked for again, from the last one: more than anybody interrupts
/// while the daemon of their replica is away.
pub(super) const SWEPT: usize = 16;

/// Entries of a directory that is shown beside a missing part of the data's own path: each is a mount.
pub(super) const BESIDE_MAX: usize = 1000;

/// Checks of one drill.
pub const CHECKS_MAX: usize = 64;
