//! What targets would lack when a daemon becomes another program at this moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::source_side::backlog::Leaves;
use crate::source_side::board::{Board, Posted};
use crate::source_side::connection::Connection;
use crate::source_side::ground::Ground;
use crate::source_side::record::SetRecord;
use crate::source_side::rounds::is_compared;
use crate::source_side::rules;
use crate::source_side::sync::CALLER_POLL;

/// For what is noted as soon as all targets have been compared, or with the round that follows.
const NOTED_WITHIN: Duration = Duration::from_secs(6);

/// Waits for what targets were seen to have to be noted, which takes a moment.
pub fn await_notes(ground: &Ground, board: &Board) {
    let deadline = Instant::now() + NOTED_WITHIN;
    let is_noted = || {
        let divergence = ground.volume.divergence();
        let count = divergence.why().map(|_| divergence.count());
        if divergence.lost_by_disk().is_some() {
            return true;
        }
        let waits = count.is_some() || rules::are_in_doubt(&ground.options);
        let connections = &board.read().connections;
        !waits || !connections.iter().all(|connection| is_compared(connection, count.unwrap_or(0)))
    };
    while !is_noted() && Instant::now() < deadline {
        std::thread::sleep(CALLER_POLL);
    }
}

/// In words; empty where nothing is.
pub fn lacks(ground: &Ground, posted: &Posted) -> Vec<String> {
    let whole =
        ground.volume.divergence().why().map(|why| format!("all targets: {why}, and a copy is needed"));
    let each = posted.connections.iter().filter_map(|connection| {
        Some(format!("{} ({}) {}", connection.id, connection.target, lack_of(connection)?))
    });
    whole.into_iter().chain(each).collect()
}

/// Those that follow the stream, and have everything as soon as that has come.
pub fn followers(connections: &[Arc<Connection>]) -> Vec<Arc<Connection>> {
    let all = connections.iter().filter(|connection| !connection.is_null());
    all.filter(|connection| lack_of(connection).is_none()).cloned().collect()
}

fn lack_of(connection: &Connection) -> Option<String> {
    if connection.is_null() {
        return None;
    }
    let report = connection.report();
    match report.held_back() {
        Some(why) => Some(format!("lacks something: {why}")),
        None if matches!(report.leaves, Leaves::Older(_)) => {
            Some("is still sent what was queued before the last stop".into())
        }
        None if !report.streaming => Some(format!("is away, or being copied to: {}", report.reason)),
        None if !report.standing().in_line => {
            Some(format!("is no complete copy yet: {}", report.data_reason))
        }
        None if report.kept.mirror.is_some() => Some("is being compared for a mirror by hand".into()),
        None if report.retrying.is_some() => Some("retries what it cannot perform".into()),
        None => None,
    }
}

/// Whether what counts as one run may go on as one: there is nothing that only the start of another run looks for.
pub fn goes_on(ground: &Ground, connections: &[Arc<Connection>], record: &SetRecord) -> bool {
    let divergence = ground.volume.divergence();
    let is_doubted = divergence.why().is_some() || divergence.touched().is_some();
    let is_written_elsewhere = ground.volume.fence().raised().is_some() || ground.roles.other().is_some();
    let SetRecord { diverged, merging, touched, restored_from, .. } = record;
    // What was left of an earlier run was looked at as a whole since.
    let is_traced = *touched && !connections.iter().all(|connection| is_compared(connection, 0));
    !(is_doubted
        || is_traced
        || is_written_elsewhere
        || diverged.is_some()
        || merging.is_some()
        || restored_from.is_some())
}
