//! What was done about an outage: noted durably before each step, so that nothing is done twice for one.
//!
//! ```text
//!  LOOKING ── FENCING ── FAILING_OVER ── STANDS_IN
//!     └──────────┴────────────┴───> FAILED: a person is called, and nothing more is done
//! ```
//! It is over, and the monitor may act again, when the source has answered for a whole time-out without a break.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::store::{self, Symlink};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    pub began_unix_ms: u64,
    pub step: Step,
    /// When that was noted.
    pub at_unix_ms: u64,
    /// Why it is not gone on with; of a failed one alone.
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Whether a failover would be refused; nothing is changed.
    Looking,
    Fencing,
    FailingOver,
    StandsIn,
    Failed,
}

impl Outage {
    /// Nothing was done about it yet.
    pub fn begun(now_unix_ms: u64) -> Outage {
        Outage { began_unix_ms: now_unix_ms, step: Step::Looking, at_unix_ms: now_unix_ms, why: None }
    }

    /// Nothing will be done about it.
    pub fn left_to_a_person(now_unix_ms: u64, why: &str) -> Outage {
        Outage { step: Step::Failed, why: Some(why.to_owned()), ..Outage::begun(now_unix_ms) }
    }

    pub fn stands_in(&self) -> bool {
        self.step == Step::StandsIn
    }

    pub fn failed(&self) -> Option<&str> {
        (self.step == Step::Failed).then(|| self.why.as_deref().unwrap_or("it is not known why"))
    }

    pub fn words(&self) -> String {
        match self.step {
            Step::Looking => "looks whether a failover can be done".into(),
            Step::Fencing => "the fence command runs".into(),
            Step::FailingOver => "the failover runs".into(),
            Step::StandsIn => "this host stands in, and the monitor acts no more".into(),
            Step::Failed => {
                format!("FAILED, a person is needed: {}", self.failed().unwrap_or_default())
            }
        }
    }
}

/// Where the note of a set is.
#[derive(Clone, Debug)]
pub struct Notes {
    path: PathBuf,
}

impl Notes {
    pub fn of(state: &Path, set: &str) -> io::Result<Notes> {
        let dir = state.join(".monitors");
        store::own_directory(&dir, 0o700, Symlink::Own)?;
        Ok(Notes { path: dir.join(format!("{set}.json")) })
    }

    /// Errors: the system's, or it is damaged: what was done is not known then.
    pub fn read(&self) -> io::Result<Option<Outage>> {
        store::read_json(&self.path)
    }

    pub fn write(&self, outage: &Outage) -> io::Result<()> {
        store::replace_json(&self.path, outage)
    }

    /// It is over; the last one is kept beside.
    pub fn over(&self) -> io::Result<()> {
        match fs::rename(&self.path, self.path.with_extension("last")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
