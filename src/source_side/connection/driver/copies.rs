//! The copies of a driver: they begin by themselves where only a copy brings the target into line.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::copying::{Attempt, Copying, EndSaid};
use super::super::surroundings::{FirstOwed, NetworkLink, OwedOrder, Surroundings, WalkOrder, Walked};
use super::super::{Settings, Suspects};
use super::{Driver, Trust, rung};
use crate::clock;
use crate::connection::{Copies, Event, Flow, Jitter};
use crate::control::{AsideStatus, MirrorStatus, ResyncStatus};
use crate::link::LostBy;
use crate::packet::{
    BlockHash, DataState, ItemNumber, LaneItem, LeftOut, ObjectId, OrphanCounts, OrphanRule, Sequence,
    SourceMessage, Text, Timestamp,
};
use crate::resync::{Answer, BlockOrder, CopyError, CopyReport, NamesHad, ProgressSnapshot, TargetHad};
use crate::source_side::kept::FirstCopy;
use crate::source_side::mark::{Clock, EVERYTHING};
use crate::words::{CopyMode, DeleteLimit, HashKind, OrphanChoice, OrphanRules};

impl<S: Surroundings> Driver<S> {
    /// The target is brought into line by a copy; the queue is held for it from now on.
    pub(super) fn await_copy(&mut self, flow: Flow) {
        assert!(self.cursor.is_none(), "the queue is held for a target twice");
        // What was asked about comes no more: what a copy does not find is moved aside.
        self.guard.forget();
        let (cursor, _) = self.shared.attach(&self.queue);
        self.cursor = Some(cursor);
        self.set_flow(flow);
        // Whatever it says of itself, it is not this source's as of any position.
        self.update(|report| {
            if report.data == DataState::Good {
                report.data = DataState::Bad;
            }
        });
        self.copy = Copying::Awaited;
        self.begin_copy();
    }

    /// How many names the target had, where it goes on where this source was and a person is asked before most of them
    /// go. What is marked in this run is known by its packets.
    fn names_had(&self, owed: Option<&OwedOrder>) -> Option<NamesHad> {
        let is_marked = owed.is_some_and(|owed| matches!(owed.first, FirstOwed::Known(_)));
        // By nobody else who has written the set since.
        let goes_on = self.lacks.proof()?.applied.epoch == self.start.epoch;
        // Other rules leave out what is there all the same.
        let is_same_set = self.settings.divergence.count() <= self.shared.report.lock().covers;
        if is_marked || !goes_on || !is_same_set { None } else { self.guard.expects() }
    }

    /// Nothing of the copy has gone to the target: it waits for a person's word.
    fn ask_about_missing(&mut self, gone: u64, of: u64) {
        self.copy = Copying::Awaited;
        let asked = self.guard.ask_of_copy(gone, of);
        let data = self.lacks.proof().map_or(DataState::Bad, |proof| proof.data);
        // It was none.
        self.update(|report| {
            (report.mirror, report.progress, report.resync) = (MirrorStatus::Stopped, None, None);
            (report.data, report.lacks_copy) = (data, true);
            report.copy_attempts = report.copy_attempts.saturating_sub(1);
        });
        self.happened(Event::ManyDeletes { reason: asked.to_string() });
    }

    /// Begins an attempt at the copy that is awaited, if one is and it may.
    pub(super) fn begin_copy(&mut self) {
        let (true, true, Some(session)) = (self.copy.is_awaited(), self.is_captured, &self.session) else {
            return;
        };
        // The target has what the source's own disk has lost: nothing takes that from it but a person.
        if let Some(why) = self.settings.divergence.lost_by_disk() {
            let why = format!("nothing is copied: the disk of the directory lost writes that it has ({why})");
            return self.lost(LostBy::Network, why);
        }
        let (run, is_empty) = (self.start.incarnation, self.shared.report.lock().data == DataState::Empty);
        self.from_nothing = match (is_empty, self.from_nothing.take()) {
            (true, _) => Some(FirstCopy::begins(self.settings.unwritten_at.clone(), run)),
            (false, begun) => begun.and_then(|begun| begun.joined(run)),
        };
        let (ids, had) = (self.settings.ids.clone(), self.target_had());
        let suspect_since = self.suspect_since();
        let suspects = match &self.suspects {
            Suspects::These(suspects) => self.with_hot(suspects),
            Suspects::All => Arc::default(),
        };
        let sink = session.lane.stamped(session.link.waker());
        let covers = self.settings.divergence.count();
        let mode = self.asked_mode.unwrap_or(self.copy_mode);
        let (pace, mirror) = (self.pace.clone(), self.mirror_begun());
        let of_restored = self.is_restored && self.trust == Trust::AsNoted;
        let orphans = self.orphan_rules();
        let by_blocks = if is_empty { None } else { self.by_blocks() };
        let owed = self.owed();
        let resync = self.taken(&owed, is_empty);
        let ResyncStatus { rung, searched: searches, .. } = resync;
        let owed = owed.ok();
        let is_minicopy = owed.is_some();
        let names_had = self.names_had(owed.as_ref());
        let order = |answers, progress| WalkOrder {
            check: None,
            names_had,
            ids,
            suspect_since,
            suspects: suspects.clone(),
            had,
            of_restored,
            orphans,
            by_blocks,
            owed,
            part: None,
            sink,
            answers,
            progress,
            pace,
        };
        let is_afresh = had == TargetHad::NothingThatCounts;
        match Attempt::begin(&mut self.around, (covers, is_afresh), order) {
            Ok(mut attempt) => {
                (attempt.searches, attempt.rung) = (searches, rung);
                attempt.is_full = self.copy_mode == CopyMode::Full;
                let progress = attempt.progress();
                self.copy = Copying::Runs(attempt);
                self.update(|report| {
                    report.data = DataState::Bad;
                    report.left_out = LeftOut::default();
                    (report.mirror, report.mode, report.is_minicopy) = (mirror, mode, is_minicopy);
                    (report.part, report.is_comparison) = (None, false);
                    report.resync = Some(resync);
                    report.copy_attempts += 1;
                    report.progress = Some(progress);
                });
            }
            Err(error) => self.lost(LostBy::Network, format!("the copy cannot begin: {error}")),
        }
    }

