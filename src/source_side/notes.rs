//! Until when each target had everything, so that after a crash only what changed later has to be
//! copied again.
//!
//! A note says nothing of the source's own disk: it counts only where the page cache that it speaks
//! of is proved to have survived (see [`super::mark`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::connection::Connection;
use super::ground::Ground;
use super::mark::{Mark, Reached};
use super::sync::has;
use crate::control::WaitFor;
use crate::map::Map;
use crate::packet::{Incarnation, Sequence};

/// What was noted, and what is to be noted next.
#[derive(Default)]
pub struct SyncNotes {
    /// A moment, until every change that may have begun before it is in the queue.
    moment: Option<Mark>,
    /// Per connection, by its number.
    notes: BTreeMap<u32, SyncNote>,
}

#[derive(Clone, Default)]
struct SyncNote {
    noted: Sequence,
    /// Once everything up to here is durable, the target had everything as of this moment.
    asked: Option<(Sequence, Mark)>,
}

impl SyncNotes {
    /// Gives what has come true, by target, and asks anew. Called now and then; never waits.
    pub fn look(&mut self, ground: &Ground, connections: &[Arc<Connection>]) -> Vec<(String, Mark)> {
        let run = ground.queue.last().incarnation;
        let came_true = connections.iter().filter_map(|connection| {
            let note = self.notes.entry(connection.id).or_default();
            let (upto, mark) = note.asked.take()?;
            if !has(&connection.report(), upto, WaitFor::Durable) {
                note.asked = Some((upto, mark));
                return None;
            }
            note.noted = upto;
            Some((connection.target.to_string(), mark.reached(Reached { run, sequence: upto })))
        });
        let came_true = came_true.collect();
        self.ask(ground, connections);
        came_true
    }

    /// Takes a moment, and once no change is under way that began before it, the last position as
    /// what belongs to it: a change gets its time before its place in the queue.
    fn ask(&mut self, ground: &Ground, connections: &[Arc<Connection>]) {
        if let Some(mark) = self.moment.take() {
            if !ground.volume.earlier_changes_are_over() {
                self.moment = Some(mark);
                return;
            }
            let last = ground.queue.last().sequence;
            if let Some(map) = ground.volume.map() {
                map.begins_at(last);
            }
            for note in self.notes.values_mut().filter(|note| note.asked.is_none() && last > note.noted) {
                note.asked = Some((last, mark.clone()));
            }
        }
        rotate(ground, connections);
        let mark = Mark::now();
        if ground.volume.tell_changes_apart() {
            self.moment = Some(mark);
        }
    }
}

/// A generation of the map that begins gets its position with the moment that is taken next.
fn rotate(ground: &Ground, connections: &[Arc<Connection>]) {
    let Some(map) = ground.volume.map() else { return };
    let mut bases: Vec<Sequence> =
        connections.iter().filter_map(|connection| connection.report().base).collect();
    if map.memory().is_some() {
        let targets = connections.iter().filter(|connection| !connection.is_null());
        let reached = targets.filter_map(|one| ground.joining.marks.reached(&one.target.to_string()));
        bases.extend(kept_bases(map, ground.queue.last().incarnation, reached));
    }
    map.move_on(&bases, ground.queue.last().sequence);
}

/// From where on the next daemon will want what this one, of this run, marks: from what is noted of targets, which may be
/// less than what is known. Where nobody needs the marks of daemons before any more, they go.
pub(crate) fn kept_bases(
    map: &Map,
    run: Incarnation,
    reached: impl Iterator<Item = Reached>,
) -> Vec<Sequence> {
    let is_own = |reached: &Reached| reached.run == run && reached.sequence >= map.began_at();
    let (own, before): (Vec<_>, Vec<_>) = reached.partition(is_own);
    let mut bases: Vec<Sequence> = own.into_iter().map(|reached| reached.sequence).collect();
    match before.is_empty() {
        true => map.forget_left(),
        // Beside what daemons before have marked, all of this one.
        false => bases.push(map.began_at()),
    }
    bases
}
