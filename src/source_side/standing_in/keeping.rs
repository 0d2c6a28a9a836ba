//! A person names the one of two histories that is kept: it is raised above both, and is in line with the other
//! one's replicas only by a copy.
//!
//! ```text
//!  history beside the replica ── fence of the replica ── record of the set
//!      killed before the fence: nothing has changed       killed before the record: the same command goes on, above
//! ```

use std::io;
use std::path::Path;

use super::super::record::{FencedRecord, SetState, StateError};
use super::super::startup::io_failure;
use super::{find_state, known, raise_fence, take};
use crate::cover::Cover;
use crate::failpoint;
use crate::failure::Failure;
use crate::packet::{DataState, Epoch, History};
use crate::store;
use crate::target_side::{OtherWriter, keep_history, other_writer};
use crate::words::{BadData, ProtectOptions};

const NOTHING_RAISED: &str = "Nothing was raised, and nothing is overwritten.";

/// What was decided.
pub struct KeptHistory {
    pub epoch: Epoch,
    pub over: OtherWriter,
}

/// Raises the epoch of what stands in here above that of the other writer. No daemon of the set runs.
///
/// Errors: nobody else is known to write the set; a daemon runs; nothing can be noted.
pub fn keep(options: &ProtectOptions) -> Result<KeptHistory, Failure> {
    let mut set = SetState::take(&options.set_state()).map_err(|error| not_taken(options, &error))?;
    let state = find_state(options)?;
    let noted = other_writer(&state).map_err(|error| unread(&error))?;
    let own = set.record.history();
    let parts = |other: &OtherWriter| own.kept_out_by(&other.history).is_some();
    let Some(over) = set.record.other_writer.clone().or(noted).filter(parts) else {
        return Err(Failure::new(
            format!("Nobody else is known to write the set '{}'.", options.name),
            NOTHING_RAISED,
            "`standin roles` shows who writes it.",
        ));
    };
    let (_wanted, mut replica) = take(options, &state)?;
    // A copy that was cut off is no history that anybody could go on with.
    let data = replica.data();
    if data.state != DataState::Good && options.stand_in != Some(BadData::Accept) {
        return Err(super::bad(options, &data.reason.unwrap_or_default()));
    }
    let known = known(&replica, &state)?;
    let mut history = known.history.clone();
    history.overrule(&over.history);
    let highest = |history: &History| history.raised().iter().map(|raised| raised.epoch.number).max();
    let number = set.record.highest_epoch(&known).max(highest(&history).unwrap_or(Epoch::FIRST));
    let number = number.checked_add(1).ok_or_else(|| unread(&io::Error::other("no higher epoch is left")))?;
    let epoch = Epoch { number, writer: store::random_u64() };
    history.raise(epoch, super::now_ms(), set.record.end_of(&own, known.applied));
    failpoint::at("keep history").map_err(|error| unread(&error))?;
    keep_history(&state, &history).map_err(|error| unread(&error))?;
    raise_fence(&mut replica, epoch)?;
    set.keep(epoch, history);
    failpoint::at("keep record").map_err(|error| unread(&error))?;
    set.save().map_err(|error| unread(&error))?;
    Ok(KeptHistory { epoch, over })
}

/// A source that has handed its set over knows from now on that somebody else writes it: `set_state` is where
/// the set keeps what it knows. No daemon of it runs.
///
/// Errors: it cannot be noted, or a daemon runs, which hears of it itself.
pub fn note_taken_over(set_state: &Path, epoch: Epoch, told_by: &str) -> Result<(), Failure> {
    let failed = |error: &io::Error| io_failure("that somebody else writes the set cannot be noted", error);
    let mut set = match SetState::take_ended(set_state) {
        Ok(set) => set,
        Err(StateError::Io(error)) => return Err(failed(&error)),
        Err(StateError::InUse | StateError::OtherTree(_) | StateError::NotTheSource(_)) => {
            return Err(failed(&io::Error::other("its daemon runs")));
        }
    };
    if set.record.fenced.is_none() {
        set.record.fenced =
            Some(FencedRecord { epoch, told_by: told_by.to_owned(), since_unix_ms: super::now_ms() });
        set.save().map_err(|error| failed(&error))?;
    }
    Cover::note_taken_over(set_state).map_err(|error| failed(&error))
}

fn unread(error: &io::Error) -> Failure {
    io_failure("the epoch cannot be raised", error)
}

fn not_taken(options: &ProtectOptions, error: &StateError) -> Failure {
    let name = &options.name;
    match error {
        StateError::InUse => Failure::new(
            format!("The daemon of '{name}' runs: its epoch is raised between two runs of it."),
            NOTHING_RAISED,
            format!("Stop it (standin stop {name}), give this command again, and start it again."),
        ),
        StateError::Io(error) => unread(error),
        StateError::OtherTree(_) | StateError::NotTheSource(_) => Failure::new(
            format!("Nothing is known of a set '{name}' that stands in on this host."),
            NOTHING_RAISED,
            "`standin roles` shows the sets of this host.",
        ),
    }
}
