//! What a source as a whole has to say.

use super::{Finding, Severity};
use crate::control::status::{ConnectionStatus, FsyncStatus, SourceStatus};
use crate::events::Code;
use crate::units;

impl SourceStatus {
    pub(super) fn findings(&self, now_unix_ms: u64) -> Vec<Finding> {
        let mut findings = Vec::from_iter(self.queue_finding());
        findings.extend(self.disk_queue_finding());
        if self.connections.is_empty() {
            findings.push(Finding::warning(
                Code::NoConnection,
                "There is no connection: nothing is replicated.".into(),
            ));
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
        Some(Finding::warning(
            Code::FsyncOutsideSchedule,
            format!(
                "{} has a schedule, and syncs of programs wait for targets: outside of its sessions one that needs it \
             waits for {} s in vain.",
                scheduled.label(),
                timeout_ms / 1000
            ),
        ))
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
        Some(Finding::new(severity, Code::FsyncUnderLimit, text))
    }

    /// Half full, or not to be used.
    fn disk_queue_finding(&self) -> Option<Finding> {
        let disk = self.queue.disk?;
        let (bytes, most) = (units::size(disk.bytes), units::size(disk.limit_bytes));
        let (code, text) = match disk.trouble {
            Some(trouble) => (
                Code::DiskQueueRefuses,
                format!(
                    "The queue on disk takes nothing: {trouble} ({bytes} of {most} in use). What memory has no room for \
                 makes writers wait, or lets go of a target that is away."
                ),
            ),
            None if disk.alert => (
                Code::DiskQueueHalfFull,
                format!(
                    "The queue on disk is {} % full ({bytes} of {most}); when it is full, a target that is away is let go, \
                 or writers wait.",
                    disk.bytes * 100 / disk.limit_bytes.max(1)
                ),
            ),
            None => return None,
        };
        Some(Finding::warning(code, text))
    }

    fn queue_finding(&self) -> Option<Finding> {
        let waiting = self.queue.writers_waiting;
        let is_memory = self.queue.disk.is_none_or(|disk| disk.trouble.is_some());
        match (waiting, is_memory && self.queue.is_half_full()) {
            (1.., _) => Some(Finding::warning(
                Code::QueueFull,
                format!(
                    "The queue is full: {waiting} {} for room. Applications are slowed down to the pace of the target.",
                    if waiting == 1 { "writer waits" } else { "writers wait" },
                ),
            )),
            (0, true) => {
                let held_back = self.connections.iter().any(ConnectionStatus::is_held_back);
                Some(Finding::warning(
                    Code::QueueHalfFull,
                    format!(
                        "The queue is {} % full; when it is full, {}.",
                        self.queue.bytes * 100 / self.queue.limit_bytes,
                        if held_back {
                            "targets that are away, stopped, paused or scheduled are let go"
                        } else {
                            "writers wait"
                        }
                    ),
                ))
            }
            (0, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::control::tests::sample_source;
    use crate::words::{DiskQueueStats, DiskTrouble, QueueStats};

    fn said(memory_percent: u64, disk: Option<DiskQueueStats>) -> String {
        let mut source = sample_source();
        source.queue = QueueStats { bytes: memory_percent, limit_bytes: 100, disk, ..QueueStats::default() };
        let findings = [source.queue_finding(), source.disk_queue_finding()];
        findings.into_iter().flatten().map(|finding| finding.text).collect::<Vec<_>>().join(" | ")
    }

    /// With a disk that takes something memory is never empty while a target is away: that is nothing to warn of.
    #[test]
    fn a_queue_on_disk_is_told_when_it_is_half_full_or_takes_nothing() {
        let disk = |bytes, trouble| {
            let alert = bytes >= 50;
            Some(DiskQueueStats { bytes, limit_bytes: 100, alert, trouble, ..DiskQueueStats::default() })
        };
        assert!(said(60, None).contains("The queue is 60 % full"));
        assert_eq!(said(60, disk(49, None)), "");
        assert!(said(60, disk(70, None)).starts_with("The queue on disk is 70 % full"));
        let full = said(60, disk(90, Some(DiskTrouble::AtLimit)));
        assert!(
            full.contains("The queue is 60 % full") && full.contains("takes nothing: it is at its limit"),
            "{full}"
        );
        let failed = said(10, disk(0, Some(DiskTrouble::Failed { errno: libc::EIO })));
        assert!(failed.contains("its disk fails: Input/output error"), "{failed}");
    }
}
