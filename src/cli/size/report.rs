//! From samples to figures. Pure.

use std::time::Duration;

use serde::Serialize;

use crate::packet::PREFIX_LEN;

/// What a daemon had captured since its start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// Seconds since the first one.
    pub at: f64,
    /// Headers and payloads.
    pub bytes: u64,
    pub packets: u64,
}

/// Rates are bytes a second, as they go into the queue; what goes over a network may be compressed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    pub set: String,
    pub seconds: f64,
    pub bytes: u64,
    pub packets: u64,
    pub mean: f64,
    /// Of whole seconds: so many percent of them had less.
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    /// The mean of the busiest second, minute, hour; absent where that was not measured.
    pub peak_second: Option<f64>,
    pub peak_minute: Option<f64>,
    pub peak_hour: Option<f64>,
    pub outages: Vec<Outage>,
}

/// A queue for a target that is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Outage {
    pub seconds: u64,
    /// What it takes on disk, and a tenth more.
    pub bytes: u64,
    /// As it is typed.
    pub option: String,
    /// So long was measured; else it is as if it went on like that.
    pub is_measured: bool,
}

impl Report {
    /// At least two samples, in order.
    pub fn of(set: &str, samples: &[Sample], outages: &[Duration]) -> Report {
        let (first, last) = (samples[0], samples[samples.len() - 1]);
        let seconds = last.at - first.at;
        let mut rates: Vec<f64> = rates(samples);
        rates.sort_by(f64::total_cmp);
        let percentile = |part: f64| {
            let at = (rates.len() as f64 * part).ceil() as usize;
            rates.get(at.clamp(1, rates.len().max(1)) - 1).copied().unwrap_or(0.0)
        };
        let peak = |window: f64| (seconds >= window).then(|| busiest(samples, window, bytes) / window);
        Report {
            set: set.to_owned(),
            seconds,
            bytes: last.bytes - first.bytes,
            packets: last.packets - first.packets,
            mean: (last.bytes - first.bytes) as f64 / seconds,
            p50: percentile(0.50),
            p95: percentile(0.95),
            p99: percentile(0.99),
            peak_second: peak(1.0),
            peak_minute: peak(60.0),
            peak_hour: peak(3600.0),
            outages: outages.iter().map(|outage| self::outage(samples, seconds, *outage)).collect(),
        }
    }
}

fn outage(samples: &[Sample], measured: f64, outage: Duration) -> Outage {
    let wanted = outage.as_secs_f64();
    let window = wanted.min(measured);
    let bytes = busiest(samples, window, on_disk) * (wanted / window) * 1.1;
    let bytes = bytes.ceil() as u64;
    let mib = bytes.div_ceil(1 << 20).max(1);
    let is_measured = measured >= wanted;
    Outage { seconds: outage.as_secs(), bytes, option: format!("--queue-disk-limit {mib}M"), is_measured }
}

fn bytes(sample: &Sample) -> f64 {
    sample.bytes as f64
}

/// In a segment each packet has a prefix.
fn on_disk(sample: &Sample) -> f64 {
    (sample.bytes + sample.packets * PREFIX_LEN as u64) as f64
}

/// Of the time between each two samples.
fn rates(samples: &[Sample]) -> Vec<f64> {
    let pairs = samples.windows(2).filter(|pair| pair[1].at - pair[0].at > 0.5);
    pairs.map(|pair| (bytes(&pair[1]) - bytes(&pair[0])) / (pair[1].at - pair[0].at)).collect()
}

/// The most that came within so many seconds. Between samples it is taken to come evenly.
fn busiest(samples: &[Sample], window: f64, of: fn(&Sample) -> f64) -> f64 {
    let end = samples[samples.len() - 1].at;
    let begins = samples.iter().map(|sample| sample.at).filter(|at| at + window <= end + 1e-9);
    // A window that ends with a sample may have more than each that begins with one.
    let ends = samples.iter().map(|sample| sample.at - window).filter(|at| *at >= samples[0].at - 1e-9);
    let within = |at: f64| total(samples, at + window, of) - total(samples, at, of);
    begins.chain(ends).map(within).fold(0.0, f64::max)
}

