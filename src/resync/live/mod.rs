//! A copy that runs while applications write: packets flow from its first item on, and what it shows goes
//! among them, each item exact as of its place.
//!
//! ```text
//!  Looks (counts of changes, locks) ─────────────┐
//!  backing directory ── looks ── exact? ── StampedSink ──> stream ──> target
//!        ^                 ^                                             │
//!        │              plan.rs <── Answer: Wanted, Doubt, Complete <────┘
//!        └── doubted.rs: only what lies inside the set
//! ```
//! [`LiveCopy::run`] is blocking code for a thread of its own. What is looked at next is decided by a pure
//! machine (`plan`); names are looked at by `listing`, content and large attributes by `files`, each
//! look again until it is exact (`exact`).
//!
//! ```ignore
//! // Once a session is up, its queue cursor attached, its target in need of a copy:
//! let sink = session.lane.stamped(session.link.waker());          // source_side::feed::StampedLane
//! let (answers, heard) = bounded(LIVE_ANSWERS_MAX);
//! let copy = LiveCopy::new(backing, volume, epoch, suspect_since, sink, heard, progress)?;
//! thread::spawn(move || copy.run());    // no `StreamFrom`, no `Stream::start`: its `Begin` does both
//! // On the connection's thread, messages in their order:
//! //   Wanted { listing, objects }    -> Answer::Wanted(Wanted { listing, objects })
//! //   Doubt { directories }          -> Answer::Doubt(directories)
//! //   Resynchronised { end, .. }     -> Answer::Complete(end)
//! // by `try_send`: full means that the target says more than it was asked. Drop `answers` (and the feed)
//! // with the session: `run` ends with `CopyError::Gone`.
//! ```

mod blocks;
mod check;
mod doubted;
mod exact;
mod files;
mod later;
mod listing;
mod moved;
mod owed;
mod part;
mod plan;
mod preamble;
mod ruled;
mod sending;

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::content::{Ahead, OldCopy};
use super::count::Counting;
use super::place::{TreePath, say_nested};
use super::seeing::{Eyes, NotRead, Root, leave};
use super::{CopyError, CopyProgress, CopyReport, Entry, Found, Looks, Pace, StampedSink, TargetHad, Wanted};
use crate::limits::{CONTENT_CHUNK, LISTING_ENTRIES_MAX};
use crate::packet::{Ids, ItemNumber, LaneItem, LeftOut, ObjectId, Sequence, Timestamp};
use crate::pool::Pool;
use crate::sys::FileHandle;
pub use blocks::BlockOrder;
use blocks::Blocks;
pub use check::CheckOrder;
use check::Checking;
use doubted::Doubted;
use files::{Content, Place};
use listing::{Chunk, Lister, OpenListing, SeenEntry, Shown};
use moved::{Moved, moved};
use owed::Owing;
pub use owed::WhatIsOwed;
use part::Part;
use plan::{Descend, Directory, Job, Plan, Sent, Step};
use preamble::{Names, Preamble, first_items, rules_item};

/// What the target says of a copy, in the order in which it said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Wanted(Wanted),
    /// These directories are to be listed again.
    Doubt(Vec<ObjectId>),
    /// The copy, or the comparison, that ended with this item is complete.
    Complete(ItemNumber),
    /// Of the listing that is answered next: the target has these files with other content.
    HasOld(Wanted),
    /// The hashes of this item were compared; which blocks differ, the first one in the lowest bit.
    Hashed {
        item: ItemNumber,
        differing: u64,
    },
}

/// A copy of the whole tree, while it changes. Runs once, on the caller's thread.
pub struct LiveCopy<S> {
    eyes: Eyes,
    looks: Arc<dyn Looks>,
    sink: S,
    answers: Receiver<Answer>,
    progress: Arc<CopyProgress>,
    pace: Arc<Pace>,
    pool: Pool,
    old: OldCopy,
    preamble: Preamble,
    moved: Moved,
    root: FileHandle,
    plan: Plan<(FileHandle, Arc<TreePath>), Place>,
    open: Option<OpenListing>,
    content: Option<Content>,
    ahead: Ahead,
    /// Files go by blocks where the target has other content.
    blocks: Option<Blocks>,
    /// Nothing is copied: the target compares.
    checking: Option<Checking>,
    /// Only what is owed is shown.
    owing: Option<Owing>,
    owed_now: Option<WhatIsOwed>,
    /// Only this part of the tree is shown, or compared.
    part: Option<Part>,
    left_out: LeftOut,
    report: CopyReport,
    sizes: Sizes,
}

