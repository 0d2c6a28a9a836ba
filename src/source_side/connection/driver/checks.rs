//! The comparisons of a driver: a person asks for them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::super::Suspects;
use super::super::checking::{CheckWish, Checking, Outcome, Running};
use super::super::surroundings::{NetworkLink, Surroundings, WalkOrder, Walked};
use super::super::verified::Verified;
use super::Driver;
use crate::connection::Flow;
use crate::control::{MirrorStatus, unix_ms};
use crate::packet::{CheckCounts, DataState, Difference, ItemNumber, Position, Timestamp};
use crate::resync::{Answer, CheckOrder, CopyError, CopyProgress, TargetHad};
use crate::source_side::kept::{LastVerified, WhatVerified, WishedMirror};
use crate::words::CopyMode;

impl<S: Surroundings> Driver<S> {
    pub(super) fn begin_check(&mut self, wish: CheckWish) {
        self.begin_check_for(wish, None);
    }

    /// `mirror`: the one that it begins.
    pub(super) fn begin_check_for(&mut self, wish: CheckWish, mirror: Option<&WishedMirror>) {
        // A target that has heard of what came into the set compares nothing, and ends the connection.
        self.tell_diverged();
        if let Err(why) = self.may_check() {
            let _ = wish.reply.send(Err(why));
            return;
        }
        if self.checking.is_some() {
            self.next_check = Some(wish);
            return;
        }
        let Some(session) = &self.session else { return };
        let progress = Arc::new(CopyProgress::new());
        let sink = session.lane.stamped(session.link.waker());
        let ids = self.settings.ids.clone();
        let before = {
            let report = self.shared.report.lock();
            (report.mirror, report.progress.clone())
        };
        let (around, shown, takes_holes) = (&mut self.around, progress.clone(), self.level.takes_holes);
        let pace = if mirror.is_some() { self.pace.clone() } else { Arc::default() };
        // Here: another thread could come to it after its mirror was given up.
        pace.set_rate(wish.order.rate);
        let begun = Checking::begin(self.queue.last().sequence, before, wish, |order, answers| {
            around.walk(WalkOrder {
                check: Some(CheckOrder { takes_holes, ..order }),
                names_had: None,
                ids,
                suspect_since: Timestamp::default(),
                suspects: Arc::default(),
                had: TargetHad::default(),
                of_restored: false,
                orphans: None,
                by_blocks: None,
                owed: None,
                part: None,
                sink,
                answers,
                progress,
                pace,
            })
        });
        match begun {
            Ok(checking) => {
                self.checking = Some(match mirror {
                    Some(_) => checking.of_a_mirror(),
                    None => checking,
                });
                let rests = mirror.is_some() && self.pace.is_paused();
                let status = if rests { MirrorStatus::Paused } else { MirrorStatus::Verifying };
                self.update(|report| {
                    report.mirror = status;
                    report.progress = Some(shown);
                    if let Some(WishedMirror { mode, part, rate, .. }) = mirror {
                        (report.mode, report.part, report.rate) = (*mode, part.clone(), *rate);
                        (report.is_minicopy, report.is_comparison) = (false, true);
                    }
                });
            }
            Err((error, reply)) => drop(reply.send(Err(format!("it cannot begin: {error}")))),
        }
    }

    /// A copy mends what a comparison has found, of all or of a part; content that differs is sent whatever size
    /// and time say.
    pub(super) fn repair(&mut self, suspects: Suspects, part: Option<PathBuf>) -> Result<(), String> {
        self.may_check()?;
        if self.checking.is_some() {
            return Err("the verification before it has not ended yet".into());
        }
        if part.is_some() {
            let wish = WishedMirror { mode: CopyMode::DifferencesChecksum, part, ..WishedMirror::default() };
            return self.begin_part(wish, suspects).map_err(|why| format!("it cannot begin: {why:?}"));
        }
        self.suspects = suspects;
        self.out_of_line("a verification has found differences".into());
        Ok(())
    }

