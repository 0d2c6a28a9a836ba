//! How long the line waits for one object, and how it goes on without it.

use std::time::{Duration, Instant};

use super::applier::Applier;
use super::fault::{Concern, Fault, Patience};
use crate::clock;
use crate::limits::SET_ASIDE_NEXT_AFTER;
use crate::packet::{BadBy, ObjectId, Op, Position, Stuck, printable};

/// What is to be done about an op, or the time of an object, after a fault.
pub(super) enum Verdict {
    /// It is tried again; within this time where that is given.
    Wait { stuck: Stuck, left: Option<Duration> },
    /// It hits one object, and waiting has not helped or never does.
    GiveUp,
}

/// What was given up.
pub(super) enum GivenUp {
    /// The op: it is over.
    Op,
    /// The time of an object: the op is tried again.
    Time,
}

impl Applier {
    /// Whether an op that names these objects, or the time of an object, is tried again.
    pub(super) fn judge(&mut self, objects: &[ObjectId], fault: &Fault) -> Verdict {
        let patience = match self.replica.concern(fault) {
            Concern::Object(_) if self.is_expected(fault) => Duration::ZERO,
            Concern::Object(Patience::Some) => self.patience_with(objects, fault),
            Concern::Object(Patience::None) | Concern::Packet => Duration::ZERO,
            concern @ Concern::Replica { .. } => {
                *self.stuck_since(fault) = None;
                return Verdict::Wait { stuck: holds_up(concern), left: None };
            }
            concern @ Concern::Proof => {
                return Verdict::Wait { stuck: holds_up(concern), left: None };
            }
        };
        let now = clock::now();
        let waited = now.saturating_duration_since(*self.stuck_since(fault).get_or_insert(now));
        match patience.checked_sub(waited) {
            Some(left) if !left.is_zero() => Verdict::Wait { stuck: Stuck::Object, left: Some(left) },
            _ => Verdict::GiveUp,
        }
    }

    /// The replica waits for a copy of everything, which brings what it has not, or has elsewhere.
    fn is_expected(&self, fault: &Fault) -> bool {
        let is_of_names = matches!(fault, Fault::MissingObject(_) | Fault::Mismatch(_));
        is_of_names && self.replica.bad_by() == Some(BadBy::Anything)
    }

    fn patience_with(&self, objects: &[ObjectId], fault: &Fault) -> Duration {
        if self.replica.is_any_aside(objects) || self.replica.is_any_aside(fault.object().as_slice()) {
            return Duration::ZERO;
        }
        match self.replica.bad_by() {
            Some(BadBy::Aside) => self.patience.min(SET_ASIDE_NEXT_AFTER),
            Some(BadBy::Anything | BadBy::Relief | BadBy::Owed) | None => self.patience,
        }
    }

    fn stuck_since(&mut self, fault: &Fault) -> &mut Option<Instant> {
        match fault {
            Fault::Time { .. } => &mut self.time_stuck,
            _ => &mut self.line_stuck,
        }
    }

    /// Sets aside what a fault hits: the replica is bad, durably, and the op is performed as far as
    /// that goes. Then *applied* is its position.
    ///
    /// Errors: a fault of the whole replica; the op comes again.
    pub(super) fn give_up(&mut self, position: Position, op: &Op, fault: &Fault) -> Result<GivenUp, Fault> {
        if let Fault::Time { object, .. } = fault {
            self.give_time_up(*object, fault)?;
            return Ok(GivenUp::Time);
        }
        match (fault, op) {
            (Fault::MissingObject(missing), Op::Place { object, at, .. }) if missing == object => {
                self.diverged(&format!("something came into the set: {}", printable(at.name.as_bytes())))?;
            }
            _ if self.is_expected(fault) => {}
            _ => {
                let object = fault.object().or_else(|| objects_of(op).first().copied());
                self.replica.set_aside(object.unwrap_or_default(), op.name(), fault)?;
            }
        }
        self.replica.perform_by_results(op)?;
        self.replica.applied_is(position)?;
        Ok(GivenUp::Op)
    }

    /// Sets aside an object whose time cannot be set; it holds up no durable point any more.
    pub(super) fn give_time_up(&mut self, object: ObjectId, fault: &Fault) -> Result<(), Fault> {
        self.replica.set_hint(&[]);
        self.replica.set_aside(object, "set a time", fault)?;
        self.time_stuck = None;
        Ok(())
    }

    /// One object whose time cannot be set must not keep all others from being made durable: when it
    /// was waited for long enough the next attempt goes without it.
    pub(super) fn or_give_time_up<T>(&mut self, settled: Result<T, Fault>) -> Result<T, Fault> {
        match &settled {
            Ok(_) => self.time_stuck = None,
            Err(fault @ Fault::Time { object, .. }) => {
                if let Verdict::GiveUp = self.judge(&[], fault)
                    && let Err(fault) = self.give_time_up(*object, fault)
                {
                    log::warn!("it could not be set aside: {fault}");
                }
            }
            Err(_) => {}
        }
        settled
    }
}

/// What is held up by a fault that nothing passes.
pub(super) fn holds_up(concern: Concern) -> Stuck {
    match concern {
        Concern::Replica { is_full: true } => Stuck::Full,
        Concern::Replica { is_full: false } | Concern::Object(_) | Concern::Packet | Concern::Proof => {
            Stuck::Target
        }
    }
}

/// Objects that an op names, the one that it is about first.
pub(super) fn objects_of(op: &Op) -> Vec<ObjectId> {
    match op {
        Op::Create { at, object, .. }
        | Op::Link { object, at, .. }
        | Op::Unlink { at, object, .. }
        | Op::RemoveDirectory { at, object, .. }
        | Op::Leave { at, object, .. }
        | Op::Keep { at, object, .. } => vec![*object, at.dir],
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
        | Op::RemoveXattr { object, .. }
        | Op::Stage { object, .. }
        | Op::Unstage { object } => vec![*object],
        Op::Place { object, at, replaced, .. } => {
            let replaced = replaced.as_ref().map(|replaced| replaced.object);
            [*object, at.dir].into_iter().chain(replaced).collect()
        }
        Op::Barrier { .. } => Vec::new(),
    }
}
