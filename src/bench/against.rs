//! This program beside another one: line by line, what the rounds say.

use serde::Serialize;

use super::line::Line;
use super::report::{LineReport, Sample};
use super::variant::Variant;
use super::verdict::{Judged, Wanted, apart, paired};

/// Lines of this run beside those of another program.
#[derive(Debug, Serialize)]
pub struct Against {
    /// What it is compared with: a program, or a run that was kept.
    pub other: String,
    /// What the other one cannot do or has not measured, and what makes the two differ.
    pub notes: Vec<String>,
    pub comparisons: Vec<Comparison>,
}

/// One line of one variant, by both.
#[derive(Debug, Serialize)]
pub struct Comparison {
    pub line: Line,
    pub variant: Variant,
    pub rate: Option<Judged>,
    /// Processor time of the daemon for the same work.
    pub daemon_cpu: Option<Judged>,
}

/// Another program in the same run: rounds are paired.
pub fn in_one_run(other: String, lines: &[LineReport]) -> Against {
    let compare = |line: &LineReport, variant: Variant| {
        let (this, other) = (line.samples(variant)?, line.samples(variant.other()?)?);
        Some(Comparison {
            line: line.line,
            variant,
            rate: paired(&rates(this), &rates(other), Wanted::More),
            daemon_cpu: paired(&daemon_cpu(this), &daemon_cpu(other), Wanted::Less),
        })
    };
    Against { other, notes: Vec::new(), comparisons: each(lines, compare) }
}

/// A run that was kept: rates are compared as shares of the plain directory's in the same run, and
/// both spreads count. `find` answers the samples of the other run, and its native ones.
pub fn with_earlier(
    other: String,
    lines: &[LineReport],
    find: impl Fn(Line, Variant) -> Option<Vec<Sample>>,
) -> Against {
    let compare = |line: &LineReport, variant: Variant| {
        let (this, native) = (line.samples(variant)?, line.samples(Variant::Native)?);
        let (other, other_native) = (find(line.line, variant)?, find(line.line, Variant::Native)?);
        let shares =
            |samples: &[Sample], native: &[Sample]| super::stats::ratios(&rates(samples), &rates(native));
        Some(Comparison {
            line: line.line,
            variant,
            rate: apart(&shares(this, native), &shares(&other, &other_native), Wanted::More),
            daemon_cpu: apart(&daemon_cpu(this), &daemon_cpu(&other), Wanted::Less),
        })
    };
    let mut against = Against { other, notes: Vec::new(), comparisons: each(lines, compare) };
    for line in lines.iter().filter(|line| find(line.line, Variant::Native).is_none()) {
        against.notes.push(format!("the kept run has no line {}", line.line));
    }
    against
}

fn each(
    lines: &[LineReport],
    compare: impl Fn(&LineReport, Variant) -> Option<Comparison>,
) -> Vec<Comparison> {
    let variants = |line: &LineReport| -> Vec<Variant> {
        let mounted = line.variants.iter().map(|report| report.variant);
        mounted.filter(|variant| variant.other().is_some()).collect()
    };
    lines.iter().flat_map(|line| variants(line).into_iter().filter_map(|at| compare(line, at))).collect()
}

/// Work a second.
pub fn rates(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.work as f64 / sample.seconds).collect()
}

/// Seconds for one byte or op.
fn daemon_cpu(samples: &[Sample]) -> Vec<f64> {
    let worked = samples.iter().filter(|sample| sample.work > 0);
    worked.map(|sample| sample.daemon_cpu_seconds / sample.work as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::verdict::Verdict;
    use std::time::Duration;

    fn samples(seconds: [f64; 5]) -> Vec<Sample> {
        let sample = |seconds: f64| Sample {
            daemon_cpu_seconds: seconds / 2.0,
            ..Sample::elapsed(1000, Duration::from_secs_f64(seconds))
        };
        seconds.map(sample).to_vec()
    }

    fn line(variants: Vec<(Variant, Vec<Sample>)>) -> LineReport {
        LineReport::new(Line::Unlink, variants)
    }

    #[test]
    fn a_program_is_compared_with_the_other_one_of_its_variant() {
        let lines = [line(vec![
            (Variant::Native, samples([0.1, 0.2, 0.3, 0.1, 0.1])),
            (Variant::Null, samples([1.0, 2.0, 3.0, 1.0, 1.0])),
            (Variant::NullAgainst, samples([2.0, 4.0, 6.0, 2.0, 2.0])),
            (Variant::Replicating, samples([1.0; 5])),
        ])];
        let against = in_one_run("other".into(), &lines);
        let [null] = against.comparisons.as_slice() else { panic!("{against:?}") };
        assert_eq!((null.line, null.variant), (Line::Unlink, Variant::Null));
        let (rate, cpu) = (null.rate.unwrap(), null.daemon_cpu.unwrap());
        assert_eq!((rate.ratio, rate.low, rate.high, rate.verdict), (2.0, 2.0, 2.0, Verdict::Better));
        assert_eq!((cpu.ratio, cpu.verdict), (0.5, Verdict::Better));
    }

    #[test]
    fn a_kept_run_is_compared_by_its_shares_of_native() {
        // The whole machine was half as fast then.
        let lines = [line(vec![(Variant::Native, samples([0.1; 5])), (Variant::Null, samples([1.0; 5]))])];
        let find = |_, variant| match variant {
            Variant::Native => Some(samples([0.2; 5])),
            _ => Some(samples([2.0; 5])),
        };
        let against = with_earlier("a run".into(), &lines, find);
        assert_eq!(against.comparisons[0].rate.unwrap().verdict, Verdict::Level);
        assert!(against.notes.is_empty());
        let against = with_earlier("a run".into(), &lines, |_, _| None);
        assert!(against.comparisons.is_empty() && against.notes.len() == 1, "{against:?}");
    }
}
