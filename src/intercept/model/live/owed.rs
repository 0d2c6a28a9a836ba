//! What is owed to a target, from the packets that it has missed: the test's own record of them.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::packet::{Birth, Entry, ObjectId, Op, Sequence, packet_frame};
use crate::queue::Queue;
use crate::resync::{Owed, OwedContent, OwedObject};
use crate::sys::FileHandle;

/// What is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgets {
    /// Directories whose names have changed.
    Names,
    /// What was written.
    Ranges,
    /// What lies behind the end to which a file was cut, and what is new.
    Tail,
}

#[derive(Default)]
struct Mark {
    names: bool,
    ranges: Vec<Range<u64>>,
    tail: Option<u64>,
}

/// What packets behind this one have changed.
pub fn since(queue: &Queue, base: Sequence, root: &FileHandle, forgets: Option<Forgets>) -> Owed {
    let mut marks = Marks::default();
    for packet in queue.next(Sequence(0), usize::MAX) {
        let sequence = packet.position.sequence;
        let header = packet_frame(&packet.position, &packet.header, packet.payload);
        let (op, len) = super::op_of(&header);
        marks.counts = sequence > base;
        marks.take(&op, len);
    }
    let objects = marks.all.into_iter().map(|(id, mark)| {
        let Mark { names, ranges, tail } = mark;
        let ranges = if forgets == Some(Forgets::Ranges) { Vec::new() } else { ranges };
        let content = match tail.filter(|_| forgets != Some(Forgets::Tail)) {
            Some(from) => OwedContent::From(from, ranges),
            None if ranges.is_empty() => OwedContent::No,
            None => OwedContent::Ranges(ranges),
        };
        let handle = root.alike(id.inode, id.generation).expect("a layout that is known");
        OwedObject { id, handle, names: names && forgets != Some(Forgets::Names), content }
    });
    Owed { objects: objects.collect() }
}

#[derive(Default)]
struct Marks {
    all: BTreeMap<ObjectId, Mark>,
    sizes: BTreeMap<ObjectId, u64>,
    /// Packets that the target has missed.
    counts: bool,
}

impl Marks {
    fn names(&mut self, at: &Entry) {
        if self.counts {
            self.all.entry(at.dir).or_default().names = true;
        }
    }

    fn attributes(&mut self, id: ObjectId) {
        if self.counts {
            self.all.entry(id).or_default();
        }
    }

    fn from(&mut self, id: ObjectId, from: u64) {
        if self.counts {
            let mark = self.all.entry(id).or_default();
            mark.tail = Some(mark.tail.map_or(from, |tail| tail.min(from)));
        }
    }

    /// Bytes, and the size that the file has then.
    fn bytes(&mut self, id: ObjectId, range: Range<u64>, size: u64) {
        let before = self.sizes.insert(id, size).unwrap_or_default();
        if before != size {
            self.from(id, before.min(size));
        }
        if self.counts && range.start < range.end {
            self.all.entry(id).or_default().ranges.push(range);
        }
    }

    fn take(&mut self, op: &Op, len: u64) {
        match op {
            Op::Create { at, object, birth, .. } => {
                self.names(at);
                self.attributes(*object);
                match birth {
                    Birth::File => self.from(*object, 0),
                    Birth::Directory if self.counts => {
                        self.all.entry(*object).or_default().names = true;
                    }
                    _ => {}
                }
            }
            Op::Link { at, .. } | Op::Unlink { at, .. } | Op::RemoveDirectory { at, .. } => self.names(at),
            Op::Rename { from, to, object, .. } => {
                self.names(from);
                self.names(to);
                self.attributes(*object);
            }
            Op::Exchange { left, right, left_object, right_object, .. } => {
                self.names(left);
                self.names(right);
                self.attributes(*left_object);
                self.attributes(*right_object);
            }
            Op::Write { object, offset, result } => self.bytes(*object, *offset..*offset + len, result.size),
            Op::Resize { object, result } => self.bytes(*object, 0..0, result.size),
            Op::Reserve { object, offset, length, result, .. } => {
                self.bytes(*object, *offset..offset.saturating_add(*length), result.size);
            }
            Op::SetAttributes { object, .. }
            | Op::SetXattr { object, .. }
            | Op::RemoveXattr { object, .. } => {
                self.attributes(*object);
            }
            _ => {}
        }
    }
}
