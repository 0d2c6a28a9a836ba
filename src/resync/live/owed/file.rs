//! What has changed of the content of one file, as it is now, and all attributes behind it.

use std::ops::Range;
use std::os::fd::OwnedFd;

use super::super::super::content::{By, Data, Piece};
use super::super::super::owed::OwedContent;
use super::super::super::seeing::NotRead;
use super::super::super::sink::{Entry, Gone, StampedSink};
use super::super::exact::show;
use super::super::files::{Place, Reader, attributes_of, open_and_look};
use crate::packet::LaneItem;
use crate::reads::Reads;

/// Pieces of one batch: holes count for no bytes.
const PIECES: usize = 64;

pub(super) struct OwedFile {
    pub place: Place,
    fd: Option<OwnedFd>,
    ranges: Vec<Range<u64>>,
    at: Cursor,
}

/// Everything before it was sent.
#[derive(Clone, Copy, Default)]
struct Cursor {
    range: usize,
    /// In the file.
    reached: u64,
}

/// How far one step came: so many bytes.
pub(super) struct Went {
    pub bytes: u64,
    pub is_over: Option<End>,
}

pub(super) enum End {
    Whole {
        has_large: bool,
    },
    /// It has no name any more.
    Gone,
    /// The target was told that no more of it comes.
    Unreadable(NotRead),
}

impl OwedFile {
    pub fn new(place: Place, content: &OwedContent) -> OwedFile {
        OwedFile { place, fd: None, ranges: content.ranges(), at: Cursor::default() }
    }

    /// Nothing of it was sent.
    pub fn is_new(&self) -> bool {
        self.fd.is_none()
    }

    /// Sends the next pieces; a file of which little is owed is one step.
    ///
    /// Errors: [`Gone`].
    pub fn next(&mut self, reader: &Reader<'_>, sink: &mut impl StampedSink) -> Result<Went, Gone> {
        let OwedFile { place, fd, ranges, at } = self;
        let object = place.listed.object;
        let mut reads = Reads::Passing;
        let (looked, _) = show(sink, reader.looks, place.found(), |batch| {
            batch.push(Entry::of(LaneItem::OpenBlocks { object }));
            let looked = look(reader, place, fd, ranges, (*at, reads), batch);
            reads = Reads::Cached;
            if let Ok((_, Went { is_over: Some(End::Gone), .. })) | Err(_) = &looked {
                batch.clear();
                batch.push(Entry::of(LaneItem::Leave { object }));
            }
            Ok::<_, Gone>(looked)
        })?;
        Ok(match looked {
            Ok((reached, went)) => {
                self.at = reached;
                went
            }
            Err(why) => Went { bytes: 0, is_over: Some(End::Unreadable(why)) },
        })
    }
}

/// Reads what comes next, as it is now. What lies behind the end is not sent: where it belongs to the last
/// range, that goes on there if the file has become longer by the next look.
fn look(
    reader: &Reader<'_>,
    place: &Place,
    file: &mut Option<OwnedFd>,
    ranges: &[Range<u64>],
    (mut at, reads): (Cursor, Reads),
    batch: &mut Vec<Entry>,
) -> Result<(Cursor, Went), NotRead> {
    let Some((fd, status)) = open_and_look(reader.mount, place, file)? else {
        return Ok((at, Went { bytes: 0, is_over: Some(End::Gone) }));
    };
    let (object, size) = (place.listed.object, status.stx_size);
    let mut sent = 0;
    while let Some(range) = ranges.get(at.range) {
        let (start, end) = (range.start.max(at.reached), range.end.min(size));
        if start >= end {
            at.range += 1;
            continue;
        }
        let room = reader.chunk.saturating_sub(sent as usize);
        if room == 0 || batch.len() > PIECES {
            return Ok((at, Went { bytes: sent, is_over: None }));
        }
        let piece = Data::of(fd, start..end, (reader.pool, room), By::Pieces(reads)).next();
        match piece.map_err(|error| ("read", error))? {
            Piece::Bytes { hole, offset, bytes } => {
                sent += bytes.len() as u64;
                at.reached = offset + bytes.len() as u64;
                batch.push(Entry { item: LaneItem::Content { object, hole, offset }, payload: bytes });
            }
            Piece::End { hole } => {
                at.reached = end;
                batch.push(Entry::of(LaneItem::Content { object, hole, offset: end }));
            }
        }
    }
    let (attributes, xattrs) = attributes_of(fd, &status)?;
    let (has_large, xattrs) = (xattrs.is_none(), xattrs.unwrap_or_default());
    batch.push(Entry::of(LaneItem::CloseContent { object, hole: 0, size, attributes, xattrs }));
    Ok((at, Went { bytes: sent, is_over: Some(End::Whole { has_large }) }))
}
