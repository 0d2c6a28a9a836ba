//! Up to which packet a source says on its disk that it may have sent: pure.
//!
//! A source that was put back to an earlier state of itself, with its log, does not know what it has sent since. A
//! target that has applied more than the ceiling of that log tells. So nothing goes out above it. It stands at
//! the last packet while nothing flows, and while packets flow far enough ahead that they seldom wait: what is given
//! out in two looks. A target that got less than that since the machine was copied, and nothing later, is not told
//! from one whose source lost power at that moment.

use crate::limits::ACTIVITY_CEILING_STEP;
use crate::packet::Sequence;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ceiling {
    /// On disk, or on its way there.
    upto: Sequence,
    /// What was given out at the last look, and how much came before it since the one before.
    seen: Sequence,
    moved: u64,
    flows: bool,
}

impl Ceiling {
    pub fn at(last: Sequence) -> Ceiling {
        Ceiling { upto: last, seen: last, moved: 0, flows: false }
    }

    pub fn upto(&self) -> Sequence {
        self.upto
    }

    /// Whether it wants a look after [`crate::limits::ACTIVITY_LOOK_EVERY`].
    pub fn flows(&self) -> bool {
        self.flows
    }

    /// Time has passed, and packets up to `last` are given out. What is given is to be written.
    pub fn look(&mut self, last: Sequence) -> Option<Sequence> {
        self.moved = last.0.saturating_sub(self.seen.0);
        self.seen = last;
        self.flows = self.moved > 0;
        let wanted = match self.flows {
            true if last.0 + self.moved <= self.upto.0 => return None,
            true => Sequence(last.0 + self.margin()),
            false => last,
        };
        self.set(wanted)
    }

    /// Somebody waits for packets to go out.
    pub fn is_asked(&mut self, last: Sequence) -> Option<Sequence> {
        if last <= self.upto {
            return None;
        }
        self.flows = true;
        self.set(Sequence(last.0 + self.margin()))
    }

    fn margin(&self) -> u64 {
        (2 * self.moved).max(ACTIVITY_CEILING_STEP)
    }

    fn set(&mut self, wanted: Sequence) -> Option<Sequence> {
        (std::mem::replace(&mut self.upto, wanted) != wanted).then_some(wanted)
    }
}