    /// What has changed is looked for: packets that are given out meanwhile never go, since what they change is
    /// marked. Nobody waits for room because of them.
    pub(super) fn pass_what_is_marked(&mut self) {
        // In this order: a copy that begins in between does so behind it.
        let last = self.queue.last().sequence;
        let has_begun = |session: &super::OpenLink<S::Link>| session.stream.began().is_some();
        let is_searching = self.copy.attempt().is_some_and(|attempt| attempt.searches)
            && !self.session.as_ref().is_some_and(has_begun);
        if let Some(cursor) = self.cursor.filter(|_| is_searching) {
            self.queue.acknowledge_applied(cursor, last);
        }
    }

    /// Where it is not that all are moved aside, which is what a target does by itself.
    pub(super) fn orphan_rules(&self) -> Option<LaneItem> {
        let OrphanRules { choice, age_ms } = self.copy_orphans.unwrap_or(self.settings.orphans);
        let percent_max = self.percent_max();
        let rule = match choice {
            OrphanChoice::Aside if age_ms == 0 => return None,
            OrphanChoice::Aside => OrphanRule::Aside,
            OrphanChoice::Keep => OrphanRule::Keep,
            OrphanChoice::Delete => OrphanRule::Delete { percent_max },
        };
        Some(LaneItem::OrphanRules { rule, age_ms })
    }

    /// Of all that the target has, a copy may delete so much; all where there is no limit.
    pub(super) fn percent_max(&self) -> Option<u8> {
        match self.settings.delete_guard {
            DeleteLimit::Percent(percent) => Some(percent),
            DeleteLimit::Off => None,
        }
    }

    /// How content is compared that the target may have otherwise.
    fn by_blocks(&self) -> Option<BlockOrder> {
        self.by_blocks_in(self.copy_mode)
    }

    pub(super) fn by_blocks_in(&self, mode: CopyMode) -> Option<BlockOrder> {
        let least = mode.blocks_from()?;
        let (hash, takes_holes) = (BlockHash::draw(self.copy_hash), self.level.takes_holes);
        Some(BlockOrder { hash, least, takes_holes })
    }

    fn target_had(&self) -> TargetHad {
        match self.trust {
            Trust::Nothing => TargetHad::NothingThatCounts,
            Trust::SinceAfresh => TargetHad::Something,
            Trust::AsNoted if self.from_nothing.is_some() => TargetHad::Nothing,
            Trust::AsNoted => TargetHad::Something,
        }
    }

    /// What changed at this moment or later may be missing on the target although size and mtime are the
    /// same.
    pub(super) fn suspect_since(&self) -> Timestamp {
        if self.copy_mode.suspects_everything() || self.suspects == Suspects::All {
            return EVERYTHING;
        }
        let now = Clock::now();
        let from_nothing = match self.trust {
            Trust::Nothing => return EVERYTHING,
            Trust::SinceAfresh => self.settings.unwritten_at.suspect_since(&now),
            Trust::AsNoted => self.from_nothing.as_ref().map_or(EVERYTHING, |copy| copy.suspect_since(&now)),
        };
        let noted =
            from_nothing.max(self.settings.marks.suspect_since(&self.settings.target.to_string(), &now));
        self.merge.as_ref().map_or(noted, |merge| noted.min(merge.since))
    }

