//! The applier's half of a restoration: one session of a target, whose source is a replica.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;
use serde::Serialize;

use super::RestoreOptions;
use super::origin::Origin;
use crate::apply::{Applier, DurablePoint, Run};
use crate::failure::Failure;
use crate::link::{FrameReceiver, Received, TargetEvent};
use crate::packet::{
    Birth, FrameHeader, ItemHeader, ItemNumber, LaneItem, LeftOut, ObjectId, OfCopy, TargetMessage,
};
use crate::resync::{Pace, ProgressSnapshot, Size};
use crate::target_side::{SourceSession, Surroundings, Synced, View};

/// How long a frame is waited for before something else is looked at.
const PATIENCE: Duration = Duration::from_millis(100);

/// How far a restoration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Listed completely.
    pub directories: u64,
    /// Names of everything else.
    pub files: u64,
    /// Size of the listed files; one with several names counts once.
    pub bytes: u64,
    /// Files whose content came.
    pub files_copied: u64,
    pub bytes_copied: u64,
    /// Size of these files, and of what came of the next one.
    pub bytes_settled: u64,
    /// Files whose content comes in all, once everything is listed and looked at.
    pub due: Option<Size>,
    /// Size of the files that came whole.
    #[serde(skip)]
    closed: u64,
}

/// All of it is there, durably.
pub struct Applied {
    pub tally: Tally,
    pub orphans: u64,
    pub left_out: LeftOut,
}

/// Why it is not.
pub enum Stopped {
    BySignal,
    Lost(String),
}

/// Until the end that the replica's side sends.
pub fn apply(
    (origin, pace): (&mut Origin, &Pace),
    applier: &mut Applier,
    stop: &AtomicBool,
    tell: impl Fn(&Tally, Duration),
) -> Result<Applied, Stopped> {
    let began = Instant::now();
    let view = Arc::new(Mutex::new(View::of(applier)));
    let (ended, asked) = (RefCell::new(None), RefCell::default());
    let frames = origin.frames();
    let around = Around { origin, stop, ended: &ended, asked: &asked, said: Cell::new(0) };
    let mut session = SourceSession::welcome(around, &view, applier);
    let (mut tally, mut told) = (Tally::default(), Instant::now());
    let mut due = Due::default();
    let reason = loop {
        let (run, received) = next(&frames, pace);
        if let Received::Frame(frame) = &received
            && let FrameHeader::Item(ItemHeader { number, item }) = &frame.header
        {
            tally.count(item, frame.payload.len());
            pace.sent(frame.payload.len() as u64);
            due.listed(*number, item);
        }
        if let Err(reason) = session.turn_in(run, received) {
            break reason;
        }
        asked.take().into_iter().for_each(|(listing, objects)| due.asked(listing, &objects));
        tally.due = due.known();
        if told.elapsed() >= Duration::from_secs(1) {
            told = Instant::now();
            tell(&tally, began.elapsed());
        }
    };
    session.finish();
    match ended.into_inner() {
        Some(End { orphans, left_out }) => Ok(Applied { tally, orphans, left_out }),
        None if stop.load(Relaxed) => Err(Stopped::BySignal),
        None => Err(Stopped::Lost(reason)),
    }
}

/// The next frame, once its time has come: what is not taken slows down whoever sends.
fn next(frames: &FrameReceiver, pace: &Pace) -> (Run, Received) {
    if let Some(rest) = pace.rest() {
        std::thread::sleep(rest.min(PATIENCE));
        return (Run::Begins, Received::Idle);
    }
    match frames.at_hand() {
        Some(frame) => (Run::GoesOn, Received::Frame(frame)),
        None => (Run::Begins, frames.recv(PATIENCE)),
    }
}

impl Tally {
    /// An item with so many bytes of payload has come.
    fn count(&mut self, item: &LaneItem, payload: usize) {
        match item {
            LaneItem::Listing { entries, last, .. } => {
                self.directories += u64::from(*last);
                for entry in entries.iter().filter(|entry| entry.birth != Birth::Directory) {
                    self.files += 1;
                    let share = entry.size / u64::from(entry.links.max(1));
                    self.bytes = self.bytes.saturating_add(share);
                }
            }
            LaneItem::OpenContent { .. } => self.bytes_settled = self.closed,
            LaneItem::Content { hole, .. } => {
                self.bytes_copied += payload as u64;
                self.bytes_settled = self.bytes_settled.saturating_add(hole.saturating_add(payload as u64));
            }
            LaneItem::CloseContent { size, .. } => {
                self.files_copied += 1;
                self.closed = self.closed.saturating_add(*size);
                self.bytes_settled = self.closed;
            }
            _ => {}
        }
    }

