//! What is looked at next: decided from what was listed, what the target asks for and what it doubts.
//! Pure: no file is touched here.
//!
//! ```text
//!             Enter                listed                      Wanted
//!  directories ───> open listing ─────────> listings in flight ──────> content, attributes
//!    ^   ^               │ doubted: begins anew        │ of a doubt: directories asked for
//!    │   └───────────────┴──────<──────────────────────┘
//!    └── Find <── doubts                               nothing is owed: End ──> Complete
//! ```
//! What waits is bounded by what a listing holds and by the number of directories, never by that of
//! files.

mod steps;

use std::collections::{HashSet, VecDeque};

use super::super::Wanted;
use super::Answer;
use crate::limits::{
    CHECK_ENTRIES_LATE, CHECK_LISTINGS_IN_FLIGHT, CHECK_LISTINGS_LATE, DOUBTS_WAITING_MAX,
    LISTING_ENTRIES_MAX, LIVE_ENTRIES_IN_FLIGHT, LIVE_LISTINGS_IN_FLIGHT,
};
use crate::packet::{ItemNumber, ObjectId};
pub use steps::{Counted, Descend, Directory, Job, Sent, Step};

struct InFlight<D, F> {
    sent: Sent<D, F>,
    descend: Descend,
    /// What the target has other content of.
    has_old: HashSet<ObjectId>,
}

/// See the module.
pub struct Plan<D, F> {
    /// To be listed; the last one first.
    directories: Vec<Directory<D>>,
    /// Those that are listed before others.
    first: Vec<Directory<D>>,
    waiting: HashSet<ObjectId>,
    /// Directories of the next chunk that are of the first.
    preferred: HashSet<ObjectId>,
    open: Option<Directory<D>>,
    jobs: VecDeque<Job<F>>,
    /// Sent and not answered, oldest first.
    in_flight: VecDeque<InFlight<D, F>>,
    entries_in_flight: usize,
    doubts: VecDeque<ObjectId>,
    doubted: HashSet<ObjectId>,
    ended: Ended,
    /// The target compares, and gets nothing.
    compares: bool,
    /// Each answer of a comparison waits for all that is queued.
    is_late: bool,
    #[cfg(test)]
    pub planted: Option<super::Planted>,
}

/// How it stands with the end.
enum Ended {
    /// None was sent.
    Not,
    Sent(ItemNumber),
    /// The target had doubts when it heard of it, perhaps.
    Void(ItemNumber),
    Complete(ItemNumber),
}

impl<D: Clone, F> Plan<D, F> {
    pub fn new(root: Directory<D>) -> Plan<D, F> {
        Plan::of([root])
    }

    /// Of these directories, the last one first.
    pub fn of(directories: impl IntoIterator<Item = Directory<D>>) -> Plan<D, F> {
        let mut plan = Plan {
            directories: Vec::new(),
            first: Vec::new(),
            waiting: HashSet::new(),
            preferred: HashSet::new(),
            open: None,
            jobs: VecDeque::new(),
            in_flight: VecDeque::new(),
            entries_in_flight: 0,
            doubts: VecDeque::new(),
            doubted: HashSet::new(),
            ended: Ended::Not,
            compares: false,
            is_late: false,
            #[cfg(test)]
            planted: None,
        };
        directories.into_iter().for_each(|dir| plan.descend_into(dir));
        plan
    }

    /// Content comes without attributes, and fewer listings are under way.
    pub fn comparing(mut self) -> Plan<D, F> {
        self.compares = true;
        self
    }

    /// What is to be done before anything else.
    pub fn next(&mut self) -> Step<D, F> {
        if let Ended::Complete(end) = self.ended {
            return Step::Over(end);
        }
        if let Some(job) = self.jobs.pop_front() {
            return Step::Copy(job);
        }
        if !self.has_room() {
            return Step::Wait;
        }
        if self.open.is_some() {
            return Step::List;
        }
        #[cfg(test)]
        if self.planted == Some(super::Planted::EndsWithDoubts) && self.is_done_but_for_doubts() {
            return Step::End;
        }
        if let Some(doubt) = self.doubts.pop_front() {
            self.doubted.remove(&doubt);
            return Step::Find(doubt);
        }
        if let Some(dir) = self.first.pop().or_else(|| self.directories.pop()) {
            self.waiting.remove(&dir.id);
            return Step::Enter(dir);
        }
        match self.ended {
            _ if !self.in_flight.is_empty() => Step::Wait,
            Ended::Not | Ended::Void(_) => Step::End,
            Ended::Sent(_) | Ended::Complete(_) => Step::Wait,
        }
    }

