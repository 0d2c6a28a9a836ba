//! A source that loses power at any moment, with the log itself: of what its disk was not told to keep any part
//! stays, bytes and times apart. Whatever differs from the target then must be in doubt.

use std::sync::atomic::AtomicU64;

use super::planted::Planted;
use super::*;
use crate::random::Random;

/// Content and change time.
type Version = (u64, Timestamp);

struct Object {
    inode: u64,
    noted: AtomicU64,
    born: Timestamp,
    now: Version,
    /// The oldest one is on the disk for sure; `None`: nothing is.
    kept: Option<Version>,
    since: Vec<Version>,
}

/// The source's disk at some moment: it may be put back.
struct Image {
    objects: Vec<Option<Version>>,
    marked: u64,
}

/// A change under way.
struct Change {
    object: usize,
    step: Step,
    /// It began before the generation that counts, and before the moment that was taken.
    is_older: bool,
    is_before_moment: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Begun,
    /// With this content, at this position.
    Made(u64),
}

pub struct World {
    kept: Kept,
    pub random: Random,
    planted: Option<Planted>,
    objects: Vec<Object>,
    changes: Vec<Change>,
    content: u64,
    /// Of the target: packets, by position; how many it has applied, how many on its disk.
    packets: Vec<(usize, u64)>,
    applied: usize,
    durable: usize,
    moment: Option<(Timestamp, Option<usize>)>,
    mark: Option<(Timestamp, usize)>,
    /// A generation was begun and the one before did not go yet.
    is_rotated: bool,
    /// As of a sync that began when no older change was under way.
    is_synced: bool,
    images: Vec<Image>,
}

fn now() -> Timestamp {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timestamp { seconds: now.tv_sec, nanoseconds: now.tv_nsec as u32 }
}

impl World {
    pub fn new(seed: u64, planted: Option<Planted>) -> World {
        // Syncs of a disk are not what is tried here.
        let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let kept = Kept::begin_owing(memory.unwrap(), None);
        let mut world = World {
            kept,
            random: Random::new(seed),
            planted,
            objects: Vec::new(),
            changes: Vec::new(),
            content: 0,
            packets: Vec::new(),
            applied: 0,
            durable: 0,
            moment: None,
            mark: None,
            is_rotated: false,
            is_synced: false,
            images: Vec::new(),
        };
        // What was there before the start, on the disk and at the target.
        for inode in 0..4 {
            let version = (0, now());
            world.objects.push(Object {
                inode,
                noted: AtomicU64::new(0),
                born: version.1,
                now: version,
                kept: Some(version),
                since: Vec::new(),
            });
            world.packets.push((inode as usize, 0));
        }
        (world.applied, world.durable) = (4, 4);
        world.mark = Some((now(), 4));
        std::thread::sleep(Duration::from_micros(50));
        world.kept.last.store(4, SeqCst);
        world.next_generation();
        world.finish_generation();
        world.finish_generation();
        world
    }

    fn is(&self, planted: Planted) -> bool {
        self.planted == Some(planted)
    }

    pub fn act(&mut self) {
        match self.random.below(17) {
            0..=3 => self.begin_change(),
            4..=8 => self.go_on(),
            9 => self.create(),
            10 => self.next_generation(),
            11 => self.finish_generation(),
            12 => (0..=self.random.below(4)).for_each(|_| self.send()),
            13 => self.durable = self.applied,
            14 => self.take_moment(),
            15 => self.take_image(),
            _ => (0..2).for_each(|_| self.note()),
        }
    }

    fn begin_change(&mut self) {
        let last = self.objects.len() - 1;
        let object = if self.random.one_in(3) { last } else { self.random.below(last as u64 + 1) as usize };
        if self.changes.iter().any(|change| change.object == object) {
            return;
        }
        let is_late = self.is(Planted::HeatsAfterTheChange);
        if !is_late {
            self.heat(object);
        }
        // Another generation may begin between that and the locks.
        if self.random.one_in(4) {
            self.next_generation();
        }
        if !self.is(Planted::LooksOnce) && !is_late {
            self.heat(object);
        }
        self.changes.push(Change { object, step: Step::Begun, is_older: false, is_before_moment: false });
    }

    fn heat(&self, object: usize) {
        let Object { inode, noted, .. } = &self.objects[object];
        self.kept.log.heat(noted, super::object(*inode));
    }

    /// One of the changes under way is made, or gets its position.
    fn go_on(&mut self) {
        if self.changes.is_empty() {
            return;
        }
        let at = self.random.below(self.changes.len() as u64) as usize;
        let Change { object, step, .. } = self.changes[at];
        match step {
            Step::Begun => {
                self.content += 1;
                let version = (self.content, now());
                let changed = &mut self.objects[object];
                changed.now = version;
                changed.since.push(version);
                self.changes[at].step = Step::Made(version.0);
            }
            Step::Made(content) => {
                if self.is(Planted::HeatsAfterTheChange) {
                    self.heat(object);
                }
                self.packets.push((object, content));
                self.kept.last.store(self.packets.len() as u64, SeqCst);
                self.changes.swap_remove(at);
            }
        }
    }

