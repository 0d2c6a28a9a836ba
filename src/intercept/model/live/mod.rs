//! The model test of a copy that runs while programs work: the same threads, one more that copies, sends
//! and delivers, and a target in memory that has to be the backing directory in the end.
//!
//! ```text
//!  workers ──> Volume ──> backing directory <── looks ── LiveCopy
//!                │ counts of changes ──────────────────>   │ items
//!              queue ───────────> PacketFeed <─────────────┘
//!                                     │ one frame at a time, in its order
//!                                   Target ── Wanted, Doubt, Complete ──> LiveCopy
//! ```
//! The target begins with an older state, a part of what it knew is lost, sessions are cut in the middle.

mod by_time;
mod owed;
mod target;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use super::order::{Order, Place};
use super::worker::Worker;
use super::{Ground, said};
use crate::connection::Flow;
use crate::intercept::change::{Planted, planted, turns};
use crate::intercept::{NodeId, Volume};
use crate::link::{Feed, Waker};
use crate::map::Map;
use crate::mutation::rounds;
use crate::packet::{
    Attributes, Birth, EncodedFrame, Epoch, Frame, FrameHeader, Incarnation, ItemNumber, LaneItem, ObjectId,
    Op, PREFIX_LEN, Position, Prefix, Sequence, Timestamp, Xattr, packet_frame,
};
use crate::queue::Queue;
use crate::random::Random;
use crate::resync::tests::tree;
use crate::resync::{
    Answer, Counts, Entry, Found, Gone, LiveCopy, Looks, Owed, PlantedSearch, Sizes, Slot, StampedSink,
    Stepped,
};
use crate::source_side::feed::{self, PacketFeed, StampedLane, Stream};
use target::Target;

/// Threads of programs, and changes of each while a copy runs.
const THREADS: usize = 3;
const CHANGES: u64 = 50;
/// A plain run takes so many seeds.
const SEEDS: u64 = 600;
/// A planted bug that is not found within so many seeds is not caught.
const SEEDS_PLANTED: u64 = 2000;
/// Steps after the last change; a copy that takes longer never ends.
const STEPS_MAX: u32 = 100_000;

/// A bug that is planted on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    Change(Planted),
    Feed(feed::Planted),
    Plan(crate::resync::Planted),
    /// Whether something changed since the look is not asked.
    CountsAreNotCompared,
    Owed(owed::Forgets),
    Search(PlantedSearch),
}

impl Bug {
    const ALL: [Bug; 14] = [
        Bug::Change(Planted::EndsBeforeItIsTold),
        Bug::Feed(feed::Planted::GoesLate),
        Bug::Feed(feed::Planted::GoesEarly),
        Bug::Feed(feed::Planted::StampsBeforeTheLook),
        Bug::Plan(crate::resync::Planted::ForgetsADoubtOfTheOpen),
        Bug::Plan(crate::resync::Planted::EndsWithDoubts),
        Bug::Plan(crate::resync::Planted::OwesNothingMore),
        Bug::CountsAreNotCompared,
        Bug::Owed(owed::Forgets::Names),
        Bug::Owed(owed::Forgets::Ranges),
        Bug::Owed(owed::Forgets::Tail),
        Bug::Search(PlantedSearch::TrustsTheWalk),
        Bug::Search(PlantedSearch::WalksOnce),
        Bug::Search(PlantedSearch::OwesNoNames),
    ];

    fn of_plan(self) -> Option<crate::resync::Planted> {
        if let Bug::Plan(planted) = self { Some(planted) } else { None }
    }
}

/// The volume, where others may come in between.
struct Turning(Arc<Volume>);

impl Looks for Turning {
    fn counts(&self, inode: u64) -> Counts {
        let counts = self.0.counts(inode);
        turns::turn();
        counts
    }

    fn changed_at(&self, inode: u64) -> Option<Sequence> {
        Looks::changed_at(&*self.0, inode)
    }

    fn directory_moved_at(&self) -> Option<Sequence> {
        Looks::directory_moved_at(&*self.0)
    }

    fn while_still(&self, one: Found<'_>, other: Option<Found<'_>>, look: &mut dyn FnMut()) {
        Looks::while_still(&*self.0, one, other, look);
    }
}

