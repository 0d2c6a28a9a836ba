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
    // What a verification shows again when it is over, unless it was the first part of a mirror.
    let begins_one = before.progress.as_ref().is_some_and(|progress| progress.compares_first);
    let was_verified = before.mirror == MirrorStatus::Verifying && !begins_one;
    if after.mirror != MirrorStatus::Complete || was_complete || was_verified {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::MirrorProgress;
    use crate::control::tests::{sample_status, source_of};

    /// What was shown at one look and at the next, and whether a mirror has ended between them.
    #[test]
    fn the_end_of_a_mirror_is_told_once() {
        use MirrorStatus::{Calculating, Complete, Stopped, Verifying};
        let shown = |mirror, started_unix_ms, compares_first| {
            let mut status = sample_status();
            let connection = &mut source_of(&mut status).connections[0];
            connection.mirror = mirror;
            let known = MirrorProgress { started_unix_ms, compares_first, ..MirrorProgress::default() };
            connection.progress = Some(known);
            status
        };
        let table = [
            ("it ends", shown(Calculating, 5, false), shown(Complete, 5, false), true),
            ("a whole one between two looks", shown(Complete, 5, false), shown(Complete, 9, false), true),
            ("nothing has happened", shown(Complete, 5, false), shown(Complete, 5, false), false),
            ("it was stopped", shown(Calculating, 5, false), shown(Stopped, 5, false), false),
            ("a verification without a result", shown(Verifying, 9, false), shown(Complete, 5, false), false),
            ("it compared first, and mended", shown(Verifying, 5, true), shown(Complete, 6, false), true),
            ("it compared, and nothing differed", shown(Verifying, 5, true), shown(Complete, 5, false), true),
        ];
        for (what, before, after, is_told) in table {
            let codes: Vec<Code> = moments(&before, &after).iter().map(|one| one.code).collect();
            let expected = if is_told { vec![Code::MirrorEnded] } else { Vec::new() };
            assert_eq!(codes, expected, "{what}");
        }
    }
}
