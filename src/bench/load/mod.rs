//! The loads: what an application does, timed, and checked for having been done.
//!
//! ```text
//! prepare ──> perform (timed) ──> [the replica follows] ──> check ──> clear
//! ```
//! Blocks carry stamps ([`super::content`]); a line is checked where its bytes have to have
//! arrived: in the backing directory and on the replica.

mod data;
mod small;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Settings;
use super::cold::{Cooling, cool};
use super::error::{Error, Result};
use super::line::Line;
use super::place::Place;

pub use data::write_pages;
pub use small::{check_files, create_files, names};

/// A sample takes no longer than this: a slow disk gives fewer ops, not a longer run.
const SAMPLE_TIME_MAX: Duration = Duration::from_secs(20);

/// Ops between two looks at the clock.
const OPS_BETWEEN_LOOKS: u64 = 16;

/// One line at one place in one round.
pub struct Load<'a> {
    pub settings: &'a Settings,
    pub place: &'a Place,
    /// Number in the stamps; no two runs have the same.
    pub run: u64,
    pub stop: &'a AtomicBool,
}

/// What was done, and in which time.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Bytes or ops, as the line counts.
    pub work: u64,
    pub elapsed: Duration,
}

impl Load<'_> {
    /// Makes what the line needs. Answers how the caches were emptied, where they have to be.
    pub fn prepare(&self, line: Line) -> Result<Option<Cooling>> {
        match line {
            Line::Write1M | Line::Write128K | Line::Write4K | Line::Fsync4K => {}
            Line::Random4K | Line::WarmReadRw | Line::WarmReadRo => self.prepare_big()?,
            Line::ColdRead => {
                self.prepare_big()?;
                return cool(self.place, data::BIG).map(Some);
            }
            Line::Create => self.prepare_no_files()?,
            Line::Stat | Line::Open | Line::Unlink => self.prepare_files()?,
        }
        Ok(None)
    }

    pub fn perform(&self, line: Line) -> Result<Done> {
        match line {
            Line::Write1M | Line::Write128K | Line::Write4K => {
                self.write_sequential(line.block().expect("these lines have one"))
            }
            Line::Random4K => self.write_random(),
            Line::Fsync4K => self.append_synced(),
            Line::Create => self.create(),
            Line::Stat => self.stat(),
            Line::Open => self.open(),
            Line::Unlink => self.unlink(),
            Line::ColdRead => self.read_cold(),
            Line::WarmReadRw => self.read_warm(data::Handle::ReadWrite),
            Line::WarmReadRo => self.read_warm(data::Handle::ReadOnly),
        }
    }

    /// Reads are checked while they are made.
    ///
    /// Errors: what was written is not there.
    pub fn check(&self, line: Line, done: &Done) -> Result<()> {
        match line {
            Line::Write1M | Line::Write128K | Line::Write4K => {
                self.check_sequential(line.block().expect("these lines have one"), done)
            }
            Line::Random4K => self.check_random(done),
            Line::Fsync4K => self.check_appended(done),
            Line::Create => self.check_created(),
            Line::Unlink => self.check_unlinked(),
            Line::Stat | Line::Open | Line::ColdRead | Line::WarmReadRw | Line::WarmReadRo => Ok(()),
        }
    }

    /// Removes what no other line needs.
    pub fn clear(&self, line: Line) -> Result<()> {
        match line {
            Line::Write1M | Line::Write128K | Line::Write4K | Line::Fsync4K => self.clear_sequential(),
            Line::Random4K
            | Line::Create
            | Line::Stat
            | Line::Open
            | Line::Unlink
            | Line::ColdRead
            | Line::WarmReadRw
            | Line::WarmReadRo => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.dir.join(name)
    }

    fn pace(&self) -> Pace<'_> {
        Pace { stop: self.stop, started: Instant::now(), ops: 0 }
    }
}

/// The clock of a sample.
struct Pace<'a> {
    stop: &'a AtomicBool,
    started: Instant,
    ops: u64,
}

impl Pace<'_> {
    /// Counts an op that is about to be made; `false` when the time is over.
    fn go_on(&mut self) -> Result<bool> {
        if self.ops.is_multiple_of(OPS_BETWEEN_LOOKS) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if self.ops > 0 && self.started.elapsed() >= SAMPLE_TIME_MAX {
                return Ok(false);
            }
        }
        self.ops += 1;
        Ok(true)
    }

    fn done(&self, work_per_op: u64) -> Done {
        Done { work: self.ops * work_per_op, elapsed: self.started.elapsed() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::variant::Variant;

    fn with_place(check: impl FnOnce(&Settings, &Place)) {
        let dir = tempfile::tempdir_in(".").unwrap();
        let settings = Settings { size: 2 << 20, files: 20, rounds: 1, ..Settings::default() };
        let place = Place {
            variant: Variant::Native,
            mount: None,
            dir: dir.path().to_owned(),
            backing: dir.path().to_owned(),
            replica: None,
        };
        check(&settings, &place);
    }

    #[test]
    fn every_line_does_its_work() {
        with_place(|settings, place| {
            let stop = AtomicBool::new(false);
            for (run, &line) in (1..).zip(Line::all()) {
                let load = Load { settings, place, run, stop: &stop };
                load.prepare(line).unwrap();
                let done = load.perform(line).unwrap();
                assert!(done.work > 0 && !done.elapsed.is_zero(), "{line}");
                load.check(line, &done).unwrap_or_else(|error| panic!("{line}: {error}"));
                load.clear(line).unwrap();
            }
        });
    }

    /// A line that does nothing must not look fast: what it left out has to be found.
    #[test]
    fn work_that_did_not_arrive_is_found() {
        let lines = [Line::Write1M, Line::Write4K, Line::Random4K, Line::Fsync4K, Line::Create, Line::Unlink];
        with_place(|settings, place| {
            let stop = AtomicBool::new(false);
            for line in lines {
                let load = Load { settings, place, run: 7, stop: &stop };
                load.prepare(line).unwrap();
                let done = load.perform(line).unwrap();
                load.check(line, &done).unwrap();
                // The same claim by a run that wrote nothing.
                let liar = Load { run: 8, ..load };
                match line {
                    Line::Unlink => load.prepare(Line::Stat).unwrap(),
                    _ => None,
                };
                assert!(liar.check(line, &done).is_err(), "{line}");
                load.clear(line).unwrap();
            }
        });
    }

    #[test]
    fn a_signal_ends_a_load() {
        with_place(|settings, place| {
            let load = Load { settings, place, run: 1, stop: &AtomicBool::new(true) };
            assert!(matches!(load.perform(Line::Write4K), Err(Error::Interrupted)));
        });
    }
}
