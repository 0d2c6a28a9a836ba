//! What a stand-in would meet. Nothing is changed, and the replica is not opened.

use std::fs::File;
use std::io;

use super::super::record::{self, SetRecord, StateError};
use super::super::remote::not_paired;
use super::super::startup::io_failure;
use super::{Taken, bad, find_state, in_use, lost_writes, never_came, other_set};
use crate::apply::{resting, stood_in_of};
use crate::failure::Failure;
use crate::packet::{DataState, Epoch, History, Incarnation, SetId};
use crate::pairing::Known;
use crate::store;
use crate::target_side::{OtherWriter, history_of, is_wanted, known_age, note_other, runs_of};
use crate::words::{BadData, ProtectOptions, Target};

/// What is seen of a replica, and everything for which a stand-in with it would be refused.
pub struct Foreseen {
    pub refusals: Vec<Failure>,
    pub seen: Seen,
    pub would: WouldWrite,
}

/// What would be said to targets.
#[derive(Clone, Debug)]
pub struct WouldWrite {
    pub set: SetId,
    pub history: History,
    pub runs: Vec<Incarnation>,
    /// This host has stood in before: nothing is raised.
    pub goes_on: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub data: DataState,
    /// As of its last durable point.
    pub taken: Taken,
    /// Which would be raised.
    pub epoch: u32,
    /// It would be gone on with an earlier stand-in, and nothing be raised.
    pub goes_on: bool,
}

/// A look has met somebody at `met` who has stood in for the same source as this host: `standin roles` shows it, and
/// a person may decide.
pub fn note_split_brain(options: &ProtectOptions, history: &History, met: &str) {
    match find_state(options) {
        Ok(state) => note_other(&state, &OtherWriter::now(history.clone(), met.to_owned())),
        Err(failure) => log::warn!("it cannot be noted that somebody else writes the set: {}", failure.what),
    }
}

/// Errors: it is no replica that this host knows, or cannot be read.
pub fn foresee(options: &ProtectOptions) -> Result<Foreseen, Failure> {
    let state = find_state(options)?;
    let unreadable = |error: &io::Error| {
        io_failure(&format!("the state of the replica {} cannot be read", options.tree().display()), error)
    };
    let resting = resting(&state)
        .map_err(|error| unreadable(&error))?
        .ok_or_else(|| unreadable(&io::Error::other("nothing was ever noted there")))?;
    let root = File::open(options.tree()).map_err(|error| unreadable(&error))?;
    let fence = stood_in_of(&root, &state).map_err(|error| unreadable(&error))?.map(|(_, fence)| fence);
    let history = history_of(&state, fence).map_err(|error| unreadable(&error))?;
    let runs = runs_of(&state).map_err(|error| unreadable(&error))?;
    let known = record::Known { set: resting.set, fence, applied: resting.durable, history, runs };
    let record = options.set_state().join("set.json");
    let record: Option<SetRecord> = store::read_json(&record).map_err(|error| unreadable(&error))?;
    let own = record.as_ref().filter(|record| record.set == known.set);

    let mut refusals = Vec::new();
    if is_wanted(&state) {
        refusals.push(in_use(options));
    }
    if let Some(other) = record.as_ref().filter(|record| record.set != known.set) {
        refusals.push(other_set(options, &StateError::OtherTree(other.tree.clone())));
    }
    let accepts = options.stand_in == Some(BadData::Accept);
    let goes_on = own.is_some_and(|own| own.goes_on_standing_in(&known));
    if let Some(epoch) = own.and_then(|own| own.written_elsewhere(&known)).filter(|_| !accepts) {
        refusals.push(never_came(options, epoch));
    }
    if !goes_on {
        refusals.extend(lost_writes::refuse(options, &state).err());
    }
    match resting.data {
        _ if goes_on => {}
        DataState::Empty => refusals.push(bad(options, "nothing was ever copied there")),
        DataState::Bad if !accepts => {
            refusals.push(bad(options, resting.reason.as_deref().unwrap_or("its copy has not ended")));
        }
        DataState::Good | DataState::Bad => {}
    }
    for target in options.targets.iter().filter(|target| matches!(target, Target::Remote { .. })) {
        let known = Known::in_state(&options.state).get(&target.to_string());
        if known.map_err(|error| io_failure("the record of paired targets cannot be read", &error))?.is_none()
        {
            refusals.push(not_paired(target));
        }
    }
    let highest = own.map_or_else(
        || known.applied.epoch.number.max(fence.map_or(0, |fence| fence.number)).max(1),
        |own| own.highest_epoch(&known),
    );
    let age = known_age(&state, resting.data, &resting.durable, &resting.durable);
    let taken = Taken { applied: resting.durable, age };
    let seen = Seen { data: resting.data, taken, epoch: highest.saturating_add(1), goes_on };
    let (mut history, mut runs) = (known.history, known.runs);
    match own.filter(|_| goes_on) {
        Some(own) => {
            history = own.history();
            // What is written here since.
            let new: Vec<_> = own.runs.iter().filter(|run| !runs.contains(run)).copied().collect();
            runs.extend(new);
        }
        None => history.raise(Epoch { number: seen.epoch, writer: 0 }, 0, known.applied),
    }
    let would = WouldWrite { set: known.set, history, runs, goes_on };
    Ok(Foreseen { refusals, seen, would })
}