/// How much is looked at in one piece.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Entries of a listing.
    pub entries: usize,
    /// Bytes of content.
    pub bytes: usize,
}

/// How a step of a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stepped {
    On,
    /// It goes on with the target's next answer.
    Waits,
    Complete,
}

/// Bugs that are planted on purpose.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Planted {
    /// A doubt about the directory whose listing is open does not begin it anew.
    ForgetsADoubtOfTheOpen,
    /// The end is sent although doubts are open.
    EndsWithDoubts,
    /// What changes while a copy of what is owed begins is not owed.
    OwesNothingMore,
}

impl<S: StampedSink> LiveCopy<S> {
    /// `backing` is a directory opened for reading, not through the mount; `looks` knows of every change
    /// in it. Files whose ctime is `suspect_since` or later are copied whatever the target compares.
    /// Answers arrive in `answers`, in order.
    ///
    /// Errors: [`CopyError::Read`].
    pub fn new(
        backing: OwnedFd,
        looks: Arc<dyn Looks>,
        ids: impl Into<Ids>,
        suspect_since: Option<Timestamp>,
        sink: S,
        answers: Receiver<Answer>,
        progress: Arc<CopyProgress>,
    ) -> Result<LiveCopy<S>, CopyError> {
        let eyes = Eyes::new(backing, ids.into(), suspect_since)?;
        let Root { id, handle, .. } = eyes.root()?;
        let place = (handle, TreePath::root());
        Ok(LiveCopy {
            eyes,
            looks,
            sink,
            answers,
            progress,
            pace: Arc::default(),
            pool: Pool::new(),
            old: OldCopy::Maybe,
            preamble: Preamble::default(),
            moved: Moved::new(),
            root: handle,
            plan: Plan::new(Directory { id, place, descend: Descend::Everywhere }),
            open: None,
            content: None,
            ahead: Ahead::default(),
            blocks: None,
            checking: None,
            owing: None,
            owed_now: None,
            part: None,
            left_out: LeftOut::default(),
            report: CopyReport::default(),
            sizes: Sizes { entries: LISTING_ENTRIES_MAX, bytes: CONTENT_CHUNK },
        })
    }

    /// What the target had before, where that is not something that is to be compared.
    pub fn to(mut self, had: TargetHad) -> LiveCopy<S> {
        self.old = if had == TargetHad::Nothing { OldCopy::None } else { OldCopy::Maybe };
        self.preamble.is_afresh = had == TargetHad::NothingThatCounts;
        self
    }

    /// Of files that the target has with other content, only blocks that differ are sent.
    pub fn by_blocks(mut self, order: Option<BlockOrder>) -> LiveCopy<S> {
        self.preamble.by_blocks = order;
        self.blocks = order.map(|order| Blocks::new(&order));
        self
    }

    /// It rests between two items as long as this says.
    pub fn at_pace(mut self, pace: Arc<Pace>) -> LiveCopy<S> {
        self.pace = pace;
        self
    }

    /// The content of these files is in doubt on the target, whatever it compares.
    pub fn suspecting(mut self, suspects: Arc<HashSet<ObjectId>>) -> LiveCopy<S> {
        self.eyes.suspect(suspects);
        self
    }

    /// What the target does with what it has and the tree has not ([`LaneItem::OrphanRules`]).
    pub fn treating_orphans(mut self, rules: Option<LaneItem>) -> LiveCopy<S> {
        self.preamble.orphans = rules;
        self
    }

