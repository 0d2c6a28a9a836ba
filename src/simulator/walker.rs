//! The walk of a copy: the product's, one step after the other, over the directory of the source. Between
//! it and the lane objects get the numbers of the model, and what is suspect is told by the model's clock.

use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use parking_lot::Mutex;

use super::applications::{Applications, Watch, shown};
use super::planted::Planted;
use super::searching::{Searching, only};
use crate::limits::LIVE_ANSWERS_MAX;
use crate::packet::*;
use crate::random::Random;
use crate::resync::{
    Answer, BlockOrder, CopyError, CopyReport, Entry, Gone, LiveCopy, Planted as PlantedInCopy, Sizes, Slot,
    StampedSink, Stepped,
};
use crate::source_side::{FirstOwed, OwedOrder, StampedLane, WalkOrder, Walked};

pub struct Walker {
    /// `None` for a moment.
    copy: Option<LiveCopy<Renamed>>,
    search: Option<Searching>,
    /// Only what is owed is shown.
    pub is_minicopy: bool,
    applications: Arc<Mutex<Applications>>,
    lane: Arc<Mutex<StampedLane>>,
    answers: Receiver<Answer>,
    /// To the copy; `None`: nobody will answer any more.
    answering: Option<Sender<Answer>>,
    outcome: Sender<Walked>,
    has_begun: bool,
    end: Option<ItemNumber>,
    planted: Option<Planted>,
    /// The last packet before it began.
    began_at: Sequence,
    pub doubts: u64,
}

/// What became of a turn.
pub enum Turn {
    GoesOn,
    /// `wrote`: applications wrote meanwhile. `anew`: listings that began again.
    Complete {
        wrote: bool,
    },
    CutOff,
}

impl Walker {
    pub fn new(
        applications: Arc<Mutex<Applications>>,
        order: WalkOrder,
        outcome: Sender<Walked>,
        (random, planted): (&mut Random, Option<Planted>),
    ) -> Walker {
        let WalkOrder { ids, suspect_since, had, by_blocks, owed, sink, answers, progress, .. } = order;
        if let Some(planted) = planted.and_then(Planted::in_lane) {
            sink.plant(planted);
        }
        let lane = Arc::new(Mutex::new(sink));
        let sink = Renamed {
            lane: lane.clone(),
            applications: applications.clone(),
            suspect_since,
            planted,
            is_minicopy: owed.is_some(),
            opened: None,
            listed: BTreeSet::new(),
        };
        let (answering, heard) = bounded(LIVE_ANSWERS_MAX);
        let (backing, began_at) = {
            let applications = applications.lock();
            (applications.backing.open(), applications.queue.last().sequence)
        };
        let is_blind = planted == Some(Planted::CountsAreNotCompared);
        let looks = Arc::new(Watch { applications: applications.clone(), is_blind });
        let sizes = Sizes { entries: 1 + random.below(5) as usize, bytes: 400 + random.below(4000) as usize };
        let planted_in_copy = match planted {
            Some(Planted::OpenListingGoesOn) => Some(PlantedInCopy::ForgetsADoubtOfTheOpen),
            Some(Planted::EndsWithDoubts) => Some(PlantedInCopy::EndsWithDoubts),
            Some(Planted::OwesNothingMore) => Some(PlantedInCopy::OwesNothingMore),
            _ => None,
        };
        let copy = LiveCopy::new(backing, looks, ids, None, sink, heard, progress);
        let copy = copy.expect("the directory can be read").in_pieces(sizes, planted_in_copy);
        // Files are small here.
        let least = if began_at.0.is_multiple_of(2) { 1 } else { 1 << 20 };
        let copy = copy.by_blocks(by_blocks.map(|order| BlockOrder { least, ..order }));
        let is_minicopy = owed.is_some();
        let (copy, search) = match owed {
            None => (copy.to(had), None),
            Some(OwedOrder { first: FirstOwed::Known(owed), now, percent_max }) => {
                (only(copy, &applications, (owed, now), (percent_max, planted)), None)
            }
            Some(OwedOrder { first: FirstOwed::ByTime { since, found }, now, percent_max }) => {
                (copy, Some(Searching::new(random.below(20), (since, found), now, percent_max)))
            }
        };
        let answering = Some(answering);
        Walker {
            copy: Some(copy),
            search,
            is_minicopy,
            applications,
            lane,
            answers,
            answering,
            outcome,
            has_begun: false,
            end: None,
            planted,
            began_at,
            doubts: 0,
        }
    }

