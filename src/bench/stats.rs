//! Medians, quantiles, ratios.

use serde::Serialize;

/// The middle of some samples, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(samples: &[f64]) -> Option<Spread> {
        let sorted = sorted(samples);
        Some(Spread { median: median(&sorted)?, min: *sorted.first()?, max: *sorted.last()? })
    }
}

/// The sample below or at which this share (0 to 1) of all samples lies (nearest rank); `None` of
/// nothing.
pub fn quantile(samples: &[f64], share: f64) -> Option<f64> {
    let sorted = sorted(samples);
    let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// Round by round, because what disturbs a round disturbs all of its variants. A round that only
/// one of the two has, and a reference of zero, give nothing.
pub fn ratios(samples: &[f64], reference: &[f64]) -> Vec<f64> {
    let pairs = samples.iter().zip(reference);
    pairs.filter(|(_, reference)| **reference > 0.0).map(|(sample, reference)| sample / reference).collect()
}

/// Between which samples the middle of what they were drawn from lies, with nine chances in ten at
/// least (order statistics; of four samples and fewer the least and the most, which promise less);
/// `None` of nothing.
pub fn median_bounds(samples: &[f64]) -> Option<(f64, f64)> {
    let sorted = sorted(samples);
    let cut = cut_of(sorted.len());
    Some((*sorted.get(cut)?, *sorted.get(sorted.len() - 1 - cut)?))
}

/// How many samples can be left out at each end: as many as fewer than `cut + 1` heads of so many
/// coins have one chance in twenty at most.
fn cut_of(samples: usize) -> usize {
    let (mut chance, mut sum, mut cut) = (0.5f64.powi(samples as i32), 0.0, 0);
    for heads in 0..samples / 2 {
        sum += chance;
        if sum > 0.05 {
            break;
        }
        cut = heads;
        chance *= (samples - heads) as f64 / (heads + 1) as f64;
    }
    cut
}

/// Of two middles their mean.
fn median(sorted: &[f64]) -> Option<f64> {
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some((sorted[middle - 1] + upper) / 2.0) }
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_of_any_order() {
        let check = |samples: &[f64], median, min, max| {
            assert_eq!(Spread::of(samples), Some(Spread { median, min, max }), "{samples:?}");
        };
        check(&[4.0], 4.0, 4.0, 4.0);
        check(&[9.0, 1.0], 5.0, 1.0, 9.0);
        check(&[30.0, 10.0, 20.0], 20.0, 10.0, 30.0);
        check(&[1.0, 1000.0, 3.0, 2.0], 2.5, 1.0, 1000.0);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_quantile_is_one_of_the_samples() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        for (share, value) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)] {
            assert_eq!(quantile(&samples, share), Some(value), "{share}");
        }
        assert_eq!(quantile(&[7.0], 0.5), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    /// As in tables of the sign test: of 5 to 7 samples none is left out, of 8 one at each end.
    #[test]
    fn the_middle_lies_within_its_bounds() {
        for (samples, cut) in [(0, 0), (1, 0), (4, 0), (5, 0), (7, 0), (8, 1), (10, 1), (11, 2), (20, 5)] {
            assert_eq!(cut_of(samples), cut, "{samples}");
        }
        assert_eq!(median_bounds(&[3.0, 1.0, 2.0]), Some((1.0, 3.0)));
        assert_eq!(median_bounds(&[8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0]), Some((2.0, 7.0)));
        assert_eq!(median_bounds(&[]), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The second round was disturbed for both: the ratio does not see it.
        assert_eq!(ratios(&[50.0, 5.0, 60.0], &[100.0, 10.0, 100.0]), [0.5, 0.5, 0.6]);
        assert_eq!(ratios(&[1.0, 2.0], &[0.0, 4.0]), [0.5]);
        assert_eq!(ratios(&[1.0, 2.0], &[2.0]), [0.5]);
    }
}
