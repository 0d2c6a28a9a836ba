//! One directory, chunk by chunk, while programs work in it.
//!
//! A chunk is exact as of its stamp: neither the directory nor anything that is in the chunk changes from
//! the look at it until it is stamped. What did change is looked at again, alone; where the directory
//! itself does not rest, chunks become smaller, and in the end single entries are looked at under locks.
//!
//! The names behind the first chunk are read after it was stamped: whatever gets a name from then on is
//! told by packets, also where this listing misses it, and whatever keeps its name is read once. Where a
//! directory does not rest for as long as its first chunk takes, that one says nothing but that the
//! listing begins.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::Dir;
use rustix::io::Errno;

use super::super::error::has_vanished;
use super::super::look::{stat, timestamp};
use super::super::looks::{Found, Looks};
use super::super::place::{ListedFile, TreePath, encoded_len};
use super::super::seeing::{Eyes, NotRead, Sight};
use super::super::sink::{Entry, Slot, StampedSink};
use super::super::{CopyError, Gone};
use super::exact::show;
use super::ruled::Ruled;
use crate::limits::LISTING_LEN_CUT;
use crate::packet::{Birth, ItemNumber, LaneItem, Name, ObjectId, Sequence, Timestamp, Unlisted};
use crate::sets::Matcher;
use crate::sys::FileHandle;
use crate::words::RESERVED_NAME;

/// Tries without a lock of the directory, each with half as many entries as the one before.
const TRIES: u32 = 8;
/// Looks at what has changed in a chunk, in one try.
const PASSES: u32 = 8;
/// Looks at a name under locks that held another object each time.
const MET: u32 = 16;

/// A directory whose listing has begun.
pub(super) struct OpenListing {
    pub id: ObjectId,
    pub handle: FileHandle,
    pub path: Arc<TreePath>,
    /// Files in it have names that say nothing: they are suspect.
    pub is_moved: bool,
    entries: Option<Dir>,
    /// Names that were read and did not fit.
    carried: VecDeque<Candidate>,
    /// No chunk of it was sent yet.
    is_fresh: bool,
    is_read: bool,
    /// Reading its names failed half-way.
    cut_off: Option<io::Error>,
    /// Entries of the next chunk.
    limit: usize,
    /// Of the tree: what is reserved there is not listed.
    pub is_root: bool,
    /// It is listed by this name alone.
    pub only: Option<Name>,
}

/// A name that was read.
struct Candidate {
    name: Name,
    inode: u64,
    /// The count of changes begun before the look; `None`: one was under way.
    begun: Option<u64>,
    sight: Option<Result<Sight, NotRead>>,
}

/// What is kept of an entry that went.
pub(super) struct SeenEntry {
    pub listed: ListedFile,
    pub is_large: bool,
}

/// What a step has sent.
pub(super) enum Shown {
    Chunk(Chunk),
    /// Nothing: what it met is told by packets.
    Nothing,
    /// It is not there any more, which was said; or it cannot be read.
    Closed(Option<NotRead>),
    /// Nothing: the target has yet to apply what was changed of it, and it may be listed later.
    Later,
}

/// A chunk that was sent.
pub(super) struct Chunk {
    pub number: ItemNumber,
    pub seen: Vec<SeenEntry>,
    pub unread: Vec<(Option<Name>, NotRead)>,
    pub nested: Vec<Name>,
    pub is_last: bool,
}

impl OpenListing {
    pub fn new(id: ObjectId, handle: FileHandle, path: Arc<TreePath>, largest: usize) -> OpenListing {
        OpenListing {
            id,
            handle,
            path,
            is_moved: false,
            is_root: false,
            only: None,
            entries: None,
            carried: VecDeque::new(),
            is_fresh: true,
            is_read: false,
            cut_off: None,
            limit: largest,
        }
    }

    /// No chunk of it was sent yet.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }

