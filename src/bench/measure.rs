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
use super::load::Load;
use super::place::Place;
use super::report::{LineReport, Sample};
use super::variant::Variant;
use crate::sys::usage;

/// What the rounds gave.
pub struct Measured {
    pub lines: Vec<LineReport>,
    pub cooling: Vec<Cooling>,
}

/// Runs all rounds.
pub struct Measurement<'a> {
    pub settings: &'a Settings,
    pub places: &'a [Place],
    /// A directory on the file system of all places.
    pub root: &'a Path,
    pub progress: &'a ProgressBar,
    pub stop: &'a AtomicBool,
}

impl Measurement<'_> {
    pub fn run(&self) -> Result<Measured> {
        let (lines, count) = (&self.settings.lines, self.places.len());
        let mut samples: BTreeMap<(usize, usize), Vec<Sample>> = BTreeMap::new();
        let mut cooling = Vec::new();
        self.progress.set_length((self.settings.rounds as usize * lines.len() * count) as u64);
        for round in 0..self.settings.rounds as usize {
            for (at, &line) in lines.iter().enumerate() {
                for turn in 0..count {
                    let which = if (round + at).is_multiple_of(2) { turn } else { count - 1 - turn };
                    let place = &self.places[which];
                    self.progress.set_message(format!("{}, {}", line.title(), place.variant.name()));
                    let run = ((round + 1) * 100 + at) as u64;
                    let load = Load { settings: self.settings, place, run, stop: self.stop };
                    samples.entry((at, which)).or_default().push(self.sample(&load, line, &mut cooling)?);
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
        Ok(Measured { lines: lines.iter().enumerate().map(line_report).collect(), cooling })
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

        let own = || usage().processor.as_secs_f64();
        let (writer_before, daemon_before) = (own(), place.daemon_cpu_seconds()?);
        let done = load.perform(line)?;
        let writer_after = own();
        let followed = Instant::now();
        place.settle(self.stop)?;
        let sample = Sample {
            follow_seconds: followed.elapsed().as_secs_f64(),
            writer_cpu_seconds: writer_after - writer_before,
            daemon_cpu_seconds: place.daemon_cpu_seconds()? - daemon_before,
            ..Sample::elapsed(done.work, done.elapsed)
        };
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
