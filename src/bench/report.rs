//! What a run gives: all raw samples, and what is made of them. Its JSON is for scripts.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::against::{Against, rates};
use super::cold::Cooling;
use super::compression::Compressed;
use super::line::Line;
use super::mirror::Mirror;
use super::replication::Replication;
use super::stats::{Spread, median_bounds, ratios};
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
    /// Of the program of `--against`.
    pub replication_other: Option<Replication>,
    pub stream: Option<Stream>,
    pub mirror: Option<Mirror>,
    /// A line for each content and level; none without `--compression`.
    pub compression: Vec<Compressed>,
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
    /// The processor to which everything was bound; `None`: the scheduler was free.
    pub pinned_to: Option<usize>,
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
    /// The rounds do not say where the middle of the ratios lies, not within a quarter either way.
    pub too_noisy: bool,
    /// Of the fastest round to the fastest native one: what is left on a machine that is disturbed
    /// often.
    pub best_ratio: Option<f64>,
    /// Over all rounds.
    pub cpu: Option<Cpu>,
    pub latency: Option<Latency>,
    pub placed: Placed,
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
    /// The target daemon.
    pub target: f64,
}

/// Microseconds that an op took: medians of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
}

/// How the scheduler placed things, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Placed {
    /// Processors on which the program was seen; none where that is not known.
    pub program_cpus: Vec<usize>,
    /// And the threads of the process behind the mount.
    pub daemon_cpus: Vec<usize>,
    /// For each op (of lines in bytes: each MiB), of both together.
    pub switches: f64,
    /// Of the threads of the process behind the mount, for the same.
    pub migrations: f64,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Bytes or ops.
    pub work: u64,
    pub seconds: f64,
    /// From then until the replica had everything.
    pub follow_seconds: f64,
    pub writer_cpu_seconds: f64,
    pub daemon_cpu_seconds: f64,
    /// Of a target daemon.
    pub target_cpu_seconds: f64,
    /// Microseconds that one op took, in the middle and of the slowest in a hundred; `None` where
    /// the ops are another program's.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    /// Processors on which the program was seen; none where that is not known.
    pub program_cpus: Vec<usize>,
    pub program_switches: u64,
    /// Of the process behind the mount.
    pub daemon_cpus: Vec<usize>,
    pub daemon_switches: u64,
    pub daemon_migrations: u64,
}

/// Where the bounds of a ratio's middle lie farther apart than this, the machine was too noisy.
const NOISE_MAX: f64 = 1.25 * 1.25;

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
            let ratios = ratios(&rates, &native);
            let to_native = |of: fn(Spread) -> f64| Some(of(spread?) / of(native_spread?));
            VariantReport {
                variant,
                rate: spread,
                ratio: Spread::of(&ratios),
                too_noisy: median_bounds(&ratios).is_some_and(|(low, high)| high > NOISE_MAX * low),
                ratio_of_medians: to_native(|spread| spread.median),
                best_ratio: to_native(|spread| spread.max),
                cpu: Cpu::of(line, &samples),
                latency: Latency::of(&samples),
                placed: Placed::of(line, &samples),
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
            target: per_work(|sample| sample.target_cpu_seconds),
        })
    }
}

impl Latency {
    fn of(samples: &[Sample]) -> Option<Latency> {
        let median = |of: fn(&Sample) -> Option<f64>| {
            let values: Vec<f64> = samples.iter().filter_map(of).collect();
            Spread::of(&values).map(|spread| spread.median)
        };
        Some(Latency { p50_us: median(|sample| sample.p50_us)?, p99_us: median(|sample| sample.p99_us)? })
    }
}

impl Placed {
    fn of(line: Line, samples: &[Sample]) -> Placed {
        let cpus = |of: fn(&Sample) -> &[usize]| {
            let all: BTreeSet<usize> = samples.iter().flat_map(|sample| of(sample).iter().copied()).collect();
            all.into_iter().collect()
        };
        let work: f64 = samples.iter().map(|sample| sample.work as f64).sum::<f64>() / line.unit().rate().1;
        let per_work =
            |of: fn(&Sample) -> u64| samples.iter().map(of).sum::<u64>() as f64 / work.max(f64::MIN_POSITIVE);
        Placed {
            program_cpus: cpus(|sample| &sample.program_cpus),
            daemon_cpus: cpus(|sample| &sample.daemon_cpus),
            switches: per_work(|sample| sample.program_switches + sample.daemon_switches),
            migrations: per_work(|sample| sample.daemon_migrations),
        }
    }
}

impl Sample {
    /// Of a time alone.
    pub fn elapsed(work: u64, elapsed: Duration) -> Sample {
        // A clock that did not move must not make anything infinitely fast.
        Sample { work, seconds: elapsed.as_secs_f64().max(1e-9), ..Sample::default() }
    }
}