    /// Nothing is copied: the target, whose replica is good and whose packets flow, compares.
    pub fn compare(mut self, order: CheckOrder) -> LiveCopy<S> {
        self.checking = Some(Checking::new(order));
        self
    }

    /// The tree was restored from this very target, which nobody has sent to since.
    pub fn of_restored(mut self) -> LiveCopy<S> {
        // Without a layout nobody could say what was moved since.
        if self.root.inode().is_some() {
            self.preamble.names = Names::Match;
        }
        self
    }

    /// The tree is a replica at rest: placeholders in it stand for what it does not have.
    pub fn of_replica(mut self) -> LiveCopy<S> {
        self.eyes = self.eyes.of_replica();
        self
    }

    #[cfg(test)]
    pub(super) fn keeping(mut self, keeping: Option<crate::packet::Keeping>) -> LiveCopy<S> {
        self.preamble.keeping = keeping;
        self
    }

    #[cfg(test)]
    pub(crate) fn in_pieces(mut self, sizes: Sizes, planted: Option<Planted>) -> LiveCopy<S> {
        self.sizes = sizes;
        self.plan.planted = planted;
        self
    }

    /// Copies, until the target says that it is complete. Needs `CAP_DAC_READ_SEARCH` (file handles).
    ///
    /// Errors: [`CopyError`]; everything sent until then stands. What cannot be read is no error: it is
    /// left out, named and counted. What went away meanwhile is told by packets.
    pub fn run(mut self) -> Result<CopyReport, CopyError> {
        let done = self.all();
        if done.is_err() && self.checking.is_some() {
            // The target does not wait for more.
            let batch = &mut vec![Entry::of(LaneItem::CheckStop)];
            let _ = self.sink.reserve().map(|slot| self.sink.push(slot, batch, || true));
        }
        done.map(|()| self.report)
    }

    fn all(&mut self) -> Result<(), CopyError> {
        self.begin()?;
        let _counting = self.counts();
        loop {
            self.keep_pace()?;
            match self.step()? {
                Stepped::On => {}
                Stepped::Waits => {
                    let answer = self.answers.recv().map_err(|_| CopyError::Gone)?;
                    self.hear(answer)?;
                }
                Stepped::Complete => return Ok(()),
            }
        }
    }

    /// A comparison says what it has compared, and of what is owed there is known how much that is.
    fn counts(&self) -> Option<Counting> {
        let (root, rules) = (self.eyes.root_fd(), self.preamble.rules.clone());
        let is_of_all = self.checking.is_none() && self.part.is_none() && self.owing.is_none();
        is_of_all.then(|| Counting::start(root, rules, self.progress.clone()))
    }

    /// Rests, and hears what the target says meanwhile.
    fn keep_pace(&mut self) -> Result<(), CopyError> {
        while let Some(rest) = self.pace.rest() {
            match self.answers.recv_timeout(rest) {
                Ok(answer) => self.hear(answer)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(CopyError::Gone),
            }
        }
        Ok(())
    }

    /// Its first items: from here on packets flow.
    pub(crate) fn begin(&mut self) -> Result<(), CopyError> {
        self.preamble.rules = self.looks.rules();
        self.preamble.keeping = self.preamble.keeping.take().or_else(|| self.looks.keeping());
        if self.checking.is_some() {
            return self.begin_check();
        }
        self.preamble.calls = self.owing.as_mut().map(Owing::first_calls).unwrap_or_default();
        loop {
            let inode = self.eyes.root()?.id.inode;
            let counts = self.looks.counts(inode);
            let root = self.eyes.root()?;
            let mut batch = first_items(self.preamble.clone(), root.item);
            let looks = &self.looks;
            let begun =
                counts.is_calm() && self.sink.begin(&mut batch, || looks.counts(inode).begun == counts.begun);
            if begun || self.begin_while_still(root.id, &root.handle) {
                self.preamble.calls = Vec::new();
                self.owe_the_rest()?;
                if self.preamble.names == Names::Match {
                    self.moved = moved(&self.eyes, &self.root);
                }
                if let Some(listed) = root.large {
                    self.plan.copy_later(Job::Xattrs(Place { listed, dir: TreePath::root() }));
                }
                return Ok(());
            }
        }
    }

