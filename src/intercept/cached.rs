//! Which parts of a file the kernel may have in its page cache, because it has read them.
//!
//! A shared mapping changes only pages that were read (or written, and then they are no holes on
//! the disk). What such a page holds is on the disk after a while only; until then the disk may
//! show a hole there, and a copy that skips holes would lose it.

use std::ops::Range;

/// Ranges that are kept apart; more are joined over the gaps between them.
const RANGES_MAX: usize = 64;
/// Gaps that are not worth a range of their own: the kernel reads ahead by as much.
const GAP: u64 = 128 << 10;

/// Byte ranges that were read, since the kernel got to know the file. They may be larger than what
/// was read, never smaller.
#[derive(Debug, Default)]
pub struct ReadRanges {
    /// By offset, apart from each other.
    ranges: Vec<Range<u64>>,
}

impl ReadRanges {
    pub fn note(&mut self, offset: u64, len: u64) {
        let mut new = offset..offset.saturating_add(len);
        let begin = self.ranges.partition_point(|range| range.end.saturating_add(GAP) < new.start);
        let near = self.ranges[begin..].iter().take_while(|range| range.start <= new.end.saturating_add(GAP));
        let count = near.count();
        if let (1, Some(known)) = (count, self.ranges.get_mut(begin)) {
            // Nearly every read of a file goes on where the last one ended.
            *known = known.start.min(new.start)..known.end.max(new.end);
            return;
        }
        for known in self.ranges.drain(begin..begin + count) {
            new = known.start.min(new.start)..known.end.max(new.end);
        }
        let is_apart = |before: Option<&Range<u64>>| before.is_none_or(|before| before.end < new.start);
        assert!(
            is_apart(begin.checked_sub(1).and_then(|at| self.ranges.get(at))),
            "ranges lie in each other"
        );
        self.ranges.insert(begin, new);
        if self.ranges.len() > RANGES_MAX {
            self.join_nearest();
        }
    }

    fn join_nearest(&mut self) {
        let gap = |at: &usize| self.ranges[at + 1].start - self.ranges[*at].end;
        if let Some(at) = (0..self.ranges.len() - 1).min_by_key(gap) {
            let next = self.ranges.remove(at + 1);
            self.ranges[at].end = next.end;
        }
    }

    /// First byte from `offset` on that may have been read.
    pub fn next_read(&self, offset: u64) -> Option<u64> {
        self.ranges.iter().find(|range| range.end > offset).map(|range| range.start.max(offset))
    }

    /// First byte from `offset` on that was not.
    pub fn next_unread(&self, offset: u64) -> u64 {
        self.ranges.iter().find(|range| range.contains(&offset)).map_or(offset, |range| range.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: u64 = 4 * GAP;

    #[test]
    fn reads_are_joined_where_they_are_near() {
        let mut read = ReadRanges::default();
        assert_eq!((read.next_read(0), read.next_unread(7)), (None, 7));
        read.note(FAR, 100);
        read.note(FAR + 100, 100);
        read.note(3 * FAR, 50);
        assert_eq!(read.ranges, [FAR..FAR + 200, 3 * FAR..3 * FAR + 50]);
        assert_eq!((read.next_read(0), read.next_unread(0)), (Some(FAR), 0));
        assert_eq!((read.next_read(FAR + 1), read.next_unread(FAR + 1)), (Some(FAR + 1), FAR + 200));
        assert_eq!(read.next_read(FAR + 200), Some(3 * FAR));
        read.note(FAR + 10, 2 * FAR);
        assert_eq!((read.ranges.len(), read.next_unread(FAR)), (1, 3 * FAR + 50));
    }

    #[test]
    fn many_ranges_never_forget_a_byte() {
        let mut read = ReadRanges::default();
        let places: Vec<u64> = (0..500u64).map(|n| n * 2654435761 % 1009 * FAR).collect();
        for place in &places {
            read.note(*place, 10);
        }
        assert!(read.ranges.len() <= RANGES_MAX);
        assert!(read.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
        for place in places {
            assert_eq!((read.next_read(place), read.next_unread(place) >= place + 10), (Some(place), true));
        }
    }
}
