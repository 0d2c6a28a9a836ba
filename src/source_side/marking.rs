//! `standin marker`: a barrier with a name in the stream, and waiting for what targets do about it.

use std::time::{Duration, Instant};

use super::board::Posted;
use super::commands;
use super::connection::{MarkerHeard, Report};
use super::desk::Desk;
use super::director::{Event, Question};
use super::sync;
use crate::control::{Caller, MarkedTarget, MarkerReport, MarkerRequest, MarkerWait, Phase, ask};
use crate::failure::Failure;
use crate::limits::CONTROL_ANSWER;
use crate::packet::{MarkerEnd, MarkerName, Sequence};

const UNTOUCHED: &str = "No marker was made.";

/// See the module. What was done before the call is before the marker, shared mappings included.
///
/// Errors: there is no marker, and why.
pub fn mark(desk: &Desk, request: &MarkerRequest, caller: &Caller<'_>) -> Result<MarkerReport, Failure> {
    let name = MarkerName::new(&request.name).ok_or_else(|| {
        Failure::new(
            format!("'{}' cannot name a marker.", request.name),
            UNTOUCHED,
            "Choose at most 64 letters, digits and any of - _ . @ +, not starting with a dot.",
        )
    })?;
    let since = Instant::now();
    let deadline = request.timeout_ms.map(|timeout| since + Duration::from_millis(timeout));
    let posted = desk.board.read();
    refuse(&posted)?;
    let patience = deadline.map_or(CONTROL_ANSWER, |deadline| deadline.saturating_duration_since(since));
    if !sync::flush_mapped(&posted, Some(since + patience.min(CONTROL_ANSWER)), || caller.is_gone())? {
        return Err(Failure::new(
            "Writes through shared mappings were not brought into the queue in time: they might come behind a marker.",
            UNTOUCHED,
            "Try again.",
        ));
    }
    let question = |answer| Event::Asked(Question::Barrier { durable: true, name: Some(name), answer });
    let upto = ask(&desk.director, CONTROL_ANSWER, question)?.within(CONTROL_ANSWER)??;
    if request.wait == MarkerWait::Executed {
        wait(&posted, upto.barrier, deadline, caller);
    }
    Ok(report(desk, &posted, request, upto.barrier, since))
}

fn refuse(posted: &Posted) -> Result<(), Failure> {
    if posted.phase != Phase::Serving {
        return Err(Failure::new(
            "The daemon does not serve at this moment.",
            UNTOUCHED,
            "Wait until `standin status` says that it serves.",
        ));
    }
    match posted.connections.iter().all(|connection| connection.is_null()) {
        true => Err(Failure::new("No target would see it.", UNTOUCHED, "See `standin connection list`.")),
        false => Ok(()),
    }
}

/// Not for what only a person brings about.
fn wait(posted: &Posted, marker: Sequence, deadline: Option<Instant>, caller: &Caller<'_>) {
    for connection in posted.connections.iter().filter(|connection| !connection.is_null()) {
        let settled = |report: &Report| {
            heard(report, marker).is_some() || report.applied >= marker || report.held_back().is_some()
        };
        loop {
            let slice = Instant::now() + sync::CALLER_POLL;
            let report = connection.wait(deadline.map_or(slice, |deadline| deadline.min(slice)), settled);
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if settled(&report) || is_over || caller.is_gone() {
                break;
            }
        }
    }
}

fn heard(report: &Report, marker: Sequence) -> Option<&MarkerHeard> {
    report.markers.iter().rev().find(|heard| heard.sequence == marker)
}

fn report(
    desk: &Desk,
    posted: &Posted,
    request: &MarkerRequest,
    marker: Sequence,
    since: Instant,
) -> MarkerReport {
    let with_replica = posted.connections.iter().filter(|connection| !connection.is_null());
    let targets: Vec<MarkedTarget> = with_replica
        .map(|connection| {
            let report = connection.report();
            let (end, text) = match heard(&report, marker) {
                Some(heard) => (Some(heard.end), heard.text.clone()),
                None if report.applied >= marker => {
                    let why = "it has passed it, and it is not known what was run for it: a copy, or another \
                               connection, came between";
                    (None, why.to_owned())
                }
                None if report.held_back().is_some() => (None, commands::way_on(connection.id, &report)),
                None if let Some(retrying) = &report.retrying => {
                    (None, format!("held: {} ({})", retrying.op, retrying.reason))
                }
                None if !report.streaming => (None, report.reason.clone()),
                None => (None, format!("packets {} to {marker}", report.applied.next())),
            };
            MarkedTarget { connection: connection.id, target: connection.target.to_string(), end, text }
        })
        .collect();
    let is_well = |target: &MarkedTarget| matches!(target.end, Some(MarkerEnd::Done | MarkerEnd::NoCommand));
    MarkerReport {
        name: request.name.clone(),
        set: desk.ground.options.name.clone(),
        position: marker,
        complete: request.wait == MarkerWait::Queued || targets.iter().all(is_well),
        waited_ms: since.elapsed().as_millis() as u64,
        targets,
    }
}
