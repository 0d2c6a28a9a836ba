//! Both ends in one process: a backing directory, a replica, and channels between them.

mod blocks;
mod by_time;
mod cases;
mod flags;
mod keep;
mod left_out;
mod mutations;
mod orphans;
mod owed;
mod part;
mod random;
pub(crate) mod tree;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::*;
use crate::apply::{Applier, NameMatch, Places, Replica, Rules};
use crate::packet::{
    DataState, Epoch, FrameHeader, Incarnation, ItemHeader, ItemNumber, Keeping, LaneItem, LeftOut,
    OrphanCounts, PREFIX_LEN, Position, Prefix, SetId, TargetMessage, Timestamp, item_frame,
};
use crate::words::Allow;

/// A source tree and its replica.
struct Pair {
    dir: tempfile::TempDir,
    source: PathBuf,
    places: Places,
    name_match: NameMatch,
    allow: Allow,
    orphan_rules: Option<LaneItem>,
    by_blocks: Option<BlockOrder>,
    /// What is removed is kept.
    keeping: Option<Keeping>,
    /// Nothing else is shown.
    owed: Option<Arc<Owed>>,
    /// What was deleted is deleted up to so many percent of all.
    delete_percent_max: Option<u8>,
    /// Nothing but what lies there is shown.
    part: Option<PathBuf>,
    /// Times are set behind each item.
    rests: bool,
}

/// What a copy came to.
#[derive(Debug)]
struct Outcome {
    report: CopyReport,
    orphans: u64,
    /// Where rules were given.
    counts: Option<OrphanCounts>,
    left_out: LeftOut,
    progress: ProgressSnapshot,
    /// Lane items that the target performed.
    items: usize,
}

impl Pair {
    fn new() -> Pair {
        Pair::in_directory(tempfile::tempdir().unwrap())
    }

    /// On a file system that takes every extended attribute that there is.
    fn in_memory() -> Pair {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a tmpfs on /dev/shm");
        Pair::in_directory(dir)
    }

    fn in_directory(dir: tempfile::TempDir) -> Pair {
        assert!(rustix::process::geteuid().is_root(), "these tests need root");
        let (source, replica) = (dir.path().join("source"), dir.path().join("replica"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&replica).unwrap();
        let places = Places::beside(&replica, &dir.path().join("state"));
        let (name_match, allow, orphan_rules, by_blocks) = (NameMatch::Copy, Allow::ALL, None, None);
        Pair {
            dir,
            source,
            places,
            name_match,
            allow,
            orphan_rules,
            by_blocks,
            keeping: None,
            owed: None,
            delete_percent_max: None,
            part: None,
            rests: false,
        }
    }

    fn replica(&self) -> &Path {
        &self.places.root
    }

    fn open_replica(&self) -> Replica {
        Replica::open(&self.places, SetId(7)).unwrap().allow(self.allow)
    }

    fn applier(&self) -> Applier {
        Applier::new(self.open_replica())
    }

    fn copy(&self) -> Outcome {
        self.copy_since(None)
    }

    fn copy_since(&self, suspect_since: Option<Timestamp>) -> Outcome {
        self.run(suspect_since, usize::MAX).expect("the copy comes to its end")
    }

    /// Lets the target vanish after so many items.
    fn copy_interrupted(&self, items: usize) {
        assert!(self.run(None, items).is_none(), "the copy is longer than {items} items");
        assert_eq!(self.open_replica().data().state, DataState::Bad);
    }

    /// `None` where the copy was cut off.
    fn run(&self, suspect_since: Option<Timestamp>, cut_after: usize) -> Option<Outcome> {
        let Copying { items, answers, progress, source } =
            Copying::begin_as(&self.source, suspect_since, 16, |copy| {
                let copy = copy.treating_orphans(self.orphan_rules.clone()).by_blocks(self.by_blocks);
                let copy = copy.keeping(self.keeping.clone());
                if let Some(part) = &self.part {
                    return copy.of_part(part).unwrap();
                }
                match &self.owed {
                    Some(owed) => {
                        let now = owed.clone();
                        copy.only(
                            owed.clone(),
                            Arc::new(move || Some((*now).clone())),
                            self.delete_percent_max,
                        )
                    }
                    None => copy,
                }
            });
        let mut applier =
            self.applier().with_rules(Rules { name_match: self.name_match, ..Rules::default() });
        let (mut count, mut orphans, mut left_out) = (0, None, LeftOut::default());
        let mut counts = None;
        'items: for NumberedItem { number, item, payload } in items.iter().take(cut_after) {
            count += 1;
            check_encodes(number, &item);
            let name = item.name();
            let mut take = || applier.take_item(position(), number, item.clone(), payload.clone());
            let said = match take() {
                Err(fault) if fault.errno() == Some(libc::ENOSPC) => take(),
                done => done,
            };
            let said = said.unwrap_or_else(|fault| panic!("{name}: {fault}"));
            if self.rests {
                applier.set_pending_times().unwrap_or_else(|fault| panic!("behind {name}: {fault}"));
            }
            let doubts: Vec<TargetMessage> = std::iter::from_fn(|| applier.take_doubts()).collect();
            for message in said.into_iter().chain(doubts) {
                if let TargetMessage::Resynchronised { end, orphans: count, left_out: left } = &message {
                    assert_eq!(*end, number);
                    orphans = Some(*count);
                    left_out.clone_from(left);
                }
                match message {
                    TargetMessage::Orphans(said) => counts = Some(said),
                    // Its own word says why it has ended.
                    message => match answers.send(answer(message)) {
                        Ok(()) => {}
                        Err(_) => break 'items,
                    },
                }
            }
        }
        drop((items, answers));
        let report = match source.join().unwrap() {
            Ok(report) => report,
            Err(CopyError::Gone) => return None,
            Err(error) => panic!("{error}"),
        };
        let orphans = orphans?;
        assert!(report.end.is_some());
        let expected = if left_out.is_empty() { DataState::Good } else { DataState::Bad };
        assert_eq!((applier.data().state, applier.data().in_line), (expected, !left_out.is_empty()));
        let now = applier.acknowledged();
        assert_eq!((now.applied, now.durable), (position(), position()));
        assert!(!self.places.state.join("claims").exists());
        Some(Outcome { report, orphans, counts, left_out, progress: progress.snapshot(), items: count })
    }