    /// One step, where it need not wait.
    pub fn turn(&mut self) -> Turn {
        self.pass_answers_on();
        if self.answering.is_some() && !self.lane.lock().has_room() {
            return Turn::GoesOn;
        }
        let walked = match self.searched() {
            Ok(true) => self.goes_on(),
            Ok(false) => Ok(Stepped::Waits),
            Err(error) => Err(error),
        };
        let (walked, turn) = match walked {
            Ok(Stepped::On | Stepped::Waits) => return Turn::GoesOn,
            Ok(Stepped::Complete) => {
                let wrote = self.applications.lock().queue.last().sequence > self.began_at;
                (Ok(CopyReport { end: self.end, ..CopyReport::default() }), Turn::Complete { wrote })
            }
            Err(error) => (Err(error), Turn::CutOff),
        };
        if let Err(error @ CopyError::Answer(_)) = &walked {
            self.applications.lock().said.push(error.to_string());
        }
        let _ = self.outcome.send(walked);
        turn
    }

    fn goes_on(&mut self) -> Result<Stepped, CopyError> {
        let copy = self.copy.as_mut().expect("it is there but for a moment");
        match std::mem::replace(&mut self.has_begun, true) {
            true => copy.step(),
            false => copy.begin().map(|()| Stepped::On),
        }
    }

    /// `false`: what is owed is not known yet.
    fn searched(&mut self) -> Result<bool, CopyError> {
        let Some(mut search) = self.search.take() else { return Ok(true) };
        if self.answering.is_none() {
            return Err(CopyError::Gone);
        }
        if search.is_under_way() {
            self.search = Some(search);
            return Ok(false);
        }
        let (percent_max, planted) = (search.percent_max, self.planted);
        let (first, now) = search.find(&self.applications.lock(), planted)?;
        let copy = self.copy.take().expect("it is there but for a moment");
        self.copy = Some(only(copy, &self.applications, (first, now), (percent_max, planted)));
        Ok(true)
    }

    fn pass_answers_on(&mut self) {
        loop {
            let answer = match self.answers.try_recv() {
                Ok(answer) => self.renamed(answer),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.answering = None;
                    return;
                }
            };
            if let Some(answering) = &self.answering {
                answering.try_send(answer).expect("there is as much room as for the first ones");
            }
        }
    }

    fn renamed(&mut self, answer: Answer) -> Answer {
        let applications = self.applications.lock();
        let here = |id: ObjectId| applications.backing.in_directory(id);
        match answer {
            Answer::Wanted(mut wanted) => {
                if self.planted == Some(Planted::WantedDirectoriesForgotten) {
                    let nodes = &applications.model.tree.nodes;
                    let is_dir = |id: &ObjectId| {
                        nodes.get(&id.inode).is_some_and(|node| node.birth == Birth::Directory)
                    };
                    wanted.objects.retain(|id| !is_dir(id));
                }
                wanted.objects = wanted.objects.into_iter().map(here).collect();
                Answer::Wanted(wanted)
            }
            Answer::Doubt(directories) => {
                self.doubts += directories.len() as u64;
                Answer::Doubt(directories.into_iter().map(here).collect())
            }
            Answer::HasOld(mut wanted) => {
                wanted.objects = wanted.objects.into_iter().map(here).collect();
                Answer::HasOld(wanted)
            }
            Answer::Hashed { item, differing } => Answer::Hashed { item, differing },
            Answer::Complete(end) => {
                self.end = Some(end);
                Answer::Complete(end)
            }
        }
    }
}

/// The lane, with the model's numbers.
struct Renamed {
    lane: Arc<Mutex<StampedLane>>,
    applications: Arc<Mutex<Applications>>,
    suspect_since: Timestamp,
    planted: Option<Planted>,
    is_minicopy: bool,
    /// A planted bug: attributes of the file that is open, as they were when it was opened.
    opened: Option<Attributes>,
    /// Directories whose listing has begun.
    listed: BTreeSet<u64>,
}

