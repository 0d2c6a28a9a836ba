//! The order of a copy: listings run ahead, the content that the target asks for goes first.

use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, TryRecvError};

use super::content::{Sent, send_file};
use super::walk::{Chunk, ListedFile, TreePath, Walk};
use super::{CopyError, CopyProgress, ItemSink};
use crate::limits::LISTINGS_IN_FLIGHT;
use crate::packet::{ItemNumber, LaneItem, ObjectId, Timestamp};
use crate::queue::Pool;

/// The target's answer to one listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub listing: ItemNumber,
    /// Files of the listing whose content the target lacks.
    pub objects: Vec<ObjectId>,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Number of the [`LaneItem::End`]. `None` where the copy does not prove equality: the tree
    /// changed under it, or it was asked not to end ([`FirstCopy::without_end`]). Then run
    /// another.
    pub end: Option<ItemNumber>,
    /// Files whose content was sent.
    pub copied: u64,
    /// Objects that changed while they were read.
    pub changed: u64,
    /// Objects that went away between their listing and their reading.
    pub vanished: u64,
    /// Nested mounts and subvolumes, which are not part of the copy.
    pub nested: u64,
}

/// A copy of the whole tree. Runs once, blocking, on the caller's thread.
pub struct FirstCopy<S> {
    backing: OwnedFd,
    birth_epoch: u32,
    suspect_since: Option<Timestamp>,
    sink: S,
    wanted: Receiver<Wanted>,
    progress: Arc<CopyProgress>,
    ends: bool,
}

impl<S: ItemSink> FirstCopy<S> {
    /// `backing` is a directory opened for reading, not through the mount. Files whose ctime is
    /// `suspect_since` or later are copied whatever the target compares. Answers to listings
    /// arrive in `wanted`, in order.
    pub fn new(
        backing: OwnedFd,
        birth_epoch: u32,
        suspect_since: Option<Timestamp>,
        sink: S,
        wanted: Receiver<Wanted>,
        progress: Arc<CopyProgress>,
    ) -> FirstCopy<S> {
        FirstCopy { backing, birth_epoch, suspect_since, sink, wanted, progress, ends: true }
    }

    /// Sends no [`LaneItem::End`]: a copy ahead, while applications still write. The replica stays
    /// bad until a copy of the quiet tree ends.
    pub fn without_end(mut self) -> FirstCopy<S> {
        self.ends = false;
        self
    }

    /// Copies. Needs `CAP_DAC_READ_SEARCH` (file handles).
    ///
    /// Errors: [`CopyError`]; everything sent until then stands, the next copy goes on from it.
    pub fn run(mut self) -> Result<CopyReport, CopyError> {
        let (walk, root) = Walk::new(self.backing, self.birth_epoch, self.suspect_since)?;
        self.sink.send(LaneItem::Begin, Bytes::new())?;
        self.sink.send(root, Bytes::new())?;
        let mut copying = Copying {
            walk,
            is_walked: false,
            sink: self.sink,
            answers: self.wanted,
            progress: self.progress,
            pool: Pool::new(),
            in_flight: VecDeque::new(),
            to_copy: VecDeque::new(),
            linked: HashSet::new(),
            report: CopyReport::default(),
        };
        while copying.step()? {}
        copying.finish(self.ends)
    }
}

/// A copy under way.
struct Copying<S> {
    walk: Walk,
    is_walked: bool,
    sink: S,
    answers: Receiver<Wanted>,
    progress: Arc<CopyProgress>,
    pool: Pool,
    /// Listings that were sent and not yet answered, oldest first.
    in_flight: VecDeque<InFlight>,
    to_copy: VecDeque<(Arc<TreePath>, ListedFile)>,
    /// Files with several names that were listed, and whether their content was sent: a file is
    /// counted and copied once.
    linked: HashSet<(ObjectId, Linked)>,
    report: CopyReport,
}

