//! What a driver lets everyone know: its machine's state, and how its target stands.

use std::time::{Instant, SystemTime};

use super::driver::Driver;
use super::surroundings::Surroundings;
use super::{Report, Settings};
use crate::clock;
use crate::connection::{Copies, Machine, Sending, State, Window};
use crate::control::{ConnectionState, MirrorStatus};
use crate::source_side::delete_guard::DeleteGuard;
use crate::source_side::kept::Kept;

/// As a person wanted it before. Where nobody is asked about deletions any more, nothing is held for that.
pub(super) fn begun(settings: &Settings, window: Window, guard: &DeleteGuard) -> Machine {
    let Kept { mut wish, asked, .. } = settings.kept.clone();
    let question = guard.asks();
    if asked.is_some() && question.is_none() && wish.sending == Sending::Paused {
        wish.sending = Sending::Now;
    }
    let machine = Machine::wished(clock::now(), window, wish, settings.left.is_some())
        .named(settings.id)
        .when_full(settings.when_full);
    match question {
        Some(question) if wish.sending == Sending::Paused => machine.held_for(question.to_string()),
        None if wish.sending == Sending::Paused => machine.held_by_hand(),
        Some(_) | None => machine,
    }
}

impl<S: Surroundings> Driver<S> {
    /// Takes the machine's state over into the report.
    pub(super) fn publish(&self) {
        let (machine, now) = (&self.machine, clock::now());
        let wall = |at: Instant| match at.checked_duration_since(now) {
            Some(ahead) => SystemTime::now() + ahead,
            None => SystemTime::now() - now.duration_since(at),
        };
        let fault = match machine.state() {
            State::Error { fault, .. } => Some(fault.kind),
            State::Stopped | State::Scheduled { .. } | State::Started(_) | State::Paused(_) | State::Gone => {
                None
            }
        };
        self.update(|report| {
            let state = state_word(machine.state());
            if report.state != state {
                report.since = wall(machine.since());
            }
            report.state = state;
            report.reason = machine.reason().to_owned();
            report.fault = fault;
            report.refusal = machine.refusal();
            report.attempts = machine.attempts();
            report.retry_at = machine.poll_timeout().map(wall);
            report.begins_copy = machine.begins_copy();
            report.needs_copy = machine.let_go().map(str::to_owned);
            report.lacks_copy = self.lacks_copy();
            report.streaming = machine.is_streaming();
            report.kept = self.kept();
            report.leaves = self.leaves_behind();
            report.asks_deletes = self.guard_asks().is_some();
            report.schedule = self.scheduled();
            report.limit = self.throttled();
            report.compression = self.compressing();
            if machine.is_pending() && report.kept.wish.copies == Copies::Stopped {
                report.mirror = MirrorStatus::Stopped;
            }
        });
        let _ = self.shared.news.0.try_send(());
    }

    /// What is to stay over a restart.
    pub(crate) fn kept(&self) -> Kept {
        Kept {
            wish: self.machine.wish(),
            first_copy: self.first_copy(),
            copy_mode: self.copy_mode,
            copy_orphans: self.copy_orphans,
            copy_hash: self.copy_hash,
            copy_paused: self.pace.is_paused(),
            mirror: self.wished.clone(),
            verified: self.verified.clone(),
            checks_served_s: Some(self.checks_served_s),
            names: self.guard_noted(),
            asked: self.guard_asks(),
            schedule: self.schedule_own(),
            sessions: self.sessions_kept(),
            limit: self.limit_own(),
            compression: self.compression_own(),
        }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Report)) {
        let mut report = self.shared.report.lock();
        let before = report.standing();
        change(&mut report);
        let after = report.standing();
        drop(report);
        self.shared.changed.notify_all();
        if let Some(watch) = &self.settings.watch
            && before != after
        {
            watch(Some(after));
        }
    }
}

fn state_word(state: &State) -> ConnectionState {
    match state {
        State::Stopped | State::Gone => ConnectionState::Stopped,
        State::Scheduled { failed: None, .. } => ConnectionState::Scheduled,
        State::Scheduled { failed: Some(_), .. } => ConnectionState::ScheduledAfterError,
        State::Started(_) => ConnectionState::Started,
        State::Paused(_) => ConnectionState::Paused,
        State::Error { .. } => ConnectionState::Error,
    }
}
