//! Whether somebody else writes the set, who has stood in for it too: as connections hear it, and as the target
//! daemon of a replica that is served here has noted it.

use std::path::PathBuf;
use std::time::Instant;

use parking_lot::Mutex;

use crate::intercept::{Fence, Fenced};
use crate::limits::OTHERS_LOOK_EVERY;
use crate::packet::{History, Incarnation, Meeting, Writes};
use crate::target_side::{OtherWriter, other_writer};

/// See the module.
#[derive(Debug, Default)]
pub struct Roles {
    /// Of what is written here.
    pub own: History,
    /// Of this source and of those before it.
    pub runs: Vec<Incarnation>,
    /// Also replicas that have more than the one that is served here had.
    pub overwrites: bool,
    /// What is kept of the replica that is served here.
    replica: Option<PathBuf>,
    met: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    other: Option<OtherWriter>,
    looked: Option<Instant>,
}

impl Roles {
    pub fn new(own: History, replica: Option<PathBuf>, other: Option<OtherWriter>) -> Roles {
        let counts = |other: &OtherWriter| own.meets(&other.history) == Meeting::TwoWriters;
        let met = Met { other: other.filter(counts), looked: None };
        Roles { own, replica, met: Mutex::new(met), ..Roles::default() }
    }

    /// For a target that asks what led to the epoch.
    pub fn writes(&self) -> Writes {
        Writes { history: self.own.clone(), runs: self.runs.clone(), overwrites: self.overwrites }
    }

    /// Who else writes the set.
    pub fn other(&self) -> Option<OtherWriter> {
        self.met.lock().other.clone()
    }

    /// Somebody writes the set with this history. Answers whether a person has to decide, and that is new.
    pub fn hear(&self, other: OtherWriter) -> bool {
        if self.own.meets(&other.history) != Meeting::TwoWriters {
            return false;
        }
        let mut met = self.met.lock();
        let is_new = met.other.as_ref().is_none_or(|known| known.history != other.history);
        if is_new {
            log::error!(
                "split brain: {} writes the set in epoch {}, and this host in epoch {}: neither overwrites the other; \
                 a person names the one to keep (standin roles)",
                other.met,
                other.history.last().unwrap_or_default().writing(),
                self.own.last().unwrap_or_default().writing()
            );
            met.other = Some(other);
        }
        is_new
    }

    /// What the target daemon of the replica has noted, now and then. Answers whether the directory takes no changes
    /// any more from here on.
    pub fn look(&self, now: Instant, fence: &Fence) -> bool {
        let Some(replica) = &self.replica else { return false };
        let mut met = self.met.lock();
        let is_due = |looked: Instant| now.saturating_duration_since(looked) >= OTHERS_LOOK_EVERY;
        if !met.looked.is_none_or(is_due) {
            return false;
        }
        met.looked = Some(now);
        drop(met);
        let Ok(Some(other)) = other_writer(replica) else { return false };
        let last = other.history.last();
        match (self.own.meets(&other.history), self.own.last(), last) {
            (Meeting::StoodInFor, Some(own), Some(epoch)) if own.is_outranked_by(epoch) => {
                let told_by = other.met.clone();
                let is_new = fence.raise(Fenced { epoch, told_by });
                if is_new {
                    log::error!(
                        "{} writes the set in epoch {}: the directory takes no changes any more",
                        other.met,
                        epoch.number
                    );
                }
                is_new
            }
            (Meeting::TwoWriters, _, _) => {
                self.hear(other);
                false
            }
            _ => false,
        }
    }
}
