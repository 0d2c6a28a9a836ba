//! The line: takes packets and items in the order in which they come, performs each exactly once, and
//! says what became of it.
//!
//! ```text
//!  frame ──> handle ─┬─ packet ── right after *applied*? ── begun ── perform ── applied ──> Applied
//!                    │            (while a copy is under way it is reconcile that performs)
//!                    ├─ item ──── reconcile ──────────────────────────────────────────────> Answered
//!                    │
//!                    ├─ a fault of one object that was waited for long enough ────────────> SetAside
//!                    ├─ any other fault ──────────────────────────────────────────────────> Retry
//!                    └─ out of order, or a sync failed ───────────────────────────────────> Refused
//! ```
//! Whom a fault concerns it says itself ([`super::fault`]). Nothing passes a frame that is to be tried
//! again.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fault::{Concern, Fault};
use super::giving_up::{GivenUp, Verdict, holds_up, objects_of};
use super::next_frame::{OrderError, follows, skips};
use super::perform::Doubt;
use super::policy::Withheld;
use super::reconcile::{Reconcile, Rules, rules_kept};
use super::replica::{AsideView, DataStatus, DurablePoint, Relief, Replica, Run};
use crate::clock;
use crate::failpoint;
use crate::limits::{OVERDUE_BURST, PRESENCE_LOOKS, RELIEF_OBJECTS_MAX, apply_retry_delay, set_aside_after};
use crate::packet::{
    Epoch, Frame, FrameHeader, ItemHeader, LaneItem, ObjectId, PacketHeader, Position, ReplicaProof,
    Sequence, Stuck, TargetMessage, ToWhom,
};
use crate::sets::Matcher;
use crate::words::Allow;

/// What became of a frame.
#[derive(Debug)]
pub enum Outcome {
    /// A packet was performed, or a skip record adopted: *applied* is the frame's position now.
    Applied,
    /// An item was performed; what the source is to be told.
    Answered(Vec<TargetMessage>),
    /// Not performed: the same frame is to be handled again after a while, before any other.
    Retry(Retry),
    /// A packet was given up: its object is set aside, the replica bad, durably; *applied* is the
    /// frame's position now.
    SetAside,
    /// Nothing was done, and nothing comes after it: the stream must start anew after *applied*.
    Refused(Refusal),
}

/// The frame at the head of the line could not be performed.
#[derive(Debug)]
pub struct Retry {
    pub sequence: Sequence,
    /// Name of the op or item.
    pub op: &'static str,
    pub fault: Fault,
    /// What it says to a person, with what the disk lacks.
    pub reason: String,
    /// Attempts so far, from 1.
    pub attempts: u32,
    /// How long to wait before the next one.
    pub after: Duration,
    pub stuck: Stuck,
}

/// Why the stream cannot go on.
#[derive(Debug)]
pub enum Refusal {
    Order(OrderError),
    /// A sync failed: what was written may not be there.
    Proof(Fault),
    /// The replica is not what its source takes it for, and says so at the next handshake: it lacks more than is owed.
    Lacks(Fault),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Order(error) => error.fmt(f),
            Refusal::Proof(fault) | Refusal::Lacks(fault) => fault.fmt(f),
        }
    }
}

/// What is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    pub received: Position,
    pub applied: Position,
    pub durable: Position,
}

/// See the module. Lives on one thread.
pub struct Applier {
    pub(super) replica: Replica,
    pub(super) reconcile: Reconcile,
    received: Position,
    /// A fault of one object sets it aside after so long.
    pub(super) patience: Duration,
    /// Attempts at the frame at the head of the line that failed.
    attempts: u32,
    /// Since when a fault of one object holds the line up, and since when the time of one holds up
    /// what is to be made durable. Both outlive a session: a connection that comes and goes is no new
    /// patience.
    pub(super) line_stuck: Option<Instant>,
    pub(super) time_stuck: Option<Instant>,
}

