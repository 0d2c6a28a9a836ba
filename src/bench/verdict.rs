//! Whether one program is as fast as another, said only where the rounds allow it.

use serde::Serialize;

use super::stats::{Spread, median_bounds, ratios};

/// A difference this small is none, however sure it is.
const NOTICED: f64 = 0.02;

/// What lies within this and is not sure to be a difference is level; what lies farther apart says
/// nothing.
const LEVEL: f64 = 0.10;

/// Fewer rounds than this judge nothing: four are all on one side by chance once in eight times.
const ROUNDS_MIN: usize = 5;

/// Whether more is better: rates; or less: processor time, latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    More,
    Less,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Level,
    Better,
    Worse,
    TooNoisy,
}

/// One number of two programs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// This one's median to the other's.
    pub ratio: f64,
    /// Where the middle of the ratios lies, as far as the rounds say.
    pub low: f64,
    pub high: f64,
    pub verdict: Verdict,
}

/// From rounds that both ran, one right after the other: what disturbs a round disturbs both.
pub fn paired(this: &[f64], other: &[f64], wanted: Wanted) -> Option<Judged> {
    let ratios = ratios(this, other);
    let (low, high) = median_bounds(&ratios)?;
    judge(this, other, (low, high), ratios.len(), wanted)
}

/// From two runs: each has its own disturbances, so both spreads count.
pub fn apart(this: &[f64], other: &[f64], wanted: Wanted) -> Option<Judged> {
    let (this_bounds, other_bounds) = (median_bounds(this)?, median_bounds(other)?);
    if other_bounds.0 <= 0.0 {
        return None;
    }
    let bounds = (this_bounds.0 / other_bounds.1, this_bounds.1 / other_bounds.0);
    judge(this, other, bounds, this.len().min(other.len()), wanted)
}

fn judge(
    this: &[f64],
    other: &[f64],
    (low, high): (f64, f64),
    rounds: usize,
    wanted: Wanted,
) -> Option<Judged> {
    let (this, other) = (Spread::of(this)?.median, Spread::of(other)?.median);
    if other <= 0.0 {
        return None;
    }
    let verdict = if rounds < ROUNDS_MIN { Verdict::TooNoisy } else { verdict(low, high, wanted) };
    Some(Judged { ratio: this / other, low, high, verdict })
}

/// Of where the ratio lies.
fn verdict(low: f64, high: f64, wanted: Wanted) -> Verdict {
    let within = |margin: f64| low >= 1.0 / (1.0 + margin) && high <= 1.0 + margin;
    match (low > 1.0, high < 1.0) {
        _ if within(NOTICED) => Verdict::Level,
        (true, _) if wanted == Wanted::More => Verdict::Better,
        (_, true) if wanted == Wanted::Less => Verdict::Better,
        (true, _) | (_, true) => Verdict::Worse,
        _ if within(LEVEL) => Verdict::Level,
        _ => Verdict::TooNoisy,
    }
}

impl Verdict {
    pub fn word(self, wanted: Wanted) -> &'static str {
        match (self, wanted) {
            (Verdict::Level, _) => "level",
            (Verdict::Better, Wanted::More) => "faster",
            (Verdict::Worse, Wanted::More) => "slower",
            (Verdict::Better, Wanted::Less) => "cheaper",
            (Verdict::Worse, Wanted::Less) => "dearer",
            (Verdict::TooNoisy, _) => "too noisy to judge",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_rounds_that_agree() {
        let check = |this: &[f64], verdict| {
            let other = vec![100.0; this.len()];
            assert_eq!(paired(this, &other, Wanted::More).unwrap().verdict, verdict, "{this:?}");
        };
        check(&[100.0, 101.0, 99.0, 100.0, 100.5], Verdict::Level);
        check(&[108.0, 95.0, 104.0, 97.0, 100.0], Verdict::Level);
        check(&[105.0, 110.0, 103.0, 120.0, 104.0], Verdict::Better);
        check(&[95.0, 90.0, 97.0, 80.0, 96.0], Verdict::Worse);
        check(&[150.0, 90.0, 100.0, 130.0, 80.0], Verdict::TooNoisy);
        check(&[150.0, 150.0, 150.0, 150.0], Verdict::TooNoisy);
        // One disturbed round of eight changes nothing.
        check(&[105.0, 106.0, 104.0, 105.0, 107.0, 105.0, 104.0, 30.0], Verdict::Better);
    }

    #[test]
    fn less_processor_time_is_better() {
        let judged = paired(&[2.0, 2.1, 1.9, 2.0, 2.0], &[4.0; 5], Wanted::Less).unwrap();
        assert_eq!(judged.verdict, Verdict::Better);
        assert_eq!((judged.ratio, judged.low, judged.high), (0.5, 0.475, 0.525));
        assert_eq!(paired(&[5.0; 5], &[4.0; 5], Wanted::Less).unwrap().verdict, Verdict::Worse);
    }

    #[test]
    fn a_disturbed_round_disturbs_both() {
        let disturbed = [100.0, 10.0, 50.0, 100.0, 100.0];
        let judged = paired(&disturbed, &disturbed, Wanted::More).unwrap();
        assert_eq!(judged.verdict, Verdict::Level);
        // Two runs share no rounds.
        let judged = apart(&disturbed, &disturbed, Wanted::More).unwrap();
        assert_eq!((judged.verdict, judged.low, judged.high), (Verdict::TooNoisy, 0.1, 10.0));
    }

    #[test]
    fn nothing_is_judged_by_nothing() {
        assert_eq!(paired(&[], &[], Wanted::More), None);
        assert_eq!(paired(&[1.0], &[0.0], Wanted::More), None);
        assert_eq!(apart(&[1.0; 3], &[0.0; 3], Wanted::More), None);
    }
}