    /// Packets flow already.
    fn begin_check(&mut self) -> Result<(), CopyError> {
        let Some(order) = self.checking.as_ref().map(|checking| checking.order.clone()) else {
            return Ok(());
        };
        let CheckOrder { content, below, .. } = order;
        self.begin_part(below.as_deref())?;
        let Root { id, handle, .. } = self.eyes.root()?;
        let (is_whole, eyes) = (below.is_none(), &self.eyes);
        let (rules, keeping) = (self.preamble.rules.as_deref(), self.preamble.keeping.as_ref());
        let root = Found { object: id, handle: &handle, file_type: libc::S_IFDIR };
        let (large, _) = exact::show(&mut self.sink, &*self.looks, root, |batch| {
            batch.push(Entry::of(LaneItem::CheckBegin { content }));
            let root = eyes.root()?;
            batch.extend(is_whole.then(|| Entry::of(root.item)));
            let kept = keeping.map(|keeping| LaneItem::Keeping { keeping: keeping.clone() });
            batch.extend(kept.into_iter().chain(rules.map(rules_item)).map(Entry::of));
            Ok::<_, CopyError>(root.large.filter(|_| is_whole))
        })?;
        if let Some(listed) = large {
            self.plan.copy_later(Job::Xattrs(Place { listed, dir: TreePath::root() }));
        }
        Ok(())
    }

    fn begin_while_still(&mut self, object: ObjectId, handle: &FileHandle) -> bool {
        let (eyes, sink, first) = (&self.eyes, &mut self.sink, &self.preamble);
        let mut begun = false;
        let found = Found { object, handle, file_type: libc::S_IFDIR };
        self.looks.while_still(found, None, &mut || {
            if let Ok(root) = eyes.root() {
                begun = sink.begin(&mut first_items(first.clone(), root.item), || true);
            }
        });
        begun
    }

    /// Does one thing, after whatever the target has said.
    pub(crate) fn step(&mut self) -> Result<Stepped, CopyError> {
        loop {
            match self.answers.try_recv() {
                Ok(answer) => self.hear(answer)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(CopyError::Gone),
            }
        }
        if let Some(content) = self.content.take() {
            self.send_content(content)?;
            return Ok(Stepped::On);
        }
        if self.checking.as_mut().is_some_and(Checking::is_open) {
            return self.send_hashes();
        }
        if let Some(stepped) = self.step_of_blocks()? {
            return Ok(stepped);
        }
        let next = self.plan.next();
        if matches!(next, Step::End | Step::Wait)
            && let Some(stepped) = self.step_of_owed()?
        {
            return Ok(stepped);
        }
        match next {
            Step::Copy(Job::Content(place)) => {
                self.progress.set_current(place.path().to_string());
                match &mut self.checking {
                    Some(checking) => checking.open(place),
                    None => self.send_content(Content::of(place, self.old))?,
                }
            }
            Step::Copy(Job::Blocks(place)) => {
                self.progress.set_current(place.path().to_string());
                match &mut self.blocks {
                    Some(blocks) => blocks.open(place),
                    None => self.send_content(Content::of(place, self.old))?,
                }
            }
            Step::Copy(Job::Xattrs(place)) => self.xattrs_now_or_later(place)?,
            Step::List => self.list()?,
            Step::Enter(dir) => self.enter_now_or_later(dir)?,
            Step::Find(id) => self.find_now_or_later(id)?,
            Step::End if self.begin_round() => {}
            Step::End if self.checking.as_ref().is_some_and(|checking| !checking.is_answered()) => {
                return Ok(Stepped::Waits);
            }
            Step::End if self.blocks.as_ref().is_some_and(|blocks| !blocks.is_empty()) => {
                return Ok(Stepped::Waits);
            }
            Step::End => {
                self.end_of_part()?;
                self.end()?
            }
            Step::Wait => return Ok(Stepped::Waits),
            Step::Over(end) => {
                self.report.end = Some(end);
                self.progress.set_current(String::new());
                return Ok(Stepped::Complete);
            }
        }
        Ok(Stepped::On)
    }