    /// And what the source's disk may have lost.
    fn with_hot(&self, suspects: &Arc<HashSet<ObjectId>>) -> Arc<HashSet<ObjectId>> {
        let Some(merge) = &self.merge else { return suspects.clone() };
        Arc::new(suspects.union(&merge.hot).copied().collect())
    }

    /// What the next run of this source may go by.
    pub(in super::super) fn first_copy(&self) -> Option<FirstCopy> {
        self.from_nothing.clone().filter(|_| self.trust == Trust::AsNoted)
    }

    /// What the target says to the copy under way. With its first word it has taken up the copy: what it
    /// acknowledges since then is of this source's history.
    pub(super) fn hear_of_copy(&mut self, answer: Answer) {
        if self.checking.is_some() {
            return self.hear_of_check(answer);
        }
        let Some(attempt) = self.copy.attempt() else { return };
        if !attempt.answer(answer) {
            return self.misbehaves("the target answers listings that it was not sent".into());
        }
        self.copy_is_taken_up();
    }

    /// With the first word to it. Of a part nothing else is known than before. `false`: it has not begun.
    fn copy_is_taken_up(&mut self) -> bool {
        let is_first = |attempt: &mut Attempt| !std::mem::replace(&mut attempt.is_heard, true);
        if !self.copy.attempt().is_some_and(|attempt| is_first(attempt) && attempt.part.is_none()) {
            return true;
        }
        let Some(session) = &mut self.session else { return true };
        let Some(began) = session.stream.began() else {
            self.misbehaves("the target answers a copy that has not begun".into());
            return false;
        };
        session.acknowledged = Some((began.sequence, Sequence(0)));
        if self.copy.attempt().is_some_and(|attempt| attempt.is_afresh) {
            self.trust = Trust::SinceAfresh;
        }
        self.applied(began.sequence, Sequence(0));
        true
    }

    /// The walk is over: the target has its end.
    pub(super) fn copy_walked(&mut self, outcome: Walked) {
        let end = outcome.as_ref().ok().and_then(|report| report.end);
        self.copy.attempt().into_iter().for_each(|attempt| attempt.walked(end));
        match outcome {
            Ok(CopyReport { .. }) => self.in_line(),
            // The link says why; the next one begins anew.
            Err(CopyError::Gone) => {}
            Err(CopyError::ManyGone { gone, of }) => self.ask_about_missing(gone, of),
            Err(error) => {
                self.lacks.everything("a copy has failed");
                self.lost(LostBy::Network, format!("the copy failed: {error}"));
            }
        }
    }

    pub(super) fn resynchronised(&mut self, end: ItemNumber, orphans: u64, left_out: LeftOut) {
        // The only word where nothing was owed: its acknowledgements would count for nothing after it.
        if !self.copy_is_taken_up() {
            return;
        }
        // They come before what it says behind them.
        let applied = self.shared.report.lock().applied;
        let Some(attempt) = self.copy.attempt() else { return };
        if !attempt.hear_end(EndSaid { end, applied, orphans, left_out }) {
            return self.misbehaves("the target ends a copy again and again".into());
        }
        self.in_line();
    }

    /// The walk is over and the target has its end: then it is in line.
    fn in_line(&mut self) {
        let Some(attempt) = self.copy.attempt() else { return };
        let Some(EndSaid { applied, orphans, left_out, .. }) = attempt.complete() else { return };
        let (covers, progress, part) = (attempt.covers, attempt.progress(), attempt.part.take());
        let copy = rung::copy_words(attempt.rung, attempt.searches);
        let covers = match part {
            None => self.settings.divergence.covered(covers, applied),
            Some(_) => covers,
        };
        self.copy.end();
        (self.trust, self.is_restored, self.left_upto) = (Trust::AsNoted, false, None);
        self.merge.take_if(|_| part.is_none());
        (self.copy_mode, self.copy_hash) = (CopyMode::default(), HashKind::default());
        (self.copy_orphans, self.asked_mode) = (None, None);
        let moved = OrphanCounts { moved: orphans, ..OrphanCounts::default() };
        let orphans = self.orphans.take().unwrap_or(moved);
        self.suspects = Suspects::default();
        self.set_rate(None);
        let copied = progress.snapshot();
        self.say_in_line(&copied, orphans);
        let Some(session) = &self.session else { return };
        let after = session.stream.at();
        // What has come since the copy began may be on no disk yet: acknowledgements tell.
        let began = session.stream.began().filter(|_| left_out.is_empty());
        self.lacks.in_line(began.map(|began| began.sequence));
        let base = self.lacks.base();
        let is_minicopy = self.shared.report.lock().is_minicopy;
        if !is_minicopy && part.is_none() {
            self.healing.took(clock::now().saturating_duration_since(self.machine.since()));
        }
        match (is_minicopy, &part) {
            (_, Some(_)) => {}
            (true, None) => self.guard.knows_the_rest(after.sequence),
            (false, None) => self.guard.knows(copied.files, after.sequence),
        }
        self.update(|report| {
            report.has_come = None;
            report.base = base;
            report.data = if left_out.is_empty() { DataState::Good } else { DataState::Bad };
            report.data_reason = if left_out.is_empty() { String::new() } else { left_out.summary() };
            report.left_out = left_out;
            // What stayed elsewhere is still there.
            let stayed = report.orphans.filter(|_| part.is_some()).map_or(0, |before| before.kept);
            report.orphans = Some(OrphanCounts { kept: orphans.kept.max(stayed), ..orphans });
            report.aside = AsideStatus::default();
            report.retrying = None;
            report.resync.iter_mut().for_each(|resync| resync.running = false);
            report.mirror = MirrorStatus::Complete;
            report.copy_attempts = 0;
            report.covers = covers;
        });
        self.happened(Event::InLine { after, copy });
        self.tell_moment();
        self.note_health();
    }

