//! How far a target is behind, also in what it has applied and not made durable: such packets
//! are trimmed, so coarse marks keep when they were queued.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limits::{QUEUE_MARK_EVERY, QUEUE_MARKS_MAX};
use crate::packet::Sequence;

/// What a target lacks that has reached some position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// When the oldest packet that it lacks was queued; `None` where it lacks none. At most
    /// [`QUEUE_MARK_EVERY`] too early where the packet is trimmed, or, where that is more, a
    /// thousandth of the age of the oldest that some target lacks.
    pub since: Option<Instant>,
    pub packets: u64,
    /// Headers and payloads.
    pub bytes: u64,
    /// Bytes of memory: as far as it is not trimmed, the part of the queue's limit that it takes.
    pub held: u64,
}

/// What packets come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Volume {
    /// Headers and payloads.
    pub(super) bytes: u64,
    /// Bytes of memory.
    pub(super) held: u64,
}

/// A packet that stands for itself and those right after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) sequence: Sequence,
    pub(super) queued_at: Instant,
    /// All packets before it, since the queue began.
    pub(super) before: Volume,
}

/// Marks in the order of the queue, from the oldest packet that some target may not have durable.
pub(super) struct Marks {
    marks: VecDeque<Mark>,
    /// Time between two marks at least.
    every: Duration,
}

impl Marks {
    pub(super) fn new() -> Marks {
        Marks { marks: VecDeque::new(), every: QUEUE_MARK_EVERY }
    }

    /// Notes a new packet, if the last mark is old enough.
    pub(super) fn note(&mut self, mark: Mark) {
        let recent = |last: &Mark| mark.queued_at.saturating_duration_since(last.queued_at) < self.every;
        if self.marks.back().is_some_and(recent) {
            return;
        }
        let before = self.marks.back().map(|last| last.sequence);
        assert!(before.is_none_or(|before| before < mark.sequence), "marks go with the order of the queue");
        if self.marks.len() >= QUEUE_MARKS_MAX {
            self.thin();
        }
        self.marks.push_back(mark);
    }

    /// Every other one goes, never the first: what is said of the others becomes older, not younger.
    fn thin(&mut self) {
        let mut keep = false;
        self.marks.retain(|_| {
            keep = !keep;
            keep
        });
        self.every *= 2;
    }

    /// When this packet was queued, and what all before it come to; `None` if it was not kept. Between two marks the time is
    /// that of the first, and of what packets come to each has the same share. `end`: a mark behind the last packet.
    pub(super) fn of(&self, sequence: Sequence, end: (Sequence, Volume)) -> Option<(Instant, Volume)> {
        let after = self.marks.partition_point(|mark| mark.sequence <= sequence);
        let mark = self.marks.get(after.checked_sub(1)?)?;
        let (next, then) = self.marks.get(after).map_or(end, |next| (next.sequence, next.before));
        let (done, all) = (sequence.0 - mark.sequence.0, next.0.saturating_sub(mark.sequence.0).max(1));
        let share = |from: u64, to: u64| {
            let come = u128::from(to.saturating_sub(from)) * u128::from(done.min(all)) / u128::from(all);
            from + come as u64
        };
        let bytes = share(mark.before.bytes, then.bytes);
        Some((mark.queued_at, Volume { bytes, held: share(mark.before.held, then.held) }))
    }

    /// Everything before this packet is durable everywhere.
    pub(super) fn forget_before(&mut self, sequence: Sequence) {
        while self.marks.get(1).is_some_and(|mark| mark.sequence <= sequence) {
            self.marks.pop_front();
        }
        if self.marks.len() <= 1 {
            self.every = QUEUE_MARK_EVERY;
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Marks::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stay_few_and_are_never_too_young() {
        let (mut marks, start) = (Marks::new(), Instant::now());
        let volume = |bytes| Volume { bytes, held: bytes };
        let at = |n: u64| start + QUEUE_MARK_EVERY / 3 * n as u32;
        let count = 30 * QUEUE_MARKS_MAX as u64;
        let end = (Sequence(count + 1), volume((count + 1) * 10));
        for n in 1..=count {
            marks.note(Mark { sequence: Sequence(n), queued_at: at(n), before: volume(n * 10) });
        }
        assert!(marks.marks.len() <= QUEUE_MARKS_MAX);
        for n in (1..=count).step_by(97) {
            let (queued_at, before) = marks.of(Sequence(n), end).unwrap();
            assert!(queued_at <= at(n) && before == volume(n * 10), "{n}: {before:?}");
            assert!(at(n) - queued_at <= QUEUE_MARK_EVERY.max((at(count) - start) / 1000), "{n}");
        }
        marks.forget_before(Sequence(count));
        assert_eq!(marks.marks.len(), 1);
        assert!(marks.of(Sequence(1), end).is_none());
        assert_eq!(marks.every, QUEUE_MARK_EVERY);
    }

    /// What waited stood still for as long as packets of one mark went: a segment of 64 MiB, after a restart.
    #[test]
    fn what_waits_becomes_less_with_each_packet() {
        let mut marks = Marks::new();
        let volume = |bytes| Volume { bytes, held: 0 };
        for (sequence, bytes) in [(100, 5000), (200, 7000)] {
            let queued_at = Instant::now() + QUEUE_MARK_EVERY * sequence;
            marks.note(Mark { sequence: Sequence(sequence.into()), queued_at, before: volume(bytes) });
        }
        let of = |n| marks.of(Sequence(n), (Sequence(301), volume(9020))).map(|(_, before)| before.bytes);
        let all = [99, 100, 150, 199, 200, 250, 300, 301, 400].map(of);
        let expected = [5000, 6000, 6980, 7000, 8000, 9000, 9020, 9020].map(Some);
        assert_eq!((all[0], &all[1..]), (None, &expected[..]));
    }
}