    /// Now, or behind the target's last word on the one before.
    pub(super) fn may_check(&self) -> Result<(), String> {
        if self.next_check.is_some() || matches!(self.checking, Some(Checking::Runs(_))) {
            return Err("another verification runs".into());
        }
        if self.left.is_some() {
            return Err("what was queued before the last stop is still being sent".into());
        }
        if !self.machine.is_streaming() || self.session.is_none() || !self.copy.is_resting() {
            return Err("its target is not in line".into());
        }
        if self.machine.state().flow() == Flow::Hold {
            return Err("it is paused".into());
        }
        let report = self.shared.report.lock();
        match report.data {
            DataState::Good => Ok(()),
            DataState::Empty | DataState::Bad => Err(match report.data_reason.as_str() {
                "" => "its replica is not good".into(),
                why => format!("its replica is not good: {why}"),
            }),
        }
    }

    fn running(&mut self) -> Option<&mut Running> {
        self.checking.as_mut().and_then(Checking::running)
    }

    /// What the target says to a comparison.
    pub(super) fn hear_of_check(&mut self, answer: Answer) {
        if self.running().is_some_and(|running| !running.answer(answer)) {
            self.misbehaves("the target answers what it was not asked".into());
        }
    }

    pub(super) fn differences(&mut self, found: Vec<Difference>) {
        if self.running().is_some_and(|running| !running.hear_of(found)) {
            self.misbehaves("the target names more differences than it may".into());
        }
    }

    pub(super) fn checked(&mut self, end: ItemNumber, counts: CheckCounts) {
        if self.running().is_some_and(|running| !running.hear_end(end, counts)) {
            self.misbehaves("the target ends a verification again and again".into());
        }
    }

    /// The target has nothing more to say of a comparison that had no result.
    pub(super) fn check_stopped(&mut self) {
        self.checking = self.checking.take().and_then(Checking::stopped);
        if self.checking.is_none()
            && let Some(wish) = self.next_check.take()
        {
            self.begin_check(wish);
        }
    }

    /// The session is over: nothing more is heard of a comparison.
    pub(super) fn forget_checks(&mut self) {
        self.checking = None;
        self.refuse_next("the connection ended");
    }

    /// Nothing comes through to the target from now on: nobody waits for what it would say.
    pub(super) fn forbid_checks(&mut self, why: &str) {
        self.end_check(Err(why.into()));
        self.refuse_next(why);
    }

    fn refuse_next(&mut self, why: &str) {
        if let Some(wish) = self.next_check.take() {
            let _ = wish.reply.send(Err(why.into()));
        }
    }

    pub(super) fn check_walked(&mut self, outcome: Walked) {
        let upto = self.session.as_ref().map(|session| session.stream.at().sequence).unwrap_or_default();
        let Some(running) = self.running() else { return };
        let outcome = match outcome {
            Ok(report) => running
                .result(report.end, report.left_out, upto)
                .ok_or_else(|| "the target did not say what it found".to_owned()),
            Err(error) => {
                running.failed();
                Err(match error {
                    CopyError::Gone => "the connection ended".into(),
                    error => error.to_string(),
                })
            }
        };
        self.end_check(outcome);
    }

    /// A comparison under way is over, whatever has become of it.
    pub(super) fn end_check(&mut self, outcome: Outcome) {
        let Some(Checking::Runs(running)) = self.checking.take_if(|check| matches!(check, Checking::Runs(_)))
        else {
            return;
        };
        let is_mirror = running.is_mirror;
        let compared = is_mirror.then(|| outcome.clone());
        if let (Ok(verified), false) = (&outcome, is_mirror) {
            self.verified = Some(self.noted(verified, running.what.clone()));
            self.checks_served_s = running.serves_s.unwrap_or(self.checks_served_s);
        }
        self.unpublished = true;
        // What a mirror has compared is shown until a copy begins.
        let before = running.before.clone();
        if !is_mirror {
            self.update(|report| (report.mirror, report.progress) = before.clone());
        }
        self.checking = running.end(outcome);
        if let Some(outcome) = compared {
            self.compared(outcome, before.0);
        }
    }

    fn noted(&self, verified: &Verified, what: WhatVerified) -> LastVerified {
        let &Verified { counts, unread, upto, .. } = verified;
        let at_unix_ms = unix_ms(SystemTime::now());
        let Position { epoch, incarnation: run, .. } = self.start;
        LastVerified { at_unix_ms, epoch, run, upto, what, counts, unread }
    }
}
