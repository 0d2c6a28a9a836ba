//! What a target says while it is connected, and what is made of it.

use std::time::SystemTime;

use super::super::MarkerHeard;
use super::super::surroundings::Surroundings;
use super::Driver;
use crate::clock;
use crate::control::{Retrying, SetAside, unix_ms};
use crate::limits::{ASIDE_LISTED_MAX, MARKERS_HEARD_MAX};
use crate::link::LostBy;
use crate::packet::{DataState, MarkerEnd, Sequence, SourceMessage, Stuck, TargetMessage, Text};
use crate::resync::{Answer, Wanted};

impl<S: Surroundings> Driver<S> {
    pub(super) fn message(&mut self, message: TargetMessage) {
        match message {
            TargetMessage::Welcome { version, features, proof } => self.welcome(version, features, proof),
            TargetMessage::Refused { reason } => {
                self.lost(LostBy::Refusal, format!("refused by the target: {}", reason.to_text()));
            }
            TargetMessage::AskHistory => {
                self.send(SourceMessage::Writes(self.settings.roles.writes()));
            }
            TargetMessage::Wrote { history } => self.wrote = history,
            TargetMessage::KeptOut { epoch, reason } => {
                let history = std::mem::take(&mut self.wrote);
                self.kept_out(epoch, history.of_epoch(epoch), reason.to_text());
            }
            TargetMessage::Acknowledge { applied, durable, .. } => self.acknowledge(applied, durable),
            TargetMessage::Wanted { listing, objects } => {
                self.hear_of_copy(Answer::Wanted(Wanted { listing, objects }));
            }
            TargetMessage::Doubt { directories } => self.hear_of_copy(Answer::Doubt(directories)),
            TargetMessage::Resynchronised { end, orphans, left_out } => {
                self.resynchronised(end, orphans, left_out);
            }
            TargetMessage::Orphans(counts) => self.orphans = Some(counts),
            TargetMessage::Retrying { sequence, op, reason, attempts, stuck } => {
                self.retrying(
                    sequence,
                    format!("{} (packet {sequence})", op.to_text()),
                    &reason,
                    attempts,
                    stuck,
                );
            }
            TargetMessage::Recovered { .. } => {
                (self.full_since, self.relief_reader) = (None, None);
                self.update(|report| report.retrying = None);
            }
            TargetMessage::Data { state, reason, aside } => self.data_changed(state, &reason, aside),
            TargetMessage::SetAside { path, op, reason, since_ms } => {
                let is_new = self.machine.is_streaming()
                    && self.shared.report.lock().aside.objects.len() < ASIDE_LISTED_MAX;
                if is_new {
                    let (path, op, reason) = (path.to_text(), op.to_text(), reason.to_text());
                    let object = SetAside { path, op, reason, since_unix_ms: since_ms };
                    self.update(|report| report.aside.objects.push(object));
                }
            }
            TargetMessage::Hashed { item, differing } => {
                self.hear_of_copy(Answer::Hashed { item, differing });
            }
            TargetMessage::HasOld { listing, objects } => {
                self.hear_of_copy(Answer::HasOld(Wanted { listing, objects }));
            }
            TargetMessage::Differences { found } => self.differences(found),
            TargetMessage::Checked { end, counts } => self.checked(end, counts),
            TargetMessage::NotChecked { reason } => self.end_check(Err(reason.to_text())),
            TargetMessage::CheckStopped => self.check_stopped(),
            TargetMessage::Withheld(counts) => self.update(|report| report.withheld = counts),
            TargetMessage::Marker { sequence, end, text } => self.marked(sequence, end, &text),
            // Right before a refusal, of one that speaks another version.
            TargetMessage::WrittenIn { set, epoch } => self.written_in(set, epoch),
            // An answer to a question that this connection does not ask.
            TargetMessage::About { .. }
            | TargetMessage::Holds(_)
            | TargetMessage::Replica(_)
            | TargetMessage::Restoring { .. } => {}
        }
    }

    fn retrying(&mut self, sequence: Sequence, op: String, reason: &Text, attempts: u32, stuck: Stuck) {
        self.update(|report| {
            let since = report.retrying.as_ref().map(|retrying| retrying.since_unix_ms);
            report.retrying = Some(Retrying {
                op,
                reason: reason.to_text(),
                since_unix_ms: since.unwrap_or_else(|| unix_ms(SystemTime::now())),
                attempts,
                marker: stuck == Stuck::Marker,
            });
        });
        match stuck {
            Stuck::Full if self.machine.is_streaming() => self.target_is_full(sequence),
            Stuck::Full | Stuck::Target | Stuck::Object | Stuck::Marker => {
                (self.full_since, self.relief_reader) = (None, None)
            }
        }
    }

    /// Whoever waits for it looks into the report.
    fn marked(&mut self, sequence: Sequence, end: MarkerEnd, text: &Text) {
        let heard = MarkerHeard { sequence, end, text: text.to_text() };
        self.update(|report| {
            while report.markers.len() >= MARKERS_HEARD_MAX {
                report.markers.pop_front();
            }
            report.markers.push_back(heard);
        });
    }

    /// The target says how its data is while packets flow.
    fn data_changed(&mut self, state: DataState, reason: &Text, aside: u64) {
        let covers = self.shared.report.lock().covers;
        if state == DataState::Bad && !self.settings.divergence.misses(covers) {
            // It has heard of what came into the set before this side looked.
            self.tell_diverged();
        }
        if !self.machine.is_streaming() {
            return;
        }
        if aside > 0 && self.shared.report.lock().aside.total == 0 {
            log::error!(
                "connection {} to {}: {}: the replica is no consistent copy before a copy has brought it into line",
                self.settings.id,
                self.settings.target,
                reason.to_text()
            );
        }
        if state != DataState::Good {
            self.end_check(Err(format!("its replica became bad: {}", reason.to_text())));
        }
        self.update(|report| {
            report.data = state;
            report.data_reason = reason.to_text();
            report.aside.total = aside;
            if aside == 0 {
                report.aside.objects.clear();
            }
        });
        self.note_health();
    }

    /// Objects that are set aside, or that a copy left out, are tried again by a copy; and one brings into line what its
    /// target calls bad for another reason, and goes on calling so. Not where the disk of this side has lost what the
    /// target has, nor while it waits for room.
    pub(super) fn note_health(&mut self) {
        let may_be_copied = self.settings.divergence.lost_by_disk().is_none();
        let lacks = {
            let report = self.shared.report.lock();
            let stays_bad = report.data == DataState::Bad && report.retrying.is_none() && may_be_copied;
            report.aside.total > 0 || !report.left_out.is_empty() || stays_bad
        };
        self.healing.note(clock::now(), lacks);
    }
}
