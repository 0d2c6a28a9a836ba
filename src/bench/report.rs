//! What a run gives: all raw samples, and what is made of them. Its JSON is for scripts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::against::{Against, rates};
use super::cold::Cooling;
use super::line::Line;
use super::replication::Replication;
use super::stats::{Spread, ratios};
use super::stream::Stream;
use super::variant::Variant;

#[derive(Debug, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub machine: Machine,
    pub sizes: Sizes,
    pub variants: Vec<Variant>,
    pub lines: Vec<LineReport>,
    /// How caches were emptied for the cold reads.
    pub cooling: Vec<Cooling>,
    pub replication: Option<Replication>,
    pub stream: Option<Stream>,
    /// Beside the program of `--against`.
    pub against: Option<Against>,
    /// Beside the run of `--compare`.
    pub compared: Option<Against>,
    pub notes: Vec<String>,
}

/// What the numbers depend on.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub file_system: String,
    pub kernel: String,
    pub cpus: usize,
    /// Processes that ran or waited to run over the last minute, before and after.
    pub load_before: f64,
    pub load_after: f64,
}

#[derive(Debug, Serialize)]
pub struct Sizes {
    pub size_bytes: u64,
    pub files: u64,
    pub rounds: u32,
}

/// One line, all variants.
#[derive(Debug, Serialize)]
pub struct LineReport {
    pub line: Line,
    pub title: &'static str,
    /// `MiB/s` or `ops/s`.
    pub unit: &'static str,
    pub variants: Vec<VariantReport>,
}

/// One line, one variant.
#[derive(Debug, Serialize)]
pub struct VariantReport {
    pub variant: Variant,
    pub rate: Option<Spread>,
    /// To the native directory, round by round.
    pub ratio: Option<Spread>,
    /// Of the medians of both rates.
    pub ratio_of_medians: Option<f64>,
    /// Of the fastest round to the fastest native one: what is left on a machine that is disturbed
    /// often.
    pub best_ratio: Option<f64>,
    /// Over all rounds.
    pub cpu: Option<Cpu>,
    pub samples: Vec<Sample>,
}

/// Processor time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cpu {
    /// `s/GiB` or `us/op`.
    pub unit: &'static str,
    /// System calls included.
    pub writer: f64,
    /// The process behind the mount, its replica included.
    pub daemon: f64,
}

/// One measurement.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Bytes or ops.
    pub work: u64,
    pub seconds: f64,
    /// From then until the replica had everything.
    pub follow_seconds: f64,
    pub writer_cpu_seconds: f64,
    pub daemon_cpu_seconds: f64,
}

impl LineReport {
    /// From the samples of each variant, the native directory among them.
    pub fn new(line: Line, samples: Vec<(Variant, Vec<Sample>)>) -> LineReport {
        let (unit, scale) = line.unit().rate();
        let rates = |samples: &[Sample]| -> Vec<f64> {
            rates(samples).into_iter().map(|rate| rate / scale).collect()
        };
        let native = samples.iter().find(|(variant, _)| *variant == Variant::Native);
        let native = native.map_or_else(Vec::new, |(_, samples)| rates(samples));
        let native_spread = Spread::of(&native);
        let variants = samples.into_iter().map(|(variant, samples)| {
            let rates = rates(&samples);
            let spread = Spread::of(&rates);
            let to_native = |of: fn(Spread) -> f64| Some(of(spread?) / of(native_spread?));
            VariantReport {
                variant,
                rate: spread,
                ratio: Spread::of(&ratios(&rates, &native)),
                ratio_of_medians: to_native(|spread| spread.median),
                best_ratio: to_native(|spread| spread.max),
                cpu: Cpu::of(line, &samples),
                samples,
            }
        });
        LineReport { line, title: line.title(), unit, variants: variants.collect() }
    }

    /// Of a variant, where it was measured.
    pub fn samples(&self, variant: Variant) -> Option<&[Sample]> {
        let report = self.variants.iter().find(|report| report.variant == variant)?;
        Some(&report.samples)
    }
}

impl Cpu {
    fn of(line: Line, samples: &[Sample]) -> Option<Cpu> {
        let (unit, scale) = line.unit().cpu();
        let work = samples.iter().map(|sample| sample.work).sum::<u64>() as f64;
        let per_work = |seconds: fn(&Sample) -> f64| samples.iter().map(seconds).sum::<f64>() / work * scale;
        (work > 0.0).then(|| Cpu {
            unit,
            writer: per_work(|sample| sample.writer_cpu_seconds),
            daemon: per_work(|sample| sample.daemon_cpu_seconds),
        })
    }
}

impl Sample {
    pub fn elapsed(work: u64, elapsed: Duration) -> Sample {
        Sample {
            work,
            // A clock that did not move must not make anything infinitely fast.
            seconds: elapsed.as_secs_f64().max(1e-9),
            follow_seconds: 0.0,
            writer_cpu_seconds: 0.0,
            daemon_cpu_seconds: 0.0,
        }
    }
}