    fn found(&self) -> Found<'_> {
        Found { object: self.id, handle: &self.handle, file_type: libc::S_IFDIR }
    }

    fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        let entries = self.entries.as_ref().ok_or_else(|| io::Error::from(Errno::BADF))?;
        Ok(entries.fd()?)
    }

    /// Its names from the beginning.
    fn reopen(&mut self, eyes: &Eyes) -> io::Result<()> {
        (self.entries, self.is_read) = (None, false);
        self.carried.clear();
        self.entries = Some(Dir::new(eyes.open_directory(&self.handle)?)?);
        Ok(())
    }

    /// The next names, so many at most.
    fn take(&mut self, most: usize) -> Vec<Candidate> {
        let carried = self.carried.len().min(most);
        let mut taken: Vec<Candidate> = self.carried.drain(..carried).collect();
        let Some(entries) = self.entries.as_mut().filter(|_| !self.is_read) else { return taken };
        while taken.len() < most {
            match entries.read() {
                Some(Ok(entry)) => {
                    let Ok(name) = Name::new(entry.file_name().to_bytes()) else { continue };
                    let is_other = self.only.as_ref().is_some_and(|only| *only != name);
                    if is_other || self.is_root && name.as_bytes() == RESERVED_NAME.as_bytes() {
                        continue;
                    }
                    taken.push(Candidate { name, inode: entry.ino(), begun: None, sight: None });
                }
                // It was removed: it has no names any more.
                Some(Err(Errno::NOENT)) | None => {
                    self.is_read = true;
                    break;
                }
                Some(Err(error)) => {
                    (self.is_read, self.cut_off) = (true, Some(error.into()));
                    break;
                }
            }
        }
        taken
    }

    fn put_back(&mut self, candidates: impl DoubleEndedIterator<Item = Candidate>) {
        for candidate in candidates.rev() {
            self.carried.push_front(Candidate { begun: None, sight: None, ..candidate });
        }
    }

    fn is_at_its_end(&self) -> bool {
        self.is_read && self.carried.is_empty()
    }
}

impl Candidate {
    fn is_current(&self, looks: &dyn Looks) -> bool {
        self.sight.is_some() && self.begun == Some(looks.counts(self.inode).begun)
    }

    fn look(&mut self, eyes: &Eyes, looks: &dyn Looks, dir: BorrowedFd<'_>) {
        // What the name holds is mostly what it held when it was read.
        for _ in 0..2 {
            let counts = looks.counts(self.inode);
            self.begun = counts.is_calm().then_some(counts.begun);
            self.sight = Some(self.see(eyes, dir));
            match &self.sight {
                Some(Ok(Sight::Here(seen))) if seen.listed.object.inode != self.inode => {
                    (self.inode, self.begun) = (seen.listed.object.inode, None);
                }
                _ => break,
            }
        }
    }

    fn see(&self, eyes: &Eyes, dir: BorrowedFd<'_>) -> Result<Sight, NotRead> {
        let raw = CString::new(self.name.as_bytes());
        let raw = raw.map_err(|error| ("look at", io::Error::from(error)))?;
        eyes.see(dir, &self.name, &raw)
    }

    fn encoded_len(&self) -> usize {
        match &self.sight {
            Some(Ok(Sight::Here(seen))) => encoded_len(&seen.listed),
            _ => self.name.as_bytes().len() + 8,
        }
    }
}

/// What lists.
pub(super) struct Lister<'a, S> {
    pub eyes: &'a Eyes,
    pub looks: &'a dyn Looks,
    pub sink: &'a mut S,
    /// Entries of a chunk at most.
    pub largest: usize,
    /// The rules of the set, where it has some.
    pub rules: Option<&'a Matcher>,
    /// What the target cannot say at once is left for later.
    pub may_wait: bool,
}

enum Tried {
    Shown(Shown),
    /// Something has changed meanwhile.
    Changed(Slot),
}

