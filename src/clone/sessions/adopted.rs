//! What a directory had when it was taken over for a replica, after somebody had stood in for its host: what only that
//! host has is overwritten by the first copy, and preserved by a session that is not copied before somebody asks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::good::Keeps;
use super::{Moment, Refusal, Sessions, because, names_in};
use crate::clone::machine::State;
use crate::clone::session::{DOCUMENT, RECORDS, Record, Session, Shown};
use crate::packet::Epoch;
use crate::store;

/// As people know it; where that is taken, with a number.
pub const LOST_WRITES: &str = "lost-writes";

/// As often it is tried for one source that comes again.
const FAILED_MAX: usize = 4;

impl Sessions {
    /// Before anything of the directory is changed. Nothing is begun where it is empty, where one preserves already, or
    /// where several have failed for the same source: what it may take is not taken again and again.
    ///
    /// Errors: it cannot be preserved.
    pub fn adopted_begins(&self, moment: Moment) -> Result<(), Refusal> {
        let room_max = *self.lost_writes_max.lock();
        if room_max == Some(0) {
            return Ok(());
        }
        let unreadable = because("the directory cannot be read");
        let limbo = self.places.limbo_path.file_name().filter(|_| self.places.limbo_is_inside());
        let mut entries = std::fs::read_dir(&self.places.root_path).map_err(unreadable)?;
        let is_bare = entries.all(|entry| entry.is_ok_and(|entry| Some(&*entry.file_name()) == limbo));
        if is_bare || self.keeps_it(moment.fence, if room_max.is_some() { 1 } else { FAILED_MAX }) {
            return Ok(());
        }
        let session = self.begin_by_itself(LOST_WRITES, Keeps::Asked, moment, room_max)?;
        log::warn!(
            "what {} has when it becomes a replica is kept as clone '{}': standin lost-writes",
            self.places.root_path.display(),
            session.name
        );
        Ok(())
    }

    /// Whether it is kept already, or cannot be.
    fn keeps_it(&self, fence: Option<Epoch>, failed_max: usize) -> bool {
        let all: Vec<Arc<Session>> = self.all.lock().values().cloned().collect();
        let (mut is_kept, mut failed) = (false, 0);
        for session in all {
            let record = session.record();
            if record.keeps_adopted {
                let is_of_it = record.fence == fence;
                failed += usize::from(is_of_it && session.state() == State::Failed);
                is_kept |= session.preserves() || is_of_it && session.state() != State::Failed;
            }
        }
        if !is_kept && failed >= failed_max {
            log::warn!(
                "what {} has when it becomes a replica is not kept: that has failed before",
                self.places.root_path.display()
            );
        }
        is_kept || failed >= failed_max
    }

    /// What a directory had may take so many bytes when it becomes a replica; `None`: while the disk has room.
    pub fn lost_writes_may_take(&self, bytes: Option<u64>) {
        *self.lost_writes_max.lock() = bytes;
    }

    /// Of those that are kept and that nobody has taken out, the newest; or one that has failed.
    pub fn lost_writes(&self) -> Option<Shown> {
        let is_kept = |shown: &Shown| shown.keeps_adopted && shown.state != State::Split;
        let kept = self.list().into_iter().filter(is_kept);
        let kept = kept.filter(|shown| !is_taken_out(&self.places.state, &shown.name));
        kept.max_by_key(|shown| {
            (shown.state != State::Failed, shown.barrier.as_ref().map(|barrier| barrier.at_ms))
        })
    }

    /// Where the replica was opened.
    pub fn root_path(&self) -> &Path {
        &self.places.root_path
    }
}

/// That all of it was taken out.
const TAKEN_OUT: &str = "taken-out.json";

#[derive(Serialize, Deserialize)]
struct TakenOut {
    /// For people.
    to: String,
}

/// Durable when it returns.
pub fn note_taken_out(state: &Path, name: &str, to: &Path) -> io::Result<()> {
    store::replace_json(&of_session(state, name).join(TAKEN_OUT), &TakenOut { to: to.display().to_string() })
}

pub fn is_taken_out(state: &Path, name: &str) -> bool {
    of_session(state, name).join(TAKEN_OUT).exists()
}

fn of_session(state: &Path, name: &str) -> PathBuf {
    state.join("clones").join(name)
}

/// Sessions of the replica with this state that keep what nobody has taken out of them yet: they end when it is served.
/// No daemon is asked.
pub fn lost_writes_of(state: &Path) -> Vec<String> {
    let is_kept = |name: &String| {
        let record = store::read_json::<Record>(&of_session(state, name).join(DOCUMENT));
        let is_kept = |record: Record| {
            record.keeps_adopted && record.state == State::Synchronizing && !record.is_copied
        };
        // Without its log it has failed.
        record.ok().flatten().is_some_and(is_kept) && of_session(state, name).join(RECORDS).exists()
    };
    let mut names = names_in(&state.join("clones"));
    names.retain(|name| is_kept(name) && !is_taken_out(state, name));
    names
}
