//! From a status to a verdict: the lines that a person should see, and the exit code for
//! monitoring systems. Pure.

mod lost_writes;
mod source;

use std::time::Duration;

use serde::Serialize;

use super::status::{
    AsideStatus, ConnectionState, ConnectionStatus, LastGood, LeftOutStatus, MirrorStatus, Phase,
    ReplicaStatus, Retrying, Role, Status, TargetKind, TargetStatus,
};
pub use crate::events::Severity;
use crate::events::{About, Code};
use crate::limits::LAG_WARNING;
use crate::packet::{DataState, WithheldCounts};
use crate::units;
use crate::words::QueueStats;

/// One line of the verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub code: Code,
    pub text: String,
    #[serde(skip)]
    pub about: About,
}

impl Finding {
    fn new(severity: Severity, code: Code, text: String) -> Finding {
        Finding { severity, code, text, about: About::default() }
    }

    fn warning(code: Code, text: String) -> Finding {
        Finding::new(Severity::Warning, code, text)
    }

    fn critical(code: Code, text: String) -> Finding {
        Finding::new(Severity::Critical, code, text)
    }

    fn of(self, about: &About) -> Finding {
        Finding { about: about.clone(), ..self }
    }
}

impl Status {
    /// What is not as it should be, the daemon's own alerts included; empty when all is well.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = self
            .alerts
            .iter()
            .map(|alert| Finding::new(alert.severity, alert.code, alert.text.clone()))
            .collect();
        findings.extend(self.phase_finding());
        findings.extend(match &self.role {
            Role::Source(source) => source.findings(self.now_unix_ms),
            Role::Target { target } => target.findings(self.now_unix_ms),
        });
        if matches!(self.role, Role::Source(_)) {
            findings.iter_mut().for_each(|finding| finding.about.set = Some(self.name.clone()));
        }
        findings
    }

    /// The worst of the findings.
    pub fn severity(&self) -> Severity {
        self.findings().iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
    }

    fn phase_finding(&self) -> Option<Finding> {
        match self.phase {
            Phase::Serving => None,
            Phase::Starting => Some(Finding::warning(Code::DaemonStarting, "The daemon is starting.".into())),
            Phase::Draining => Some(Finding::warning(
                Code::DaemonStopping,
                "The daemon is stopping: it drains the queue.".into(),
            )),
            Phase::Stopping => {
                let does = match self.role {
                    Role::Source(_) => "it takes the mount away",
                    Role::Target { .. } => "it makes durable what it has",
                };
                Some(Finding::warning(Code::DaemonStopping, format!("The daemon is stopping: {does}.")))
            }
            Phase::Ending => Some(Finding::warning(
                Code::DaemonStopping,
                "The daemon ends: nothing is left to be done.".into(),
            )),
        }
    }
}

impl TargetStatus {
    fn findings(&self, now_unix_ms: u64) -> Vec<Finding> {
        self.replicas.iter().flat_map(|replica| replica.findings(now_unix_ms)).collect()
    }
}

impl AsideStatus {
    /// `whose`: connection or replica.
    fn finding(&self, whose: &str) -> Option<Finding> {
        let first = self.objects.first()?;
        let what = match self.total {
            0 | 1 => "An object is".to_owned(),
            total => format!("{total} objects are"),
        };
        Some(Finding::critical(
            Code::SetAside,
            format!(
                "{whose}: {what} set aside, the replica is not a consistent copy; everything else goes on. First {} \
             ({}: {}). Mend the cause: it is tried again by a copy, ever more seldom.",
                first.path, first.op, first.reason
            ),
        ))
    }
}