/// What there was in all at a moment.
fn total(samples: &[Sample], at: f64, of: fn(&Sample) -> f64) -> f64 {
    let next = samples.partition_point(|sample| sample.at <= at);
    match (next.checked_sub(1).map(|before| &samples[before]), samples.get(next)) {
        (Some(before), Some(after)) => {
            of(before) + (of(after) - of(before)) * (at - before.at) / (after.at - before.at)
        }
        (Some(only), None) | (None, Some(only)) => of(only),
        (None, None) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A load that is known second by second.
    fn samples(rates: &[u64]) -> Vec<Sample> {
        let mut all = vec![Sample { at: 0.0, bytes: 1_000, packets: 10 }];
        for (second, rate) in rates.iter().enumerate() {
            let last = all[second];
            all.push(Sample { at: second as f64 + 1.0, bytes: last.bytes + rate, packets: last.packets + 1 });
        }
        all
    }

    #[track_caller]
    fn is_about(found: f64, expected: f64) {
        assert!((found - expected).abs() <= expected * 0.001 + 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn an_even_load_is_itself() {
        let report = Report::of("web", &samples(&[1000; 120]), &[Duration::from_secs(60)]);
        for rate in [report.mean, report.p50, report.p95, report.p99] {
            is_about(rate, 1000.0);
        }
        for peak in [report.peak_second, report.peak_minute] {
            is_about(peak.unwrap(), 1000.0);
        }
        assert_eq!((report.peak_hour, report.bytes, report.packets), (None, 120_000, 120));
        // A minute of it, with a prefix for each packet, and a tenth more.
        is_about(report.outages[0].bytes as f64, 60.0 * 1064.0 * 1.1);
        assert!(report.outages[0].is_measured);
    }

    #[test]
    fn a_burst_is_found_wherever_it_is() {
        for at in [0, 17, 94] {
            let mut rates = [1000; 100];
            rates[at..at + 5].fill(100_000);
            let report = Report::of("web", &samples(&rates), &[Duration::from_secs(200)]);
            is_about(report.p50, 1000.0);
            is_about(report.p95, 1000.0);
            is_about(report.p99, 100_000.0);
            is_about(report.peak_second.unwrap(), 100_000.0);
            is_about(report.peak_minute.unwrap(), (5.0 * 100_000.0 + 55.0 * 1000.0) / 60.0);
            let captured = 95.0 * 1000.0 + 5.0 * 100_000.0 + 100.0 * 64.0;
            is_about(report.outages[0].bytes as f64, captured * 2.0 * 1.1);
            assert!(!report.outages[0].is_measured);
        }
    }

    /// What was said to hold an outage holds each one of that length.
    #[test]
    fn the_queue_holds_every_outage_that_was_measured() {
        let mut random = crate::random::Random::new(7);
        let rates: Vec<u64> = (0..400).map(|_| random.below(1_000_000)).collect();
        let samples = samples(&rates);
        for seconds in [1, 30, 399] {
            let outage = outage(&samples, 400.0, Duration::from_secs(seconds));
            for begin in 0..=400 - seconds as usize {
                let lacks = on_disk(&samples[begin + seconds as usize]) - on_disk(&samples[begin]);
                assert!(outage.bytes as f64 >= lacks, "{seconds} s from {begin}");
            }
        }
    }

    #[test]
    fn uneven_samples_are_measured_by_their_time() {
        let mut all = samples(&[0, 0, 0]);
        // Two seconds late.
        all.push(Sample { at: 6.0, bytes: all[3].bytes + 6000, packets: all[3].packets });
        let report = Report::of("web", &all, &[]);
        is_about(report.peak_second.unwrap(), 2000.0);
        assert!(crate::units::size(report.bytes).contains("KiB"));
    }
}
