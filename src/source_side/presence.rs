//! `standin file`: whether files are on the targets as they are now.
//!
//! ```text
//!  shared mappings flushed ── look at the path ── barrier P ── a moment for targets to answer ── judge each
//! ```
//! What was done to a file before the question has a position before P, whatever else is written meanwhile; who
//! has everything up to P has it. Nothing finer is sound without the locks of the volume: a name may change
//! hands between a look at it and the look into the queue.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::board::Posted;
use super::commands;
use super::connection::{Connection, Report};
use super::desk::Desk;
use super::ground::Ground;
use super::part::{self, Looked};
use super::sync::{self, Uncompared, Upto};
use crate::control::{
    Amount, AsideStatus, Caller, ConnectionState, FileKind, FileOnTarget, FileReport, FileState,
    FilesRequest, Retrying, Verdict, WaitFor, unix_ms,
};
use crate::failure::Failure;
use crate::limits::{CONTROL_ANSWER, FILES_ASKED_MAX};
use crate::packet::{DataState, LeftOut};

/// See the module. In the order of the question.
///
/// Errors: nothing can be said at all, and why.
pub fn files(desk: &Desk, request: &FilesRequest, caller: &Caller<'_>) -> Result<Vec<FileReport>, Failure> {
    if request.paths.len() > FILES_ASKED_MAX {
        return Err(Failure::new(
            format!("{} files are more than can be asked about at once.", request.paths.len()),
            part::UNTOUCHED,
            format!("Ask about {FILES_ASKED_MAX} at a time, or about a directory."),
        ));
    }
    let posted = desk.board.read();
    if posted.connections.is_empty() {
        return Err(commands::none_left());
    }
    let wait_for = if request.durable { WaitFor::Durable } else { WaitFor::Applied };
    let deadline = request.timeout_ms.map(|timeout| Instant::now() + Duration::from_millis(timeout));
    let is_flushed = sync::flush_mapped(&posted, deadline, || caller.is_gone())?;
    let looks: Vec<(&Path, Looked)> =
        request.paths.iter().map(|path| (path.0.as_path(), part::look(&desk.ground, &path.0))).collect();
    let upto = sync::barrier(&desk.ground, &desk.director, wait_for, CONTROL_ANSWER)?;
    if is_flushed && looks.iter().any(|(_, looked)| looked.is_of_the_set()) {
        let places = (&*desk.ground, &*desk.board);
        sync::wait_for(places, upto, (wait_for, false), deadline, || caller.is_gone());
    }
    let posted = desk.board.read();
    let asked = Asked { upto, wait_for, is_flushed };
    Ok(looks.into_iter().map(|(path, looked)| report(&desk.ground, &posted, asked, path, looked)).collect())
}

#[derive(Clone, Copy)]
struct Asked {
    upto: Upto,
    wait_for: WaitFor,
    is_flushed: bool,
}

fn report(ground: &Ground, posted: &Posted, asked: Asked, path: &Path, looked: Looked) -> FileReport {
    let shown = |below: &Path| ground.options.directory.join(below);
    let (kind, path, changed_unix_ms, mut note) = match &looked {
        Looked::Outside(failure) => (FileKind::Unknown, path.to_owned(), None, failure.what.clone()),
        Looked::Unseen { below, why } => (FileKind::Unknown, shown(below), None, why.clone()),
        Looked::Excluded { below } => (FileKind::LeftOut, shown(below), None, String::new()),
        Looked::Gone { below } => (FileKind::Gone, shown(below), None, gone(ground)),
        Looked::There { below, kind, changed } => {
            (*kind, shown(below), Some(unix_ms(*changed)), String::new())
        }
    };
    let with_replica = posted.connections.iter().filter(|connection| !connection.is_null());
    let targets: Vec<FileOnTarget> = match looked.below() {
        None => Vec::new(),
        Some(below) => with_replica
            .map(|connection| on_target(ground, posted, asked, connection, (below, looked.is_of_the_set())))
            .collect(),
    };
    if targets.is_empty() && looked.below().is_some() {
        note = "no connection has a replica: changes are counted, and sent to nobody".into();
    }
    let verdict = targets.iter().map(|target| target.verdict).max().unwrap_or(Verdict::Unknown);
    FileReport {
        path,
        set: ground.options.name.clone(),
        kind,
        verdict,
        as_of: Some(asked.upto.barrier),
        as_of_unix_ms: unix_ms(SystemTime::now()),
        changed_unix_ms,
        note,
        targets,
    }
}

fn gone(ground: &Ground) -> String {
    match ground.volume.keeping() {
        None => String::new(),
        Some(_) => "what is deleted here is kept on the targets, as the set says".into(),
    }
}