    fn create(&mut self) {
        if self.objects.len() == 12 {
            return;
        }
        let (inode, version) = (self.objects.len() as u64, (0, now()));
        let noted = AtomicU64::new(0);
        self.kept.log.born(&noted, version.1);
        let born = Object { inode, noted, born: version.1, now: version, kept: None, since: vec![version] };
        self.objects.push(born);
        self.packets.push((self.objects.len() - 1, 0));
        self.kept.last.store(self.packets.len() as u64, SeqCst);
    }

    fn next_generation(&mut self) {
        if self.is_rotated {
            return;
        }
        assert!(self.kept.log.rotate(self.kept.log.prepare().unwrap()));
        self.changes.iter_mut().for_each(|change| change.is_older = true);
        (self.is_rotated, self.is_synced) = (true, false);
    }

    /// A sync, where all that was noted in the generation before has ended; then it goes.
    fn finish_generation(&mut self) {
        let are_over = !self.changes.iter().any(|change| change.is_older);
        if !self.is_rotated || !(are_over || self.is(Planted::SyncsTooEarly)) {
            return;
        }
        let marks_first = self.is(Planted::MarksBeforeTheSync);
        let is_first = !std::mem::replace(&mut self.is_synced, true);
        if is_first != marks_first {
            self.sync();
        } else {
            self.kept.log.mark().unwrap();
        }
        if !is_first {
            self.kept.log.settle(true);
            self.is_rotated = false;
        }
    }

    fn sync(&mut self) {
        if self.is(Planted::GivesUpWithoutSync) {
            return;
        }
        for object in &mut self.objects {
            object.kept = Some(object.now);
            object.since.clear();
        }
    }

    fn take_image(&mut self) {
        let objects = (0..self.objects.len()).map(|object| self.left(object)).collect();
        self.images.push(Image { objects, marked: self.kept.marked.load(SeqCst) });
    }

    fn send(&mut self) {
        if self.applied == self.packets.len() {
            return;
        }
        let may_go =
            || self.applied < self.kept.leave.load(SeqCst) as usize || self.is(Planted::SendsTooMuch);
        if !may_go() {
            self.kept.log.ask();
            eventually("the ceiling", may_go);
        }
        self.applied += 1;
    }

    fn take_moment(&mut self) {
        if self.moment.is_none() {
            self.moment = Some((now(), None));
            self.changes.iter_mut().for_each(|change| change.is_before_moment = true);
        }
    }

    /// The target had everything at the moment, once it has on its disk what had begun before.
    fn note(&mut self) {
        let are_over = !self.changes.iter().any(|change| change.is_before_moment);
        let Some((moment, upto)) = &mut self.moment else { return };
        if upto.is_none() && (are_over || self.planted == Some(Planted::NotesTooEarly)) {
            *upto = Some(self.packets.len());
        }
        let reached =
            if self.planted == Some(Planted::NotesWhatIsApplied) { self.applied } else { self.durable };
        if let Some(upto) = *upto
            && reached >= upto
        {
            self.mark = Some((*moment, upto));
            self.moment = None;
        }
    }

    /// What of an object is on the disk after a power loss.
    fn left(&mut self, object: usize) -> Option<Version> {
        let Object { kept, since, .. } = &self.objects[object];
        let versions: Vec<Version> = kept.iter().chain(since).copied().collect();
        if kept.is_none() && self.random.one_in(3) {
            return None;
        }
        let (content, time) = (*self.random.one_of(&versions), *self.random.one_of(&versions));
        Some((content.0, time.1))
    }

    /// The power is gone: what is wrong after it.
    pub fn lose_power(&mut self) -> Option<String> {
        let image = if self.random.one_in(3) { self.images.pop() } else { None };
        let marked = image.as_ref().map(|image| image.marked);
        let marked = marked.filter(|_| !self.is(Planted::TrustsAnOlderDisk));
        let found = self.kept.found_with(marked.unwrap_or(self.kept.marked.load(SeqCst)));
        let known = match found.all {
            // An image of before is not taken for what is known.
            Err(_) if image.is_some() => return None,
            all => all.expect("the log is whole from its first generation on"),
        };
        let applied = if self.random.one_in(3) { self.durable } else { self.applied };
        if applied as u64 > known.ceiling.0 {
            return Some(format!("{applied} packets were applied above the ceiling {}", known.ceiling));
        }
        let (moment, _) = self.mark.expect("the target had everything once");
        let hot = inodes(&known);
        let born = if self.is(Planted::ForgetsWhatIsBorn) {
            Timestamp { seconds: i64::MAX, nanoseconds: 0 }
        } else {
            known.since
        };
        let since = if self.is(Planted::ForgetsWhatIsBorn) { moment } else { known.since.min(moment) };
        for at in 0..self.objects.len() {
            let left = match &image {
                Some(image) => image.objects.get(at).copied().flatten(),
                None => self.left(at),
            };
            let Some((content, changed)) = left else { continue };
            let target = self.packets[..applied].iter().rev().find(|(object, _)| *object == at);
            let Some((_, on_target)) = target else { continue };
            let object = &self.objects[at];
            let is_suspect = hot.contains(&object.inode) || object.born >= born || changed >= since;
            if content != *on_target && !is_suspect {
                return Some(format!("{content} of {} is taken for {on_target}", object.inode));
            }
        }
        None
    }
}
