//! The moment between two packets at which a clone begins.

use super::applier::Applier;
use crate::clone::{Moment, Planted, Sessions, Watch, is_planted};
use crate::packet::{DataState, Position};

impl Applier {
    /// Clones of the replica.
    pub fn clones(&self) -> std::sync::Arc<Sessions> {
        self.replica.clones().clone()
    }

    /// What is changed as long as the value lives is preserved for the clones that need it.
    #[inline]
    pub(super) fn watch(&self) -> Option<Watch> {
        if is_planted(Planted::NotWhileConverging) && self.is_copying() {
            return None;
        }
        self.replica.clones().watch()
    }

    /// To be called between two packets: a clone that waits for its barrier begins here, unless an op is half
    /// done; then it goes on waiting.
    #[inline]
    pub fn take_barrier(&mut self) {
        if self.replica.clones().is_asked() {
            self.begin_clone();
        }
        if self.replica.clones().has_good() && self.data().state == DataState::Good {
            self.replica.clones().is_good_again();
        }
    }

    /// To be called before a good replica becomes bad, and nothing is half done: where that is wanted, what it
    /// is now is kept.
    pub(super) fn keep_good(&mut self) {
        let clones = self.clones();
        if self.data().state != DataState::Good || self.replica.in_doubt() || !clones.lacks_good() {
            return;
        }
        match self.moment(false) {
            Ok(moment) => clones.good_ends(moment),
            Err(why) => log::warn!("the last good state of the replica is not kept: {why}"),
        }
    }

    /// Whether nothing was ever applied.
    pub fn is_untouched(&self) -> bool {
        (self.replica.applied(), self.replica.durable()) == (Position::default(), Position::default())
    }

    /// To be called before anything is changed for a source that has stood in: what the directory has is kept.
    ///
    /// Errors: it cannot be.
    pub fn keep_adopted(&mut self) -> Result<(), String> {
        let moment = Moment {
            position: self.replica.applied(),
            // Nobody knows what it is a state of.
            is_bad: true,
            fence: self.replica.fence(),
            objects: self.replica.index().len(),
        };
        self.clones().adopted_begins(moment).map_err(|why| why.to_string())
    }

    fn begin_clone(&mut self) {
        let clones = self.clones();
        clones.resume();
        if self.replica.in_doubt() {
            return;
        }
        let Some(wanted) = clones.take_wanted() else { return };
        let moment = self.moment(wanted.accepts_bad);
        clones.begin(wanted, moment);
    }

    fn moment(&mut self, accepts_bad: bool) -> Result<Moment, String> {
        let data = self.data();
        match data.state {
            DataState::Good => {}
            DataState::Bad if accepts_bad => {}
            DataState::Bad => {
                let why = data.reason.unwrap_or_default();
                return Err(format!(
                    "the replica is no consistent state of its source ({why}): wait until it is good, or give \
                     --accept-bad-data"
                ));
            }
            DataState::Empty => return Err("nothing was copied to the replica yet".into()),
        }
        // What fills files beside preserves nothing.
        self.reconcile
            .take_in(&mut self.replica)
            .map_err(|fault| format!("files that were copied last cannot be written: {fault}"))?;
        // What is pending belongs to packets before the barrier.
        self.set_pending_times().map_err(|fault| format!("modification times cannot be set: {fault}"))?;
        Ok(Moment {
            position: self.replica.applied(),
            is_bad: data.state == DataState::Bad,
            fence: self.replica.fence(),
            objects: self.replica.index().len(),
        })
    }
}
