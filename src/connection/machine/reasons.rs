//! Why it is in its state, for people.

use super::super::state::State;
use super::Machine;

impl Machine {
    /// A reason, and why a copy comes next, if one does.
    pub(super) fn with_let_go(&self, reason: &str) -> String {
        match &self.let_go {
            Some(why) if reason.is_empty() => why.clone(),
            Some(why) => format!("{reason} ({why})"),
            None => reason.to_owned(),
        }
    }

    /// A reason, and what is not mended by it.
    pub(super) fn with_refusal(&self, reason: &str) -> String {
        match &self.refusal {
            Some(fault) => format!("{reason}; before that it was refused: {}", fault.reason),
            None => reason.to_owned(),
        }
    }

    /// Whoever starts it by hand is not told the last failure as if it were this attempt's.
    pub(super) fn say_connecting(&mut self) {
        if let State::Error { fault, .. } = &self.state {
            self.reason = format!("connecting; the last attempt failed: {}", fault.reason);
        }
    }
}
