//! Round robin: in every round each line runs at every place, one right after the other, so that
//! what disturbs the machine disturbs them alike. Every other round goes backwards (A B, B A, ...):
//! what comes earlier in one comes later in the next, and two programs stay neighbours.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use indicatif::ProgressBar;

use super::Settings;
use super::cold::Cooling;
use super::error::{Context, Result};
use super::line::Line;
use super::load::{Done, Load};
use super::memory;
use super::place::Place;
use super::placement::Threads;
use super::report::{LineReport, Sample};
use super::variant::Variant;
use crate::sys::{usage, usage_of_children};

/// What the rounds gave.
pub struct Measured {
    pub lines: Vec<LineReport>,
    pub cooling: Vec<Cooling>,
    /// What another program than this could not do.
    pub notes: Vec<String>,
}

/// Runs all rounds.
pub struct Measurement<'a> {
    pub settings: &'a Settings,
    pub lines: &'a [Line],
    pub places: &'a [Place],
    /// A directory on the file system of all places.
    pub root: &'a Path,
    pub progress: &'a ProgressBar,
    pub stop: &'a AtomicBool,
}

impl Measurement<'_> {
    pub fn run(&self) -> Result<Measured> {
        let (lines, count) = (self.lines, self.places.len());
        let mut samples: BTreeMap<(usize, usize), Vec<Sample>> = BTreeMap::new();
        let (mut cooling, mut failed) = (Vec::new(), BTreeMap::new());
        self.progress.set_length((self.settings.rounds as usize * lines.len() * count) as u64);
        for round in 0..self.settings.rounds as usize {
            for (at, &line) in lines.iter().enumerate() {
                for turn in 0..count {
                    let which = if (round + at).is_multiple_of(2) { turn } else { count - 1 - turn };
                    let place = &self.places[which];
                    if failed.contains_key(&(at, which)) {
                        continue;
                    }
                    self.progress.set_message(format!("{}, {}", line.title(), place.variant.name()));
                    let run = ((round + 1) * 100 + at) as u64;
                    let load = Load { settings: self.settings, place, root: self.root, run, stop: self.stop };
                    match self.sample(&load, line, &mut cooling) {
                        Ok(sample) => samples.entry((at, which)).or_default().push(sample),
                        Err(error) if place.variant.is_foreign() && !error.is_interrupt() => {
                            let note = format!("{} cannot do {line}: {error}", place.variant.name());
                            failed.insert((at, which), note);
                        }
                        Err(error) => return Err(error),
                    }
                    self.progress.inc(1);
                }
            }
        }
        let mut of = |at, which| samples.remove(&(at, which)).unwrap_or_default();
        let line_report = |(at, &line): (usize, &Line)| {
            let variants: Vec<(Variant, Vec<Sample>)> =
                (0..count).map(|which| (self.places[which].variant, of(at, which))).collect();
            LineReport::new(line, variants)
        };
        let lines = lines.iter().enumerate().map(line_report).collect();
        Ok(Measured { lines, cooling, notes: failed.into_values().collect() })
    }

    fn sample(&self, load: &Load<'_>, line: Line, cooling: &mut Vec<Cooling>) -> Result<Sample> {
        let place = load.place;
        self.calm(place)?;
        if let Some(way) = load.prepare(line)?
            && !cooling.contains(&way)
        {
            cooling.push(way);
        }
        place.settle(self.stop)?;
        if line.fills_memory() {
            memory::provide(self.settings.size * COPIES_IN_MEMORY);
        }

        let before = Moment::of(place)?;
        let done = load.perform(line)?;
        let worked = usage_of_all();
        let followed = Instant::now();
        place.settle(self.stop)?;
        let follow_seconds = followed.elapsed().as_secs_f64();
        let sample = Sample { follow_seconds, ..before.until_now(place, &done, worked)? };
        load.check(line, &done)?;
        load.clear(line)?;
        place.settle(self.stop)?;
        Ok(sample)
    }

    /// Writes back what earlier measurements left: it would be written during this one.
    fn calm(&self, place: &Place) -> Result<()> {
        place.settle(self.stop)?;
        let root = std::fs::File::open(self.root).at(self.root)?;
        rustix::fs::syncfs(&root).at(self.root)
    }
}

/// Of a big file in the page cache: through the mount, behind it, on the replica.
const COPIES_IN_MEMORY: u64 = 3;

/// What was used before a load.
struct Moment {
    program: Used,
    daemon: Threads,
    daemon_seconds: f64,
    target_seconds: f64,
}

/// By this process and its children.
#[derive(Clone, Copy)]
struct Used {
    seconds: f64,
    switches: u64,
}

fn usage_of_all() -> Used {
    let (own, children) = (usage(), usage_of_children());
    Used {
        seconds: (own.processor + children.processor).as_secs_f64(),
        switches: own.switches + children.switches,
    }
}

impl Moment {
    /// The threads are looked at first: that takes a while.
    fn of(place: &Place) -> Result<Moment> {
        let daemon = place.daemon_threads()?;
        let (daemon_seconds, target_seconds) = place.cpu_seconds()?;
        Ok(Moment { program: usage_of_all(), daemon, daemon_seconds, target_seconds })
    }

    /// `worked`: of the program, when the load had ended.
    fn until_now(&self, place: &Place, done: &Done, worked: Used) -> Result<Sample> {
        let (daemon_seconds, target_seconds) = place.cpu_seconds()?;
        let placement = place.daemon_threads()?.since(&self.daemon);
        Ok(Sample {
            writer_cpu_seconds: worked.seconds - self.program.seconds,
            daemon_cpu_seconds: daemon_seconds - self.daemon_seconds,
            target_cpu_seconds: target_seconds - self.target_seconds,
            p50_us: done.latency_us(0.5),
            p99_us: done.latency_us(0.99),
            program_cpus: done.cpus.list(),
            program_switches: worked.switches - self.program.switches,
            daemon_cpus: placement.cpus.list(),
            daemon_switches: placement.switches,
            daemon_migrations: placement.migrations,
            ..Sample::elapsed(done.work, done.elapsed)
        })
    }
}
