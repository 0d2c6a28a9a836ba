//! Direct writes to a file that others may have mapped: no byte of either is lost.
//!
//! The kernel drops its cached pages before it sends a direct write. A mapping may bring one back
//! with the old bytes before the write is done, change a byte of it, and write it back whole
//! afterwards: over the write. So the bytes before and after a direct write are kept until the
//! kernel has dropped such pages once more, and what is written back meanwhile is mixed: where a
//! page still has the old byte, the mapping did not touch it and the write's byte counts; where it
//! has another, the mapping's does. A page that was read after the write has its bytes already,
//! and is taken as it is.
//!
//! ```text
//!  direct write: note old and new ──> disk ──> kernel writes back and drops ──> forget ──> answer
//!  write-back:                  └────────────────── mixed ─────────────────────┘
//! ```
//! All under the object lock, but for the step in which the kernel drops pages: it needs threads
//! that serve reads and write-backs.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;

/// Smallest unit that the kernel caches and writes back.
const PAGE: u64 = 4096;

/// A direct write that was done, and may not have been answered before the pages are gone.
#[derive(Debug)]
pub struct Mixing {
    id: u64,
    offset: u64,
    /// Before the write; beyond the end of the file zeros.
    old: Vec<u8>,
    new: Bytes,
    /// Pages (offset divided by their size) that were read after the write.
    fresh: HashSet<u64>,
}

/// The direct writes to one file that are not forgotten yet: in practice one.
#[derive(Debug, Default)]
pub struct Mixings {
    next: u64,
    open: Vec<Mixing>,
}

impl Mixings {
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Notes a write before it is done. `old` is as long as `new`.
    pub fn begin(&mut self, offset: u64, old: Vec<u8>, new: Bytes) -> u64 {
        assert_eq!(old.len(), new.len(), "each byte of a direct write is kept as it was and as it will be");
        self.next += 1;
        self.open.push(Mixing { id: self.next, offset, old, new, fresh: HashSet::new() });
        self.next
    }

    /// The kernel has none of the old pages any more.
    pub fn end(&mut self, id: u64) {
        self.open.retain(|mixing| mixing.id != id);
    }

    /// What was read of the file just now: pages that show a write are fresh.
    pub fn note_read(&mut self, offset: u64, bytes: &[u8]) {
        for mixing in &mut self.open {
            for piece in mixing.pieces(offset, bytes.len()) {
                let (here, there) = (piece.within(offset), piece.within(mixing.offset));
                if bytes[here] == mixing.new[there] {
                    mixing.fresh.insert(piece.page);
                }
            }
        }
    }

    /// What a write-back of these bytes has to write, if it is not them.
    pub fn mix(&self, offset: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut mixed: Option<Vec<u8>> = None;
        for mixing in &self.open {
            for piece in mixing.pieces(offset, bytes.len()) {
                if mixing.fresh.contains(&piece.page) {
                    continue;
                }
                let there = piece.within(mixing.offset);
                let kept = &mut mixed.get_or_insert_with(|| bytes.to_vec())[piece.within(offset)];
                let writes = mixing.old[there.clone()].iter().zip(&mixing.new[there]);
                for (byte, (old, new)) in kept.iter_mut().zip(writes) {
                    if *byte == *old {
                        *byte = *new;
                    }
                }
            }
        }
        mixed
    }
}

/// The part of a write that lies in one page.
struct Piece {
    page: u64,
    range: Range<u64>,
}

impl Piece {
    /// The same bytes, counted from the start of something else.
    fn within(&self, start: u64) -> Range<usize> {
        (self.range.start - start) as usize..(self.range.end - start) as usize
    }
}

impl Mixing {
    /// What the write has in common with these bytes of the file, page by page.
    fn pieces(&self, offset: u64, len: usize) -> impl Iterator<Item = Piece> + use<> {
        let start = self.offset.max(offset);
        let end = (self.offset + self.new.len() as u64).min(offset + len as u64);
        let pages = if start < end { start / PAGE..(end - 1) / PAGE + 1 } else { 0..0 };
        pages.map(move |page| Piece { page, range: start.max(page * PAGE)..end.min((page + 1) * PAGE) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, old: &[u8], new: &'static [u8]) -> Mixings {
        let mut mixings = Mixings::default();
        mixings.begin(offset, old.to_vec(), Bytes::from_static(new));
        mixings
    }

    #[test]
    fn a_stale_page_keeps_the_write_and_its_own_changes() {
        let mixings = write(2, b"old", b"NEW");
        assert_eq!(mixings.mix(0, b"..old..").unwrap(), b"..NEW..");
        assert_eq!(mixings.mix(0, b".xold..").unwrap(), b".xNEW..");
        assert_eq!(mixings.mix(0, b"..olx..").unwrap(), b"..NEx..");
        assert_eq!(mixings.mix(3, b"ld").unwrap(), b"EW");
        assert_eq!(mixings.mix(5, b"elsewhere"), None);
    }

    #[test]
    fn a_page_that_was_read_after_the_write_is_taken_as_it_is() {
        let mut mixings = write(2, b"old", b"NEW");
        mixings.note_read(0, b"..old..");
        assert!(mixings.mix(0, b"..old..").is_some(), "it was read before");
        mixings.note_read(0, b"..NEW..");
        // Somebody saw the new bytes and put the old ones back.
        assert_eq!(mixings.mix(0, b"..old.."), None);
    }

    #[test]
    fn each_page_is_judged_by_itself() {
        let mut mixings = Mixings::default();
        let id = mixings.begin(PAGE - 1, vec![1, 1], Bytes::from_static(&[2, 2]));
        mixings.note_read(PAGE, &[2; 10]);
        let mixed = mixings.mix(PAGE - 2, &[9, 1, 1, 9]).unwrap();
        assert_eq!(mixed, [9, 2, 1, 9]);
        mixings.end(id);
        assert!(mixings.is_empty() && mixings.mix(PAGE - 2, &[9, 1, 1, 9]).is_none());
    }
}