    /// How much of what is to come is here, from 0 to 1; `None` before that is known.
    pub fn share_done(&self) -> Option<f64> {
        let Tally { due, files_copied, bytes_settled, .. } = *self;
        if due?.files == 0 {
            return Some(1.0);
        }
        let progress = ProgressSnapshot { files_copied, bytes_settled, size: due, ..Default::default() };
        Some(ProgressSnapshot { is_counted: true, ..progress }.share_done())
    }
}

/// What is to come.
#[derive(Default)]
struct Due {
    /// Sizes of the files of listings that were not answered yet.
    sizes: HashMap<ItemNumber, HashMap<ObjectId, u64>>,
    /// So many files and listings.
    waiting: usize,
    /// Directories that were named, and not listed to their end.
    unlisted: HashSet<ObjectId>,
    has_begun: bool,
    /// It was more than is kept: nobody learns how much is to come.
    is_lost: bool,
    asked: Size,
}

/// Files, listings and directories that are kept to know how much is to come, some 50 bytes each.
const DUE_MAX: usize = 1 << 18;

impl Due {
    fn listed(&mut self, number: ItemNumber, item: &LaneItem) {
        let LaneItem::Listing { dir, entries, last, .. } = item else { return };
        if self.is_lost || self.unlisted.len() + self.waiting + entries.len() > DUE_MAX {
            *self = Due { is_lost: true, ..Due::default() };
            return;
        }
        self.has_begun = true;
        let (directories, files): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| entry.birth == Birth::Directory);
        self.unlisted.extend(directories.into_iter().map(|entry| entry.object));
        if *last {
            self.unlisted.remove(dir);
        } else {
            self.unlisted.insert(*dir);
        }
        self.waiting += 1 + files.len();
        self.sizes.insert(number, files.into_iter().map(|entry| (entry.object, entry.size)).collect());
    }

    /// What lacks its content.
    fn asked(&mut self, listing: ItemNumber, objects: &[ObjectId]) {
        let Some(sizes) = self.sizes.remove(&listing) else { return };
        self.waiting = self.waiting.saturating_sub(1 + sizes.len());
        for size in objects.iter().filter_map(|object| sizes.get(object)) {
            self.asked.files += 1;
            self.asked.bytes = self.asked.bytes.saturating_add(*size);
        }
    }

    fn known(&self) -> Option<Size> {
        (!self.is_lost && self.has_begun && self.unlisted.is_empty() && self.sizes.is_empty())
            .then_some(self.asked)
    }
}

impl Stopped {
    pub fn failure(self, options: &RestoreOptions) -> Failure {
        let what = match self {
            Stopped::BySignal => "The restoration was stopped by a signal".into(),
            Stopped::Lost(reason) => format!("The restoration was cut off: {reason}"),
        };
        Failure::new(
            format!("{what}."),
            format!("{} is not whole, and is marked so.", options.to.display()),
            "Give the same command again: it goes on, and what is whole is not sent again.",
        )
        .passing()
    }
}

/// What the replica's side is told at the end.
struct End {
    orphans: u64,
    left_out: LeftOut,
}

/// The session's surroundings.
struct Around<'a> {
    origin: &'a Origin,
    stop: &'a AtomicBool,
    ended: &'a RefCell<Option<End>>,
    /// What was asked for since it was looked at.
    asked: &'a RefCell<Vec<(ItemNumber, Vec<ObjectId>)>>,
    /// Faults that people were told of.
    said: Cell<u32>,
}

impl Around<'_> {
    /// Nobody else shows that nothing goes on.
    fn say_retrying(&self, op: &str, reason: &str) {
        self.said.set(self.said.get() + 1);
        if self.said.get().is_power_of_two() {
            aside!("standin: {op} cannot be performed, it is tried again: {reason}");
        }
    }
}

