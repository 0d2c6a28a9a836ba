//! Which blocks of what a check has read are damaged, to see whether it notices. Pure.
//!
//! A few of each file, spread evenly over what was read of it; not the one in which the file begins, where there are
//! others: a check that looks at the head of a file alone says nothing of the data.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::control::path_text;

use super::limits::{BLOCK, BLOCKS_MAX, FILES_MAX};

/// Part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Spot {
    pub offset: u64,
    pub length: u64,
}

/// A file below the data's own path, and what of it is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    #[serde(with = "path_text")]
    pub path: PathBuf,
    pub spots: Vec<Spot>,
}

/// Of a file of `size` bytes of which these blocks were read, in order.
pub(super) fn spots(read: &[Range<u64>], size: u64) -> Vec<Spot> {
    let within = size.div_ceil(BLOCK);
    let clipped = |from: u64| read.iter().map(move |part| part.start.max(from)..part.end.min(within));
    let count = |from: u64| clipped(from).map(|part| part.end.saturating_sub(part.start)).sum::<u64>();
    let from = u64::from(count(1) > 0);
    let (all, chosen) = (count(from), count(from).min(BLOCKS_MAX));
    let nth = |mut number: u64| {
        clipped(from).filter(|part| !part.is_empty()).find_map(|part| {
            let length = part.end - part.start;
            let found = (number < length).then(|| part.start + number);
            number = number.saturating_sub(length);
            found
        })
    };
    let spot = |block: u64| Spot { offset: block * BLOCK, length: BLOCK.min(size - block * BLOCK) };
    // In the middle of each of so many equal parts.
    (0..chosen).filter_map(|part| nth((2 * part + 1) * all / (2 * chosen))).map(spot).collect()
}

/// Some of all these, spread evenly.
pub(super) fn some<T>(all: Vec<T>) -> Vec<T> {
    let (count, chosen) = (all.len(), all.len().min(FILES_MAX));
    let mut wanted = (0..chosen).map(|part| (2 * part + 1) * count / (2 * chosen)).peekable();
    let all = all.into_iter().enumerate();
    all.filter_map(|(at, one)| wanted.next_if_eq(&at).map(|_| one)).collect()
}

/// Each name once, each part of it once.
pub(super) fn together(all: impl IntoIterator<Item = Target>) -> Vec<Target> {
    let mut names: BTreeMap<PathBuf, Vec<Spot>> = BTreeMap::new();
    for target in all {
        names.entry(target.path).or_default().extend(target.spots);
    }
    names.into_iter().map(|(path, spots)| Target { path, spots: once(spots) }).collect()
}

/// Each part of one file once, in order.
pub(super) fn once(spots: impl IntoIterator<Item = Spot>) -> Vec<Spot> {
    let mut parts: BTreeMap<u64, u64> = BTreeMap::new();
    for spot in spots {
        // The file has grown between two checks.
        let length = parts.entry(spot.offset).or_default();
        *length = spot.length.max(*length);
    }
    parts.into_iter().map(|(offset, length)| Spot { offset, length }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(
        clippy::single_range_in_vec_init,
        reason = "parts of a file are a list, also where there is one"
    )]
    fn of_a_file_its_middle_is_damaged() {
        const B: u64 = BLOCK;
        for (read, size, blocks) in [
            (&[0..1][..], 10, &[0][..]),
            (&[0..1], 5 * B, &[0]),
            (&[0..2], 2 * B, &[1]),
            (&[0..3], 2 * B + 1, &[1, 2]),
            (&[0..2, 9..11], 20 * B, &[1, 9, 10]),
            // It is shorter than it was.
            (&[0..9], 2 * B, &[1]),
            (&[5..9], 2 * B, &[]),
            (&[], 2 * B, &[]),
            (&[0..1], 0, &[]),
            (&[0..33], 33 * B, &[2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32]),
        ] {
            let found = spots(read, size);
            let at: Vec<u64> = found.iter().map(|spot| spot.offset / B).collect();
            assert_eq!(at, blocks, "{read:?} of {size}");
            assert!(
                found.iter().all(|spot| spot.length > 0 && spot.offset + spot.length <= size),
                "{found:?}"
            );
        }
        assert_eq!(spots(&[0..3], 2 * B + 1)[1], Spot { offset: 2 * B, length: 1 });
        assert_eq!(spots(&[0..1 << 50], 1 << 62).len() as u64, BLOCKS_MAX);
    }

    #[test]
    fn of_many_files_some_are_damaged() {
        assert_eq!(some(vec![1, 2, 3]), [1, 2, 3]);
        let many = some((0..10 * FILES_MAX).collect());
        assert_eq!((many.len(), many[0], many[1]), (FILES_MAX, 5, 15));
    }

    #[test]
    fn what_two_checks_have_read_is_damaged_once() {
        let spot = |offset, length| Spot { offset, length };
        let target = |path: &str, spots: &[Spot]| Target { path: path.into(), spots: spots.to_vec() };
        let all = [
            target("b", &[spot(0, 9)]),
            target("a", &[spot(BLOCK, 5)]),
            target("a", &[spot(0, BLOCK), spot(BLOCK, 7)]),
        ];
        let whole = [target("a", &[spot(0, BLOCK), spot(BLOCK, 7)]), target("b", &[spot(0, 9)])];
        assert_eq!(together(all), whole);
    }
}
