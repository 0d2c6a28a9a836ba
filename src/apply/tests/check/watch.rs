//! The source's looks: between any two of them it may change.

use super::Shared;
use crate::packet::Sequence;
use crate::resync::{Counts, Found, Looks};

pub(in crate::apply::tests) struct Watch(pub(in crate::apply::tests) Shared);

impl Looks for Watch {
    fn counts(&self, inode: u64) -> Counts {
        let mut world = self.0.lock();
        world.maybe_change(12);
        let begun = world.counts.get(&inode).copied().unwrap_or_default();
        Counts { begun, ended: begun }
    }

    fn changed_at(&self, inode: u64) -> Option<Sequence> {
        Some(Sequence(self.0.lock().changed.get(&inode).copied().unwrap_or_default()))
    }

    fn while_still(&self, _: Found<'_>, _: Option<Found<'_>>, look: &mut dyn FnMut()) {
        let left = std::mem::take(&mut self.0.lock().left);
        look();
        self.0.lock().left = left;
    }
}