/// `whose`: connection or replica.
fn withheld_findings(withheld: &WithheldCounts, whose: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let kinds = [
        (withheld.devices, "device nodes", "device", Code::DevicesWithheld),
        (withheld.setuid_bits, "setuid and setgid bits", "setuid", Code::SetuidWithheld),
        (withheld.security_xattrs, "security.* attributes", "security", Code::SecurityWithheld),
    ];
    for (count, what, allow, code) in kinds.into_iter().filter(|(count, ..)| *count > 0) {
        let text = format!("{whose}: {what} were left out {count} times (--allow {allow} takes them).");
        findings.push(Finding::new(Severity::Ok, code, text));
    }
    if withheld.flags > 0 {
        let text = format!(
            "{whose}: immutable, append-only and no-dump flags were left out {} times: the replica takes none.",
            withheld.flags
        );
        findings.push(Finding::new(Severity::Ok, Code::FlagsWithheld, text));
    }
    if withheld.times > 0 {
        findings.push(Finding::warning(Code::TimesCut, format!(
            "{whose}: the replica's file system cannot hold modification times as the source has them, they were cut \
             {} times: whole seconds, years out of its range (ext4 with inodes of 128 bytes, XFS without bigtime), or not \
             set at all (some FUSE file systems).",
            withheld.times
        )));
    }
    findings
}

impl ReplicaStatus {
    /// Where it is not a consistent copy: what it was before.
    pub fn way_out(&self) -> String {
        match &self.last_good {
            None => String::new(),
            Some(LastGood { clone, position, failed: None, .. }) => format!(
                " What it was as of packet {position} is kept: `standin clone copy {clone} --to DIR` makes it a directory."
            ),
            Some(LastGood { failed: Some(why), .. }) => format!(" What it was is lost: {why}."),
        }
    }

    fn findings(&self, now_unix_ms: u64) -> Vec<Finding> {
        let (name, mut findings) = (&self.name, Vec::new());
        findings.extend(
            self.problem
                .iter()
                .map(|problem| Finding::critical(Code::ReplicaUnusable, format!("{problem}."))),
        );
        let aside = self.aside.finding(&format!("Replica {name}"));
        match (self.data, &self.connected) {
            (DataState::Bad, _) if aside.is_some() => findings.extend(aside),
            (DataState::Bad, Some(_)) if self.in_line => findings.push(Finding::critical(
                Code::NotConsistent,
                format!("Replica {name} is not a consistent copy: {}.{}", self.reason, self.way_out()),
            )),
            (DataState::Bad, Some(_)) => findings.push(Finding::warning(
                Code::NotConsistent,
                format!("Replica {name} is not a consistent copy while a copy runs.{}", self.way_out()),
            )),
            (DataState::Bad, None) => findings.push(Finding::critical(
                Code::NotConsistent,
                format!(
                    "Replica {name} is not a consistent copy, and its source is not connected.{}",
                    self.way_out()
                ),
            )),
            (DataState::Good | DataState::Empty, None) if self.problem.is_none() => {
                findings.push(Finding::warning(
                    Code::SourceAway,
                    format!("Replica {name}: its source is not connected."),
                ));
            }
            (DataState::Good | DataState::Empty, _) => {}
        }
        let label = format!("Replica {name}");
        findings.extend(self.retrying.as_ref().map(|retrying| {
            retrying.finding(
                (&label, self.data == DataState::Bad),
                "an op cannot be performed, everything behind it waits",
                now_unix_ms,
            )
        }));
        findings.extend(withheld_findings(&self.withheld, &format!("Replica {name}")));
        findings.extend(self.lost_writes.as_ref().and_then(|kept| kept.finding(name)));
        let about = About { set: Some(name.clone()), ..About::default() };
        findings.into_iter().map(|finding| finding.of(&about)).collect()
    }
}

impl Retrying {
    /// What a person can do. The reason is a text by the time it comes here; its end is the system's.
    fn remedy(&self, copies: bool) -> &'static str {
        let is = |errno: i32| self.reason.contains(&format!("(os error {errno})"));
        match () {
            () if copies && is(libc::ENOSPC) => {
                "Make room on the target's disk: it goes on by itself. What this copy has moved aside takes room, too: \
                 `standin orphans list` on the target shows it, and how it is removed first. What was removed on the source \
                 meanwhile is there once the connection was stopped and started."
            }
            () if copies && is(libc::EDQUOT) => {
                "Raise the quota there, or make room in it: it goes on by itself. What this copy has moved aside takes room, too: \
                 `standin orphans list` on the target shows it, and how it is removed first."
            }
            () if is(libc::ENOSPC) => "Make room on the target's disk: it goes on by itself.",
            () if is(libc::EDQUOT) => "Raise the quota there, or make room in it: it goes on by itself.",
            () if is(libc::EROFS) => "Make the target's file system writable again: it goes on by itself.",
            () => "Mend that there: it goes on by itself.",
        }
    }

    /// What stands at the head of the line. `copies`: a copy may be under way.
    fn finding(&self, (whose, copies): (&str, bool), what: &str, now_unix_ms: u64) -> Finding {
        let seconds = now_unix_ms.saturating_sub(self.since_unix_ms) / 1000;
        let Retrying { op, reason, attempts, .. } = self;
        match self.marker {
            true => Finding::new(
                Severity::Ok,
                Code::MarkerHolds,
                format!("{whose}: {op}: {reason}; for {seconds} s."),
            ),
            false => Finding::warning(
                Code::OpRetried,
                format!(
                    "{whose}: {what} ({attempts} attempts in {seconds} s): {op}: {reason}. {}",
                    self.remedy(copies)
                ),
            ),
        }
    }
}