impl<S: StampedSink> Lister<'_, S> {
    /// Sends the next chunk of a listing.
    ///
    /// Errors: [`CopyError::Gone`].
    pub fn next(&mut self, open: &mut OpenListing) -> Result<Shown, CopyError> {
        let mut slot = self.sink.reserve()?;
        for _ in 0..TRIES {
            match self.try_chunk(open, slot) {
                Tried::Shown(Shown::Later) => return Ok(Shown::Later),
                Tried::Shown(shown) => {
                    open.limit = (open.limit * 2).min(self.largest);
                    return Ok(shown);
                }
                Tried::Changed(same) => slot = same,
            }
            if open.is_fresh && !self.may_wait {
                return self.begin_alone(open);
            }
        }
        // It is changed all the time.
        if self.may_wait {
            return Ok(Shown::Later);
        }
        self.one_while_still(open)
    }

    /// Without a lock.
    fn try_chunk(&mut self, open: &mut OpenListing, slot: Slot) -> Tried {
        let before = self.looks.counts(open.id.inode);
        if !before.is_calm() {
            std::thread::yield_now();
            return Tried::Changed(slot);
        }
        let is_as_before = |looks: &dyn Looks, id: ObjectId| looks.counts(id.inode).begun == before.begun;
        if open.is_fresh
            && let Err(error) = open.reopen(self.eyes)
        {
            let looks = self.looks;
            return match self.close(open.id, slot, || is_as_before(looks, open.id)) {
                Ok(()) => Tried::Shown(Shown::Closed((!has_vanished(&error)).then_some(("open", error)))),
                Err(slot) => Tried::Changed(slot),
            };
        }
        let (mut chunk, mut slot) = (open.take(open.limit.max(1)), slot);
        for _ in 0..PASSES {
            if !self.look_at(open, &mut chunk) || !is_as_before(self.looks, open.id) {
                break;
            }
            if !chunk.iter().all(|candidate| candidate.is_current(self.looks)) {
                continue;
            }
            let looks = self.looks;
            match self.send(open, &mut chunk, slot, |chunk| {
                is_as_before(looks, open.id)
                    && chunk.iter().all(|(inode, begun)| looks.counts(*inode).begun == *begun)
            }) {
                Ok(Shown::Later) => return Tried::Shown(Shown::Later),
                Ok(shown) => {
                    open.is_fresh = false;
                    return Tried::Shown(shown);
                }
                Err(same) => slot = same,
            }
        }
        open.limit = (chunk.len() / 2).max(1);
        open.put_back(chunk.into_iter());
        Tried::Changed(slot)
    }

    /// Looks at what is not known as it is now; what is too much for one item is put back. `false`: it
    /// cannot be looked at.
    fn look_at(&self, open: &mut OpenListing, chunk: &mut Vec<Candidate>) -> bool {
        let (mut len, mut kept) = (0, 0);
        {
            let Ok(dir) = open.fd() else { return false };
            for candidate in chunk.iter_mut() {
                if !candidate.is_current(self.looks) {
                    candidate.look(self.eyes, self.looks, dir);
                }
                len += candidate.encoded_len();
                if len > LISTING_LEN_CUT && kept > 0 {
                    break;
                }
                kept += 1;
            }
        }
        let surplus: Vec<Candidate> = chunk.drain(kept..).collect();
        open.put_back(surplus.into_iter());
        true
    }

    /// `check`: with the inodes of the chunk and what had begun of them.
    fn send(
        &mut self,
        open: &OpenListing,
        chunk: &mut [Candidate],
        slot: Slot,
        check: impl FnOnce(&[(u64, u64)]) -> bool,
    ) -> Result<Shown, Slot> {
        let begun: Vec<(u64, u64)> =
            chunk.iter().map(|candidate| (candidate.inode, candidate.begun.unwrap_or_default())).collect();
        let status = open.fd().and_then(stat);
        let Some(status) = status.ok().filter(|status| status.stx_nlink > 0) else {
            self.close(open.id, slot, || check(&begun))?;
            return Ok(Shown::Closed(None));
        };
        let ruled = match open.fd() {
            Ok(dir) => Ruled::of(self.rules, self.eyes, dir, &open.path),
            Err(_) => Ruled::No,
        };
        if let Ruled::Out = ruled {
            self.close(open.id, slot, || check(&begun))?;
            return Ok(Shown::Closed(None));
        }
        let since = self.since(open.id, chunk);
        if self.may_wait && since.zip(self.sink.reached()).is_some_and(|(since, reached)| since > reached) {
            return Ok(Shown::Later);
        }
        let mut built = Built::of(open, chunk, timestamp(status.stx_mtime), ruled);
        let number = self.sink.push_since(slot, &mut built.batch, since, || check(&begun))?;
        Ok(Shown::Chunk(built.sent(number)))
    }

    /// The last packet that may have changed something of a chunk. Where rules decide what is in it, that hangs on
    /// the directories above it, too.
    fn since(&self, dir: ObjectId, chunk: &[Candidate]) -> Option<Sequence> {
        let inodes = chunk.iter().map(|candidate| candidate.inode).chain([dir.inode]);
        let first = self.rules.map_or(Some(Sequence(0)), |_| self.looks.directory_moved_at())?;
        let mut changes = inodes.map(|inode| self.looks.changed_at(inode));
        changes.try_fold(first, |since, changed| Some(since.max(changed?)))
    }

    /// Says that a directory is not there.
    fn close(&mut self, dir: ObjectId, slot: Slot, check: impl FnOnce() -> bool) -> Result<(), Slot> {
        let mut batch = vec![Entry::of(LaneItem::NotListed { dir })];
        let since = self.looks.changed_at(dir.inode).filter(|_| self.rules.is_none());
        self.sink.push_since(slot, &mut batch, since, check).map(drop)
    }

    /// The listing begins, and says nothing yet: names that are set from now on are told by packets.
    fn begin_alone(&mut self, open: &mut OpenListing) -> Result<Shown, CopyError> {
        open.carried.clear();
        let (eyes, id, handle) = (self.eyes, open.id, open.handle);
        let (is_there, number) = show(self.sink, self.looks, open.found(), |batch| {
            let status = eyes.open_directory(&handle).and_then(|fd| stat(fd.as_fd()));
            let status = status.ok().filter(|status| status.stx_nlink > 0);
            batch.push(Entry::of(match &status {
                Some(status) => LaneItem::Listing {
                    dir: id,
                    dir_mtime: timestamp(status.stx_mtime),
                    entries: Vec::new(),
                    unlisted: None,
                    first: true,
                    last: false,
                },
                None => LaneItem::NotListed { dir: id },
            }));
            Ok::<_, Gone>(status.is_some())
        })?;
        let Some(number) = number.filter(|_| is_there) else { return Ok(Shown::Closed(None)) };
        open.is_fresh = false;
        // A directory that was removed since then is found to be so with its next chunk.
        if let Err(error) = open.reopen(self.eyes)
            && !has_vanished(&error)
        {
            open.cut_off = Some(error);
        }
        open.is_read |= open.entries.is_none();
        let (seen, unread, nested) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Shown::Chunk(Chunk { number, seen, unread, nested, is_last: false }))
    }

    /// One entry, while nobody changes it or its directory.
    fn one_while_still(&mut self, open: &mut OpenListing) -> Result<Shown, CopyError> {
        let mut chunk = open.take(1);
        for _ in 0..MET {
            let slot = self.sink.reserve()?;
            let (Ok(dir), Some(candidate)) = (open.fd(), chunk.first_mut()) else { break };
            candidate.look(self.eyes, self.looks, dir);
            let Some(Ok(Sight::Here(seen))) = &candidate.sight else { break };
            let (object, handle, file_type) = (seen.listed.object, seen.handle, seen.file_type);
            let entry = Found { object, handle: &handle, file_type };
            let mut shown = None;
            let mut slot = Some(slot);
            let looks = self.looks;
            looks.while_still(open.found(), Some(entry), &mut || {
                let Ok(dir) = open.fd() else { return };
                chunk[0].sight = Some(chunk[0].see(self.eyes, dir));
                let is_same =
                    matches!(&chunk[0].sight, Some(Ok(Sight::Here(seen))) if seen.listed.object == object);
                if let Some(slot) = slot.take().filter(|_| is_same) {
                    shown = self.send(open, &mut chunk, slot, |_| true).ok();
                }
            });
            if let Some(shown) = shown {
                return Ok(shown);
            }
        }
        let is_readable = !matches!(chunk.first(), Some(Candidate { sight: Some(Err(_)), .. }));
        // What its name holds now was put there since the first chunk: packets tell.
        if !chunk.is_empty() && is_readable && !open.is_at_its_end() && open.entries.is_some() {
            return Ok(Shown::Nothing);
        }
        if is_readable {
            chunk.clear();
        }
        self.rest_while_still(open, &mut chunk)
    }

    /// What nobody can change: names that cannot be read, and the end.
    fn rest_while_still(
        &mut self,
        open: &mut OpenListing,
        chunk: &mut [Candidate],
    ) -> Result<Shown, CopyError> {
        let mut slot = Some(self.sink.reserve()?);
        let mut shown = None;
        let looks = self.looks;
        looks.while_still(open.found(), None, &mut || {
            if let Some(slot) = slot.take() {
                shown = self.send(open, chunk, slot, |_| true).ok();
            }
        });
        Ok(shown.unwrap_or(Shown::Nothing))
    }
}

