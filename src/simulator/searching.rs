//! What has changed while nobody captured it, as [`crate::resync::Search`] finds it, by the model's clock.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::applications::Applications;
use super::model::{Node, object};
use super::planted::Planted;
use crate::packet::{Birth, Timestamp};
use crate::resync::{CopyError, LiveCopy, Owed, OwedContent, OwedObject, StampedSink, WhatIsOwed};

type Since = Arc<dyn Fn() -> Option<Timestamp> + Send + Sync>;

/// A search that takes a while.
pub struct Searching {
    turns: u64,
    since: Since,
    found: Arc<OnceLock<Owed>>,
    now: WhatIsOwed,
    pub percent_max: Option<u8>,
}

impl Searching {
    /// It takes so many turns; the rest as it is ordered.
    pub fn new(
        turns: u64,
        (since, found): (Since, Arc<OnceLock<Owed>>),
        now: WhatIsOwed,
        percent_max: Option<u8>,
    ) -> Searching {
        Searching { turns, since, found, now, percent_max }
    }

    pub fn is_under_way(&mut self) -> bool {
        let left = self.turns;
        self.turns = left.saturating_sub(1);
        left > 0
    }

    /// What is owed before the copy has begun, and when it has.
    ///
    /// Errors: everything has to be looked at.
    pub fn find(
        self,
        applications: &Applications,
        planted: Option<Planted>,
    ) -> Result<(Arc<Owed>, WhatIsOwed), CopyError> {
        let Searching { since, found, now, .. } = self;
        if found.get().is_none() {
            let moment = since().ok_or(CopyError::ByTime("the clock was set"))?;
            let _ = found.set(changed_since(applications, moment, planted));
        }
        let all = move || Some(found.get()?.clone().and(now()?));
        let first = Arc::new(all().ok_or(CopyError::Owed)?);
        Ok((first, Arc::new(all)))
    }
}

fn changed_since(applications: &Applications, since: Timestamp, planted: Option<Planted>) -> Owed {
    let changed = |(inode, node): (&u64, &Arc<Node>)| {
        let (id, handle) = applications.backing.at_hand(object(*inode)).filter(|_| node.ctime >= since)?;
        let names = node.birth == Birth::Directory && planted != Some(Planted::OwesNoNames);
        let content = match node.birth {
            Birth::File => OwedContent::Doubted { size: node.content.len() as u64 },
            _ => OwedContent::No,
        };
        Some(OwedObject { id, handle, names, content })
    };
    Owed { objects: applications.model.tree.nodes.iter().filter_map(changed).collect() }
}

/// Only what is owed is shown, in the order of the model's numbers: the map knows none.
pub fn only<S: StampedSink>(
    copy: LiveCopy<S>,
    applications: &Arc<Mutex<Applications>>,
    (owed, now): (Arc<Owed>, WhatIsOwed),
    (percent_max, planted): (Option<u8>, Option<Planted>),
) -> LiveCopy<S> {
    let applications = applications.clone();
    let in_order = move |mut owed: Owed| {
        let backing = &applications.lock().backing;
        owed.objects.sort_by_key(|object| backing.in_model(object.id).inode);
        let left_out = usize::from(planted == Some(Planted::DropsWhatIsOwed));
        Owed { objects: owed.objects.into_iter().skip(left_out).collect() }
    };
    let first = Arc::new(in_order(Arc::unwrap_or_clone(owed)));
    copy.only(first, Arc::new(move || now().map(&in_order)), percent_max)
}
