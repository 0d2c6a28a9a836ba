//! Where failovers are noted: `STATE/.failovers`, of root.
//!
//! ```text
//!  lock          held from the first step to the last
//!  running.json  the one that runs, as of its last step; with nobody who holds the lock, one that was
//!                interrupted
//!  000001.json   its report
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::report::{Report, State};
use crate::store;

pub struct Journal {
    dir: PathBuf,
    _lock: File,
}

impl Journal {
    /// `None`: another failover of this host is under way. What an interrupted one has left is closed, and given.
    pub fn open(state: &Path) -> io::Result<Option<(Journal, Option<Report>)>> {
        let dir = state.join(".failovers");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let lock = File::create(dir.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let journal = Journal { dir, _lock: lock };
        let left = journal.close_interrupted()?;
        Ok(Some((journal, left)))
    }

    /// Whether another one is under way. Nothing is made.
    pub fn is_busy(state: &Path) -> bool {
        let lock = File::open(state.join(".failovers/lock"));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
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

    /// The number that the next report gets.
    pub fn next_number(&self) -> io::Result<u64> {
        let mut last = 0;
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            last = last.max(number.unwrap_or(0));
        }
        Ok(last + 1)
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
        self.dir.join("running.json")
    }
}
