//! What a resynchronisation of each target would take, if it began now, and what one takes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::status::ConnectionState;
use crate::packet::Sequence;
use crate::words::CopyMode;

/// The rungs of the ladder, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// The target has everything.
    Nothing,
    /// What is queued is sent.
    Queue,
    /// What has changed since the target had everything is copied: a minicopy.
    Owed,
    /// Everything is listed; the content of what differs, or has changed since a moment, is copied.
    Differences,
    /// Everything is listed, and no content is believed to be there because of its size and time.
    Checksum,
    /// Everything is sent.
    Full,
}

impl Rung {
    /// Of a copy of everything that is made like this.
    pub fn of(mode: CopyMode) -> Rung {
        match mode {
            CopyMode::Full => Rung::Full,
            CopyMode::Checksum => Rung::Checksum,
            CopyMode::Differences | CopyMode::DifferencesChecksum => Rung::Differences,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncReport {
    /// Name of the replication set.
    pub name: String,
    /// Epoch and incarnation.
    pub history: String,
    /// The last position that was given out.
    pub last: Sequence,
    pub connections: Vec<ResyncForeseen>,
}

/// What that of one target would take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncForeseen {
    pub id: u32,
    pub uuid: String,
    pub target: String,
    pub state: ConnectionState,
    /// `None`: there would be none, whatever is done.
    pub rung: Option<Rung>,
    /// Why this one.
    pub why: String,
    /// It is under way.
    pub running: bool,
    /// What has to be so at the target, where that is not known now; may be empty.
    pub assumes: String,
    /// What a person or a schedule has to do before it begins; may be empty.
    pub waits_for: String,
    /// The target has everything up to here, and what comes behind it is owed or queued.
    pub since: Option<Sequence>,
    pub packets: Bounds,
    pub objects: Bounds,
    /// Of payload or content.
    pub bytes: Bounds,
    /// Files of the set, about, as they were counted last.
    pub set_files: Option<u64>,
    /// Their bytes.
    pub set_bytes: Option<u64>,
    /// The highest rate at which this target was sent to lately, or what its limit leaves of that.
    pub bytes_per_second: Option<u64>,
    /// For the bytes, at that rate.
    pub seconds: Option<Bounds>,
}

/// How a target is brought into line, or was last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResyncStatus {
    pub rung: Rung,
    /// Why this one, and none that is less.
    pub why: String,
    /// It is under way; else it has ended, or was cut off.
    pub running: bool,
    /// The target had everything up to here, and what comes behind it was owed or queued.
    pub since: Option<Sequence>,
    /// What is owed is looked for by change times, beside what is marked.
    pub searched: bool,
    /// As it began.
    pub packets: Bounds,
    pub objects: Bounds,
    /// Of payload or content.
    pub bytes: Bounds,
}

/// How far a mirror is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MirrorProgress {
    /// Full, differences, ...: as `mirror start --mode` says it; or `minicopy`: only what has changed since the
    /// target was in line.
    pub mode: String,
    /// A path in the directory, where it is of what lies there alone.
    #[serde(default, with = "super::path_text::optional")]
    pub path: Option<PathBuf>,
    /// A mirror that was started by hand compares, and has changed nothing yet: the replica is good.
    #[serde(default)]
    pub compares_first: bool,
    pub started_unix_ms: u64,
    pub files_done: u64,
    /// Of them, those whose content the target had.
    #[serde(default)]
    pub files_skipped: u64,
    /// `None` before they are counted.
    pub files_total: Option<u64>,
    pub bytes_done: u64,
    pub bytes_total: Option<u64>,
    /// The totals are counted to their end; else there is at least so much.
    #[serde(default)]
    pub is_counted: bool,
    /// Compared block by block.
    #[serde(default)]
    pub bytes_compared: u64,
    /// Not sent: the target had them, by size and time or by hashes.
    #[serde(default)]
    pub bytes_skipped: u64,
    pub bytes_per_second: f64,
    /// What a person lets it send in a second.
    #[serde(default)]
    pub rate_limit: Option<u64>,
    /// Seconds to go, as far as can be told.
    pub eta_seconds: Option<u64>,
    /// The file that is being copied.
    pub current: String,
}

/// How much of something is expected; exact where both are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    pub at_least: u64,
    /// `None`: not known.
    pub at_most: Option<u64>,
}

impl Bounds {
    pub const UNKNOWN: Bounds = Bounds { at_least: 0, at_most: None };

    pub fn exactly(amount: u64) -> Bounds {
        Bounds { at_least: amount, at_most: Some(amount) }
    }

    pub fn upto(amount: u64) -> Bounds {
        Bounds { at_least: 0, at_most: Some(amount) }
    }

    pub fn at_least(amount: u64) -> Bounds {
        Bounds { at_least: amount, at_most: None }
    }

    /// For so many, at so many a second.
    pub fn over(self, rate: u64) -> Bounds {
        let seconds = |amount: u64| amount.div_ceil(rate.max(1));
        Bounds { at_least: seconds(self.at_least), at_most: self.at_most.map(seconds) }
    }
}
