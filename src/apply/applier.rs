//! The driver: takes frames in order, performs each packet exactly once, says what to retry.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::durable::DurablePoint;
use super::fault::Fault;
use super::perform::Doubt;
use super::replica::Replica;
use crate::failpoint;
use crate::limits::apply_retry_delay;
use crate::packet::{Frame, FrameHeader, HeaderDigest, Op, Position, ReplicaProof, Sequence};

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
    replica: Replica,
    received: Position,
    /// Attempts at the op at the head of the line that failed.
    attempts: u32,
}

impl Applier {
    pub fn new(replica: Replica) -> Applier {
        let received = replica.applied();
        Applier { replica, received, attempts: 0 }
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

    /// What the handshake tells the source.
    pub fn proof(&self) -> ReplicaProof {
        self.replica.proof(self.acknowledged().received)
    }

    /// Performs a frame. After [`Outcome::Retry`] the same frame comes again before any other.
    pub fn handle(&mut self, frame: &Frame) -> Outcome {
        match &frame.header {
            FrameHeader::Packet(packet) => {
                match follows(&self.replica.applied(), &frame.position, frame.digest) {
                    Ok(()) => {
                        self.replica.set_hint(&packet.path.0);
                        self.packet(frame.position, &packet.op, &frame.payload)
                    }
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

    fn packet(&mut self, position: Position, op: &Op, payload: &[u8]) -> Outcome {
        match self.perform(position, op, payload) {
            Ok(()) => {
                self.attempts = 0;
                Outcome::Applied
            }
            Err(fault) => self.retry(position, op.name(), fault),
        }
    }

    /// An op that was begun and is not applied is in doubt, be it by a crash or by a failed attempt.
    fn perform(&mut self, position: Position, op: &Op, payload: &[u8]) -> Result<(), Fault> {
        let doubt = if self.replica.progress.begun() == position { Doubt::MayBeDone } else { Doubt::None };
        self.replica.progress.begin(position).map_err(Fault::system("position slot"))?;
        failpoint::at("begun").map_err(Fault::system("begin"))?;
        self.replica.perform(op, payload, doubt)?;
        failpoint::at("performed").map_err(Fault::system("perform"))?;
        self.replica.progress.applied_is(position);
        Ok(())
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
fn follows(applied: &Position, found: &Position, digest: HeaderDigest) -> Result<(), OrderError> {
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