/// From the feed to the target, and back.
struct Wire {
    feed: PacketFeed,
    target: Arc<Mutex<Target>>,
    says: Sender<Answer>,
}

impl Wire {
    /// Delivers the next frame.
    fn deliver(&mut self) -> bool {
        let frames = self.feed.next_frames(1);
        let mut target = self.target.lock();
        frames.iter().for_each(|frame| take(&mut target, frame));
        target.says.drain(..).for_each(|answer| _ = self.says.send(answer));
        !frames.is_empty()
    }
}

fn decoded(frame: &EncodedFrame) -> Frame {
    let raw: &[u8; PREFIX_LEN] = frame.head.first_chunk().unwrap();
    let prefix = Prefix::decode(raw).unwrap();
    prefix.frame(raw, &frame.head[PREFIX_LEN..], frame.payload.clone()).unwrap()
}

/// With how long its payload is.
fn op_of(frame: &EncodedFrame) -> (Op, u64) {
    let frame = decoded(frame);
    match frame.header {
        FrameHeader::Packet(packet) => (packet.op, frame.payload.len() as u64),
        FrameHeader::Item(_) | FrameHeader::Skip(_) => panic!("no packet"),
    }
}

fn take(target: &mut Target, frame: &EncodedFrame) {
    let frame = decoded(frame);
    match &frame.header {
        FrameHeader::Packet(packet) => target.op(&packet.op, &frame.payload),
        FrameHeader::Item(item) => target.item(item.number, &item.item, &frame.payload),
        FrameHeader::Skip(_) => panic!("nothing is left out"),
    }
}

/// A lane that delivers where it would wait.
struct Pump {
    lane: StampedLane,
    wire: Arc<Mutex<Wire>>,
    bug: Option<Bug>,
}

impl StampedSink for Pump {
    fn reserve(&mut self) -> Result<Slot, Gone> {
        while !self.lane.has_room() {
            assert!(self.wire.lock().deliver(), "the lane is full, and nothing goes");
        }
        self.lane.reserve()
    }

    fn push(
        &mut self,
        slot: Slot,
        batch: &mut Vec<Entry>,
        check: impl FnOnce() -> bool,
    ) -> Result<ItemNumber, Slot> {
        turns::turn();
        let trusts = self.bug == Some(Bug::CountsAreNotCompared);
        self.lane.push(slot, batch, || check() || trusts)
    }

    fn begin(&mut self, batch: &mut Vec<Entry>, check: impl FnOnce() -> bool) -> bool {
        self.lane.begin(batch, check)
    }
}

struct Scene {
    volume: Arc<Volume>,
    queue: Arc<Queue>,
    backing: std::path::PathBuf,
    target: Arc<Mutex<Target>>,
    /// What the target had when it was good, where the source knows what has changed since.
    base: Option<Sequence>,
    /// When it was good, in an earlier run.
    since: Option<Timestamp>,
    /// When it was good at all: what has changed from there on is suspect to a copy of everything, which
    /// comes where one of what is owed was cut off behind a doubt.
    good_at: Option<Timestamp>,
}

/// One network connection, and the copy on it.
struct Session {
    copy: LiveCopy<Pump>,
    wire: Arc<Mutex<Wire>>,
}

impl Scene {
    fn new(place: &Path) -> Scene {
        let backing = place.join("backing");
        std::fs::create_dir(&backing).unwrap();
        Scene::over(backing, None)
    }

    /// A run begins.
    fn over(backing: std::path::PathBuf, target: Option<Arc<Mutex<Target>>>) -> Scene {
        let start = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
        let queue = Queue::new(1 << 30, start);
        queue.attach(|_| ());
        let map = Arc::new(Map::new(1 << 18, queue.last().sequence));
        let fd = File::open(&backing).unwrap().into();
        let volume = Volume::new(fd, queue.clone(), 1).unwrap().marking(map);
        volume.watch_for_others();
        let root = volume.node(NodeId::ROOT).unwrap().object;
        let target = target.unwrap_or_else(|| Arc::new(Mutex::new(Target::new(root))));
        Scene { volume: Arc::new(volume), queue, backing, target, base: None, since: None, good_at: None }
    }

    fn deliver_all(&self) {
        let mut target = self.target.lock();
        for packet in self.queue.next(Sequence(0), usize::MAX) {
            take(&mut target, &packet_frame(&packet.position, &packet.header, packet.payload));
        }
    }

