//! What becomes of names that the source does not list, as it asks for ([`LaneItem::OrphanRules`]).

use std::collections::HashMap;
use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Session, Strays};
use crate::apply::fault::Fault;
use crate::apply::replica::{Delete, Replica, Resolved, trees};
use crate::limits::{DELETE_GUARD_FILES_MIN, KEPT_DIRECTORIES_MAX};
#[cfg(doc)]
use crate::packet::LaneItem;
use crate::packet::{Name, ObjectId, OrphanCounts, OrphanRule};

/// What the source has asked for, and what has come of it so far.
pub(super) struct Asked {
    rule: OrphanRule,
    age: Duration,
    /// Names that stayed, by their directory: one that is listed again is counted anew.
    kept: HashMap<ObjectId, u64>,
    kept_elsewhere: u64,
}

impl Session {
    pub(super) fn treat_orphans(&mut self, rule: OrphanRule, age_ms: u64) {
        if rule == OrphanRule::Keep {
            self.rules.strays = Strays::Keep;
        }
        let (age, kept) = (Duration::from_millis(age_ms), HashMap::new());
        self.orphans = Some(Asked { rule, age, kept, kept_elsewhere: 0 });
    }

    /// Whether a name that the source does not list is too young to go.
    pub(super) fn is_too_young(&self, replica: &Replica, dir: &File, name: &Name) -> Result<bool, Fault> {
        let Some(Asked { age, .. }) = self.orphans.as_ref().filter(|asked| !asked.age.is_zero()) else {
            return Ok(false);
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let last =
            trees::last_modified(replica.root(), dir, name).map_err(Fault::system("look at an orphan"))?;
        let last = Duration::from_secs(u64::try_from(last).unwrap_or_default());
        Ok(now.saturating_sub(last) < *age)
    }

    /// So many names of a directory stayed.
    pub(super) fn strays_stayed(&mut self, dir: ObjectId, names: u64) {
        let Some(Asked { kept, kept_elsewhere, .. }) = &mut self.orphans else { return };
        match kept.len() < KEPT_DIRECTORIES_MAX || kept.contains_key(&dir) {
            _ if names == 0 => drop(kept.remove(&dir)),
            true => drop(kept.insert(dir, names)),
            false => *kept_elsewhere += names,
        }
    }

    /// What of limbo is deleted at the end.
    pub(super) fn deletes(&self, replica: &Replica) -> Delete {
        match self.orphans.as_ref().map(|asked| asked.rule) {
            // A directory may hold what the rules leave out, and that is no orphan: nothing of it is deleted.
            Some(OrphanRule::Delete { .. }) if self.ruled.is_there() => Delete::UpTo { objects: 0 },
            Some(OrphanRule::Delete { percent_max: None }) => Delete::UpTo { objects: u64::MAX },
            Some(OrphanRule::Delete { percent_max: Some(percent) }) => {
                let known = replica.index().len();
                let objects = (known.saturating_mul(percent.into()) / 100).max(DELETE_GUARD_FILES_MIN);
                Delete::UpTo { objects }
            }
            Some(OrphanRule::Aside | OrphanRule::Keep) | None => Delete::Nothing,
        }
    }

    pub(super) fn orphan_counts(&self, resolved: Resolved) -> OrphanCounts {
        let Resolved { moved, deleted, spared } = resolved;
        let kept = self.orphans.as_ref();
        let kept = kept.map_or(0, |asked| asked.kept.values().sum::<u64>() + asked.kept_elsewhere);
        OrphanCounts { moved, kept, deleted, spared }
    }
}