    fn hear(&mut self, answer: Answer) -> Result<(), CopyError> {
        let answer = match answer {
            Answer::Wanted(wanted) => match self.hear_wanted(wanted)? {
                Some(wanted) => return self.hear_in_part(Answer::Wanted(wanted)),
                None => return Ok(()),
            },
            other => other,
        };
        self.hear_in_part(answer)
    }

    fn hear_of_walk(&mut self, answer: Answer) -> Result<(), CopyError> {
        if let Answer::Hashed { item, differing } = answer {
            return self.hear_of_hashes(item, differing).map_err(CopyError::Answer);
        }
        if let Some(counted) = self.plan.hear(answer).map_err(CopyError::Answer)? {
            CopyProgress::add(&self.progress.files_compared, counted.compared);
            CopyProgress::add(&self.progress.files_identical, counted.identical);
            CopyProgress::add(&self.progress.bytes_identical, counted.bytes_identical);
            CopyProgress::add(&self.progress.bytes_settled, counted.bytes_identical);
        }
        Ok(())
    }

    fn hear_of_hashes(&mut self, item: ItemNumber, differing: u64) -> Result<(), String> {
        match (&mut self.checking, &mut self.blocks) {
            (Some(checking), _) => checking.answered(item, differing),
            (None, Some(blocks)) => {
                let compared = blocks.answered(item, differing)?;
                CopyProgress::add(&self.progress.bytes_compared, compared.bytes);
                CopyProgress::add(&self.progress.bytes_identical, compared.same);
                CopyProgress::add(&self.progress.bytes_settled, compared.bytes);
                Ok(())
            }
            (None, None) => Err(format!("no hashes were sent with item {}", item.0)),
        }
    }

    /// A directory whose names are owed may have left the set past the mount, or be gone.
    fn enter_inside(&mut self, dir: Directory<(FileHandle, Arc<TreePath>)>) -> Result<(), CopyError> {
        let is_by_id = self.owing.is_some() && dir.descend == Descend::WhereAsked;
        let is_inside = || doubted::is_inside(&self.eyes, &dir.place.0, &self.root, dir.id);
        if is_by_id && !matches!(is_inside(), Ok(true)) {
            return self.say_not_listed(dir.id);
        }
        self.enter(dir);
        Ok(())
    }

    fn enter(&mut self, mut dir: Directory<(FileHandle, Arc<TreePath>)>) {
        let (handle, path) = dir.place.clone();
        let only = self.part.as_mut().and_then(|part| part.enters(dir.id));
        if only.is_some() {
            // What lies below it is none of the part, but for the way on.
            dir.descend = Descend::WhereAsked;
        }
        self.progress.set_current(path.to_string());
        let mut open = OpenListing::new(dir.id, handle, path, self.sizes.entries);
        (open.is_root, open.only) = (handle == self.root, only);
        open.is_moved = handle.inode().is_some_and(|inode| self.moved.contains(&inode));
        self.open = Some(open);
        self.plan.opened(dir);
    }

    fn find(&mut self, id: ObjectId) -> Result<(), CopyError> {
        if let Doubted::Inside(handle) = doubted::find(&self.eyes, &self.root, id)? {
            // Where it lies is nobody's business but people's: what is said of it names its id.
            let path = TreePath::of_id(id);
            self.enter(Directory { id, place: (handle, path), descend: Descend::WhereAsked });
            return Ok(());
        }
        self.say_not_listed(id)
    }