impl Renamed {
    fn rename(&mut self, item: &mut LaneItem) {
        let applications = self.applications.lock();
        let renamed = |id: &mut ObjectId| *id = applications.backing.in_model(*id);
        match item {
            LaneItem::Begin
            | LaneItem::BeginOwed { .. }
            | LaneItem::Afresh
            | LaneItem::NamesMatch
            | LaneItem::OrphanRules { .. }
            | LaneItem::ByBlocks { .. }
            | LaneItem::LeftOut { .. }
            | LaneItem::End
            | LaneItem::CheckBegin { .. }
            | LaneItem::CheckStop
            | LaneItem::Rules { .. }
            | LaneItem::Keeping { .. } => {}
            LaneItem::Listing { dir, entries, .. } => {
                renamed(dir);
                for entry in entries {
                    renamed(&mut entry.object);
                    let node = applications.model.tree.nodes.get(&entry.object.inode);
                    let is_suspect = node.is_some_and(|node| node.ctime >= self.suspect_since);
                    let counts = self.planted != Some(Planted::NothingIsSuspect);
                    entry.suspect = counts && is_suspect && entry.birth == Birth::File;
                }
            }
            LaneItem::Owed { objects } => objects.iter_mut().for_each(renamed),
            LaneItem::OpenContent { object } => {
                renamed(object);
                self.opened = applications.model.tree.nodes.get(&object.inode).map(|node| node.attributes);
            }
            LaneItem::CloseContent { object, attributes, .. } => {
                renamed(object);
                if let (Some(Planted::ClosesAsOpened), Some(opened)) = (self.planted, self.opened) {
                    *attributes = opened;
                }
            }
            LaneItem::Root { object, .. }
            | LaneItem::Content { object, .. }
            | LaneItem::Xattrs { object, .. }
            | LaneItem::Xattr { object, .. }
            | LaneItem::Attributes { object, .. }
            | LaneItem::Leave { object }
            | LaneItem::Hashes { object, .. }
            | LaneItem::Hole { object, .. }
            | LaneItem::OpenBlocks { object }
            | LaneItem::CloseSame { object, .. }
            | LaneItem::Within { dir: object, .. }
            | LaneItem::NotListed { dir: object } => renamed(object),
        }
    }

    fn renamed(&mut self, batch: &[Entry]) -> Vec<Entry> {
        let mut renamed = batch.to_vec();
        renamed.iter_mut().for_each(|entry| self.rename(&mut entry.item));
        renamed
    }

    fn note(&mut self, batch: &[Entry]) {
        for Entry { item, payload } in batch {
            let mut applications = self.applications.lock();
            let stamp = applications.queue.last().sequence;
            if let LaneItem::Listing { dir, first: true, .. } = item
                && !self.listed.insert(dir.inode)
            {
                applications.listed_again += 1;
            }
            applications.holes += u64::from(matches!(item, LaneItem::Hole { .. }));
            applications.said.push(format!("item as of {stamp}: {}", shown(item, payload.len())));
        }
    }
}

impl StampedSink for Renamed {
    fn reserve(&mut self) -> Result<Slot, Gone> {
        self.lane.lock().reserve()
    }

    fn push(
        &mut self,
        slot: Slot,
        batch: &mut Vec<Entry>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot> {
        let mut renamed = self.renamed(batch);
        if self.planted == Some(Planted::OwedContentIsDropped) && self.is_minicopy && renamed.len() > 1 {
            renamed.retain(|entry| !matches!(entry.item, LaneItem::Content { .. }));
        }
        let items = renamed.clone();
        let number = self.lane.lock().push(slot, &mut renamed, check)?;
        batch.clear();
        self.note(&items);
        Ok(number)
    }

    fn begin(&mut self, batch: &mut Vec<Entry>, check: impl FnOnce() -> bool) -> bool {
        let mut renamed = self.renamed(batch);
        let has_begun = self.lane.lock().begin(&mut renamed, check);
        if has_begun {
            batch.clear();
            self.applications.lock().said.push("the copy begins".into());
        }
        has_begun
    }
}
