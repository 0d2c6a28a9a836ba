//! Mirrors by hand of a replica that is good: it is compared first, and changed only where it differs; of a part of
//! the set, or of all of it.
//!
//! ```text
//!  mirror start ──> compares ── nothing differs ─────────────────────────────────> over
//!       │              │ the connection ends, or is paused: again when it is back
//!       │ mode full    v something differs
//!       ├───────────> a part: over the session that is there, packets go on ────> good
//!       │                                       │ cut off: a copy of everything
//!       └───────────> all of it: a copy as any other
//! ```

use std::sync::Arc;

use crossbeam_channel::bounded;

use super::super::checking::{CheckWish, Outcome};
use super::super::copying::{Attempt, Copying};
use super::super::surroundings::{NetworkLink, Surroundings, WalkOrder};
use super::super::{MirrorCommand, Suspects, Verified};
use super::Driver;
use crate::clock;
use crate::connection::{Command, Flow, NotNow};
use crate::control::{MirrorStatus, Rung};
use crate::link::LostBy;
use crate::packet::{BlockHash, DataState, LeftOut};
use crate::resync::{CheckOrder, TargetHad};
use crate::source_side::kept::WishedMirror;
use crate::source_side::mark::{Clock, EVERYTHING, Mark};
use crate::words::{CopyMode, OrphanChoice};

impl<S: Surroundings> Driver<S> {
    /// Errors: why not; nothing has changed.
    pub(super) fn start_mirror(&mut self, command: MirrorCommand) -> Result<(), NotNow> {
        let MirrorCommand::Start { mode, hash, rate, orphans, part } = command else { return Ok(()) };
        if self.wished.is_some() {
            return Err(NotNow::MirrorRuns);
        }
        let hash = if mode.is_some() { hash } else { self.copy_hash };
        let mode = mode.unwrap_or(self.copy_mode);
        let wish = WishedMirror { mode, hash, rate, orphans, part };
        match (self.may_check(), &wish.part) {
            (Ok(()), Some(_)) if mode == CopyMode::Full => self.begin_part(wish, Suspects::All),
            (Ok(()), _) if mode != CopyMode::Full => {
                self.pace.pause(false);
                self.wished = Some(wish);
                self.take_up_mirror();
                Ok(())
            }
            (_, None) => self.mirror_all(wish, None),
            (_, Some(_)) => Err(self.why_no_part()),
        }
    }

    fn why_no_part(&mut self) -> NotNow {
        if self.checking.is_some() {
            return NotNow::Verifies;
        }
        let is_held = self.machine.state().flow() == Flow::Hold;
        match self.machine.is_streaming() {
            true if is_held => NotNow::Paused,
            true if self.left.is_some() => NotNow::SendsLeft,
            true => NotNow::NeedsAll,
            // It says why, and changes nothing.
            false => self
                .machine
                .handle_command(clock::now(), Command::MirrorPart)
                .err()
                .unwrap_or(NotNow::NeedsAll),
        }
    }

    /// What was asked for is begun as soon as the replica can be compared.
    pub(super) fn take_up_mirror(&mut self) {
        let Some(wish) = self.wished.clone() else { return };
        if self.checking.is_some() || self.may_check().is_err() {
            return;
        }
        let content = (wish.mode == CopyMode::Checksum).then(|| BlockHash::draw(wish.hash));
        let order =
            CheckOrder { content, below: wish.part.clone(), rate: wish.rate, ..CheckOrder::default() };
        // It is heard of where it ends.
        let (reply, _) = bounded(1);
        self.unpublished = true;
        self.begin_check_for(CheckWish { order, serves_s: None, reply }, Some(&wish));
    }

    /// The comparison of a mirror is over; `before` was shown before it. A mirror that goes on is at no moment shown as
    /// complete.
    pub(super) fn compared(&mut self, outcome: Outcome, before: MirrorStatus) {
        let Some(wish) = self.wished.take() else { return self.shows_mirror(before) };
        self.unpublished = true;
        match outcome {
            Ok(found) if !self.has_to_mend(&wish, &found) => {
                let (id, target) = (self.settings.id, &self.settings.target);
                log::info!("connection {id} to {target}: a mirror has found nothing that differs");
                self.shows_mirror(MirrorStatus::Complete);
            }
            Ok(found) => self.mend(wish, Some(Suspects::found(&found))),
            Err(_) if !self.machine.is_streaming() || self.machine.state().flow() == Flow::Hold => {
                self.shows_mirror(MirrorStatus::Stopped);
                self.wished = Some(wish);
            }
            Err(why) if wish.part.is_some() => {
                let (id, target) = (self.settings.id, &self.settings.target);
                log::warn!(
                    "connection {id} to {target}: the mirror has ended, and has changed nothing: {why}"
                );
                self.shows_mirror(before);
            }
            Err(_) => self.mend(wish, None),
        }
    }

