//! The source: the product's queue, feed and driver. Around the driver are links that are wires, and a
//! copy that is stepped.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use tempfile::TempDir;

use super::applications::OP_COST_MAX;
use super::planted::Planted;
use super::walker::Walker;
use crate::clock;
use crate::connection::Flow;
use crate::link::{Feed, LinkStats, Saved, SourceEvent, Waker};
use crate::map::Map;
use crate::packet::*;
use crate::queue::{Backlog, CursorId, DiskPlace, Planted as PlantedInQueue, Queue, Spilled};
use crate::random::Random;
use crate::sets::Matcher;
use crate::source_side::{
    Driver, Kept, Leaves, LeftBehind, Mark, Marks, NetworkLink, PacketFeed, Reached, Settings, Surroundings,
    WalkOrder, Walked,
};
use crate::words::{Compression, DeleteLimit, Target, WhenFull};

/// A source process.
pub struct Source {
    pub queue: Arc<Queue>,
    pub start: Position,
    pub driver: Driver<Desk>,
    pub desk: Desk,
    /// The link that is up, or dialled.
    pub sending: Option<Sending>,
    /// Walks the tree for the copy under way.
    pub walker: Option<Walker>,
    /// When the mount serves, if it does not yet: until then nobody writes.
    pub serves_at: Option<Instant>,
    /// A writer waits for room.
    waits: bool,
    pub look_at: Instant,
    /// Where the queue puts what memory has no room for, if it has a disk.
    _disk: Option<TempDir>,
}

/// What a source process is started with.
pub struct Start {
    pub limit: usize,
    pub at: Position,
    /// The clock of applications.
    pub clock: Timestamp,
    pub marks: Arc<Marks>,
    pub when_full: WhenFull,
    pub serves_at: Instant,
    /// From the process before it.
    pub kept: Kept,
    /// Bytes that the queue may take of its disk, if it has one.
    pub disk: Option<u64>,
    pub planted: Option<PlantedInQueue>,
    pub map: Option<Arc<Map>>,
    /// What the process before it has queued.
    pub left: Option<Left>,
}

/// A queue that was left at an orderly stop.
pub struct Left {
    disk: TempDir,
    queue: Backlog,
    behind: LeftBehind,
}

impl Left {
    /// Where one that goes on behind it begins.
    pub fn last(&self) -> Sequence {
        self.queue.last().sequence
    }

    /// A planted bug.
    pub fn dated(mut self, moment: Timestamp) -> Left {
        let LeftBehind { upto, mark, .. } = &mut self.behind;
        let reached = Reached { run: upto.incarnation, sequence: upto.sequence };
        *mark = Mark::of(moment).reached(reached);
        self
    }
}

impl Source {
    /// A process that has done nothing yet.
    pub fn new(start: Start, desk: &Desk) -> Source {
        let Start { limit, at, clock, marks, when_full, serves_at, kept, disk, planted, map, left } = start;
        let (queue, disk, keeper) = queue(limit, at, disk, left.as_ref());
        planted.into_iter().for_each(|planted| queue.plant(planted));
        *desk.0.queue.borrow_mut() = Arc::downgrade(&queue);
        let settings = Settings {
            owners: Default::default(),
            id: 1,
            uuid: "c0ffee".into(),
            target: Target::Null,
            is_known: false,
            set: super::target::SET,
            set_name: "set".into(),
            ids: 1.into(),
            unwritten_at: Mark::of(clock),
            watch: None,
            divergence: Arc::default(),
            fence: Arc::default(),
            roles: Arc::default(),
            marks,
            map,
            merge: None,
            touched: false,
            when_full,
            kept,
            delete_guard: DeleteLimit::Off,
            orphans: Default::default(),
            restored_at: None,
            goes_on: at.sequence > Sequence(0) && left.is_none(),
            left: left.map(|left| left.behind),
            terms: Default::default(),
        };
        let driver = Driver::alone(settings, desk.clone(), queue.clone());
        keeper.into_iter().for_each(|keeper| queue.detach(keeper));
        queue.leave_nothing();
        Source {
            driver,
            queue,
            start: at,
            desk: desk.clone(),
            sending: None,
            walker: None,
            serves_at: Some(serves_at),
            waits: false,
            look_at: clock::now(),
            _disk: disk,
        }
    }

