//! What has happened between two looks at a daemon, and leaves no state behind. Pure.

use super::health::Severity;
use super::status::{ConnectionStatus, MirrorStatus, ReplicaStatus, Role, Status};
use crate::events::{About, Code, Seen};
use crate::units;

/// See the module.
pub(super) fn moments(before: &Status, now: &Status) -> Vec<Seen> {
    let mut seen = Vec::new();
    match (&before.role, &now.role) {
        (Role::Source(before), Role::Source(after)) => {
            let known = |one: &ConnectionStatus| {
                before.connections.iter().find(|other| other.uuid == one.uuid).cloned()
            };
            let pairs = after.connections.iter().filter_map(|one| Some((known(one)?, one)));
            seen.extend(pairs.flat_map(|(before, after)| of_connection(&before, after)));
            seen.iter_mut().for_each(|one| one.about.set = Some(now.name.clone()));
        }
        (Role::Target { target: before }, Role::Target { target: after }) => {
            let known = |one: &ReplicaStatus| before.replicas.iter().find(|other| other.name == one.name);
            let pairs = after.replicas.iter().filter_map(|one| Some((known(one)?, one)));
            seen.extend(pairs.filter_map(|(before, after)| clock_set(before, after)));
        }
        (Role::Source(_), Role::Target { .. }) | (Role::Target { .. }, Role::Source(_)) => {}
    }
    seen
}

fn of_connection(before: &ConnectionStatus, after: &ConnectionStatus) -> Vec<Seen> {
    let verified = verify_ended(before, after);
    let mirrored = if verified.is_some() { None } else { mirror_ended(before, after) };
    verified.into_iter().chain(mirrored).collect()
}

fn verify_ended(before: &ConnectionStatus, after: &ConnectionStatus) -> Option<Seen> {
    let verified = after.verified.as_ref()?;
    if before.verified.as_ref().is_some_and(|earlier| earlier.at_unix_ms == verified.at_unix_ms) {
        return None;
    }
    let counts = &verified.counts;
    let (severity, found) = match verified.is_identical() {
        true => (Severity::Ok, "nothing differs".to_owned()),
        false => (
            Severity::Warning,
            format!("{} missing, {} extra, {} different", counts.missing, counts.extra, counts.different),
        ),
    };
    let text = format!(
        "A verification of {} has ended: {} objects compared, {found}.",
        after.target, counts.compared
    );
    Some(Seen { code: Code::VerifyEnded, severity, about: after.about(), text })
}

fn mirror_ended(before: &ConnectionStatus, after: &ConnectionStatus) -> Option<Seen> {
    let started = |one: &ConnectionStatus| one.progress.as_ref().map(|progress| progress.started_unix_ms);
    let was_complete = before.mirror == MirrorStatus::Complete && started(before) == started(after);
    if after.mirror != MirrorStatus::Complete || was_complete || before.mirror == MirrorStatus::Verifying {
        return None;
    }
    let progress = after.progress.as_ref()?;
    let text = format!(
        "A copy ({}) to {} has ended: {} files are in line, {} were sent.",
        progress.mode,
        after.target,
        progress.files_done,
        units::size(progress.bytes_done)
    );
    Some(Seen { code: Code::MirrorEnded, severity: Severity::Ok, about: after.about(), text })
}

fn clock_set(before: &ReplicaStatus, after: &ReplicaStatus) -> Option<Seen> {
    let set = after.clock_set.filter(|set| before.clock_set != Some(*set))?;
    let way = if set.by_ms < 0 { "back" } else { "forward" };
    let by = units::duration(std::time::Duration::from_millis(set.by_ms.unsigned_abs()));
    Some(Seen {
        code: Code::ClockSet,
        severity: Severity::Warning,
        about: About { set: Some(after.name.clone()), ..About::default() },
        text: format!("The clock of the source of {} was set {way} by {by}.", after.name),
    })
}
