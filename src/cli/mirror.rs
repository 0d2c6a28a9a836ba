//! `standin mirror`: start, stop, pause, resume, list.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::json;

use super::args::{Common, Mirror, MirrorCommand};
use super::find::{find_role, no_answer};
use super::status::{mirror_words, progress_words, replica_word};
use super::{Outcome, connection, output};
use crate::control::{ConnectionChange, ConnectionStatus, RoleName};
use crate::failure::Failure;
use crate::packet::{DataState, OrphanCounts, printable};
use crate::units;
use crate::words::{CopyMode, HashKind, OrphanRules};

pub(super) fn run(common: &Common, args: &Mirror) -> Outcome {
    let (change, which) = match &args.command {
        MirrorCommand::List { set } => return list(common, set.as_deref()),
        MirrorCommand::Start { which, path, mode, from_scratch, audit, rate, orphans, orphan_age } => {
            let path = path.clone();
            let mode = if *from_scratch { Some(CopyMode::Full) } else { *mode };
            let (hash, rate) = (hash_kind(mode, *audit)?, rate.filter(|rate| *rate > 0));
            let orphans = orphans.map(|choice| OrphanRules::new(choice, *orphan_age));
            (ConnectionChange::StartMirror { mode, hash, rate, orphans, path }, which)
        }
        MirrorCommand::Stop { which, from_scratch } => {
            (ConnectionChange::StopMirror { from_scratch: *from_scratch }, which)
        }
        MirrorCommand::Pause(which) => (ConnectionChange::PauseMirror, which),
        MirrorCommand::Resume { which, rate } => (ConnectionChange::ResumeMirror { rate: *rate }, which),
    };
    let named = connection::named(which.connection.as_ref())?;
    let found = find_role(common, which.set.as_deref(), RoleName::Source)?;
    let changed = found.client()?.connection(change, named);
    let changed = changed.map_err(|error| no_answer(&found.status.name, &error))?;
    match common.json {
        true => output::json(&changed),
        false => output::text(&connection::text(&changed)),
    }
    Ok(0)
}

fn hash_kind(mode: Option<CopyMode>, is_audit: bool) -> Result<HashKind, Failure> {
    match (mode, is_audit) {
        (_, false) => Ok(HashKind::Fast),
        (Some(mode), true) if mode.is_by_checksum() => Ok(HashKind::Audit),
        _ => Err(Failure::new(
            "--audit is about hashes, and nothing is compared by them in this mode.",
            "Nothing was started.",
            "Name --mode differences+checksum or --mode checksum with it.",
        )),
    }
}

/// What was done, and what follows.
pub(super) fn text(change: ConnectionChange, label: &str, data: DataState) -> String {
    let at = |rate: Option<u64>| match rate {
        None | Some(0) => String::new(),
        Some(rate) => format!(", {} a second at most", units::size(rate)),
    };
    match change {
        ConnectionChange::StartMirror { mode, hash, rate, orphans: _, path } => {
            let audit = if hash == HashKind::Audit { ", audit" } else { "" };
            let mode = mode.map_or(String::new(), |mode| format!(" (mode {mode}{audit})"));
            let of =
                path.map_or(String::new(), |path| format!(" of {}", printable(path.as_os_str().as_bytes())));
            format!("{label}: a mirror{of} begins{mode}{}. `standin status` says how far it is.", at(rate))
        }
        ConnectionChange::Merge => {
            format!(
                "{label}: what is in doubt is copied, and the replica is bad until it is there. `standin status` says how \
                 far it is."
            )
        }
        ConnectionChange::StopMirror { .. } if data == DataState::Good => {
            format!("{label}: the mirror is given up. The replica is good.")
        }
        ConnectionChange::StopMirror { from_scratch } => {
            let next = if from_scratch { " That one believes nothing that the target has." } else { "" };
            format!(
                "{label}: the copy is given up, the replica stays bad, and nothing is sent there before \
                 `standin mirror start`.{next}"
            )
        }
        ConnectionChange::PauseMirror => {
            format!(
                "{label}: the copy rests where it is; changes go on. `standin mirror resume` lets it go on."
            )
        }
        ConnectionChange::ResumeMirror { rate } => format!("{label}: the copy goes on{}.", at(rate)),
        ConnectionChange::Add { .. }
        | ConnectionChange::Start
        | ConnectionChange::Stop
        | ConnectionChange::StopReplication
        | ConnectionChange::StartReplication
        | ConnectionChange::Pause
        | ConnectionChange::Resume
        | ConnectionChange::AcceptDeletes
        | ConnectionChange::Disconnect
        | ConnectionChange::Schedule { .. }
        | ConnectionChange::Limit { .. }
        | ConnectionChange::Compression { .. } => String::new(),
    }
}

