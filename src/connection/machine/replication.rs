//! Whether changes are queued for a target at all, apart from whether they are sent.

use std::time::Instant;

use super::super::state::State;
use super::{Machine, NotNow};

const UNQUEUED: &str = "replication is stopped by hand: changes are marked, and not queued";

impl Machine {
    /// A person has stopped the replication, too: changes are marked, and not queued.
    pub fn is_unqueued(&self) -> bool {
        self.is_unqueued
    }

    pub(super) fn stop_replication(&mut self, now: Instant) -> Result<(), NotNow> {
        if self.state == State::Gone {
            return Err(NotNow::Gone);
        }
        if self.is_unqueued {
            return Ok(());
        }
        if self.state != State::Stopped {
            self.close("stopped on the source");
            self.goto(now, State::Stopped, UNQUEUED);
        }
        self.unqueue();
        Ok(())
    }

    pub(super) fn unqueue(&mut self) {
        self.is_unqueued = true;
        self.give_up(UNQUEUED);
        self.reason = UNQUEUED.to_owned();
    }

    /// Errors: it is gone. Nothing changes where it was not stopped.
    pub(super) fn start_replication(&mut self, now: Instant) -> Result<(), NotNow> {
        match self.state {
            State::Gone => Err(NotNow::Gone),
            _ if self.is_unqueued => self.start(now),
            _ => Ok(()),
        }
    }
}