    fn say_in_line(&self, copied: &ProgressSnapshot, orphans: OrphanCounts) {
        let (Settings { id, target, .. }, files) = (&self.settings, copied.files_copied);
        let copy = {
            let report = self.shared.report.lock();
            match &report.part {
                Some(part) => format!("mirror of {}", part.display()),
                None if report.is_minicopy => "minicopy".to_owned(),
                None => "copy".to_owned(),
            }
        };
        log::info!("connection {id} to {target}: in line after a {copy}; content of {files} files was sent");
        let OrphanCounts { moved, kept, deleted, spared } = orphans;
        if moved > 0 {
            log::warn!(
                "connection {id} to {target}: objects that are not here and are at the target: {moved}; it keeps \
                 them in .REPSET.standin/orphans beside the replica until somebody removes them"
            );
        }
        if spared > 0 {
            log::warn!(
                "connection {id} to {target}: they were to be deleted, and are too many of all for that (--delete-guard), or \
                 may hold what the rules of the set leave out: `standin orphans remove`, on the target, deletes them"
            );
        }
        if kept + deleted > 0 {
            log::warn!(
                "connection {id} to {target}: of what is not here and was at the target, {kept} stayed where they \
                 were, and {deleted} were deleted"
            );
        }
    }

    /// A target that calls its copy good has to hear that it may miss a change: it alone is asked
    /// when the source is gone. A copy finds the change.
    pub(super) fn tell_diverged(&mut self) {
        let divergence = &self.settings.divergence;
        let is_resting = self.copy.is_resting();
        let (covered, takes_arrivals) = match self.copy.attempt() {
            Some(attempt) => (attempt.covers, attempt.part.is_none()),
            // One is about to begin, and covers all until then.
            None if !is_resting => return,
            None => (self.shared.report.lock().covers, false),
        };
        let count = divergence.count();
        if count <= covered || takes_arrivals && divergence.are_arrivals(covered) {
            return;
        }
        let (is_planned, is_lost) = (!divergence.misses(covered), divergence.lost_by_disk().is_some());
        // What is held back brings it when it goes on; until then the replica is as good as it was.
        if is_planned && self.machine.state().flow() == Flow::Hold {
            return;
        }
        let why = if is_planned { divergence.planned() } else { divergence.why() };
        let Some(why) = why else { return };
        let Some(session) = self.session.as_mut().filter(|session| session.stream.is_started()) else {
            return;
        };
        if std::mem::replace(&mut session.told_diverged, count) == count {
            return;
        }
        let why = match is_planned {
            true => why.to_string(),
            false => format!("a change could not be captured ({why})"),
        };
        session.link.send(SourceMessage::Diverged { reason: Text::from_str_cut(&why) });
        let begins = is_planned && self.machine.wish().copies == Copies::ByThemselves;
        self.update(|report| {
            report.data = DataState::Bad;
            report.data_reason.clone_from(&why);
            report.begins_copy = begins;
        });
        match (is_planned, is_lost) {
            (true, _) => self.compares(why),
            (false, false) => self.out_of_line(why),
            (false, true) => {}
        }
    }

    /// What belongs to the set has changed: a copy brings the rest at once.
    fn compares(&mut self, reason: String) {
        log::info!("connection {} to {}: {reason}", self.settings.id, self.settings.target);
        self.lacks.everything("other names belong to the set than before");
        self.happened(Event::SetChanged { reason });
    }

    /// Only a copy brings the target into line again.
    pub(super) fn out_of_line(&mut self, reason: String) {
        log::warn!("connection {} to {}: {reason}", self.settings.id, self.settings.target);
        self.lacks.everything("something of the replica is in doubt that no mark tells");
        let jitter = Jitter(self.around.random() as u16);
        self.happened(Event::OutOfLine { reason, jitter });
    }
}
