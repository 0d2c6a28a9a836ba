//! `standin resync estimate`: what a resynchronisation of each target would take.

use std::os::fd::AsFd;
use std::time::Instant;

use super::commands;
use super::connection::{Connection, Foreseen, Report};
use super::desk::Desk;
use super::ground::Ground;
use crate::control::{Bounds, Caller, ResyncForeseen, ResyncReport, Rung};
use crate::failure::Failure;
use crate::limits::{CONTROL_ANSWER, WEIGHED_MAX};
use crate::resync::Weight;

/// Asks every connection, and weighs what they owe for a bounded time.
pub fn foresee(desk: &Desk, caller: &Caller<'_>) -> Result<ResyncReport, Failure> {
    let connections = desk.board.read().connections.clone();
    if connections.is_empty() {
        return Err(commands::none_left());
    }
    let last = desk.ground.queue.last();
    let until = Instant::now() + WEIGHED_MAX;
    let is_wanted = || Instant::now() < until && !caller.is_gone();
    let of = |connection: &Connection| {
        let foreseen = match connection.is_null() {
            true => Foreseen::none("it captures and sends nothing"),
            false => connection
                .foresee()
                .recv_timeout(CONTROL_ANSWER)
                .unwrap_or_else(|_| Foreseen::none("its connection gives no answer")),
        };
        shown(connection, foreseen, &desk.ground, &is_wanted)
    };
    Ok(ResyncReport {
        name: desk.ground.options.name.clone(),
        history: format!("{}.{:016x}", last.epoch.number, last.incarnation.0),
        last: last.sequence,
        connections: connections.iter().map(|connection| of(connection)).collect(),
    })
}

fn shown(
    connection: &Connection,
    foreseen: Foreseen,
    ground: &Ground,
    is_wanted: &dyn Fn() -> bool,
) -> ResyncForeseen {
    let report = connection.report();
    let Amounts { packets, objects, bytes } = amounts(&foreseen, &report, ground, is_wanted);
    let size = report.progress.as_ref().map(|progress| progress.snapshot());
    // Of a copy of everything, that has counted to the end.
    let is_whole = !report.is_minicopy && report.part.is_none();
    let size = size.filter(|size| size.is_counted && is_whole).and_then(|size| size.size);
    ResyncForeseen {
        id: connection.id,
        uuid: connection.uuid.clone(),
        target: connection.target.to_string(),
        state: report.state,
        waits_for: waits_for(connection.id, &report, foreseen.rung),
        rung: foreseen.rung,
        why: foreseen.why,
        running: foreseen.is_running,
        assumes: foreseen.assumes,
        since: foreseen.since,
        packets,
        objects,
        bytes,
        set_files: size.map(|size| size.files).or(foreseen.names),
        set_bytes: size.map(|size| size.bytes),
        bytes_per_second: None,
        seconds: None,
    }
}

struct Amounts {
    packets: Bounds,
    objects: Bounds,
    bytes: Bounds,
}

fn amounts(foreseen: &Foreseen, report: &Report, ground: &Ground, is_wanted: &dyn Fn() -> bool) -> Amounts {
    let none = Bounds::exactly(0);
    let by_copy = |objects, bytes| Amounts { packets: none, objects, bytes };
    match (foreseen.rung, &foreseen.owed) {
        (None | Some(Rung::Nothing), _) => by_copy(none, none),
        (Some(Rung::Queue), _) => queued(foreseen, ground),
        (Some(_), _) if foreseen.is_running => by_copy(Bounds::UNKNOWN, left(report)),
        (Some(Rung::Owed), Some(owed)) => {
            let Weight { at_least, at_most } = owed.weigh(ground.backing.as_fd(), is_wanted);
            let objects = owed.objects.len() as u64;
            match foreseen.is_searched {
                false => by_copy(Bounds::exactly(objects), Bounds { at_least, at_most }),
                true => by_copy(Bounds::at_least(objects), Bounds::at_least(at_least)),
            }
        }
        (Some(Rung::Owed | Rung::Differences | Rung::Checksum | Rung::Full), _) => {
            by_copy(Bounds::UNKNOWN, Bounds::UNKNOWN)
        }
    }
}

/// A target that is away may have applied more than it could say.
fn queued(foreseen: &Foreseen, ground: &Ground) -> Amounts {
    let behind = foreseen.since.and_then(|since| ground.queue.behind(since));
    let expected = |amount: Option<u64>| match amount {
        Some(amount) if foreseen.assumes.is_empty() => Bounds::exactly(amount),
        Some(amount) => Bounds::upto(amount),
        None => Bounds::UNKNOWN,
    };
    Amounts {
        packets: expected(behind.map(|behind| behind.packets)),
        objects: Bounds::exactly(0),
        bytes: expected(behind.map(|behind| behind.bytes)),
    }
}

/// Of a copy under way.
fn left(report: &Report) -> Bounds {
    let progress = report.progress.as_ref().map(|progress| progress.snapshot());
    let counted = progress.filter(|progress| progress.is_counted && report.part.is_none());
    let left = counted.and_then(|progress| Some(progress.size?.bytes.saturating_sub(progress.bytes_settled)));
    left.map_or(Bounds::UNKNOWN, Bounds::upto)
}

/// What is in the way of it: of what is queued, only what holds packets back.
fn waits_for(id: u32, report: &Report, rung: Option<Rung>) -> String {
    let held = match rung {
        None => None,
        Some(Rung::Nothing | Rung::Queue) => report.stands_still(),
        Some(Rung::Owed | Rung::Differences | Rung::Checksum | Rung::Full) => report.held_back(),
    };
    match (held, &report.retrying) {
        (Some(_), _) => commands::way_on(id, report),
        (None, Some(retrying)) if rung.is_some_and(|rung| rung != Rung::Nothing) => {
            format!("its target tries again and again: {}: {}", retrying.op, retrying.reason)
        }
        (None, _) => String::new(),
    }
}
