//! Monitors beside the replicas whose sources they watch.

use crate::cli::args::Common;
use crate::control::Status;
use crate::monitor::shown::{self, Monitored};

/// Those that watch the sources of these replicas.
pub(super) fn monitors(common: &Common, status: &Status) -> Vec<Monitored> {
    let Some(target) = status.target() else { return Vec::new() };
    let mut monitors = shown::all(&common.asked_dir());
    monitors.retain(|one| target.replicas.iter().any(|replica| replica.name == one.shown.set));
    monitors
}

/// As people read it.
pub(super) fn monitor_lines(monitors: &[Monitored]) -> String {
    monitors.iter().map(|one| format!("\nmonitor {}  {}\n", one.shown.set, one.words())).collect()
}