    /// What the target has is older than what there is, and it has forgotten some of it.
    fn prepared(mut self, random: &mut Random, knows: bool) -> Scene {
        Worker::new(&self.volume, random.clone()).run(random.below(80) as usize);
        self.deliver_all();
        let mut target = self.target.lock();
        if knows {
            target.is_up_to_date();
            self.base = Some(self.queue.last().sequence);
            self.good_at = Some(by_time::moment(self.backing.parent().unwrap()));
            let map = self.volume.map().unwrap();
            assert!(map.rotate());
            map.begins_at(self.queue.last().sequence);
        }
        let mut other = Random::new(random.number());
        Worker::new(&self.volume, other.clone()).run(other.below(60) as usize);
        if random.one_in(2) && !knows {
            target.lose(|| random.one_in(3));
        }
        drop(target);
        self
    }

    /// A session whose copy has begun.
    fn begun(&self, random: &mut Random, bug: Option<Bug>) -> Session {
        let root = crate::sys::FileHandle::of(File::open(&self.backing).unwrap().as_fd()).unwrap();
        let forgets = if let Some(Bug::Owed(forgets)) = bug { Some(forgets) } else { None };
        let known = self.base.filter(|_| self.target.lock().lacks_what_is_owed());
        let mut session = self.session(random, bug);
        if let Some(base) = known {
            let (queue, root) = (self.queue.clone(), root);
            // By the map, or by a record of its own, from which things can be left out.
            let map = self.volume.map().cloned().filter(|_| forgets.is_none() && random.one_in(2));
            let owed = move || match &map {
                Some(map) => map.changed_since(base).map(Owed::from).unwrap(),
                None => owed::since(&queue, base, &root, forgets),
            };
            let before = owed();
            // Programs work meanwhile.
            Worker::new(&self.volume, random.clone()).run(random.below(4) as usize);
            session.copy = session.copy.only(Arc::new(before), Arc::new(move || Some(owed())), None);
        }
        if let (Some(since), true) = (self.since, self.target.lock().lacks_what_is_owed()) {
            session.copy = self.only_since(since, session.copy, bug);
        }
        session.copy.begin().unwrap();
        session
    }

    fn session(&self, random: &mut Random, bug: Option<Bug>) -> Session {
        let stream = Stream::new(self.queue.last(), Flow::Send);
        let (feed, lane) = PacketFeed::new(self.queue.clone(), stream.clone(), Arc::default());
        let (says, answers): (_, Receiver<Answer>) = unbounded();
        let wire = Arc::new(Mutex::new(Wire { feed, target: self.target.clone(), says }));
        let lane = lane.stamped(Waker::new());
        if let Some(Bug::Feed(planted)) = bug {
            lane.plant(planted);
        }
        let sink = Pump { lane, wire: wire.clone(), bug };
        let backing = OwnedFd::from(File::open(&self.backing).unwrap());
        let looks = Arc::new(Turning(self.volume.clone()));
        let copy = LiveCopy::new(backing, looks, 1, self.good_at, sink, answers, Arc::default()).unwrap();
        let sizes = Sizes { entries: 1 + random.below(4) as usize, bytes: 4096 };
        Session { copy: copy.in_pieces(sizes, bug.and_then(Bug::of_plan)), wire }
    }

    /// Sessions one after the other, the last one to its end; then what is left of the stream, once
    /// nobody changes anything any more.
    fn copy(&self, mut random: Random, bug: Option<Bug>) -> Arc<Mutex<Wire>> {
        let mut cuts = random.below(3);
        loop {
            let mut session = self.begun(&mut random, bug);
            let cut = (cuts > 0).then(|| 5 + random.below(150));
            match session.run(&mut random, cut) {
                true => return session.wire,
                false => cuts -= 1,
            }
        }
    }

    fn assert_same(&self) {
        let target = self.target.lock();
        let (is, has) = (backing(&self.backing), describe(&target));
        let wrong = is.keys().chain(has.keys()).find(|path| is.get(*path) != has.get(*path));
        if let Some(path) = wrong {
            let path_text = String::from_utf8_lossy(path).into_owned();
            let [is, has] = [is.get(path), has.get(path)].map(|one| one.map(shown));
            panic!("{path_text} differs: {is:?}, the target has {has:?}");
        }
    }
}

