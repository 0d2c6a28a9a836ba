//! A target that is connected, beats, and does not say what it holds: it is still opening the replica, or its disk hangs.

use std::time::Instant;

use super::super::retry::Jitter;
use super::super::state::{Fault, FaultKind};
use super::Machine;
use crate::limits::{GREETING_MAX, GREETING_PATIENCE};
use crate::units;

const SILENT: &str =
    "connected, and the target does not say what it holds: it is still opening the replica, or hangs";

impl Machine {
    /// To be called now and then. Says that it is so, and ends the network connection where it lasts: the next attempt may
    /// find another target. Answers whether anything has changed.
    pub fn handle_silence(&mut self, now: Instant, jitter: impl FnOnce() -> Jitter) -> bool {
        let Some(since) = self.greeted_at.filter(|_| self.is_greeting()) else { return false };
        let waited = now.saturating_duration_since(since);
        if waited >= GREETING_MAX {
            let waited = units::duration(GREETING_MAX);
            let reason = format!("the target was connected for {waited}, and did not say what it holds");
            self.failed(now, Fault { kind: FaultKind::Lost, reason }, jitter());
            return true;
        }
        let reason = self.with_let_go(SILENT);
        if waited < GREETING_PATIENCE || self.reason == reason {
            return false;
        }
        self.reason = reason;
        true
    }
}