    /// What is gone stays gone, and what took it away has begun by now: the packet of it is in the stream
    /// before this.
    fn say_not_listed(&mut self, dir: ObjectId) -> Result<(), CopyError> {
        loop {
            let slot = self.sink.reserve()?;
            let (looks, inode) = (&self.looks, dir.inode);
            let counts = looks.counts(inode);
            let mut batch = vec![Entry::of(LaneItem::NotListed { dir })];
            let check = || counts.is_calm() && looks.counts(inode).begun == counts.begun;
            // Where rules say what is in the set, that hangs on the directories above it, too.
            let since = looks.changed_at(inode).filter(|_| self.preamble.rules.is_none());
            if self.sink.push_since(slot, &mut batch, since, check).is_ok() {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }

    fn list(&mut self) -> Result<(), CopyError> {
        let mut open = self.open.take().expect("the plan has a listing open");
        let may_wait = self.may_wait(open.id);
        let (eyes, looks, sink) = (&self.eyes, &*self.looks, &mut self.sink);
        let (largest, rules) = (self.sizes.entries, self.preamble.rules.as_deref());
        let shown = Lister { eyes, looks, sink, largest, rules, may_wait }.next(&mut open)?;
        match shown {
            Shown::Later => {
                self.list_later(&open);
                return Ok(());
            }
            Shown::Chunk(chunk) => {
                if chunk.is_last {
                    CopyProgress::add(&self.progress.directories, 1);
                }
                self.listed(open.id, &open.path, chunk)?;
            }
            Shown::Nothing => {}
            Shown::Closed(why) => {
                self.plan.closed();
                self.part.iter_mut().for_each(|part| part.closed(open.id));
                return why.map_or(Ok(()), |why| self.leave_out(&open.path, why));
            }
        }
        self.open = Some(open);
        Ok(())
    }

    fn listed(&mut self, id: ObjectId, dir: &Arc<TreePath>, chunk: Chunk) -> Result<(), CopyError> {
        self.part.iter_mut().for_each(|part| part.listed(id, dir, &chunk));
        let Chunk { number, seen, unread, nested, is_last } = chunk;
        let counts = self.plan.walks();
        let mut sent =
            Sent { number, files: Vec::new(), large: Vec::new(), directories: Vec::new(), is_last };
        for SeenEntry { listed, is_large } in seen {
            let id = listed.object;
            if is_large {
                let place = Place { listed: listed.clone(), dir: dir.clone() };
                sent.large.push((id, place));
            }
            match listed.file_type {
                libc::S_IFDIR => {
                    let path =
                        listed.name.clone().map_or_else(|| dir.clone(), |name| TreePath::below(dir, name));
                    sent.directories.push((id, (listed.handle, path)));
                    continue;
                }
                libc::S_IFREG => {
                    // Each name its share: who has which names is not kept.
                    let share = listed.size / u64::from(listed.links.max(1));
                    CopyProgress::add(&self.progress.bytes, if counts { share } else { 0 });
                    sent.files.push((id, share, Place { listed, dir: dir.clone() }));
                }
                _ => {}
            }
            CopyProgress::add(&self.progress.files, u64::from(counts));
        }
        self.hash_ahead(&sent);
        self.plan.listed(sent);
        self.report.nested += nested.len() as u64;
        nested.into_iter().for_each(|name| say_nested(&TreePath::below(dir, name)));
        unread.into_iter().try_for_each(|(name, why)| {
            let path = name.map_or_else(|| dir.clone(), |name| TreePath::below(dir, name));
            self.leave_out(&path, why)
        })
    }

    fn leave_out(&mut self, path: &TreePath, (doing, error): NotRead) -> Result<(), CopyError> {
        leave(&mut self.left_out, doing, path, error)
    }

    fn end(&mut self) -> Result<(), CopyError> {
        let mut batch = Vec::new();
        let left_out = std::mem::take(&mut self.left_out);
        self.report.left_out += left_out.count;
        if !left_out.is_empty() {
            batch.push(Entry::of(LaneItem::LeftOut { left_out }));
        }
        batch.push(Entry::of(LaneItem::End));
        let slot = self.sink.reserve()?;
        // All that is to be compared was: where in the stream that is said is nobody's business.
        let since = self.checking.as_ref().map(|_| Sequence(0));
        if let Ok(end) = self.sink.push_since(slot, &mut batch, since, || true) {
            self.plan.ended(end);
        }
        Ok(())
    }
}
