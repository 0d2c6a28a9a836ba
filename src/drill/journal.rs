//! Where drills are noted: `STATE/.drills`, of root.
//!
//! ```text
//!  lock          held while a drill runs or is cleaned up
//!  running.json  the drill that runs, written before its clone is made; with nobody who holds the lock, one
//!                that was interrupted
//!  000001.json   its report; the next one has the hash of this one
//!  head.json     number and hash of the newest report
//!  written       what those have written who came into a drill that is open: its number and bytes, one a line
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::limits::{GRACE, LOOKED_EVERY};
use super::report::Report;
use crate::locked::Locked;
use crate::store::{self, Symlink};

/// A drill that runs, or that nobody has cleaned up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub report: Report,
    /// Directory of the control sockets.
    pub run: PathBuf,
    pub replica: PathBuf,
    pub keeps: bool,
    /// The daemon has said that the clone has begun.
    pub is_begun: bool,
    /// The first process of its namespaces, and when it was started, by the kernel's clock.
    pub process: Option<(u32, u64)>,
    /// The same of the command that runs it.
    #[serde(default)]
    pub command: Option<(u32, u64)>,
    /// It stays open until it is stopped.
    #[serde(default)]
    pub is_open: bool,
}

pub struct Journal {
    dir: PathBuf,
}

/// Only who holds it may run a drill or clean up after one.
pub struct Turn {
    _lock: Locked,
}

/// Of the newest report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    number: u64,
    hash: String,
}

/// A report on the disk, and whether it follows on the one before it, and is what was written.
pub struct Kept {
    pub report: Report,
    pub is_linked: bool,
}

impl Journal {
    /// Errors: the system's, or others may write there.
    pub fn open(state: &Path) -> io::Result<Journal> {
        let dir = state.join(".drills");
        store::own_directory(&dir, 0o700, Symlink::Own)?;
        Ok(Journal { dir })
    }

    /// Where there was a drill already: nothing is made.
    pub fn of_existing(state: &Path) -> Option<Journal> {
        let dir = state.join(".drills");
        dir.is_dir().then_some(Journal { dir })
    }

    /// `None` where a drill runs.
    pub fn turn(&self) -> io::Result<Option<Turn>> {
        let lock = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("lock"))?;
        Ok(Locked::now(lock)?.map(|lock| Turn { _lock: lock }))
    }

    pub fn running(&self) -> io::Result<Option<Record>> {
        store::read_json(&self.running_path())
    }

    pub fn note(&self, record: &Record) -> io::Result<()> {
        store::replace_json(&self.running_path(), record)
    }

    /// The number that the next report gets.
    pub fn next_number(&self) -> io::Result<u64> {
        Ok(self.numbers()?.last().map_or(1, |last| last + 1))
    }

    /// Keeps the report of a drill that is over: it gets the hash of the one before it, and nothing runs any more.
    pub fn keep(&self, report: &mut Report) -> io::Result<()> {
        let before = self.numbers()?.into_iter().rfind(|number| *number < report.number);
        report.previous = before.map(|number| self.hash(number)).transpose()?;
        store::replace_json(&self.path(report.number), report)?;
        self.close(report.number)
    }

    /// The newest report is on the disk, whole: what comes after that. Of who was killed in between the next one
    /// does it.
    pub fn close(&self, number: u64) -> io::Result<()> {
        store::replace_json(&self.head_path(), &Head { number, hash: self.hash(number)? })?;
        self.forget_running()
    }

    /// Somebody has written so much in the drill of this number, and left.
    pub(super) fn add_written(&self, number: u64, bytes: u64) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.written_path())?;
        file.write_all(format!("{number} {bytes}\n").as_bytes())
    }

    /// What all of them have written.
    pub(super) fn written(&self, number: u64) -> u64 {
        let text = fs::read_to_string(self.written_path()).unwrap_or_default();
        let own = |line: &str| {
            let (of, bytes) = line.split_once(' ')?;
            if of.parse() == Ok(number) { bytes.parse::<u64>().ok() } else { None }
        };
        text.lines().filter_map(own).fold(0, u64::saturating_add)
    }

    fn written_path(&self) -> PathBuf {
        self.dir.join("written")
    }

    /// Nothing runs, and nothing is left.
    fn forget_running(&self) -> io::Result<()> {
        match fs::remove_file(self.written_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::remove_file(self.running_path())?;
        File::open(&self.dir)?.sync_all()
    }

    /// Whether there is a report of this number.
    pub fn has(&self, number: u64) -> io::Result<bool> {
        Ok(self.numbers()?.contains(&number))
    }

    /// All of them, in order.
    pub fn all(&self) -> io::Result<Vec<Kept>> {
        let (mut all, mut before) = (Vec::new(), None);
        for number in self.numbers()? {
            let report: Report = store::read_json(&self.path(number))?.ok_or(io::ErrorKind::NotFound)?;
            let is_linked = report.previous == before && report.number == number;
            all.push(Kept { report, is_linked });
            before = Some(self.hash(number)?);
        }
        if let Some(newest) = all.last_mut() {
            let hash = before.unwrap_or_default();
            let is_head = |head: Head| head == Head { number: newest.report.number, hash };
            newest.is_linked &= store::read_json(&self.head_path())?.is_some_and(is_head);
        }
        Ok(all)
    }

    /// The last ones, so many at most.
    pub fn last(&self, count: usize) -> io::Result<Vec<Report>> {
        let numbers = self.numbers()?.into_iter().rev().take(count);
        numbers
            .map(|number| Ok(store::read_json(&self.path(number))?.ok_or(io::ErrorKind::NotFound)?))
            .collect()
    }

    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn hash(&self, number: u64) -> io::Result<String> {
        Ok(blake3::hash(&fs::read(self.path(number))?).to_hex().to_string())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:06}.json"))
    }

    fn head_path(&self) -> PathBuf {
        self.dir.join("head.json")
    }

    /// Of the drill that runs.
    pub(super) fn running_path(&self) -> PathBuf {
        self.dir.join("running.json")
    }
}

/// When a process was started, by the kernel's clock: with its number it is nobody else's.
pub fn begun(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// Until that process, which the kernel kills, has gone.
///
/// Errors: it has not.
pub(super) fn wait_for_end(pid: u32, since: u64) -> Result<(), String> {
    let deadline = std::time::Instant::now() + GRACE;
    while begun(pid) == Some(since) {
        if std::time::Instant::now() >= deadline {
            return Err(format!("process {pid} of it still runs"));
        }
        std::thread::sleep(LOOKED_EVERY);
    }
    Ok(())
}
