//! The driver: takes frames in order, performs each packet exactly once, says what to retry.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fault::{Concern, Fault, Patience};
use super::perform::Doubt;
use super::replica::{AsideView, DataStatus, DurablePoint, Replica};
use crate::clock;
use crate::failpoint;
use crate::limits::{SET_ASIDE_NEXT_AFTER, apply_retry_delay};
use crate::packet::{
    BadBy, Frame, FrameHeader, HeaderDigest, ObjectId, Op, PacketHeader, Position, ReplicaProof, Sequence,
    Stuck,
};

/// What became of a frame.
#[derive(Debug)]
pub enum Outcome {
    /// Performed, or a skip record adopted: *applied* is the frame's position now.
    Applied,
    /// A lane item: not the applier's, it belongs to the resynchronisation of the caller.
    Item,
    /// Not performed: the same frame is to be handled again after a while, before any other.
    Retry(Retry),
    /// Out of order, nothing was done: the stream must start anew after *applied*.
    Refused(OrderError),
}

/// The op at the head of the line could not be performed.
#[derive(Debug)]
pub struct Retry {
    pub sequence: Sequence,
    /// Name of the op.
    pub op: &'static str,
    pub fault: Fault,
    /// Attempts so far, from 1.
    pub attempts: u32,
    /// How long to wait before the next one.
    pub after: Duration,
}

/// What is to be done about an op that could not be performed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Tried again; within this time where that is given.
    Wait { stuck: Stuck, left: Option<Duration> },
    /// It hits one object, and waiting has not helped: [`Applier::give_up`].
    GiveUp,
}

/// What was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// The op: it is over.
    Op,
    /// The time of an object: the op is tried again.
    Time,
}

/// Why a frame does not come next. `applied` is what was applied last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderError {
    OtherHistory {
        applied: Position,
        found: Position,
    },
    AlreadyApplied {
        applied: Position,
        found: Position,
    },
    Gap {
        applied: Position,
        found: Position,
    },
    /// The right number, but the headers before it were not the same.
    Chain {
        applied: Position,
        found: Position,
    },
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrderError::OtherHistory { applied, found } => {
                write!(f, "packet {found} is of another history than {applied}")
            }
            OrderError::AlreadyApplied { applied, found } => {
                write!(f, "packet {found} came again, {applied} is applied")
            }
            OrderError::Gap { applied, found } => {
                write!(f, "packets between {applied} and {found} are missing")
            }
            OrderError::Chain { applied, found } => {
                write!(f, "packet {found} does not follow {applied}: the chain of headers differs")
            }
        }
    }
}

impl std::error::Error for OrderError {}

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
    received: Position,
    /// Attempts at the op at the head of the line that failed.
    attempts: u32,
    /// Since when a fault of one object holds it up. Outlives a session: a connection that comes and
    /// goes is no new patience.
    stuck_since: Option<Instant>,
}

impl Applier {
    pub fn new(replica: Replica) -> Applier {
        let received = replica.applied();
        Applier { replica, received, attempts: 0, stuck_since: None }
    }