impl Applier {
    pub fn new(replica: Replica) -> Applier {
        Applier {
            received: replica.applied(),
            replica,
            reconcile: Reconcile::default(),
            patience: set_aside_after(),
            attempts: 0,
            line_stuck: None,
            time_stuck: None,
        }
    }

    /// From now on a fault of one object sets it aside after so long.
    pub fn with_patience(mut self, patience: Duration) -> Applier {
        self.patience = patience;
        self
    }

    /// What takes long goes on while this is so, until the session ends.
    pub fn goes_on_while(&mut self, goes_on: impl Fn() -> bool + Send + Sync + 'static) {
        self.replica.goes_on_while(Some(Arc::new(goes_on)));
    }

    /// Sets what counts in a copy for what no copy has brought.
    pub fn with_rules(mut self, rules: Rules) -> Applier {
        self.reconcile = Reconcile::with_rules(rules);
        self
    }

    /// Where what is kept of the replica lies.
    pub fn state(&self) -> &Path {
        self.replica.state()
    }

    /// How many names kept what they held in the last copy, by the rules.
    pub fn kept(&self) -> u64 {
        self.reconcile.kept()
    }

    /// Nothing is applied any more.
    pub fn into_replica(self) -> Replica {
        self.replica
    }

    #[cfg(test)]
    pub fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }

    /// What of all that it knows a good replica has not.
    #[cfg(test)]
    pub fn missing(&self) -> Option<String> {
        self.replica.missing(usize::MAX).expect("a replica that can be looked at")
    }

    /// A source begins: what an older session may have left of a copy is not gone on with. Gives what
    /// the handshake tells the source.
    pub fn begin_session(&mut self) -> ReplicaProof {
        self.reconcile.give_up();
        assert!(!self.is_copying(), "a copy of an older session goes on");
        if let Err(fault) = self.look_for_objects(PRESENCE_LOOKS) {
            log::warn!("whether the replica is still there cannot be told: {fault}");
        }
        self.proof()
    }

    /// Looks for some of what the replica has; where something is missing it is bad from now on, durably,
    /// and a copy has to bring it back. Gives what is missing.
    ///
    /// Errors: nothing follows.
    pub fn look_for_objects(&mut self, looks: usize) -> Result<Option<String>, Fault> {
        let missing = self.replica.missing(looks)?;
        if let Some(missing) = &missing {
            log::error!("the replica is no copy any more: {missing}");
            self.replica.mark_bad(missing)?;
        }
        Ok(missing)
    }

    /// Removes some of what was kept for as long as its source has asked. `source_ahead_ms`: how far the source's clock is
    /// ahead of this host's.
    pub fn remove_overdue(&self, source_ahead_ms: i64) {
        let _watch = self.watch();
        let end = clock::now() + OVERDUE_BURST;
        match self.replica.remove_overdue(source_ahead_ms, &|| clock::now() < end) {
            Ok(gone) if gone.objects > 0 => log::info!("{} objects were kept for long enough", gone.objects),
            Ok(_) => {}
            Err(error) => log::warn!("what was kept for long enough cannot be removed: {error}"),
        }
    }

    /// Whether the replica is where it was opened.
    pub fn is_where_it_was(&self) -> bool {
        self.replica.is_where_it_was()
    }

    /// Performs a frame. After [`Outcome::Retry`] the same frame comes again before any other.
    pub fn handle(&mut self, frame: &Frame) -> Outcome {
        self.handle_in(Run::Begins, frame)
    }

    /// [`Applier::handle`]; `run` says whether it came with the frame before.
    pub fn handle_in(&mut self, run: Run, frame: &Frame) -> Outcome {
        // Before it is asked who preserves.
        if matches!(&frame.header, FrameHeader::Item(item) if item.item.begins_a_copy()) {
            self.keep_good();
        }
        let _watch = self.watch();
        self.replica.begin_frame(run);
        let outcome = self.handled(frame);
        self.replica.end_frame();
        outcome
    }

    fn handled(&mut self, frame: &Frame) -> Outcome {
        let outcome = match &frame.header {
            FrameHeader::Packet(packet) => {
                self.received = frame.position;
                match follows(&self.replica.applied(), &frame.position, frame.digest) {
                    Ok(()) if self.reconcile.takes_packets() => self.converge(frame, packet),
                    Ok(()) => self.packet(frame, packet),
                    Err(error) => Outcome::Refused(Refusal::Order(error)),
                }
            }
            FrameHeader::Skip(skip) => {
                self.received = frame.position;
                match skips(&self.replica.applied(), skip.first, &frame.position) {
                    Ok(()) => self.skip(frame),
                    Err(error) => Outcome::Refused(Refusal::Order(error)),
                }
            }
            FrameHeader::Item(item) => self.item(frame, item),
        };
        match outcome {
            Outcome::Applied | Outcome::SetAside => {
                assert_eq!(self.replica.applied(), frame.position, "what passes is applied");
                (self.attempts, self.line_stuck) = (0, None);
                if let FrameHeader::Packet(packet) = &frame.header {
                    self.reconcile.passed(&packet.op);
                }
                match self.recover_from_relief() {
                    Ok(()) => outcome,
                    Err(fault) => Outcome::Refused(Refusal::Proof(fault)),
                }
            }
            Outcome::Answered(_) => {
                self.attempts = 0;
                outcome
            }
            Outcome::Retry(_) | Outcome::Refused(_) => outcome,
        }
    }

    /// What the link has received and what is done of it.
    pub fn acknowledged(&self) -> Acknowledged {
        let (applied, durable) = (self.replica.applied(), self.replica.durable());
        assert!(
            !durable.is_ahead_of(&applied),
            "{durable} is acknowledged as durable, and {applied} as applied"
        );
        let is_ahead = self.received.is_ahead_of(&applied);
        Acknowledged { received: if is_ahead { self.received } else { applied }, applied, durable }
    }

    /// State of the data, since when and why.
    pub fn data(&self) -> DataStatus {
        self.replica.data()
    }

    /// [`Applier::data`] as people are told it.
    pub fn data_shown(&self) -> DataStatus {
        self.replica.data_shown()
    }

    /// What the source was not allowed.
    pub fn withheld(&self) -> Arc<Withheld> {
        self.replica.withheld()
    }

    /// What the source may have from now on beside plain data.
    pub fn set_allow(&mut self, allow: Allow) {
        self.replica.set_allow(allow);
    }

    /// The replica's directory, open for reading.
    pub fn root(&self) -> io::Result<std::fs::File> {
        self.replica.root().try_clone()
    }

    /// The rules of the set, as of the last copy.
    ///
    /// Errors: they cannot be read.
    pub fn rules_of_set(&self) -> io::Result<Option<Arc<Matcher>>> {
        Ok(rules_kept(self.replica.state())?.map(Arc::new))
    }

    /// Objects that are set aside.
    pub fn aside(&self) -> AsideView {
        self.replica.aside()
    }

    /// What the handshake tells the source.
    pub fn proof(&self) -> ReplicaProof {
        self.replica.proof(self.acknowledged().received)
    }

    /// See [`Reconcile::awaited`].
    #[cfg(test)]
    pub fn awaited(&self) -> String {
        self.reconcile.awaited()
    }

    /// Whether a copy has begun and not ended.
    pub fn is_copying(&self) -> bool {
        self.reconcile.is_running()
    }

    /// Nothing is made durable for now: what is applied is no state of the source before a copy ends.
    pub fn is_half_copied(&self) -> bool {
        self.is_copying() || self.replica.is_half_copied()
    }

    /// What the source has to hear after a frame: directories that are to be listed again. Until there
    /// is no more of it.
    pub fn take_doubts(&mut self) -> Option<TargetMessage> {
        self.reconcile.take_doubts()
    }

    /// When [`Applier::set_pending_times`] wants to be called, if nothing else comes.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.replica.next_deadline()
    }

    /// Nothing came for a while: sets the times that are pending.
    pub fn set_pending_times(&mut self) -> Result<(), Fault> {
        let _watch = self.watch();
        let settled = self.replica.settle_times();
        self.or_give_time_up(settled)
    }

    /// The source has changed something that no packet tells: the replica is bad, durably.
    pub fn diverged(&mut self, reason: &str) -> Result<(), Fault> {
        self.keep_good();
        self.replica.mark_bad(reason)
    }

    /// As [`Replica::fence`].
    pub fn fence(&self) -> Option<Epoch> {
        self.replica.fence()
    }

    /// As [`Replica::raise_fence`].
    pub fn raise_fence(&mut self, epoch: Epoch) -> Result<(), Fault> {
        let before = self.replica.fence();
        self.replica.raise_fence(epoch)?;
        self.clones().fence_raised(before, self.replica.fence());
        Ok(())
    }

    /// A sync has failed, and no copy has begun since: nothing becomes durable any more.
    pub fn sync_failed(&self) -> bool {
        self.replica.sync_failed()
    }

    /// Notes that on the disk, where it could not be done at once.
    pub fn note_failed_sync(&mut self) -> Result<(), Fault> {
        self.replica.note_failed_sync()
    }

    /// Empties files that the source has removed since, so that the op at the head goes through.
    pub fn relieve(&mut self, objects: &[ObjectId]) -> Result<Relief, Fault> {
        if self.is_copying() {
            // What is emptied would be taken for what the copy has brought.
            return Ok(Relief::Nothing);
        }
        let _watch = self.watch();
        self.replica.relieve(&objects[..objects.len().min(RELIEF_OBJECTS_MAX)])
    }

    /// Copied files are synced beside what is performed.
    ///
    /// Errors: such a sync has failed; it is noted, and nothing that was copied counts.
    pub fn hear_of_sync(&mut self) -> Result<(), Fault> {
        self.reconcile.hear_of_sync(&mut self.replica).inspect_err(|_| self.reconcile.give_up())
    }

    /// Makes everything applied durable, on this thread.
    pub fn durable_point(&mut self) -> Result<(), Fault> {
        let point = self.begin_durable()?;
        let synced = point.sync();
        self.finish_durable(&point, synced)
    }

    /// First part of a durable point; [`DurablePoint::sync`] may run elsewhere meanwhile.
    pub fn begin_durable(&mut self) -> Result<DurablePoint, Fault> {
        let _watch = self.watch();
        self.recover_from_relief()?;
        let begun = self.replica.begin_durable();
        self.or_give_time_up(begun)
    }

    /// Last part of a durable point.
    pub fn finish_durable(&mut self, point: &DurablePoint, synced: io::Result<()>) -> Result<(), Fault> {
        self.replica.finish_durable(point, synced)
    }

    /// The connection is gone: what was received is performed, now it is made durable, whole.
    pub fn end_session(&mut self) {
        let _watch = self.watch();
        if let Err(fault) = self.reconcile.interrupt(&mut self.replica) {
            log::warn!("what was copied last will be copied again: {fault}");
        }
        if let Err(fault) = self.note_failed_sync() {
            log::warn!("a failed sync could not be noted on disk: {fault}");
        }
        assert!(!self.is_copying(), "a copy outlives its session");
        self.come_to_rest();
        if self.replica.applied() != self.replica.durable()
            && !self.is_half_copied()
            && !self.replica.sync_failed()
            && let Err(fault) = self.durable_point()
        {
            log::warn!("no durable point at the end of a session: {fault}");
        }
        // What has come to rest was to stop as well.
        self.replica.goes_on_while(None);
    }

    fn packet(&mut self, frame: &Frame, packet: &PacketHeader) -> Outcome {
        let name = packet.op.name();
        loop {
            let Err(fault) = self.perform(frame, packet) else { return Outcome::Applied };
            assert_ne!(self.replica.applied(), frame.position, "a packet is tried again that is applied");
            match self.judge(&objects_of(&packet.op), &fault) {
                Verdict::Wait { stuck, left } => {
                    return Outcome::Retry(self.retry(frame, name, fault, stuck, left));
                }
                Verdict::GiveUp => match self.give_up(frame.position, &packet.op, &fault) {
                    Ok(GivenUp::Op) => return Outcome::SetAside,
                    Ok(GivenUp::Time) => {}
                    Err(fault) => return self.nothing_passes(frame, name, fault),
                },
            }
        }
    }

    /// An op that was begun and is not applied is in doubt, be it by a crash or by a failed attempt.
    pub(super) fn perform(&mut self, frame: &Frame, packet: &PacketHeader) -> Result<(), Fault> {
        let doubt = if self.replica.begun() == frame.position { Doubt::MayBeDone } else { Doubt::None };
        self.performed_by(frame, packet, |applier| {
            match applier.replica.perform_making_way(&packet.op, &frame.payload, doubt) {
                Err(Fault::MissingObject(_)) if packet.to_whom == ToWhom::WhoKnows => Ok(()),
                done => done,
            }
        })
    }

    /// Writes down what is begun, has it performed, and writes down that it is.
    fn performed_by(
        &mut self,
        frame: &Frame,
        packet: &PacketHeader,
        perform: impl FnOnce(&mut Applier) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.replica.settle_many_flags()?;
        self.replica.begin(frame, packet)?;
        failpoint::at("begun").map_err(Fault::own("begin"))?;
        self.replica.set_hint(&packet.path.0);
        perform(self)?;
        failpoint::at("performed").map_err(Fault::own("perform"))?;
        self.replica.applied_is(frame.position)
    }

    /// A packet while a copy is under way. What hits one object keeps nothing up: the copy leaves it
    /// out, or looks at it again.
    fn converge(&mut self, frame: &Frame, packet: &PacketHeader) -> Outcome {
        let done = self.timed(|applier| {
            applier.performed_by(frame, packet, |applier| {
                applier.reconcile.handle_packet(&mut applier.replica, &packet.op, &frame.payload)
            })
        });
        match done {
            Ok(()) => Outcome::Applied,
            Err(fault) => self.copy_stops(frame, packet.op.name(), fault),
        }
    }

    /// A time that cannot be set is given up, and everything else goes on.
    fn timed<T>(&mut self, mut perform: impl FnMut(&mut Applier) -> Result<T, Fault>) -> Result<T, Fault> {
        loop {
            match perform(self) {
                Err(Fault::Time { object, fault })
                    if matches!(self.replica.concern(&fault), Concern::Object(_) | Concern::Packet) =>
                {
                    self.give_time_up(object, &fault)?;
                }
                done => return done,
            }
        }
    }

    fn copy_stops(&mut self, frame: &Frame, op: &'static str, fault: Fault) -> Outcome {
        match fault {
            Fault::SyncFailed(_) => {
                self.reconcile.give_up();
                Outcome::Refused(Refusal::Proof(fault))
            }
            fault if self.reconcile.has_unwritten() => self.file_stops(frame, fault),
            fault => self.nothing_passes(frame, op, fault),
        }
    }

    /// A file whose content came before this frame cannot be written. It is left out after a while: this frame has
    /// nothing to do with it.
    fn file_stops(&mut self, frame: &Frame, fault: Fault) -> Outcome {
        let (stuck, left) = match self.judge(&[], &fault) {
            Verdict::Wait { stuck, left } => (stuck, left),
            Verdict::GiveUp => {
                self.line_stuck = None;
                self.reconcile.be_lenient();
                (Stuck::Object, Some(Duration::ZERO))
            }
        };
        Outcome::Retry(self.retry(frame, "content of a file", fault, stuck, left))
    }

    fn skip(&mut self, frame: &Frame) -> Outcome {
        match self.replica.adopt(frame.position) {
            Ok(()) => Outcome::Applied,
            Err(fault) => self.nothing_passes(frame, "skip", fault),
        }
    }

    /// What one object keeps out of a copy the copy leaves out by itself.
    fn item(&mut self, frame: &Frame, item: &ItemHeader) -> Outcome {
        let done = self.timed(|applier| {
            let (reconcile, replica) = (&mut applier.reconcile, &mut applier.replica);
            replica.settle_many_flags()?;
            let answers = reconcile.handle_item(replica, frame.position, item, &frame.payload)?;
            replica.log_times().map(|()| answers)
        });
        match done {
            Ok(answers) => {
                if item.item.begins_a_copy() {
                    // Whatever was received before is of no use.
                    self.received = self.replica.applied();
                }
                Outcome::Answered(answers)
            }
            Err(fault) => self.item_fails(frame, item, fault),
        }
    }

    /// An object that cannot be taken is left out after a while: everything else would wait for it.
    fn item_fails(&mut self, frame: &Frame, item: &ItemHeader, fault: Fault) -> Outcome {
        let name = item.item.name();
        if matches!((&item.item, &fault), (LaneItem::BeginOwed { .. }, Fault::Refused(_))) {
            return Outcome::Refused(Refusal::Lacks(fault));
        }
        let is_whole = item.item.begins_a_copy()
            || matches!(item.item, LaneItem::Afresh | LaneItem::Root { .. } | LaneItem::End);
        if is_whole || !matches!(self.replica.concern(&fault), Concern::Object(_)) {
            return self.copy_stops(frame, name, fault);
        }
        match self.judge(&[], &fault) {
            Verdict::Wait { stuck, left } => Outcome::Retry(self.retry(frame, name, fault, stuck, left)),
            Verdict::GiveUp if self.reconcile.be_lenient() => self.item(frame, item),
            Verdict::GiveUp => {
                self.line_stuck = None;
                log::warn!("left out of the copy: {name}: {fault}");
                match self.reconcile.leave_item(item, &fault) {
                    Ok(answers) => Outcome::Answered(answers),
                    Err(fault) => self.copy_stops(frame, name, fault),
                }
            }
        }
    }

    /// Whatever the fault concerns, nothing goes on without this frame.
    fn nothing_passes(&mut self, frame: &Frame, op: &'static str, fault: Fault) -> Outcome {
        let stuck = holds_up(self.replica.concern(&fault));
        Outcome::Retry(self.retry(frame, op, fault, stuck, None))
    }

    fn retry(
        &mut self,
        frame: &Frame,
        op: &'static str,
        fault: Fault,
        stuck: Stuck,
        left: Option<Duration>,
    ) -> Retry {
        self.attempts = self.attempts.saturating_add(1);
        let delay = apply_retry_delay(self.attempts);
        let after = left.map_or(delay, |left| left.min(delay));
        let (sequence, reason) = (frame.position.sequence, self.replica.explain(&fault));
        Retry { sequence, op, fault, reason, attempts: self.attempts, after, stuck }
    }

    /// Good again, where nothing but files that were emptied made it bad, and all of them are gone.
    ///
    /// Errors: a sync failed. Anything else is tried again.
    fn recover_from_relief(&mut self) -> Result<(), Fault> {
        match self.replica.recover_from_relief() {
            Ok(()) => Ok(()),
            Err(fault @ Fault::SyncFailed(_)) => Err(fault),
            Err(fault) => {
                log::warn!("the replica could not be marked good again, it is tried again: {fault}");
                Ok(())
            }
        }
    }
}