    #[cfg(test)]
    fn is_done_but_for_doubts(&self) -> bool {
        let is_done = self.in_flight.is_empty() && self.directories.is_empty() && self.first.is_empty();
        is_done && !self.doubts.is_empty() && !matches!(self.ended, Ended::Sent(_))
    }

    fn has_room(&self) -> bool {
        let (listings, entries) = match (self.compares, self.is_late) {
            (false, _) => (LIVE_LISTINGS_IN_FLIGHT, LIVE_ENTRIES_IN_FLIGHT),
            (true, false) => (CHECK_LISTINGS_IN_FLIGHT, LIVE_ENTRIES_IN_FLIGHT),
            (true, true) => (CHECK_LISTINGS_LATE, CHECK_ENTRIES_LATE),
        };
        self.in_flight.len() < listings && self.entries_in_flight + LISTING_ENTRIES_MAX <= entries
    }

    /// A directory will be listed, from its first chunk on.
    pub fn opened(&mut self, dir: Directory<D>) {
        assert!(self.open.is_none(), "two listings at a time");
        self.open = Some(dir);
    }

    /// Whether the open listing is of the walk: another one shows once more what was counted, or what
    /// packets have told.
    pub fn walks(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.descend == Descend::Everywhere)
    }

    /// It turned out not to be there.
    pub fn closed(&mut self) {
        self.open = None;
    }

    /// A chunk of the open listing is in the stream.
    pub fn listed(&mut self, mut sent: Sent<D, F>) {
        let descend = self.open.as_ref().expect("a chunk is of the open listing").descend;
        let before = self.in_flight.back().map(|last| last.sent.number);
        assert!(before.is_none_or(|before| before < sent.number), "listings are numbered in their order");
        if sent.is_last {
            self.open = None;
        }
        if descend == Descend::Everywhere {
            for (id, place) in &sent.directories {
                self.descend_into(Directory { id: *id, place: place.clone(), descend });
            }
        }
        self.preferred.clear();
        sent.directories.shrink_to_fit();
        self.entries_in_flight += sent.files.len() + sent.directories.len();
        self.in_flight.push_back(InFlight { sent, descend, has_old: HashSet::new() });
    }

    /// The open listing goes on no further.
    pub fn abandon(&mut self) -> Option<Directory<D>> {
        self.open.take()
    }

    /// From now on answers are long in coming: more is under way.
    pub fn begin_late(&mut self) {
        self.is_late = true;
    }

    /// This one is listed before others.
    pub fn first(&mut self, dir: Directory<D>) {
        if self.waiting.insert(dir.id) {
            self.first.push(dir);
        }
    }

    /// Where the chunk that comes next shows this directory, it is listed before others.
    pub fn prefer(&mut self, id: ObjectId) {
        self.preferred.insert(id);
    }

    /// A doubt that was put off.
    pub fn doubt_again(&mut self, id: ObjectId) {
        if !self.waiting.contains(&id) && self.doubted.insert(id) {
            self.doubts.push_back(id);
        }
    }

    /// One more directory that is to be listed.
    pub fn also(&mut self, dir: Directory<D>) {
        self.descend_into(dir);
    }

    fn descend_into(&mut self, dir: Directory<D>) {
        let is_open = self.open.as_ref().is_some_and(|open| open.id == dir.id);
        if !is_open && self.waiting.insert(dir.id) {
            let preferred = !self.preferred.is_empty() && self.preferred.remove(&dir.id);
            if preferred { &mut self.first } else { &mut self.directories }.push(dir);
        }
    }

    pub fn copy_later(&mut self, job: Job<F>) {
        self.jobs.push_front(job);
    }

    pub fn ended(&mut self, end: ItemNumber) {
        self.ended = Ended::Sent(end);
    }

    /// Errors: what makes no sense in the answer.
    pub fn hear(&mut self, answer: Answer) -> Result<Option<Counted>, String> {
        match answer {
            Answer::Wanted(wanted) => self.wanted(wanted.listing, wanted.objects).map(Some),
            Answer::Doubt(directories) => {
                // Of none: the target has taken up the copy, no more.
                if let Ended::Sent(end) = self.ended
                    && !directories.is_empty()
                {
                    self.ended = Ended::Void(end);
                }
                directories.into_iter().try_for_each(|dir| self.doubt(dir)).map(|()| None)
            }
            Answer::Complete(end) => match self.ended {
                // Where a doubt was heard before it, packets have settled that one meanwhile.
                Ended::Sent(last) | Ended::Void(last) if last == end => {
                    self.ended = Ended::Complete(end);
                    Ok(None)
                }
                _ => Err(format!("item {} is not the end of the copy", end.0)),
            },
            Answer::HasOld(Wanted { listing, objects }) => match self.in_flight.front_mut() {
                Some(due) if due.sent.number == listing => {
                    due.has_old.extend(objects);
                    Ok(None)
                }
                _ => Err(format!("listing {} is not due", listing.0)),
            },
            Answer::Hashed { item, .. } => Err(format!("no hashes were sent with item {}", item.0)),
        }
    }

    fn doubt(&mut self, id: ObjectId) -> Result<(), String> {
        #[cfg(test)]
        if self.planted == Some(super::Planted::ForgetsADoubtOfTheOpen)
            && self.open.as_ref().is_some_and(|open| open.id == id)
        {
            return Ok(());
        }
        if let Some(open) = self.open.take_if(|open| open.id == id) {
            self.descend_into(open);
            return Ok(());
        }
        if self.waiting.contains(&id) || !self.doubted.insert(id) {
            return Ok(());
        }
        self.doubts.push_back(id);
        match self.doubts.len() <= DOUBTS_WAITING_MAX {
            true => Ok(()),
            false => Err(format!("it doubts more than {DOUBTS_WAITING_MAX} directories")),
        }
    }

    /// Answers come in the order of the listings, and name only what is in them.
    fn wanted(&mut self, listing: ItemNumber, objects: Vec<ObjectId>) -> Result<Counted, String> {
        let due = self.in_flight.front().map(|due| due.sent.number);
        let Some(InFlight { sent, descend, has_old }) =
            self.in_flight.pop_front().filter(|_| due == Some(listing))
        else {
            let due = due.map_or("none is".to_owned(), |due| format!("{} is", due.0));
            return Err(format!("it is for listing {}, {due} due", listing.0));
        };
        self.entries_in_flight -= sent.files.len() + sent.directories.len();
        let mut asked: HashSet<ObjectId> = objects.into_iter().collect();
        let compared = sent.files.len() as u64;
        let mut counted = Counted { compared, ..Counted::default() };
        for (id, place) in sent.directories {
            if asked.remove(&id) && descend == Descend::WhereAsked {
                // Never listed before, nor anything below it: a walk from here on.
                self.descend_into(Directory { id, place, descend: Descend::Everywhere });
            }
        }
        let large = sent.large.into_iter().filter(|(id, _)| self.compares || !asked.contains(id));
        self.jobs.extend(large.map(|(_, place)| Job::Xattrs(place)));
        // A target asks once for a file with several names, at the first of them.
        for (id, size, place) in sent.files {
            match asked.remove(&id) {
                true if has_old.contains(&id) => self.jobs.push_back(Job::Blocks(place)),
                true => self.jobs.push_back(Job::Content(place)),
                false => {
                    counted.identical += 1;
                    counted.bytes_identical = counted.bytes_identical.saturating_add(size);
                }
            }
        }
        match asked.into_iter().next() {
            Some(stranger) => Err(format!("object {stranger} is not of the listing")),
            None => Ok(counted),
        }
    }
}