impl Session {
    /// `false`: it was cut.
    fn run(&mut self, random: &mut Random, cut: Option<u64>) -> bool {
        let mut idle = 0;
        for steps in 0..u64::from(STEPS_MAX) {
            turns::turn();
            if cut.is_some_and(|cut| steps >= cut) {
                return false;
            }
            if random.one_in(2) {
                self.wire.lock().deliver();
                continue;
            }
            match self.copy.step().unwrap() {
                Stepped::On => idle = 0,
                Stepped::Complete => return true,
                Stepped::Waits if self.wire.lock().deliver() => idle = 0,
                Stepped::Waits => idle += 1,
            }
            assert!(idle < 5000, "the copy waits, and the target has nothing to say");
        }
        panic!("the copy does not end");
    }
}

/// What an object is, for comparison.
type Described = (Birth, Attributes, Vec<Xattr>, Option<Vec<u8>>, Vec<u8>);

/// Of its content runs of one byte, as (byte, where it begins).
fn shown((birth, attributes, xattrs, content, same_as): &Described) -> String {
    let mut runs = Vec::new();
    for (at, byte) in content.iter().flatten().enumerate() {
        if runs.last().is_none_or(|(last, _)| last != byte) {
            runs.push((*byte, at));
        }
    }
    let len = content.as_ref().map(Vec::len);
    format!("{birth:?} {attributes:?} {xattrs:?} {len:?} {runs:?} {}", String::from_utf8_lossy(same_as))
}

fn backing(root: &Path) -> BTreeMap<Vec<u8>, Described> {
    let nodes = tree::nodes(root).into_iter();
    nodes
        .map(|(path, node)| (path, (node.birth, node.attributes, node.xattrs, node.content, node.same_as)))
        .collect()
}

fn describe(target: &Target) -> BTreeMap<Vec<u8>, Described> {
    let (mut found, mut firsts) = (BTreeMap::new(), BTreeMap::new());
    visit(target, 0, b".".to_vec(), &mut found, &mut firsts);
    found
}

fn visit(
    target: &Target,
    inode: u64,
    path: Vec<u8>,
    found: &mut BTreeMap<Vec<u8>, Described>,
    firsts: &mut BTreeMap<u64, Vec<u8>>,
) {
    let thing = &target.things[&inode];
    let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| Xattr {
        name: crate::packet::Bounded(name.clone()),
        value: crate::packet::Bounded(value.clone()),
    };
    let xattrs = thing.xattrs.iter().map(xattr).collect();
    let content = (thing.birth == Birth::File).then(|| thing.content.clone());
    let first = firsts.entry(inode).or_insert_with(|| path.clone()).clone();
    found.insert(path.clone(), (thing.birth.clone(), thing.attributes, xattrs, content, first));
    for (name, below) in &thing.names {
        let path = [&*path, b"/", name].concat();
        visit(target, *below, path, found, firsts);
    }
}

fn run(place: &Path, seed: u64, bug: Option<Bug>) -> u64 {
    let mut random = Random::new(seed ^ 0x5eed);
    let scene = match seed % 4 {
        3 => Scene::restarted(place, &mut random),
        kind => Scene::new(place).prepared(&mut random, kind % 2 == 0),
    };
    let order = Arc::new(Order::new(THREADS + 1, random.clone()));
    let planted_change = if let Some(Bug::Change(planted)) = bug { Some(planted) } else { None };
    let wire = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|number| {
                let (order, volume) = (order.clone(), scene.volume.clone());
                let mut random = Random::new(seed ^ ((number as u64 + 1) << 56));
                scope.spawn(move || {
                    turns::set(Some(Rc::new(Place::enter(order, number))));
                    planted::set(planted_change);
                    let changes = CHANGES / 2 + random.below(CHANGES);
                    Worker::new(&volume, random).run(changes as usize);
                    turns::set(None);
                })
            })
            .collect();
        let (order, scene) = (order.clone(), &scene);
        let copier = scope.spawn(move || {
            turns::set(Some(Rc::new(Place::enter(order, THREADS))));
            let outcome = catch_unwind(AssertUnwindSafe(|| scene.copy(random, bug)));
            turns::set(None);
            outcome
        });
        let wire = copier.join().unwrap();
        let workers: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        if let Some(Err(panic)) = workers.into_iter().find(Result::is_err) {
            resume_unwind(panic);
        }
        wire.unwrap_or_else(|panic| resume_unwind(panic))
    });
    while wire.lock().deliver() {}
    assert_eq!(scene.volume.divergence().why(), None, "nobody else was here");
    scene.assert_same();
    scene.target.lock().doubted
}

