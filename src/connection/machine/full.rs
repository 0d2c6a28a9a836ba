//! A queue that is full, or has lost something, and whom it holds something for.

use std::time::Instant;

use super::super::retry::Jitter;
use super::super::state::{Flow, State};
use super::{COPIED_WHEN_BACK, Machine};
use crate::words::WhenFull;

impl Machine {
    /// The queue holds something for a target that is not there, and programs may not wait for it: see [`super::Event::QueueFull`].
    pub fn is_away(&self) -> bool {
        self.not_there().is_some()
    }

    /// What is away, or held back by a person, does not hold applications up: it is copied to when it is
    /// back. Who is sent to makes room, or [`super::Event::HoldsUp`]. What a person wants stays as it is.
    pub(super) fn queue_full(&mut self, now: Instant) {
        let Some(how) = self.not_there() else { return };
        let why = format!("the queue became full while it was {how}: {COPIED_WHEN_BACK}");
        if let State::Paused(link) = self.state
            && link.has_stream()
        {
            return self.connect_anew(now, &why);
        }
        self.give_up(&why);
        let before = match how {
            "away" => std::mem::take(&mut self.reason),
            _ => String::new(),
        };
        self.reason = self.with_let_go(&before);
    }

    /// How a target is not there, for which programs may not wait, and the queue holds something.
    fn not_there(&self) -> Option<&'static str> {
        match &self.state {
            _ if self.let_go.is_some() => None,
            // Paused, and its network connection broke off since.
            State::Paused(_) | State::Error { flow: Flow::Hold, .. } => Some("paused"),
            State::Stopped => Some("stopped"),
            State::Scheduled { .. } => Some("scheduled"),
            State::Started(link) if link.has_stream() => None,
            State::Started(_) | State::Error { .. } if self.when_full == WhenFull::Resync => Some("away"),
            State::Started(_) | State::Error { .. } | State::Gone => None,
        }
    }

    /// Whatever the target has, it is copied to.
    pub(super) fn queue_lost(&mut self, now: Instant, reason: String, jitter: Jitter) {
        match &self.state {
            _ if self.let_go.is_some() => {}
            State::Gone => {}
            State::Started(link) | State::Paused(link) if link.has_stream() => {
                self.out_of_line(now, reason, jitter);
            }
            State::Started(_)
            | State::Paused(_)
            | State::Stopped
            | State::Scheduled { .. }
            | State::Error { .. } => {
                self.give_up(&format!("{reason}: {COPIED_WHEN_BACK}"));
                let before = std::mem::take(&mut self.reason);
                self.reason = self.with_let_go(&before);
            }
        }
    }
}
