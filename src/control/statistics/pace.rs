//! When there is something to say of a connection or replica: each second while it is active, once when it becomes
//! idle, and from then on once a minute, so that whoever reads knows idleness from silence. Pure.
//!
//! ```text
//!         busy, or changed: a line each second
//!       ┌──────────────┐
//!       v              │
//!    (active) ── neither ──> (idle): a line, and one each minute
//!       ^                      │
//!       └── busy, or changed ──┘
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Between two lines of what is idle.
pub const IDLE_EVERY: Duration = Duration::from_secs(60);

/// What is seen of something at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// It has something to do.
    pub busy: bool,
    pub marks: Marks,
}

/// What changes only where something is done, or becomes otherwise: a word, and numbers.
pub type Marks = (&'static str, Vec<u64>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    Active,
    Idle,
}

/// See the module.
#[derive(Default)]
pub struct Pace {
    known: BTreeMap<String, Known>,
}

struct Known {
    marks: Marks,
    activity: Activity,
    told: Duration,
}

impl Pace {
    /// Something is looked at, at a time that only goes forward. `None`: nothing is to be said.
    pub fn look(&mut self, now: Duration, id: &str, seen: Seen) -> Option<Activity> {
        let Seen { busy, marks } = seen;
        let before = self.known.get(id);
        let changed = before.is_some_and(|before| before.marks != marks);
        let activity = if busy || changed { Activity::Active } else { Activity::Idle };
        let is_due = |before: &Known| {
            activity == Activity::Active
                || before.activity == Activity::Active
                || now.saturating_sub(before.told) >= IDLE_EVERY
        };
        let is_told = before.is_none_or(is_due);
        let told = before.filter(|_| !is_told).map_or(now, |before| before.told);
        self.known.insert(id.to_owned(), Known { marks, activity, told });
        is_told.then_some(activity)
    }

    /// What is not there any more is forgotten.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.known.retain(|id, _| is_there(id));
    }
}