    /// It ends in an orderly way, with what its target has not applied on the disk of its queue.
    pub fn leave(&self, moment: Mark) -> Option<Left> {
        let older = match self.driver.leaves() {
            Leaves::Nothing => return None,
            Leaves::All => None,
            Leaves::Older(left) => Some(left),
        };
        let wanted = older.as_ref().map(|older: &LeftBehind| older.upto.sequence);
        if wanted.is_none() {
            self.queue.begin_leaving();
            while self.queue.spill_step() == Spilled::Some {}
        }
        let queue = self.queue.backlog(wanted).ok()?;
        // The lock on the directory goes with the process, which is still there.
        let disk = tempfile::tempdir().expect("a temporary directory");
        let (from, to) = (self._disk.as_ref()?.path().join("queue"), disk.path().join("queue"));
        fs::DirBuilder::new().mode(0o700).create(&to).expect("a directory");
        for entry in fs::read_dir(from).expect("a directory").flatten() {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
        let (upto, applied, durable) = (queue.last(), self.driver.acknowledged(), self.driver.durable());
        let mark = moment.reached(Reached { run: upto.incarnation, sequence: upto.sequence });
        let behind = match older {
            Some(older) => LeftBehind { durable, ..older },
            None => LeftBehind { applied, durable, upto, mark },
        };
        Some(Left { disk, queue, behind })
    }

    /// Applications write.
    pub fn serves(&self) -> bool {
        self.serves_at.is_none()
    }

    /// Whether an op gets room at once.
    pub fn has_room(&mut self) -> bool {
        self.queue.pretend_waiting(false);
        let has_room = self.queue.has_room(OP_COST_MAX);
        self.waits &= !has_room;
        self.queue.pretend_waiting(self.waits);
        has_room
    }

    /// A writer waits for room, until there is some.
    pub fn wait_for_room(&mut self) {
        self.waits = true;
        self.queue.pretend_waiting(true);
    }

    /// A writer waits for room, and the disk makes none.
    pub fn is_held_up(&self) -> bool {
        let is_full = self.queue.stats().bytes as usize + OP_COST_MAX > self.queue.limit();
        self.waits && is_full && !self.queue.disk_follows()
    }

    /// The link of the session, if one is up or dialled.
    pub fn link(&self) -> Option<u32> {
        self.sending.as_ref().map(|sending| sending.link)
    }
}

/// Bytes of a segment: several packets.
pub const SEGMENT: u64 = 16_000;

fn queue(
    limit: usize,
    at: Position,
    disk: Option<u64>,
    left: Option<&Left>,
) -> (Arc<Queue>, Option<TempDir>, Option<CursorId>) {
    let Some(disk) = disk else { return (Queue::new(limit, at), None, None) };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let directory = dir.path().join("queue");
    if let Some(left) = left {
        fs::rename(left.disk.path().join("queue"), &directory).expect("moved");
    }
    let place =
        DiskPlace { directory, segment_len: SEGMENT, limit: Some(disk), floor: 0, is_beside_others: false };
    let (queue, keeper) = match left {
        Some(left) => {
            let (queue, keeper) = Queue::with_backlog(limit, at, place, &left.queue).expect("segments");
            (queue, Some(keeper))
        }
        None => (Queue::with_disk(limit, at, place).expect("segments can be made"), None),
    };
    queue.look_at_disk();
    (queue, Some(dir), keeper)
}

/// What a driver has around it. It outlives the process: what is dialled has one number for ever.
#[derive(Clone)]
pub struct Desk(Rc<DeskState>);

struct DeskState {
    random: RefCell<Random>,
    links: Cell<u32>,
    effects: RefCell<VecDeque<Effect>>,
    /// Targets keep what is removed.
    keeps: Cell<bool>,
    /// Of the process that runs.
    queue: RefCell<Weak<Queue>>,
    /// A planted bug: the events of all links come out of one channel.
    mixed: Option<(Sender<SourceEvent>, Receiver<SourceEvent>)>,
}

/// What a driver does to what is around it.
pub enum Effect {
    Dialled(Sending),
    Said(u32, SourceMessage),
    FeedStarted(u32),
    Walk(Box<WalkOrder>, Sender<Walked>),
    Closed(u32),
}

impl Desk {
    pub fn new(random: Random, planted: Option<Planted>) -> Desk {
        let mixed = (planted == Some(Planted::LateEventActs)).then(unbounded);
        let (random, links, effects) = (RefCell::new(random), Cell::new(0), RefCell::default());
        let (keeps, queue) = (Cell::new(false), RefCell::default());
        Desk(Rc::new(DeskState { random, links, effects, keeps, queue, mixed }))
    }