struct InFlight {
    listing: ItemNumber,
    dir: Arc<TreePath>,
    files: Vec<ListedFile>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Linked {
    Listed,
    Asked,
}

impl<S: ItemSink> Copying<S> {
    /// Does one thing; `false` when everything was done.
    fn step(&mut self) -> Result<bool, CopyError> {
        while let Some(answer) = self.answer_at_hand()? {
            self.take_answer(answer)?;
        }
        if let Some((dir, file)) = self.to_copy.pop_front() {
            self.copy(&dir, &file)?;
            return Ok(true);
        }
        if !self.is_walked && self.in_flight.len() < LISTINGS_IN_FLIGHT {
            self.send_listing()?;
            return Ok(true);
        }
        if self.in_flight.is_empty() {
            return Ok(false);
        }
        let answer = self.answers.recv().map_err(|_| CopyError::Gone)?;
        self.take_answer(answer)?;
        Ok(true)
    }

    fn finish(mut self, ends: bool) -> Result<CopyReport, CopyError> {
        let counts = self.walk.counts;
        self.report.changed += counts.changed;
        self.report.vanished += counts.vanished;
        self.report.nested = counts.nested;
        if ends && self.report.changed == 0 && self.report.vanished == 0 {
            self.report.end = Some(self.sink.send(LaneItem::End, Bytes::new())?);
        }
        self.progress.set_current(String::new());
        Ok(self.report)
    }

    fn send_listing(&mut self) -> Result<(), CopyError> {
        let Some(Chunk { item, dir, files }) = self.walk.next_chunk(&self.progress)? else {
            self.is_walked = true;
            return Ok(());
        };
        for file in &files {
            if file.links == 1 || self.linked.insert((file.object, Linked::Listed)) {
                CopyProgress::add(&self.progress.bytes, file.size);
            }
        }
        let listing = self.sink.send(item, Bytes::new())?;
        self.in_flight.push_back(InFlight { listing, dir, files });
        Ok(())
    }

    fn answer_at_hand(&self) -> Result<Option<Wanted>, CopyError> {
        match self.answers.try_recv() {
            Ok(answer) => Ok(Some(answer)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(CopyError::Gone),
        }
    }

    /// Answers come in the order of the listings, and name only files of theirs.
    fn take_answer(&mut self, answer: Wanted) -> Result<(), CopyError> {
        let Some(listing) = self.in_flight.pop_front() else {
            return Err(CopyError::Answer(format!("item {} is no open listing", answer.listing.0)));
        };
        if listing.listing != answer.listing {
            let (got, due) = (answer.listing.0, listing.listing.0);
            return Err(CopyError::Answer(format!("it is for listing {got}, due is {due}")));
        }
        let mut asked: HashSet<ObjectId> = answer.objects.into_iter().collect();
        CopyProgress::add(&self.progress.files_compared, listing.files.len() as u64);
        let mut identical = 0;
        for file in listing.files {
            if !asked.remove(&file.object) {
                identical += 1;
            } else if file.links == 1 || self.linked.insert((file.object, Linked::Asked)) {
                self.to_copy.push_back((listing.dir.clone(), file));
            }
        }
        CopyProgress::add(&self.progress.files_identical, identical);
        match asked.into_iter().next() {
            Some(stranger) => Err(CopyError::Answer(format!("object {stranger} is no file of the listing"))),
            None => Ok(()),
        }
    }

    fn copy(&mut self, dir: &Arc<TreePath>, file: &ListedFile) -> Result<(), CopyError> {
        let path = TreePath::below(dir, file.name.clone());
        self.progress.set_current(path.to_string());
        match send_file(self.walk.root(), file, &path, &mut self.sink, &self.pool, &self.progress)? {
            Sent::Whole => self.report.copied += 1,
            Sent::Changed => {
                self.report.copied += 1;
                self.report.changed += 1;
            }
            Sent::Vanished => self.report.vanished += 1,
        }
        Ok(())
    }
}