fn on_target(
    ground: &Ground,
    posted: &Posted,
    asked: Asked,
    connection: &Connection,
    (below, is_of_the_set): (&Path, bool),
) -> FileOnTarget {
    let report = connection.report();
    let last = asked.upto.of(&report);
    let (state, why) = match () {
        () if !is_of_the_set => (FileState::Excluded, "the rules of the set leave it out".to_owned()),
        () if let Some(lost) = &posted.mount_lost => (FileState::Unprotected, lost.clone()),
        () if !asked.is_flushed => {
            let why = "writes through shared mappings were not brought into the queue in time";
            (FileState::Unflushed, why.to_owned())
        }
        () => judge(&Facts {
            applied: sync::has(&report, last, WaitFor::Applied),
            durable: sync::has(&report, last, WaitFor::Durable),
            lacks: sync::lacks_comparison(&report, ground),
            aside: &report.aside,
            left_out: &report.left_out,
            retrying: report.retrying.as_ref(),
            held_back: report.held_back().map(|_| commands::way_on(connection.id, &report)),
            is_away: report.state == ConnectionState::Error,
            is_in_line: report.streaming && report.needs_copy.is_none(),
            data: report.data,
            data_reason: &report.data_reason,
            reason: &report.reason,
            below,
        }),
    };
    let (lacks, oldest) = behind(ground, &report, asked);
    let since_unix_ms = match state {
        FileState::Away | FileState::HeldBack => Some(unix_ms(report.since)),
        FileState::Behind | FileState::Retrying => oldest,
        FileState::SetAside => named(&report.aside, below).map(|aside| aside.since_unix_ms),
        _ => None,
    };
    let why = match (state, lacks) {
        (FileState::Behind, Some(Amount { packets, bytes })) => {
            format!("{packets} packets ({}) before it", crate::units::size(bytes))
        }
        _ => why,
    };
    FileOnTarget {
        connection: Some(connection.id),
        target: connection.target.to_string(),
        state,
        verdict: state.verdict(asked.wait_for == WaitFor::Durable),
        applied: report.applied,
        durable: report.durable,
        lacks,
        since_unix_ms,
        why,
    }
}

/// What the target lacks of what was asked for, and since when.
fn behind(ground: &Ground, report: &Report, asked: Asked) -> (Option<Amount>, Option<u64>) {
    let queue = &ground.queue;
    let last = asked.upto.of(report);
    if report.needs_copy.is_some() || report.applied >= last {
        return (report.needs_copy.is_none().then(Amount::default), None);
    }
    // What came after the question is not waited for.
    let (Some(all), Some(later)) = (queue.behind(report.applied), queue.behind(last)) else {
        return (None, None);
    };
    let lacks = Amount {
        packets: all.packets.saturating_sub(later.packets),
        bytes: all.bytes.saturating_sub(later.bytes),
    };
    let since = all.since.map(|since| unix_ms(SystemTime::now() - since.elapsed()));
    (Some(lacks), since)
}

/// What is known of a target, and of a file that the set has.
struct Facts<'a> {
    /// It has everything up to the position that was asked for.
    applied: bool,
    durable: bool,
    lacks: Option<Uncompared>,
    aside: &'a AsideStatus,
    left_out: &'a LeftOut,
    retrying: Option<&'a Retrying>,
    /// With what a person can do.
    held_back: Option<String>,
    is_away: bool,
    /// Packets flow, or would.
    is_in_line: bool,
    data: DataState,
    data_reason: &'a str,
    reason: &'a str,
    /// The directory itself: empty.
    below: &'a Path,
}

/// Pure. The first that holds: what nobody knows goes before what seems to be there.
fn judge(facts: &Facts<'_>) -> (FileState, String) {
    let Facts { lacks, aside, left_out, retrying, held_back, .. } = facts;
    if let Some(Uncompared { why, is_awaited }) = lacks {
        return match (is_awaited, held_back) {
            (false, _) => (FileState::Unprotected, format!("a change that could not be captured ({why})")),
            (true, Some(held)) => (FileState::HeldBack, held.clone()),
            (true, None) if facts.is_away => (FileState::Away, facts.reason.to_owned()),
            (true, None) => (FileState::Resynchronising, format!("a copy: {why}")),
        };
    }
    match () {
        () if facts.durable => (FileState::Durable, last_word(facts)),
        () if facts.applied => (FileState::Applied, last_word(facts)),
        () if let Some(held) = held_back => (FileState::HeldBack, held.clone()),
        () if facts.is_away => (FileState::Away, facts.reason.to_owned()),
        () if !facts.is_in_line => (FileState::Resynchronising, facts.reason.to_owned()),
        () if let Some(aside) = named(aside, facts.below) => {
            (FileState::SetAside, format!("{} could not be performed: {}", aside.op, aside.reason))
        }
        () if let Some(line) = named_left_out(left_out, facts.below) => (FileState::LeftOut, line),
        () if facts.data != DataState::Good => (FileState::Doubtful, doubt(facts)),
        () if let Some(retrying) = retrying => {
            (FileState::Retrying, format!("the target retries: {} ({})", retrying.op, retrying.reason))
        }
        () => (FileState::Behind, "it is being sent".into()),
    }
}

/// Nobody asks a target again that is sent nothing.
fn last_word(facts: &Facts<'_>) -> String {
    facts.held_back.as_ref().map_or_else(String::new, |held| format!("as it said last; {held}"))
}

