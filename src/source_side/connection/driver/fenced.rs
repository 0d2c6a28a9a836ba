//! Somebody else writes the set: nothing is taken here any more that the set would not get.

use super::super::surroundings::Surroundings;
use super::Driver;
use crate::connection::{Event, Jitter};
use crate::intercept::Fenced;
use crate::packet::{Epoch, History, Meeting, SetId, WIRE_VERSION_THAT_READS_NO_OTHER, other_version};
use crate::target_side::OtherWriter;

/// A target could not read the greeting, which every version reads but some builds of one.
pub(super) fn reads_no_other(reason: &str) -> String {
    const THEIRS: u16 = WIRE_VERSION_THAT_READS_NO_OTHER;
    format!("{} ({reason})", other_version("the target", THEIRS, THEIRS))
}

impl<S: Surroundings> Driver<S> {
    /// Nothing is copied there, and nothing is tried in its place. In an epoch that is known a person has to act;
    /// one that is not known yet may never come.
    pub(super) fn kept_out(&mut self, known: Epoch, history: History, reason: String) {
        let is_decided = known != Epoch::default();
        let met = self.settings.target.to_string();
        match self.settings.roles.own.meets(&history) {
            Meeting::TwoWriters => drop(self.settings.roles.hear(OtherWriter::now(history, met))),
            Meeting::StoodInFor | Meeting::TakenIn => self.fence_off(known),
        }
        if self.machine.attempts() == 0 {
            let level = if is_decided { log::Level::Error } else { log::Level::Warn };
            log::log!(level, "connection {} to {}: {reason}", self.settings.id, self.settings.target);
        }
        let jitter = Jitter(self.around.random() as u16);
        self.happened(match is_decided {
            true => Event::KeptOut { reason, jitter },
            false => Event::Undecided { reason, jitter },
        });
    }

    /// A target that does not take this source in, because it speaks another version, has been stood in with. What led
    /// to that epoch it cannot say.
    pub(super) fn written_in(&mut self, set: SetId, epoch: Epoch) {
        let own = &self.settings.roles.own;
        if set != self.settings.set || self.machine.is_streaming() {
            return;
        }
        let history = History::of(epoch);
        match own.meets(&history) {
            Meeting::TakenIn => {}
            Meeting::StoodInFor => self.fence_off(epoch),
            Meeting::TwoWriters => {
                let met = self.settings.target.to_string();
                self.settings.roles.hear(OtherWriter::now(history, met));
            }
        }
    }

    /// Turns the directory read-only, at once. An epoch out of all reason is no epoch.
    fn fence_off(&mut self, known: Epoch) {
        if !self.queue.last().epoch.is_outranked_by(known) {
            return;
        }
        let told_by = self.settings.target.to_string();
        if self.settings.fence.raise(Fenced { epoch: known, told_by }) {
            // They wait for a target that takes nothing from here any more.
            self.queue.let_all_in();
            log::error!(
                "{} says that the set is written in epoch {}: the directory takes no changes any more",
                self.settings.target,
                known.number
            );
        }
    }
}
