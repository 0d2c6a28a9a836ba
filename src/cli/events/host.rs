//! All daemons and monitors of this host, and a watch over them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::cli::args::Common;
use crate::cli::drill;
use crate::control::{heard, unix_ms};
use crate::drill::Verdict;
use crate::drill::expected::Expected;
use crate::drill::journal::Journal;
use crate::events::{Drilled, Heard, Now, Seen, Told, Watch};
use crate::failure::Failure;
use crate::monitor::shown::{self, Monitored};

/// Drills that are looked at: more than end between two looks.
const DRILLS_LOOKED: usize = 32;

/// How often it is looked whether a drill should have passed.
const EXPECTED_EVERY: Duration = Duration::from_secs(20);

/// See the module.
pub(super) struct Host {
    run: PathBuf,
    state: PathBuf,
    started: Instant,
    /// When the reports of drills had changed last.
    looked: Option<Option<SystemTime>>,
    common: Common,
    /// What drills say that are expected to pass now and then, and when that was looked at.
    expected: (Option<Instant>, Vec<Seen>),
    pub watch: Watch,
}

impl Host {
    pub fn new(common: &Common) -> Host {
        Host {
            run: common.asked_dir(),
            state: common.state_dir(),
            started: Instant::now(),
            looked: None,
            common: common.clone(),
            expected: (None, Vec::new()),
            watch: Watch::default(),
        }
    }

    /// Errors: the run directory cannot be read, or not every daemon is this user's to ask.
    pub fn ask(&self) -> Result<BTreeMap<String, Heard>, Failure> {
        heard(&self.run, |name| self.watch.place(name)).map_err(|error| {
            Failure::new(
                format!("The daemons of {} cannot be asked: {error}.", self.run.display()),
                "Nothing was changed.",
                "Ask as root, or name another run directory with --run.",
            )
        })
    }

    pub fn hear(&mut self, heard: BTreeMap<String, Heard>) -> Vec<Told> {
        let now = self.now();
        let mut told = self.watch.hear(now, heard);
        if let Some(drills) = self.drills() {
            told.extend(self.watch.drilled(now, &drills));
        }
        let monitors = shown::all(&self.run);
        let expected = self.expected().to_vec();
        let seen = monitors.iter().flat_map(Monitored::seen).chain(expected);
        told.extend(self.watch.monitored(now, seen.collect()));
        told
    }

    pub fn now(&self) -> Now {
        Now { since_start: self.started.elapsed(), unix_ms: unix_ms(SystemTime::now()) }
    }

    /// Of drills that should have passed: what is read for that is more than is read each second.
    fn expected(&mut self) -> &[Seen] {
        if self.expected.0.is_none_or(|looked| looked.elapsed() >= EXPECTED_EVERY) {
            let seen = drill::expected(&self.common).iter().filter_map(Expected::seen).collect();
            self.expected = (Some(Instant::now()), seen);
        }
        &self.expected.1
    }

    /// `None` where nothing is new, or it is not known.
    fn drills(&mut self) -> Option<Vec<Drilled>> {
        let changed = fs::metadata(self.state.join(".drills")).and_then(|dir| dir.modified()).ok();
        if self.looked.replace(changed) == Some(changed) {
            return None;
        }
        if changed.is_none() {
            return Some(Vec::new());
        }
        let reports = Journal::open(&self.state).and_then(|journal| journal.last(DRILLS_LOOKED)).ok()?;
        let mut drills: Vec<Drilled> = reports
            .into_iter()
            .filter(|report| report.verdict.is_some())
            .map(|report| Drilled {
                number: report.number,
                set: report.set.clone(),
                is_passed: matches!(report.verdict, Some(Verdict::Passed | Verdict::Opened)),
                text: format!("Drill {}", report.line().trim_start()),
            })
            .collect();
        drills.sort_by_key(|drill| drill.number);
        Some(drills)
    }
}