/// Each in a directory of its own; what was wrong with it, or how many doubts there were.
fn tried(ground: &Ground, seed: u64, bug: Option<Bug>) -> Result<u64, String> {
    let place = ground.place(&format!("live-{seed}"));
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&place, seed, bug)));
    let _ = std::fs::remove_dir_all(&place);
    outcome.map_err(|panic| said(&*panic))
}

#[test]
fn a_copy_that_runs_while_programs_work_is_right() {
    let ground = Ground::new();
    let mut doubts = 0;
    for seed in rounds(SEEDS) {
        match tried(&ground, seed, None) {
            Ok(more) => doubts += more,
            Err(wrong) => panic!("STANDIN_TEST_SEED={seed}: {wrong}"),
        }
    }
    println!("{doubts} doubts");
}

#[test]
fn every_bug_that_is_planted_in_a_live_copy_is_found() {
    let ground = Ground::new();
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        let find = |seed| tried(&ground, seed, Some(bug)).err().map(|wrong| (seed, wrong));
        let found = (1..=SEEDS_PLANTED).find_map(find);
        match found {
            Some((seed, wrong)) => println!("{bug:?}: seed {seed}: {wrong:.200}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// A target names what it likes: it learns nothing of what is not a directory of the set.
#[test]
fn what_is_doubted_outside_the_set_is_not_listed() {
    let ground = Ground::new();
    let place = ground.place("outside");
    let scene = Scene::new(&place);
    std::fs::create_dir(place.join("elsewhere")).unwrap();
    std::fs::write(place.join("elsewhere/secret"), "x").unwrap();
    std::fs::create_dir_all(scene.backing.join("a/b")).unwrap();
    std::fs::write(scene.backing.join("a/f"), "x").unwrap();
    let id = |path: &Path| {
        let fd = File::open(path).unwrap();
        let handle = crate::sys::FileHandle::of(std::os::fd::AsFd::as_fd(&fd)).unwrap();
        ObjectId::at_first_sight(1, &handle, std::os::unix::fs::MetadataExt::ino(&fd.metadata().unwrap()))
    };
    let inside = id(&scene.backing.join("a/b"));
    let nowhere = [
        id(&place.join("elsewhere")),
        id(&place),
        id(&scene.backing.join("a/f")),
        ObjectId { generation: inside.generation ^ 1, ..inside },
        ObjectId { birth_epoch: 7, ..inside },
    ];
    let mut session = scene.session(&mut Random::new(1), None);
    let mut shown = Vec::new();
    session.copy.begin().unwrap();
    let doubted = nowhere.iter().copied().chain([inside, scene.target.lock().alive_root()]).collect();
    session.wire.lock().says.send(Answer::Doubt(doubted)).unwrap();
    // The first steps: the doubts are taken up before the walk goes on.
    for _ in 0..12 {
        session.copy.step().unwrap();
    }
    for frame in session.wire.lock().feed.next_frames(1 << 20) {
        let raw: &[u8; PREFIX_LEN] = frame.head.first_chunk().unwrap();
        let frame =
            Prefix::decode(raw).unwrap().frame(raw, &frame.head[PREFIX_LEN..], frame.payload).unwrap();
        let FrameHeader::Item(item) = frame.header else { continue };
        match item.item {
            LaneItem::NotListed { dir } => shown.push((dir, false)),
            LaneItem::Listing { dir, .. } => shown.push((dir, true)),
            _ => {}
        }
    }
    for id in nowhere {
        assert!(shown.contains(&(id, false)), "{id} is answered: {shown:?}");
        assert!(!shown.contains(&(id, true)), "{id} is shown: {shown:?}");
    }
    assert!(shown.contains(&(inside, true)), "{inside} is listed: {shown:?}");
}
