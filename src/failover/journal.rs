//! Where failovers are noted: `STATE/.failovers`, of root.
//!
//! ```text
//!  SET.turn      held from the first step of a set's failover to its last: several sets can be failed over at once
//!  SET.running   the one that runs, as of its last step; with nobody who holds the turn, one that was interrupted
//!  numbers       held while a number is given
//!  000001.json   a report
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::report::{Report, State};
use crate::locked::{LOOKED_FOR, Locked, is_locked};
use crate::store::{self, Symlink};

/// Of one set. Dropped, another failover of it may begin.
pub struct Journal {
    dir: PathBuf,
    set: String,
    _turn: Locked,
}

fn dir(state: &Path) -> PathBuf {
    state.join(".failovers")
}

fn turn(set: &str) -> String {
    format!("{set}.turn")
}

impl Journal {
    /// `None`: another failover of the set is under way. What an interrupted one has left is closed, and given.
    pub fn open(state: &Path, set: &str) -> io::Result<Option<(Journal, Option<Report>)>> {
        let dir = dir(state);
        store::own_directory(&dir, 0o700, Symlink::Own)?;
        let Some(lock) = Locked::within(File::create(dir.join(turn(set)))?, LOOKED_FOR)? else {
            return Ok(None);
        };
        let journal = Journal { dir, set: set.to_owned(), _turn: lock };
        let left = journal.close_interrupted()?;
        Ok(Some((journal, left)))
    }

    /// Whether another one of the set is under way. Nothing is made.
    pub fn is_busy(state: &Path, set: &str) -> bool {
        File::open(dir(state).join(turn(set))).is_ok_and(|lock| is_locked(&lock))
    }

    /// Those of this set, the oldest first, with one that is under way. Nothing is made.
    pub fn reports(state: &Path, set: &str) -> io::Result<Vec<Report>> {
        let entries = match fs::read_dir(dir(state)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut reports = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "json" || end == "running") {
                reports.extend(store::read_json::<Report>(&path)?.filter(|report| report.set == set));
            }
        }
        reports.sort_by_key(|report| report.number);
        Ok(reports)
    }

    fn close_interrupted(&self) -> io::Result<Option<Report>> {
        let Some(mut report) = store::read_json::<Report>(&self.running())? else { return Ok(None) };
        // It may have been kept, and killed before it was forgotten.
        if report.state == State::Running {
            report.state = State::Interrupted;
        }
        self.keep(&report)?;
        Ok((report.state == State::Interrupted).then_some(report))
    }

    /// Gives it the next number and notes it, before its first step.
    pub fn begin(&self, report: &mut Report) -> io::Result<()> {
        let numbers = File::create(self.dir.join("numbers"))?;
        numbers.lock()?;
        let mut last = 0;
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let name = name.to_str().unwrap_or_default();
            let number = match name.strip_suffix(".running") {
                // Of another set: it has its number, and no report yet.
                Some(_) => {
                    store::read_json::<Report>(&self.dir.join(name))?.map_or(0, |report| report.number)
                }
                None => name.strip_suffix(".json").and_then(|name| name.parse().ok()).unwrap_or(0),
            };
            last = last.max(number);
        }
        report.number = last + 1;
        self.note(report)
    }

    pub fn note(&self, report: &Report) -> io::Result<()> {
        store::replace_json(&self.running(), report)
    }

    /// It is over, or serves.
    pub fn keep(&self, report: &Report) -> io::Result<()> {
        store::replace_json(&self.dir.join(format!("{:06}.json", report.number)), report)?;
        match fs::remove_file(self.running()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        File::open(&self.dir)?.sync_all()
    }

    fn running(&self) -> PathBuf {
        self.dir.join(format!("{}.running", self.set))
    }
}