    /// Copies, compares everything, and copies again: nothing may be left to do.
    fn converges(&self) -> Outcome {
        let outcome = self.copy();
        assert!(outcome.left_out.is_empty(), "{outcome:?}");
        self.check_equal();
        outcome
    }

    #[track_caller]
    fn check_equal(&self) {
        tree::assert_equal(&self.source, self.replica());
    }

    /// Every orphan: path below the directory of its batch, and content.
    fn orphans(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let Ok(batches) = fs::read_dir(self.places.limbo.join("orphans")) else { return found };
        for batch in batches {
            let batch = batch.unwrap().path();
            for (name, node) in tree::nodes(&batch) {
                if let Some(content) = node.content {
                    found.push((String::from_utf8_lossy(&name).into_owned(), content));
                }
            }
        }
        found.sort();
        found
    }
}

/// An item on its way.
struct NumberedItem {
    number: ItemNumber,
    item: LaneItem,
    payload: Bytes,
}

/// A lane without packets: a channel.
struct ChannelLane {
    sender: Sender<NumberedItem>,
    last: u64,
    is_gone: bool,
}

impl ChannelLane {
    fn send(&mut self, batch: &mut Vec<Entry>) -> ItemNumber {
        for Entry { item, payload } in batch.drain(..) {
            self.last += 1;
            let number = ItemNumber(self.last);
            self.is_gone |= self.sender.send(NumberedItem { number, item, payload }).is_err();
        }
        ItemNumber(self.last)
    }
}

impl StampedSink for ChannelLane {
    fn reserve(&mut self) -> Result<Slot, Gone> {
        if self.is_gone { Err(Gone) } else { Ok(Slot::granted()) }
    }

    fn push(
        &mut self,
        slot: Slot,
        batch: &mut Vec<Entry>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot> {
        if check() { Ok(self.send(batch)) } else { Err(slot) }
    }

    fn begin(&mut self, batch: &mut Vec<Entry>, check: impl FnOnce() -> bool) -> bool {
        let holds = check();
        if holds {
            self.send(batch);
        }
        holds
    }
}

/// A copy on a thread of its own.
struct Copying {
    items: Receiver<NumberedItem>,
    answers: Sender<Answer>,
    progress: Arc<CopyProgress>,
    source: std::thread::JoinHandle<Result<CopyReport, CopyError>>,
}

impl Copying {
    fn begin(
        tree: &Path,
        since: Option<Timestamp>,
        window: usize,
        (rules, by_blocks): (Option<LaneItem>, Option<BlockOrder>),
    ) -> Copying {
        Copying::begin_as(tree, since, window, |copy| copy.treating_orphans(rules).by_blocks(by_blocks))
    }

    fn begin_as(
        tree: &Path,
        since: Option<Timestamp>,
        window: usize,
        ordered: impl FnOnce(LiveCopy<ChannelLane>) -> LiveCopy<ChannelLane>,
    ) -> Copying {
        let (sender, items) = bounded(window);
        let (answers, heard) = unbounded();
        let progress = Arc::new(CopyProgress::new());
        let backing = OwnedFd::from(File::open(tree).unwrap());
        let lane = ChannelLane { sender, last: 0, is_gone: false };
        let copy =
            LiveCopy::new(backing, Arc::new(Still(None)), 3, since, lane, heard, progress.clone()).unwrap();
        let copy = ordered(copy);
        let source = std::thread::spawn(move || copy.run());
        Copying { items, answers, progress, source }
    }
}

/// As the connection hands it on.
fn answer(message: TargetMessage) -> Answer {
    match message {
        TargetMessage::Wanted { listing, objects } => Answer::Wanted(Wanted { listing, objects }),
        TargetMessage::HasOld { listing, objects } => Answer::HasOld(Wanted { listing, objects }),
        TargetMessage::Hashed { item, differing } => Answer::Hashed { item, differing },
        TargetMessage::Doubt { directories } => Answer::Doubt(directories),
        TargetMessage::Resynchronised { end, .. } => Answer::Complete(end),
        other => panic!("{other:?}"),
    }
}

fn position() -> Position {
    Position::origin(Epoch { number: 3, writer: 5 }, Incarnation(9))
}

/// Every item must fit into its bounds on the wire and come back as it was.
fn check_encodes(number: ItemNumber, item: &LaneItem) {
    let header = ItemHeader { number, item: item.clone() };
    let encoded = item_frame(&position(), &header, Bytes::new());
    let raw: &[u8; PREFIX_LEN] = encoded.head.first_chunk().unwrap();
    let frame = Prefix::decode(raw).unwrap().frame(raw, &encoded.head[PREFIX_LEN..], Bytes::new()).unwrap();
    assert_eq!(frame.header, FrameHeader::Item(header));
}
