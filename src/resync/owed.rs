//! What a target has to be shown again, where that is not everything.

use std::collections::HashMap;
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
    /// Nobody knows what, in a file that had this size: all of it is compared or sent.
    Doubted {
        size: u64,
    },
}

impl Owed {
    /// What either of them says.
    pub fn and(mut self, more: Owed) -> Owed {
        let mut places: HashMap<ObjectId, usize> =
            self.objects.iter().enumerate().map(|(at, object)| (object.id, at)).collect();
        for object in more.objects {
            match places.get(&object.id) {
                Some(&at) => self.objects[at].add(object),
                None => {
                    places.insert(object.id, self.objects.len());
                    self.objects.push(object);
                }
            }
        }
        self
    }
}

impl OwedObject {
    fn add(&mut self, more: OwedObject) {
        self.names |= more.names;
        self.content = std::mem::replace(&mut self.content, OwedContent::No).and(more.content);
    }
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
    fn and(self, more: OwedContent) -> OwedContent {
        use OwedContent::{Doubted, From, No, Ranges};
        match (self, more) {
            (No, content) | (content, No) => content,
            (Doubted { size }, _) | (_, Doubted { size }) => Doubted { size },
            (Ranges(mut ranges), Ranges(more)) => {
                ranges.extend(more);
                Ranges(ranges)
            }
            (From(from, mut ranges), Ranges(more)) | (Ranges(more), From(from, mut ranges)) => {
                ranges.extend(more);
                From(from, ranges)
            }
            (From(one, mut ranges), From(other, more)) => {
                ranges.extend(more);
                From(one.min(other), ranges)
            }
        }
    }

    /// One range after the other; the last one has no end where the size has changed.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        const NONE: &Vec<Range<u64>> = &Vec::new();
        let (ranges, from) = match self {
            OwedContent::No => return Vec::new(),
            OwedContent::Ranges(ranges) => (ranges, None),
            OwedContent::From(from, ranges) => (ranges, Some(*from)),
            OwedContent::Doubted { .. } => (NONE, Some(0)),
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
        assert_eq!(OwedContent::Doubted { size: 7 }.ranges().pop(), Some(0..u64::MAX));
    }

    #[test]
    fn what_is_owed_twice_is_owed_once() {
        let object = |inode, names, content| {
            let id = ObjectId { birth_epoch: 1, generation: 1, inode };
            let handle = FileHandle::from_parts(1, &[]).expect("a handle");
            OwedObject { id, handle, names, content }
        };
        let one_range = |range: Range<u64>| Vec::from([range]);
        let doubted = || OwedContent::Doubted { size: 9 };
        let one = vec![
            object(1, true, OwedContent::No),
            object(2, false, OwedContent::Ranges(one_range(0..1))),
            object(3, false, doubted()),
        ];
        let other = vec![
            object(4, false, doubted()),
            object(3, false, OwedContent::From(5, one_range(0..2))),
            object(2, false, OwedContent::From(7, one_range(2..3))),
            object(1, false, OwedContent::No),
        ];
        let both = Owed { objects: one }.and(Owed { objects: other });
        let expected = vec![
            object(1, true, OwedContent::No),
            object(2, false, OwedContent::From(7, vec![2..3, 0..1])),
            object(3, false, doubted()),
            object(4, false, doubted()),
        ];
        assert_eq!(both.objects, expected);
    }
}