/// A bad replica is as its source but for some objects, and a list of them has paths as they were, one for each:
/// a file that is not on it may be there by another name.
fn doubt(facts: &Facts<'_>) -> String {
    let why = if facts.data_reason.is_empty() { facts.reason } else { facts.data_reason };
    format!("the replica is no consistent copy ({why}), and it is not known whether for this")
}

/// The object that was set aside at this path, or below it.
fn named<'a>(aside: &'a AsideStatus, below: &Path) -> Option<&'a crate::control::SetAside> {
    aside.objects.iter().find(|object| Path::new(&object.path).starts_with(below))
}

fn named_left_out(left_out: &LeftOut, below: &Path) -> Option<String> {
    let is_it = |line: &String| {
        let path = line.split_once(": ").map(|(path, _)| Path::new(path));
        path.is_some_and(|path| path.starts_with(below))
    };
    left_out.lines().into_iter().find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::SetAside;
    use crate::packet::Text;

    fn facts<'a>(aside: &'a AsideStatus, left_out: &'a LeftOut) -> Facts<'a> {
        Facts {
            applied: false,
            durable: false,
            lacks: None,
            aside,
            left_out,
            retrying: None,
            held_back: None,
            is_away: false,
            is_in_line: true,
            data: DataState::Good,
            data_reason: "",
            reason: "why",
            below: Path::new("dir/file"),
        }
    }

    /// What is known, and what is said of it.
    #[test]
    fn a_file_is_judged_by_what_is_known() {
        use FileState as S;
        let object = |path: &str| SetAside {
            path: path.into(),
            op: "write".into(),
            reason: "no room".into(),
            since_unix_ms: 5,
        };
        let this = AsideStatus { total: 1, objects: vec![object("dir/file")] };
        let other = AsideStatus { total: 1, objects: vec![object("dir/file2")] };
        let (none, nothing) = (AsideStatus::default(), LeftOut::default());
        let retrying = Retrying {
            op: "write".into(),
            reason: "no room".into(),
            since_unix_ms: 5,
            attempts: 3,
            marker: false,
        };
        let mut left = LeftOut::default();
        left.add("dir/file: the source cannot read it: EIO");
        assert_eq!(left.named, [Text::from_str_cut("dir/file: the source cannot read it: EIO")]);
        let lacks = |is_awaited| Some(Uncompared { why: "a mount was taken away".into(), is_awaited });
        let (bad, held) = (DataState::Bad, || Some("it is paused".to_owned()));
        let dir = Path::new("dir");
        let root = Path::new("");
        let table = [
            (S::Behind, facts(&none, &nothing)),
            (S::Applied, Facts { applied: true, ..facts(&none, &nothing) }),
            (S::Durable, Facts { applied: true, durable: true, ..facts(&none, &nothing) }),
            (
                S::Unprotected,
                Facts { applied: true, durable: true, lacks: lacks(false), ..facts(&none, &nothing) },
            ),
            (S::Resynchronising, Facts { applied: true, lacks: lacks(true), ..facts(&none, &nothing) }),
            (S::HeldBack, Facts { lacks: lacks(true), held_back: held(), ..facts(&none, &nothing) }),
            (S::Away, Facts { lacks: lacks(true), is_away: true, ..facts(&none, &nothing) }),
            (S::Resynchronising, Facts { is_in_line: false, data: bad, ..facts(&none, &nothing) }),
            (S::Away, Facts { is_away: true, is_in_line: false, ..facts(&none, &nothing) }),
            (S::Durable, Facts { durable: true, held_back: held(), ..facts(&none, &nothing) }),
            (S::HeldBack, Facts { held_back: held(), ..facts(&none, &nothing) }),
            (S::Retrying, Facts { retrying: Some(&retrying), ..facts(&none, &nothing) }),
            (S::SetAside, Facts { data: bad, ..facts(&this, &nothing) }),
            (S::SetAside, Facts { data: bad, below: dir, ..facts(&this, &nothing) }),
            (S::SetAside, Facts { data: bad, below: root, ..facts(&this, &nothing) }),
            (S::Doubtful, Facts { data: bad, ..facts(&other, &nothing) }),
            (S::SetAside, Facts { data: bad, below: dir, ..facts(&other, &nothing) }),
            (S::LeftOut, Facts { data: bad, ..facts(&none, &left) }),
            (S::LeftOut, Facts { data: bad, below: root, ..facts(&none, &left) }),
            (S::Doubtful, Facts { data: bad, below: Path::new("other"), ..facts(&none, &left) }),
        ];
        for (at, (expected, facts)) in table.into_iter().enumerate() {
            let (state, why) = judge(&facts);
            assert_eq!(state, expected, "row {at}: {why}");
            let needs_none = matches!(state, S::Applied | S::Durable) && facts.held_back.is_none();
            assert_eq!(why.is_empty(), needs_none, "row {at}: {why}");
        }
    }
}
