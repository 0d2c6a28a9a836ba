//! What is kept beside a replica of who writes its set: the history of what is in it, and what another source has
//! said of itself that has a history which parts from it, or that has stood in for who serves it here.
//!
//! The fence counts: a history that does not belong to it says nothing.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::control::unix_ms;
use crate::limits::RUNS_KEPT;
use crate::packet::{Epoch, History, Incarnation};
use crate::store;

const HISTORY: &str = "history.json";
const OTHER: &str = "other-writer.json";
const RUNS: &str = "runs.json";

/// Somebody else who writes the set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherWriter {
    pub history: History,
    /// Where it was met: a target as it was typed, or the source that came.
    pub met: String,
    pub since_unix_ms: u64,
}

impl OtherWriter {
    pub fn now(history: History, met: String) -> OtherWriter {
        OtherWriter { history, met, since_unix_ms: unix_ms(SystemTime::now()) }
    }
}

/// `state`: the directory of what is kept of the replica, which has this fence.
pub fn history_of(state: &Path, fence: Option<Epoch>) -> io::Result<History> {
    let Some(fence) = fence else { return Ok(History::default()) };
    let kept = store::read_json::<History>(&state.join(HISTORY))?;
    Ok(kept.map_or_else(|| History::of(fence), |kept| kept.of_epoch(fence)))
}

/// Before the fence is raised; durable when it returns.
pub fn keep_history(state: &Path, history: &History) -> io::Result<()> {
    store::replace_json(&state.join(HISTORY), history)
}

/// The runs of the sources that the last one knew, the oldest first; none where nobody has said.
pub fn runs_of(state: &Path) -> io::Result<Vec<Incarnation>> {
    Ok(store::read_json(&state.join(RUNS))?.unwrap_or_default())
}

/// Without it less can be decided, and nothing is decided wrongly.
pub(super) fn keep_runs(state: &Path, runs: &[Incarnation]) {
    let runs = &runs[runs.len().saturating_sub(RUNS_KEPT)..];
    let kept = match runs_of(state) {
        Ok(known) if known == runs => Ok(()),
        Ok(_) | Err(_) => store::replace_json(&state.join(RUNS), &runs),
    };
    if let Err(error) = kept {
        log::warn!("it cannot be noted which runs the source has had: {error}");
    }
}

pub fn other_writer(state: &Path) -> io::Result<Option<OtherWriter>> {
    store::read_json(&state.join(OTHER))
}

/// A person says that nobody else writes the set.
pub fn forget_other(state: &Path) -> io::Result<()> {
    match std::fs::remove_file(state.join(OTHER)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A person, and a stand-in that runs here, are told. The first word of one history counts.
pub fn note_other(state: &Path, other: &OtherWriter) {
    let is_known = other_writer(state)
        .is_ok_and(|known| known.is_some_and(|known| known.history.raised() == other.history.raised()));
    if is_known {
        return;
    }
    if let Err(error) = store::replace_json(&state.join(OTHER), other) {
        log::warn!("it cannot be noted that somebody else writes the set: {error}");
    }
}
