//! The content of a file, and large attributes, while programs write them.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::Statx;

use super::super::content::{Ahead, By, Data, OldCopy, Piece, read_through};
use super::super::error::has_vanished;
use super::super::look::{attributes, stat};
use super::super::looks::{Found, Looks};
use super::super::place::{ListedFile, TreePath};
use super::super::seeing::NotRead;
use super::super::sink::{Entry, Gone, StampedSink};
use super::exact::show;
use crate::limits::XATTRS_INLINE_MAX;
use crate::packet::{Attributes, LaneItem, Xattr, XattrName};
use crate::pool::Pool;
use crate::reads::Reads;
use crate::sys::open_by_handle;
use crate::xattr;

/// An object that was listed, and where.
#[derive(Clone)]
pub(super) struct Place {
    pub listed: ListedFile,
    pub dir: Arc<TreePath>,
}

impl Place {
    pub fn path(&self) -> Arc<TreePath> {
        match &self.listed.name {
            Some(name) => TreePath::below(&self.dir, name.clone()),
            None => self.dir.clone(),
        }
    }

    pub fn found(&self) -> Found<'_> {
        let ListedFile { object, handle, file_type, .. } = &self.listed;
        Found { object: *object, handle, file_type: *file_type }
    }
}

/// What is needed to read.
pub(super) struct Reader<'a> {
    pub mount: BorrowedFd<'a>,
    pub looks: &'a dyn Looks,
    pub pool: &'a Pool,
    /// Bytes of an item.
    pub chunk: usize,
}

/// A file that is being sent.
pub(super) struct Content {
    pub place: Place,
    old: OldCopy,
    fd: Option<OwnedFd>,
    /// Everything before it was sent, as bytes or as a hole.
    reached: u64,
    /// The target was told that it comes.
    is_open: bool,
}

/// How far one step came.
pub(super) enum Went {
    /// So many bytes, and there is more.
    On(u64),
    /// So many bytes, and the end.
    Whole { bytes: u64, has_large: bool },
    /// It has no name any more.
    Gone,
    /// The target was told that no more of it comes.
    Unreadable(NotRead),
}

impl Content {
    pub fn of(place: Place, old: OldCopy) -> Content {
        Content { place, old, fd: None, reached: 0, is_open: false }
    }

    /// Everything before it was sent.
    pub fn reached(&self) -> u64 {
        self.reached
    }

    /// Sends the next piece; a small file is one.
    ///
    /// Errors: [`Gone`].
    pub fn next(
        &mut self,
        reader: &Reader<'_>,
        ahead: &mut Ahead,
        sink: &mut impl StampedSink,
    ) -> Result<Went, Gone> {
        let (place, old, fd, was_open, reached) =
            (&self.place, &mut self.old, &mut self.fd, self.is_open, self.reached);
        let object = place.listed.object;
        let mut is_first = true;
        let (looked, _) = show(sink, reader.looks, place.found(), |batch| {
            if !was_open {
                batch.push(Entry::of(LaneItem::OpenContent { object }));
            }
            let counts = reader.looks.counts(object.inode);
            // Somebody writes it, if it is read again, and again: in the end under its locks, from memory.
            let by = match ahead.for_look(object, counts).filter(|_| is_first) {
                Some(ahead) => By::Stretches(ahead),
                None => By::Pieces(if is_first { Reads::Passing } else { Reads::Cached }),
            };
            is_first = false;
            let looked = look(reader, place, old, fd, (reached, by), batch);
            if let Ok(Looked { went: Went::Gone, .. }) | Err(_) = &looked {
                batch.clear();
                batch.push(Entry::of(LaneItem::Leave { object }));
            }
            Ok::<_, Gone>(looked)
        })?;
        Ok(match looked {
            Ok(Looked { went, reached }) => {
                (self.is_open, self.reached) = (true, reached);
                went
            }
            Err(why) => Went::Unreadable(why),
        })
    }
}

struct Looked {
    went: Went,
    reached: u64,
}