    pub fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }

    /// Notes what the link received ahead of what is applied.
    pub fn received(&mut self, position: Position) {
        self.received = position;
    }

    pub fn acknowledged(&self) -> Acknowledged {
        let (applied, durable) = (self.replica.applied(), self.replica.durable());
        let ahead = self.received.same_history(&applied) && self.received.sequence > applied.sequence;
        Acknowledged { received: if ahead { self.received } else { applied }, applied, durable }
    }

    /// State of the data, since when and why.
    pub fn data(&self) -> DataStatus {
        self.replica.data()
    }

    /// Objects that are set aside.
    pub fn aside(&self) -> AsideView {
        self.replica.aside()
    }

    /// Good again, where nothing but files that were emptied made it bad, and all of them are gone.
    pub fn recover_from_relief(&mut self) -> Result<bool, Fault> {
        self.replica.recover_from_relief()
    }

    /// What the handshake tells the source.
    pub fn proof(&self) -> ReplicaProof {
        self.replica.proof(self.acknowledged().received)
    }

    /// Performs a frame. After [`Outcome::Retry`] the same frame comes again before any other.
    pub fn handle(&mut self, frame: &Frame) -> Outcome {
        match &frame.header {
            FrameHeader::Packet(packet) => {
                match follows(&self.replica.applied(), &frame.position, frame.digest) {
                    Ok(()) => self.packet(frame.position, packet, &frame.payload),
                    Err(error) => Outcome::Refused(error),
                }
            }
            FrameHeader::Skip(skip) => match skips(&self.replica.applied(), skip.first, &frame.position) {
                Ok(()) => self.skip(frame.position),
                Err(error) => Outcome::Refused(error),
            },
            FrameHeader::Item(_) => Outcome::Item,
        }
    }

    /// When [`Applier::rest`] wants to be called, if nothing else comes.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.replica.next_deadline()
    }

    /// Nothing came for a while: sets the times that are pending.
    pub fn rest(&mut self) -> Result<(), Fault> {
        self.replica.settle_times()
    }

    /// Makes everything applied durable, on this thread.
    pub fn durable_point(&mut self) -> Result<(), Fault> {
        self.replica.durable_point()
    }

    /// First part of a durable point; [`DurablePoint::sync`] may run elsewhere meanwhile.
    pub fn begin_durable(&mut self) -> Result<DurablePoint, Fault> {
        self.replica.begin_durable()
    }

    /// Last part of a durable point.
    pub fn finish_durable(&mut self, point: &DurablePoint, synced: io::Result<()>) -> Result<(), Fault> {
        self.replica.finish_durable(point, synced)
    }

    /// An orderly end: everything is durable when it returns.
    pub fn close(mut self) -> Result<(), Fault> {
        self.replica.durable_point()
    }

    /// Whether the op of this frame, or the time of an object, is tried again after this fault.
    /// `patience`: with a fault of one object.
    pub fn judge(&mut self, frame: Option<&Frame>, fault: &Fault, patience: Duration) -> Verdict {
        let kind = match self.replica.concern(fault) {
            Concern::Replica { is_full } => {
                self.stuck_since = None;
                let stuck = if is_full { Stuck::Full } else { Stuck::Target };
                return Verdict::Wait { stuck, left: None };
            }
            Concern::Proof => {
                self.stuck_since = None;
                return Verdict::Wait { stuck: Stuck::Target, left: None };
            }
            Concern::Object(kind) => kind,
            Concern::Packet => Patience::None,
        };
        let patience = match kind {
            Patience::None => Duration::ZERO,
            Patience::Some if self.touches_aside(frame, fault) => Duration::ZERO,
            Patience::Some if self.replica.bad_by() == Some(BadBy::Aside) => {
                patience.min(SET_ASIDE_NEXT_AFTER)
            }
            Patience::Some => patience,
        };
        let now = clock::now();
        let waited = now.saturating_duration_since(*self.stuck_since.get_or_insert(now));
        match patience.checked_sub(waited) {
            Some(left) if !left.is_zero() => Verdict::Wait { stuck: Stuck::Object, left: Some(left) },
            _ => Verdict::GiveUp,
        }
    }

    fn touches_aside(&self, frame: Option<&Frame>, fault: &Fault) -> bool {
        let mut objects = match frame.map(|frame| &frame.header) {
            Some(FrameHeader::Packet(packet)) => objects_of(&packet.op),
            Some(FrameHeader::Skip(_) | FrameHeader::Item(_)) | None => Vec::new(),
        };
        objects.extend(fault.object());
        self.replica.is_any_aside(&objects)
    }

    /// Sets aside what a fault hits: the replica is bad, durably, and the op is performed as far as
    /// that goes. Then *applied* is the frame's position. Where the fault is the time of another
    /// object the op itself is not given up: [`Outcome::Retry`] with the same frame goes on.
    ///
    /// Errors: a fault of the whole replica; the frame comes again.
    pub fn give_up(&mut self, frame: &Frame, fault: &Fault) -> Result<GivenUp, Fault> {
        let FrameHeader::Packet(packet) = &frame.header else {
            return Err(Fault::Refused("only packets are given up"));
        };
        let object = fault.object().or_else(|| objects_of(&packet.op).first().copied());
        if let Fault::Time { object, .. } = fault {
            self.give_time_up(*object, fault)?;
            return Ok(GivenUp::Time);
        }
        self.replica.set_aside(object.unwrap_or_default(), packet.op.name(), fault)?;
        self.replica.perform_by_results(&packet.op)?;
        self.replica.applied_is(frame.position)?;
        (self.attempts, self.stuck_since) = (0, None);
        Ok(GivenUp::Op)
    }

    /// Sets aside an object whose time cannot be set; it holds up no durable point any more.
    pub fn give_time_up(&mut self, object: ObjectId, fault: &Fault) -> Result<(), Fault> {
        self.replica.set_hint(&[]);
        self.replica.set_aside(object, "set a time", fault)?;
        self.stuck_since = None;
        Ok(())
    }

    fn packet(&mut self, position: Position, packet: &PacketHeader, payload: &Bytes) -> Outcome {
        match self.perform(position, packet, payload) {
            Ok(()) => {
                (self.attempts, self.stuck_since) = (0, None);
                Outcome::Applied
            }
            Err(fault) => self.retry(position, packet.op.name(), fault),
        }
    }

    /// An op that was begun and is not applied is in doubt, be it by a crash or by a failed attempt.
    pub(super) fn perform(
        &mut self,
        position: Position,
        packet: &PacketHeader,
        payload: &Bytes,
    ) -> Result<(), Fault> {
        let doubt = if self.replica.begun() == position { Doubt::MayBeDone } else { Doubt::None };
        self.replica.begin(position, packet, payload)?;
        failpoint::at("begun").map_err(Fault::own("begin"))?;
        self.replica.set_hint(&packet.path.0);
        self.replica.perform(&packet.op, payload, doubt)?;
        failpoint::at("performed").map_err(Fault::own("perform"))?;
        self.replica.applied_is(position)
    }

    fn skip(&mut self, last: Position) -> Outcome {
        match self.replica.adopt(last) {
            Ok(()) => Outcome::Applied,
            Err(fault) => self.retry(last, "skip", fault),
        }
    }

    fn retry(&mut self, position: Position, op: &'static str, fault: Fault) -> Outcome {
        self.attempts = self.attempts.saturating_add(1);
        let after = apply_retry_delay(self.attempts);
        Outcome::Retry(Retry { sequence: position.sequence, op, fault, attempts: self.attempts, after })
    }
}