impl Surroundings for Around<'_> {
    fn send(&self, message: TargetMessage) {
        match message {
            TargetMessage::Wanted { listing, objects } => {
                self.asked.borrow_mut().push((listing, objects.clone()));
                self.origin.say(OfCopy::Wanted { listing, objects })
            }
            TargetMessage::Doubt { directories } => self.origin.say(OfCopy::Doubt { directories }),
            TargetMessage::Resynchronised { end, orphans, left_out } => {
                *self.ended.borrow_mut() = Some(End { orphans, left_out });
                self.origin.say(OfCopy::Complete { end });
            }
            TargetMessage::Retrying { op, reason, .. } => self.say_retrying(&op.to_text(), &reason.to_text()),
            // Of packets, of which none comes, or of what the end says once more.
            _ => {}
        }
    }

    fn next_event(&self) -> Option<TargetEvent> {
        self.origin.next_event()
    }

    fn has_to_end(&self) -> Option<String> {
        if self.ended.borrow().is_some() {
            return Some("everything is there".into());
        }
        self.stop.load(Relaxed).then(|| "a signal".into())
    }

    fn sleep(&self, how_long: Duration) {
        std::thread::sleep(how_long);
    }

    fn sync(&self, point: DurablePoint) -> io::Result<Receiver<Synced>> {
        let (sender, outcome) = bounded(1);
        let synced = point.sync();
        let _ = sender.send((point, synced));
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Attributes, ListedObject, Name, Timestamp, Unlisted};

    const ATTRIBUTES: Attributes =
        Attributes { uid: 0, gid: 0, mode: 0o600, mtime: Timestamp { seconds: 0, nanoseconds: 0 } };

    fn object(inode: u64) -> ObjectId {
        ObjectId { inode, ..ObjectId::default() }
    }

    /// Of a directory: its files, whose sizes are their numbers, and one directory.
    fn listing(dir: u64, files: &[u64], directory: Option<u64>) -> LaneItem {
        let listed = |inode: u64, birth| ListedObject {
            name: Name::new(format!("n{inode}").as_bytes()).unwrap(),
            object: object(inode),
            birth,
            attributes: ATTRIBUTES,
            xattrs: Vec::new(),
            large_xattrs: false,
            size: inode,
            links: 1,
            suspect: false,
        };
        let files = files.iter().map(|inode| listed(*inode, Birth::File));
        let entries = files.chain(directory.map(|inode| listed(inode, Birth::Directory))).collect();
        let unlisted: Option<Unlisted> = None;
        let dir_mtime = Timestamp::default();
        LaneItem::Listing { dir: object(dir), dir_mtime, entries, unlisted, first: true, last: true }
    }

    #[test]
    fn what_comes_is_known_when_everything_is_listed_and_answered() {
        let mut due = Due::default();
        assert_eq!(due.known(), None);
        due.listed(ItemNumber(1), &listing(1, &[1000, 2000], Some(2)));
        due.asked(ItemNumber(1), &[object(2000), object(2)]);
        assert_eq!(due.known(), None, "a directory is to come");
        due.listed(ItemNumber(2), &listing(2, &[3000], None));
        assert_eq!(due.known(), None, "it was not looked at");
        due.asked(ItemNumber(2), &[object(3000)]);
        assert_eq!(due.known(), Some(Size { files: 2, bytes: 5000 }));
    }

    /// A tree of any size is restored in so much memory.
    #[test]
    fn of_more_than_is_kept_nothing_is_known() {
        let mut due = Due::default();
        let directories = DUE_MAX as u64 + 2;
        (1..directories).for_each(|dir| due.listed(ItemNumber(dir), &listing(1, &[], Some(dir + 1))));
        assert!(due.is_lost && due.unlisted.is_empty() && due.sizes.is_empty());
        due.listed(ItemNumber(directories), &listing(1, &[], None));
        due.asked(ItemNumber(directories), &[]);
        assert_eq!(due.known(), None);
    }

    #[test]
    fn a_file_with_holes_is_done_when_it_is_closed() {
        let mut tally = Tally { due: Some(Size { files: 1, bytes: 1 << 30 }), ..Tally::default() };
        let object = object(1);
        assert_eq!(tally.share_done(), Some(0.0));
        tally.count(&LaneItem::OpenContent { object }, 0);
        tally.count(&LaneItem::Content { object, hole: 1 << 29, offset: 1 << 29 }, 4096);
        assert!(tally.share_done().is_some_and(|share| (0.4..0.6).contains(&share)), "{tally:?}");
        // It was begun again.
        tally.count(&LaneItem::OpenContent { object }, 0);
        let (attributes, xattrs) = (ATTRIBUTES, Vec::new());
        tally.count(&LaneItem::CloseContent { object, hole: 1 << 30, size: 1 << 30, attributes, xattrs }, 0);
        assert_eq!((tally.share_done(), tally.bytes_copied), (Some(1.0), 4096));
        tally.due = None;
        assert_eq!(tally.share_done(), None);
    }
}