fn list(common: &Common, set: Option<&Path>) -> Outcome {
    let status = find_role(common, set, RoleName::Source)?.status;
    let (name, connections) = (&status.name, status.connections());
    if common.json {
        let of = |connection: &ConnectionStatus| {
            let ConnectionStatus {
                id,
                uuid,
                target,
                unheard,
                data,
                data_reason,
                mirror,
                progress,
                aside,
                left_out,
                orphans,
                ..
            } = connection;
            json!({
                "id": id, "uuid": uuid, "target": target, "unheard": unheard, "data": data,
                "data_reason": data_reason,
                "mirror": mirror, "progress": progress, "aside": aside, "left_out": left_out,
                "orphans": orphans,
            })
        };
        let connections: Vec<_> = connections.iter().map(of).collect();
        output::json(&json!({ "name": name, "connections": connections }));
    } else if connections.is_empty() {
        output::text(&format!("{name} has no connection: nothing is replicated."));
    } else {
        output::text(&connections.iter().map(lines).collect::<String>());
    }
    Ok(0)
}

/// One connection: its copy, and what the target lacks.
fn lines(connection: &ConnectionStatus) -> String {
    let ConnectionStatus { id, target, mirror, progress, aside, left_out, orphans, .. } = connection;
    let mut text =
        format!("{id}  {target}  {}, replica {}\n", mirror_words(mirror), replica_word(connection));
    if let Some(progress) = progress {
        let _ = writeln!(text, "   {}", progress_words(progress));
    }
    if let Some(OrphanCounts { moved, kept, deleted, spared }) = orphans
        && moved + kept + deleted > 0
    {
        let _ = writeln!(text, "   only on the target: {moved} moved aside, {kept} kept, {deleted} deleted");
        if *spared > 0 {
            let _ = writeln!(
                text,
                "   {spared} of them were to be deleted: too many (--delete-guard), or the set has rules"
            );
        }
    }
    for object in &aside.objects {
        let _ = writeln!(text, "   set aside  {}: {}: {}", object.path, object.op, object.reason);
    }
    for object in &left_out.objects {
        let _ = writeln!(text, "   left out   {object}");
    }
    let more = |total: u64, shown: usize| total.saturating_sub(shown as u64);
    let unnamed = more(aside.total, aside.objects.len()) + more(left_out.count, left_out.objects.len());
    if unnamed > 0 {
        let _ = writeln!(text, "   and {unnamed} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::sample_connection;
    use crate::control::{AsideStatus, LeftOutStatus, SetAside};

    #[test]
    fn what_is_not_in_line_is_listed_with_its_reason() {
        let object =
            SetAside { path: "a/b".into(), op: "write".into(), reason: "I/O error".into(), since_unix_ms: 0 };
        let connection = ConnectionStatus {
            aside: AsideStatus { total: 3, objects: vec![object] },
            left_out: LeftOutStatus { count: 1, objects: vec!["c: cannot be read".into()] },
            ..sample_connection()
        };
        let text = lines(&connection);
        for part in ["set aside  a/b: write: I/O error", "left out   c: cannot be read", "and 2 more"] {
            assert!(text.contains(part), "no '{part}' in {text}");
        }
    }
}
