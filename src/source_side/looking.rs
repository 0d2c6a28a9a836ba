//! The volume, for a copy that looks at its backing directory while applications write.

use std::sync::Arc;

use crate::intercept::{Seen, Volume};
use crate::packet::{Keeping, Sequence};
use crate::resync::{Counts, Found, Looks};
use crate::sets::Matcher;

impl Looks for Volume {
    fn counts(&self, inode: u64) -> Counts {
        let (begun, ended) = self.change_counts(inode);
        Counts { begun, ended }
    }

    fn while_still(&self, one: Found<'_>, other: Option<Found<'_>>, look: &mut dyn FnMut()) {
        Volume::while_still(self, seen(one), other.map(seen), look);
    }

    fn changed_at(&self, inode: u64) -> Option<Sequence> {
        Some(self.last_change_of(inode))
    }

    fn directory_moved_at(&self) -> Option<Sequence> {
        Some(self.last_directory_move())
    }

    fn rules(&self) -> Option<Arc<Matcher>> {
        self.matcher()
    }

    fn keeping(&self) -> Option<Keeping> {
        Volume::keeping(self)
    }
}

fn seen(Found { object, handle, file_type }: Found<'_>) -> Seen<'_> {
    Seen { object, handle, file_type }
}
