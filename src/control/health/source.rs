//! What a source as a whole has to say.

use super::{Finding, Severity};
use crate::control::status::{ConnectionStatus, FsyncStatus, SourceStatus};
use crate::units;

impl SourceStatus {
    pub(super) fn findings(&self, now_unix_ms: u64) -> Vec<Finding> {
        let mut findings = Vec::from_iter(self.queue_finding());
        if self.connections.is_empty() {
            findings.push(Finding::warning("There is no connection: nothing is replicated.".into()));
        }
        findings.extend(self.fsync_finding());
        findings.extend(self.limited_fsync_finding());
        let connections = self.connections.iter();
        findings.extend(connections.flat_map(|connection| connection.findings(now_unix_ms, &self.queue)));
        findings
    }

    /// Outside of its sessions a target makes nothing durable.
    fn fsync_finding(&self) -> Option<Finding> {
        let FsyncStatus::Target { timeout_ms, .. } = &self.fsync else { return None };
        let is_scheduled =
            |connection: &&ConnectionStatus| connection.schedule.as_ref().is_some_and(|plan| plan.on);
        let scheduled = self.connections.iter().find(is_scheduled)?;
        Some(Finding::warning(format!(
            "{} has a schedule, and syncs of programs wait for targets: outside of its sessions one that needs it \
             waits for {} s in vain.",
            scheduled.label(),
            timeout_ms / 1000
        )))
    }

    /// What was written before it goes first.
    fn limited_fsync_finding(&self) -> Option<Finding> {
        let FsyncStatus::Target { timeout_ms, .. } = &self.fsync else { return None };
        let limited = |connection: &ConnectionStatus| {
            let rate = connection.limit.as_ref().filter(|limit| limit.on)?.rate?;
            Some((connection.label(), rate, connection.queued.bytes / rate.max(1)))
        };
        let (label, rate, seconds) =
            self.connections.iter().filter_map(limited).max_by_key(|(.., seconds)| *seconds)?;
        let text = format!(
            "{label} sends {} a second at most, and syncs of programs wait until it has sent what was written before: \
             {seconds} s now.",
            units::size(rate)
        );
        let severity = if seconds * 1000 >= *timeout_ms { Severity::Warning } else { Severity::Ok };
        Some(Finding { severity, text })
    }

    fn queue_finding(&self) -> Option<Finding> {
        let waiting = self.queue.writers_waiting;
        let full = self.queue.limit_bytes > 0 && self.queue.bytes * 2 >= self.queue.limit_bytes;
        match (waiting, full) {
            (1.., _) => Some(Finding::warning(format!(
                "The queue is full: {waiting} {} for room. Applications are slowed down to the pace of the target.",
                if waiting == 1 { "writer waits" } else { "writers wait" },
            ))),
            (0, true) => {
                let held_back = self.connections.iter().any(ConnectionStatus::is_held_back);
                Some(Finding::warning(format!(
                    "The queue is {} % full; when it is full, {}.",
                    self.queue.bytes * 100 / self.queue.limit_bytes,
                    if held_back {
                        "targets that are away, stopped, paused or scheduled are let go"
                    } else {
                        "writers wait"
                    }
                )))
            }
            (0, false) => None,
        }
    }
}