impl ConnectionStatus {
    fn verified_finding(&self) -> Option<Finding> {
        let counts = &self.verified.as_ref().filter(|verified| !verified.counts.is_identical())?.counts;
        Some(Finding::warning(
            Code::DifferencesFound,
            format!(
                "{}: the last verification found {} missing, {} extra and {} different objects (`standin verify --last`); \
             with --repair the next one mends them.",
                self.label(),
                counts.missing,
                counts.extra,
                counts.different
            ),
        ))
    }

    fn findings(&self, now_unix_ms: u64, queue: &QueueStats) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.state_finding(queue));
        if self.kind != TargetKind::Null {
            findings.extend(self.left_out_finding());
            findings.extend(self.data_finding());
            findings.extend(self.verified_finding());
            findings.extend(withheld_findings(&self.withheld, &self.label()));
        }
        findings.extend(self.retrying.as_ref().map(|retrying| {
            retrying.finding(
                (&self.label(), self.data == DataState::Bad),
                "the target cannot perform an op, everything behind it waits",
                now_unix_ms,
            )
        }));
        findings.extend(self.limit_finding());
        let seconds = self.lag_applied.map_or(0.0, |lag| lag.seconds);
        if self.kind != TargetKind::Null
            && !self.state.waits_for_schedule()
            && seconds > LAG_WARNING.as_secs_f64()
        {
            findings
                .push(Finding::warning(Code::Lagging, format!("{} is {seconds:.0} s behind.", self.label())));
        }
        let about = self.about();
        findings.into_iter().map(|finding| finding.of(&about)).collect()
    }

    pub(super) fn about(&self) -> About {
        About { set: None, connection: Some(self.uuid.clone()), target: Some(self.target.clone()) }
    }

    fn limit_finding(&self) -> Option<Finding> {
        let limit = self.limit.as_ref()?;
        let (rate, grows, seconds) = (limit.rate?, limit.queue_grows?, limit.queue_full_seconds?);
        Some(Finding::warning(
            Code::LimitTooLow,
            format!(
                "{}: its limit of {} a second is below what is written: its queue grows by {} a second, and is full in {}; \
             then programs wait.",
                self.label(),
                units::size(rate),
                units::size(grows),
                units::duration(Duration::from_secs(seconds))
            ),
        ))
    }

    fn label(&self) -> String {
        format!("Connection {} ({})", self.id, self.target)
    }

    /// By a person, by its schedule or because it is away, and its changes are in the queue.
    fn is_held_back(&self) -> bool {
        let state = self.state;
        !self.needs_copy
            && (state.waits_for_schedule()
                || matches!(
                    state,
                    ConnectionState::Stopped | ConnectionState::Paused | ConnectionState::Error
                ))
    }

    fn state_finding(&self, queue: &QueueStats) -> Option<Finding> {
        if self.needs_copy && self.state.waits_for_schedule() {
            return Some(Finding::warning(Code::CopyNeeded, format!("{}: {}.", self.label(), self.reason)));
        }
        if self.unqueued {
            let text = format!("{}: {}.", self.label(), self.reason);
            return Some(Finding::warning(Code::ConnectionStopped, text));
        }
        // It connects anew for one that somebody asked for, or that follows what came into the set, or takes it already.
        let is_taken = matches!(self.mirror, MirrorStatus::Calculating | MirrorStatus::Mirroring { .. });
        let begins = self.state == ConnectionState::Started && is_taken;
        if self.needs_copy && begins {
            return Some(Finding::warning(Code::CopyNeeded, format!("{}: {}.", self.label(), self.reason)));
        }
        let is_held = matches!(self.state, ConnectionState::Stopped | ConnectionState::Paused);
        if self.needs_copy && self.unheard && is_held {
            return Some(Finding::warning(Code::CopyNeeded, format!("{}: {}.", self.label(), self.reason)));
        }
        if self.needs_copy {
            return Some(Finding::critical(Code::CopyNeeded, format!("{}: {}.", self.label(), self.reason)));
        }
        let because = match self.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        let label = self.label();
        let only_queued = format!("changes are only queued (room for {} MiB more)", queue.room() >> 20);
        match self.state {
            ConnectionState::Started | ConnectionState::Scheduled => None,
            ConnectionState::Stopped => Some(Finding::warning(
                Code::ConnectionStopped,
                format!("{label} is stopped, {only_queued}{because}"),
            )),
            ConnectionState::Paused => Some(Finding::warning(
                Code::ConnectionPaused,
                format!("{label} is paused, {only_queued}{because}"),
            )),
            ConnectionState::ScheduledAfterError => Some(Finding::warning(
                Code::SessionFailed,
                format!("{label}: the last session of its schedule failed{because}"),
            )),
            ConnectionState::Error => Some(Finding::critical(
                Code::ConnectionFailed,
                format!("{label} failed and is tried again{because}"),
            )),
        }
    }

    fn left_out_finding(&self) -> Option<Finding> {
        let LeftOutStatus { count, objects } = &self.left_out;
        if *count == 0 || self.data != DataState::Bad {
            return None;
        }
        let were = if *count == 1 { "object was" } else { "objects were" };
        let more = if (objects.len() as u64) < *count { "; ..." } else { "" };
        Some(Finding::critical(
            Code::LeftOut,
            format!(
                "{}: the replica is not a consistent copy: {count} {were} left out of the copy, everything else is in \
             line: {}{more}. Mend them: a copy tries them again, ever less often.",
                self.label(),
                objects.join("; ")
            ),
        ))
    }

    /// Who holds it by hand knows that nothing is heard of it.
    fn unheard_finding(&self) -> Option<Finding> {
        let is_held = matches!(self.state, ConnectionState::Stopped | ConnectionState::Paused);
        let (label, why) = (self.label(), &self.data_reason);
        (!is_held && !self.state.waits_for_schedule()).then(|| {
            let text = format!("{label}: whether the replica is a consistent copy is not known: {why}.");
            Finding::warning(Code::NotConsistent, text)
        })
    }

    /// A replica that is not good is normal while a mirror makes it good, and only then.
    fn data_finding(&self) -> Option<Finding> {
        let aside = self.aside.finding(&self.label()).filter(|_| self.data == DataState::Bad);
        if aside.is_some() || self.left_out_finding().is_some() {
            return aside;
        }
        if self.unheard && self.data == DataState::Bad {
            return self.unheard_finding();
        }
        let word = match self.data {
            DataState::Good => return None,
            DataState::Empty => "holds nothing yet",
            DataState::Bad => "is not a consistent copy",
        };
        let label = self.label();
        match self.mirror {
            MirrorStatus::Calculating | MirrorStatus::Mirroring { .. } => Some(Finding::warning(
                Code::NotConsistent,
                format!("{label}: the replica {word}; do not use it before the mirror is complete."),
            )),
            _ if self.state.waits_for_schedule() => Some(Finding::warning(
                Code::NotConsistent,
                format!("{label}: the replica {word}, and is made one when its schedule lets it."),
            )),
            MirrorStatus::Idle
            | MirrorStatus::Paused
            | MirrorStatus::Stopped
            | MirrorStatus::Verifying
            | MirrorStatus::Complete => Some(Finding::critical(
                Code::NotConsistent,
                match self.data_reason.as_str() {
                    "" => format!("{label}: the replica {word}, and no mirror is making it one."),
                    reason => format!("{label}: the replica {word}: {reason}."),
                },
            )),
        }
    }
}
