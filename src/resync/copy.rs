//! The order of a copy: listings run ahead, the content that the target asks for goes first.

use std::collections::{HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, TryRecvError};

use super::content::{NotSent, OldCopy, Sent, send_file, send_xattrs};
use super::walk::{Chunk, ListedFile, TreePath, Walk};
use super::{CopyError, CopyProgress, ItemSink};
use crate::limits::LISTINGS_IN_FLIGHT;
use crate::packet::{ItemNumber, LaneItem, ObjectId, Timestamp};
use crate::pool::Pool;

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
    /// Number of the [`LaneItem::End`]. `None` where the copy was asked not to end
    /// ([`FirstCopy::without_end`]): then run another.
    pub end: Option<ItemNumber>,
    /// Files whose content was sent.
    pub copied: u64,
    /// Objects that changed while they were read.
    pub changed: u64,
    /// Objects that went away between their listing and their reading.
    pub vanished: u64,
    /// Nested mounts and subvolumes, which are not part of the copy.
    pub nested: u64,
    /// Objects that could not be read, or that changed or went away under a copy that ends: the
    /// target was told, and stays bad.
    pub left_out: u64,
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
    old: OldCopy,
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
        FirstCopy {
            backing,
            birth_epoch,
            suspect_since,
            sink,
            wanted,
            progress,
            ends: true,
            old: OldCopy::Maybe,
        }
    }

    /// The target held nothing before copies to it began: no old content of a file can be lost.
    pub fn to_nothing(mut self) -> FirstCopy<S> {
        self.old = OldCopy::None;
        self
    }

    /// Sends no [`LaneItem::End`]: a copy ahead, while applications still write. The replica stays
    /// bad until a copy of the quiet tree ends.
    pub fn without_end(mut self) -> FirstCopy<S> {
        self.ends = false;
        self
    }

    /// Copies. Needs `CAP_DAC_READ_SEARCH` (file handles).
    ///
    /// Errors: [`CopyError`]; everything sent until then stands, the next copy goes on from it. What
    /// cannot be read is no error: it is left out, named and counted.
    pub fn run(mut self) -> Result<CopyReport, CopyError> {
        let (walk, root, large_root) = Walk::new(self.backing, self.birth_epoch, self.suspect_since)?;
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
            old: self.old,
            report: CopyReport::default(),
        };
        let large_root = large_root.map(|root| (TreePath::root(), Job::Xattrs(root)));
        copying.to_copy.extend(large_root);
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
    /// Bounded by the listings in flight.
    to_copy: VecDeque<(Arc<TreePath>, Job)>,
    old: OldCopy,
    report: CopyReport,
}

/// What is sent of an object of a directory beside its listing.
enum Job {
    /// Content, and all attributes behind it.
    Content(ListedFile),
    Xattrs(ListedFile),
}

struct InFlight {
    listing: ItemNumber,
    dir: Arc<TreePath>,
    files: Vec<ListedFile>,
    large: Vec<ListedFile>,
}

impl<S: ItemSink> Copying<S> {
    /// Does one thing; `false` when everything was done.
    fn step(&mut self) -> Result<bool, CopyError> {
        while let Some(answer) = self.answer_at_hand()? {
            self.take_answer(answer)?;
        }
        if let Some((dir, job)) = self.to_copy.pop_front() {
            self.copy(&dir, &job)?;
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
        assert!(self.is_walked && self.in_flight.is_empty(), "a copy ends before everything was listed");
        assert!(self.to_copy.is_empty(), "a copy ends before everything was sent");
        let counts = self.walk.counts;
        self.report.changed += counts.changed;
        self.report.vanished += counts.vanished;
        self.report.nested = counts.nested;
        if ends {
            let left_out = std::mem::take(&mut self.walk.left_out);
            self.report.left_out = left_out.count;
            if !left_out.is_empty() {
                self.sink.send(LaneItem::LeftOut { left_out }, Bytes::new())?;
            }
            self.report.end = Some(self.sink.send(LaneItem::End, Bytes::new())?);
        }
        self.progress.set_current(String::new());
        Ok(self.report)
    }

    fn send_listing(&mut self) -> Result<(), CopyError> {
        let Some(Chunk { item, dir, files, large }) = self.walk.next_chunk(&self.progress)? else {
            self.is_walked = true;
            return Ok(());
        };
        for file in &files {
            // Each name its share: who has which names is not kept.
            CopyProgress::add(&self.progress.bytes, file.size / u64::from(file.links.max(1)));
        }
        assert!(
            self.in_flight.len() < LISTINGS_IN_FLIGHT,
            "more listings are under way than a target answers"
        );
        let listing = self.sink.send(item, Bytes::new())?;
        let before = self.in_flight.back().map(|last| last.listing);
        assert!(before.is_none_or(|before| before < listing), "listings are numbered in their order");
        self.in_flight.push_back(InFlight { listing, dir, files, large });
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
        for large in listing.large.into_iter().filter(|large| !asked.contains(&large.object)) {
            self.to_copy.push_back((listing.dir.clone(), Job::Xattrs(large)));
        }
        // A target asks once for a file with several names, at the first of them.
        for file in listing.files {
            if asked.remove(&file.object) {
                self.to_copy.push_back((listing.dir.clone(), Job::Content(file)));
            } else {
                identical += 1;
            }
        }
        CopyProgress::add(&self.progress.files_identical, identical);
        match asked.into_iter().next() {
            Some(stranger) => Err(CopyError::Answer(format!("object {stranger} is no file of the listing"))),
            None => Ok(()),
        }
    }

    fn copy(&mut self, dir: &Arc<TreePath>, job: &Job) -> Result<(), CopyError> {
        let (Job::Content(listed) | Job::Xattrs(listed)) = job;
        let path =
            listed.name.as_ref().map_or_else(|| dir.clone(), |name| TreePath::below(dir, name.clone()));
        self.progress.set_current(path.to_string());
        let (mount, sink) = (self.walk.root(), &mut self.sink);
        let sent = match job {
            Job::Content(file) => send_file(mount, file, self.old, sink, &self.pool, &self.progress),
            Job::Xattrs(listed) => send_xattrs(mount, listed, sink),
        };
        let is_content = matches!(job, Job::Content(_));
        self.report.copied += u64::from(is_content && matches!(sent, Ok(Sent::Whole | Sent::Changed)));
        match sent {
            Ok(Sent::Whole) => return Ok(()),
            Ok(Sent::Changed) => {
                self.report.changed += 1;
                self.walk.left_out.add(&format!("{path}: it changed under the copy"));
                return Ok(());
            }
            Ok(Sent::Vanished) => {
                self.report.vanished += 1;
                self.walk.left_out.add(&format!("{path}: it went away under the copy"));
            }
            Err(NotSent::Gone) => return Err(CopyError::Gone),
            Err(NotSent::Unreadable(doing, error)) => self.walk.leave(doing, &path, error)?,
        }
        if is_content {
            self.sink.send(LaneItem::Leave { object: listed.object }, Bytes::new())?;
        }
        Ok(())
    }
}