/// Refuses everything but the packet right after `applied`.
pub(super) fn follows(applied: &Position, found: &Position, digest: HeaderDigest) -> Result<(), OrderError> {
    let (applied, found) = (*applied, *found);
    if !found.same_history(&applied) {
        return Err(OrderError::OtherHistory { applied, found });
    }
    if found.sequence <= applied.sequence {
        return Err(OrderError::AlreadyApplied { applied, found });
    }
    // No history comes near the last number; after it there would be no next.
    if found.sequence.0 == u64::MAX || found.sequence != applied.sequence.next() {
        return Err(OrderError::Gap { applied, found });
    }
    if found != applied.next(digest) {
        return Err(OrderError::Chain { applied, found });
    }
    Ok(())
}

/// A skip record starts right after `applied` and ends at or after its start.
fn skips(applied: &Position, first: Sequence, last: &Position) -> Result<(), OrderError> {
    let (applied, found) = (*applied, *last);
    if !found.same_history(&applied) {
        return Err(OrderError::OtherHistory { applied, found });
    }
    if first <= applied.sequence || found.sequence < first {
        return Err(OrderError::AlreadyApplied { applied, found });
    }
    if found.sequence.0 == u64::MAX || first != applied.sequence.next() {
        return Err(OrderError::Gap { applied, found });
    }
    Ok(())
}

/// Objects that an op names, the one that it is about first.
fn objects_of(op: &Op) -> Vec<ObjectId> {
    match op {
        Op::Create { at, object, .. }
        | Op::Link { object, at, .. }
        | Op::Unlink { at, object, .. }
        | Op::RemoveDirectory { at, object, .. } => vec![*object, at.dir],
        Op::Rename { from, to, object, replaced, .. } => {
            let mut objects = vec![*object, from.dir, to.dir];
            objects.extend(replaced.as_ref().map(|replaced| replaced.object));
            objects
        }
        Op::Exchange { left, left_object, right, right_object, .. } => {
            vec![*left_object, *right_object, left.dir, right.dir]
        }
        Op::Write { object, .. }
        | Op::Resize { object, .. }
        | Op::Reserve { object, .. }
        | Op::SetAttributes { object, .. }
        | Op::SetXattr { object, .. }
        | Op::RemoveXattr { object, .. } => vec![*object],
        Op::Barrier { .. } => Vec::new(),
    }
}