    /// A mirror is over, and its rate with it: the next copy may begin by itself, with a replica that is bad.
    pub(super) fn shows_mirror(&self, status: MirrorStatus) {
        self.set_rate(None);
        self.update(|report| report.mirror = status);
    }

    fn has_to_mend(&self, wish: &WishedMirror, Verified { counts, .. }: &Verified) -> bool {
        let keeps = wish.orphans.unwrap_or(self.settings.orphans).choice == OrphanChoice::Keep;
        counts.missing + counts.different > 0 || counts.extra > 0 && !keeps
    }

    fn mend(&mut self, wish: WishedMirror, found: Option<Suspects>) {
        let (id, target) = (self.settings.id, self.settings.target.clone());
        log::info!("connection {id} to {target}: a mirror mends what differs");
        self.update(|report| report.mirror = MirrorStatus::Calculating);
        let begun = match wish.part {
            Some(_) => self.begin_part(wish, found.unwrap_or(Suspects::All)),
            None => self.mirror_all(wish, found),
        };
        if let Err(why) = begun {
            log::warn!("connection {id} to {target}: the mirror cannot go on: {why:?}");
            self.shows_mirror(MirrorStatus::Stopped);
        }
    }

    /// A copy as any other; `found`: files whose content differs, where that was looked at.
    fn mirror_all(&mut self, wish: WishedMirror, found: Option<Suspects>) -> Result<(), NotNow> {
        self.machine.handle_command(clock::now(), Command::StartMirror)?;
        self.lacks.everything("a mirror was asked for");
        self.copy_mode = match (wish.mode, &found) {
            // What of it differs is known.
            (CopyMode::Checksum, Some(_)) => CopyMode::DifferencesChecksum,
            (mode, _) => mode,
        };
        (self.copy_hash, self.copy_orphans) = (wish.hash, wish.orphans);
        self.asked_mode = Some(wish.mode);
        self.suspects = found.unwrap_or_default();
        self.pace.pause(false);
        self.set_rate(wish.rate);
        Ok(())
    }

    /// Copies a part over the session that is there. Of `suspects` the content is sent whatever size and time say.
    pub(super) fn begin_part(&mut self, wish: WishedMirror, suspects: Suspects) -> Result<(), NotNow> {
        let WishedMirror { mode, hash, rate, orphans, part } = wish;
        // What a packet came to before its listing may have the size and time of the source, and nothing else.
        let (suspect_since, suspects) = match suspects {
            Suspects::These(suspects) => (Mark::now().suspect_since(&Clock::now()), suspects),
            Suspects::All => (EVERYTHING, Arc::default()),
        };
        if self.session.is_none() {
            return Err(NotNow::NotConnected);
        }
        self.machine.handle_command(clock::now(), Command::MirrorPart)?;
        let Some(session) = &self.session else { return Err(NotNow::NotConnected) };
        let sink = session.lane.stamped(session.link.waker());
        (self.copy_hash, self.copy_orphans) = (hash, orphans);
        // Where it is cut off, all is compared, and nothing sent that the target has.
        self.copy_mode = if mode == CopyMode::Full { CopyMode::Checksum } else { mode };
        self.set_rate(rate);
        let (ids, orphans, by_blocks) =
            (self.settings.ids.clone(), self.orphan_rules(), self.by_blocks_in(mode));
        let (covers, pace) = (self.shared.report.lock().covers, self.pace.clone());
        let order = |answers, progress| WalkOrder {
            check: None,
            names_had: None,
            ids,
            suspect_since,
            suspects,
            had: TargetHad::Something,
            of_restored: false,
            orphans,
            by_blocks,
            owed: None,
            part: part.clone(),
            sink,
            answers,
            progress,
            pace,
        };
        match Attempt::begin(&mut self.around, (covers, false), order) {
            Ok(mut attempt) => {
                attempt.part.clone_from(&part);
                attempt.rung = Rung::of(mode);
                let (mirror, progress) = (self.mirror_begun(), attempt.progress());
                let resync = self.part_taken(attempt.rung);
                self.copy = Copying::Runs(attempt);
                self.update(|report| {
                    (report.data, report.left_out) = (DataState::Bad, LeftOut::default());
                    (report.mirror, report.mode, report.is_minicopy) = (mirror, mode, false);
                    (report.part, report.progress, report.is_comparison) = (part, Some(progress), false);
                    report.resync = Some(resync);
                });
            }
            Err(error) => self.lost(LostBy::Network, format!("the mirror cannot begin: {error}")),
        }
        Ok(())
    }
}