/// A chunk that is ready to go.
struct Built {
    batch: Vec<Entry>,
    seen: Vec<SeenEntry>,
    unread: Vec<(Option<Name>, NotRead)>,
    nested: Vec<Name>,
    is_last: bool,
}

impl Built {
    /// The candidates have nothing left of what was seen: they are looked at again where this does not go.
    fn of(open: &OpenListing, chunk: &mut [Candidate], dir_mtime: Timestamp, ruled: Ruled<'_>) -> Built {
        let is_last = open.is_at_its_end();
        let mut built =
            Built { batch: Vec::new(), seen: Vec::new(), unread: Vec::new(), nested: Vec::new(), is_last };
        let mut entries = Vec::with_capacity(chunk.len());
        let mut unreadable = Vec::new();
        for candidate in chunk {
            match candidate.sight.take() {
                Some(Ok(Sight::Here(seen))) if !ruled.has_listed(&seen.listed) => {}
                Some(Ok(Sight::Nested)) if !ruled.has(&candidate.name, true) => {}
                Some(Err(_)) if !ruled.may_have(&candidate.name) => {}
                Some(Ok(Sight::Here(mut seen))) => {
                    seen.listed.suspect |= open.is_moved && seen.listed.birth == Birth::File;
                    let (is_large, listed) = (seen.listed.large_xattrs, seen.as_listed());
                    built.seen.push(SeenEntry { listed, is_large });
                    entries.push(seen.listed);
                }
                Some(Ok(Sight::Nested)) => built.nested.push(candidate.name.clone()),
                Some(Err(why)) => {
                    unreadable.push(candidate.name.clone());
                    built.unread.push((Some(candidate.name.clone()), why));
                }
                Some(Ok(Sight::Gone)) | None => {}
            }
        }
        let cut_off = open.cut_off.as_ref().filter(|_| is_last);
        let unlisted = match (cut_off, unreadable.is_empty()) {
            (Some(error), _) => {
                let error =
                    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error);
                built.unread.push((None, ("list", error)));
                Some(Unlisted::TheRest)
            }
            (None, _) if is_last && open.only.is_some() => Some(Unlisted::NotShown),
            (None, false) => Some(Unlisted::These(unreadable)),
            (None, true) => None,
        };
        let item = LaneItem::Listing {
            dir: open.id,
            dir_mtime,
            entries,
            unlisted,
            first: open.is_fresh,
            last: is_last,
        };
        built.batch.extend(ruled.within(open.id).filter(|_| is_last).map(Entry::of));
        built.batch.push(Entry::of(item));
        built
    }

    fn sent(self, number: ItemNumber) -> Chunk {
        let Built { seen, unread, nested, is_last, .. } = self;
        Chunk { number, seen, unread, nested, is_last }
    }
}
