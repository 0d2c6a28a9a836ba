//! What a target has to be shown again, where that is not everything.

use std::ops::Range;

use crate::map::{Changed, MarkedObject};
use crate::packet::ObjectId;
use crate::sys::FileHandle;

/// What has changed since a target was as its source; each object once, and its attributes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owed {
    pub objects: Vec<OwedObject>,
}

/// An object that has changed, and may be gone. Handles are the source's own: they are opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedObject {
    pub id: ObjectId,
    pub handle: FileHandle,
    /// Of a directory: its names. It is a directory.
    pub names: bool,
    pub content: OwedContent,
}

/// What of the content of a file has changed, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwedContent {
    No,
    /// What became longer did so by writes, whose ranges are these, too.
    Ranges(Vec<Range<u64>>),
    /// Everything from this offset on, and these ranges below it.
    From(u64, Vec<Range<u64>>),
}

impl From<Changed> for Owed {
    fn from(Changed { objects, mut content }: Changed) -> Owed {
        let objects = objects.into_iter().map(|MarkedObject { id, handle, names, content_from }| {
            let content = match (content_from, content.remove(&id)) {
                (Some(from), ranges) => OwedContent::From(from, ranges.unwrap_or_default()),
                (None, Some(ranges)) => OwedContent::Ranges(ranges),
                (None, None) => OwedContent::No,
            };
            OwedObject { id, handle, names, content }
        });
        Owed { objects: objects.collect() }
    }
}

impl OwedContent {
    /// One range after the other; the last one has no end where the size has changed.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let (ranges, from) = match self {
            OwedContent::No => return Vec::new(),
            OwedContent::Ranges(ranges) => (ranges, None),
            OwedContent::From(from, ranges) => (ranges, Some(*from)),
        };
        let end = from.unwrap_or(u64::MAX);
        let below = ranges.iter().map(|range| range.start..range.end.min(end));
        let mut all: Vec<Range<u64>> = below.filter(|range| range.start < range.end).collect();
        all.sort_unstable_by_key(|range| range.start);
        all.extend(from.map(|from| from..u64::MAX));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_file_comes_last() {
        let ranges = OwedContent::From(100, vec![90..200, 3..5, 100..110]).ranges();
        assert_eq!(ranges, [3..5, 90..100, 100..u64::MAX]);
        assert_eq!(OwedContent::Ranges(vec![7..9, 1..2]).ranges(), [1..2, 7..9]);
        assert_eq!(OwedContent::No.ranges(), []);
    }
}