/// Reads what comes next, as it is now: the file may have become longer or shorter since it was listed,
/// and since the piece before.
fn look(
    reader: &Reader<'_>,
    place: &Place,
    old: &mut OldCopy,
    file: &mut Option<OwnedFd>,
    (reached, mut by): (u64, By<'_>),
    batch: &mut Vec<Entry>,
) -> Result<Looked, NotRead> {
    let Some((fd, status)) = open_and_look(reader.mount, place, file)? else {
        return Ok(Looked { went: Went::Gone, reached });
    };
    let (object, size) = (place.listed.object, status.stx_size);
    if std::mem::replace(old, OldCopy::None) == OldCopy::Maybe && size > reader.chunk as u64 {
        // Once, before anything of it goes: what the target has may be all that can still be read.
        let whole = Data::of(fd, 0..size, (reader.pool, reader.chunk), by.again());
        read_through(whole).map_err(|error| ("read", error))?;
    }
    let piece = Data::of(fd, reached..size, (reader.pool, reader.chunk), by).next();
    let (hole, bytes, at) = match piece.map_err(|error| ("read", error))? {
        Piece::Bytes { hole, offset, bytes } => {
            let (len, end) = (bytes.len() as u64, offset + bytes.len() as u64);
            batch.push(Entry { item: LaneItem::Content { object, hole, offset }, payload: bytes });
            if end < size {
                return Ok(Looked { went: Went::On(len), reached: end });
            }
            (0, len, end)
        }
        // Shorter than what was sent: the target cuts it.
        Piece::End { hole } => (hole, 0, reached),
    };
    let (attributes, xattrs) = attributes_of(fd, &status)?;
    let (has_large, xattrs) = (xattrs.is_none(), xattrs.unwrap_or_default());
    batch.push(Entry::of(LaneItem::CloseContent { object, hole, size, attributes, xattrs }));
    Ok(Looked { went: Went::Whole { bytes, has_large }, reached: at })
}

/// Opens a file, where it is not open yet, and looks at it; `None`: it has no name any more.
pub(super) fn open_and_look<'a>(
    mount: BorrowedFd<'_>,
    place: &Place,
    file: &'a mut Option<OwnedFd>,
) -> Result<Option<(&'a OwnedFd, Statx)>, NotRead> {
    let fd = match file {
        Some(fd) => fd,
        None => {
            let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOATIME;
            match open_by_handle(mount, &place.listed.handle, flags) {
                Ok(opened) => file.insert(opened),
                Err(error) if has_vanished(&error) => return Ok(None),
                Err(error) => return Err(("open", error)),
            }
        }
    };
    let status = stat(fd.as_fd()).map_err(|error| ("look at", error))?;
    Ok((status.stx_nlink > 0).then_some((&*fd, status)))
}

/// The attributes that come with the end of a file's content. Without extended ones, where there are more
/// of them than go at once: then it is its owner's alone, until the ACLs among them have come.
pub(super) fn attributes_of(
    fd: &OwnedFd,
    status: &Statx,
) -> Result<(Attributes, Option<Vec<Xattr>>), NotRead> {
    let xattrs = xattr::read_replicated_up_to(fd, XATTRS_INLINE_MAX);
    let (xattrs, mut attributes) =
        (xattrs.map_err(|error| ("read attributes of", error))?, attributes(status));
    if xattrs.is_none() {
        attributes.mode &= !0o077;
    }
    Ok((attributes, xattrs))
}

/// What became of large attributes.
pub(super) enum Dressed {
    Whole,
    Gone,
    Unreadable(NotRead),
}

/// Sends the attributes of an object that has more of them than a listing takes: their names, one value
/// after the other, and the mode.
///
/// Errors: [`Gone`].
pub(super) fn send_xattrs(
    reader: &Reader<'_>,
    place: &Place,
    sink: &mut impl StampedSink,
) -> Result<Dressed, Gone> {
    let mut part = Part::Names;
    let mut names = VecDeque::new();
    loop {
        let (looked, _) = show(sink, reader.looks, place.found(), |batch| {
            Ok::<_, Gone>(dress(reader, place, &part, batch))
        })?;
        match looked {
            Ok(Some(found)) => names.extend(found),
            Ok(None) => return Ok(Dressed::Gone),
            Err(why) => return Ok(Dressed::Unreadable(why)),
        }
        part = match (names.pop_front(), part) {
            (_, Part::Attributes) => return Ok(Dressed::Whole),
            (Some(name), _) => Part::Value(name),
            (None, _) => Part::Attributes,
        };
    }
}

enum Part {
    Names,
    Value(XattrName),
    Attributes,
}

/// Gives the names that are to follow; `None`: the object is gone.
fn dress(
    reader: &Reader<'_>,
    place: &Place,
    part: &Part,
    batch: &mut Vec<Entry>,
) -> Result<Option<Vec<XattrName>>, NotRead> {
    let reads = |error: io::Error| ("read attributes of", error);
    let object = place.listed.object;
    let fd = match open_by_handle(reader.mount, &place.listed.handle, libc::O_PATH | libc::O_NOFOLLOW) {
        Ok(fd) => fd,
        Err(error) if has_vanished(&error) => return Ok(None),
        Err(error) => return Err(("open", error)),
    };
    let status = stat(fd.as_fd()).map_err(|error| ("look at", error))?;
    if status.stx_nlink == 0 {
        return Ok(None);
    }
    let attributes: Attributes = attributes(&status);
    let mut follow = Vec::new();
    match part {
        Part::Names => {
            let names = xattr::replicated_names(&fd).map_err(reads)?;
            follow.clone_from(&names);
            batch.push(Entry::of(LaneItem::Xattrs { object, attributes, names }));
        }
        // One that is gone was removed since: packets tell.
        Part::Value(name) => {
            if let Some(value) = xattr::get(&fd, &name.0).map_err(reads)? {
                let item = LaneItem::Xattr { object, name: name.clone() };
                batch.push(Entry { item, payload: Bytes::from(value) });
            }
        }
        Part::Attributes => batch.push(Entry::of(LaneItem::Attributes { object, attributes })),
    }
    Ok(Some(follow))
}