    pub fn next_effect(&self) -> Option<Effect> {
        self.0.effects.borrow_mut().pop_front()
    }

    /// Whether targets keep what is removed from now on.
    pub fn keep_removed(&self, keeps: bool) {
        self.0.keeps.set(keeps);
    }

    fn happens(&self, effect: Effect) {
        self.0.effects.borrow_mut().push_back(effect);
    }
}

impl Surroundings for Desk {
    type Link = WireEnd;

    fn limit(&mut self, _rate: Option<u64>) {}

    fn compress(&mut self, _level: Compression) {}

    fn saved(&self) -> Saved {
        Saved::default()
    }

    fn dial(&mut self, _attempt: u32, feed: PacketFeed) -> Result<WireEnd, String> {
        if self.0.random.borrow_mut().one_in(30) {
            return Err("the host has no address".into());
        }
        let link = self.0.links.get() + 1;
        self.0.links.set(link);
        let (sender, events) = self.0.mixed.clone().unwrap_or_else(unbounded);
        let waker = Waker::new();
        let through = clock::now() + Duration::from_millis(self.0.random.borrow_mut().below(60));
        self.happens(Effect::Dialled(Sending {
            link,
            dialing: Some(through),
            feed,
            feed_runs: false,
            waker: waker.clone(),
            events: sender,
            is_over: false,
        }));
        Ok(WireEnd { link, desk: self.clone(), events, waker })
    }

    fn walk(&mut self, order: WalkOrder) -> io::Result<Receiver<Walked>> {
        let (outcome, ended) = bounded(1);
        self.happens(Effect::Walk(Box::new(order), outcome));
        Ok(ended)
    }

    fn keeps_removed(&self) -> bool {
        self.0.keeps.get()
    }

    fn rules(&self) -> Option<Arc<Matcher>> {
        None
    }

    fn random(&mut self) -> u64 {
        self.0.random.borrow_mut().number()
    }
}

/// The driver's end of a link.
pub struct WireEnd {
    link: u32,
    desk: Desk,
    events: Receiver<SourceEvent>,
    waker: Waker,
}

impl NetworkLink for WireEnd {
    fn events(&self) -> &Receiver<SourceEvent> {
        &self.events
    }

    fn send(&self, message: SourceMessage) {
        self.desk.happens(Effect::Said(self.link, message));
    }

    fn start_feed(&self, _theirs: Features) {
        self.desk.happens(Effect::FeedStarted(self.link));
    }

    fn stats(&self) -> LinkStats {
        LinkStats::default()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// The end of a network connection can take seconds: programs that wait for room have it before.
    fn close(self, reason: &str) {
        if reason.contains("programs waited") {
            let held = self.desk.0.queue.borrow().upgrade().map_or(0, |queue| queue.stats().packets);
            assert_eq!(held, 0, "packets are held while a connection ends that held programs up");
        }
        self.desk.happens(Effect::Closed(self.link));
    }
}

/// What the thread of a link works with.
pub struct Sending {
    pub link: u32,
    /// When the attempt succeeds or fails; `None`: it has succeeded.
    pub dialing: Option<Instant>,
    feed: PacketFeed,
    pub feed_runs: bool,
    waker: Waker,
    events: Sender<SourceEvent>,
    /// Its last event is out: it does nothing any more.
    pub is_over: bool,
}

impl Sending {
    /// The driver will hear of it.
    pub fn tell(&mut self, event: SourceEvent) {
        if !self.is_over {
            self.is_over = matches!(event, SourceEvent::Lost { .. });
            let _ = self.events.send(event);
        }
    }

    /// What goes next. Asleep, it asks its feed only when it was woken.
    pub fn next_frames(&mut self, max_bytes: usize) -> Vec<EncodedFrame> {
        if self.waker.is_asleep() || !self.feed_runs || self.dialing.is_some() || self.is_over {
            return Vec::new();
        }
        let frames = self.feed.next_frames(max_bytes);
        if frames.is_empty() {
            self.waker.fall_asleep();
        }
        frames
    }

    /// A planted bug: whatever a person wants, the feed sends.
    pub fn force_flow(&self) {
        self.feed.stream().set_flow(Flow::Send);
        self.waker.wake();
    }
}
