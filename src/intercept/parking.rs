//! Room for readers: changes that would wait for the queue leave the threads that serve requests.
//!
//! ```text
//!  serving thread: nothing waits, room for all that serving threads can ask for, and another one
//!       │          is free ── yes ──> the change, here: it never waits for room
//!       └─ no ──> parked, as data ──> a few workers, first come, first served: they wait for room
//!                    ^
//!                    └── some milliseconds later: a disk that is full only until the kernel
//!                        forgets removed files
//! ```
//! Names and attributes go on for a while when content has to wait already: what the queue keeps for
//! them. However many writers wait, no thread waits for them but the few workers, and reads have a thread
//! of their own. A write that waits holds its bytes: of all together, and of one user, only so many
//! ([`PARKED_BYTES_MAX`]); beyond that a write is taken in part, as `write(2)` allows.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::limits::{
    PARKED_BYTES_MAX, PARKED_BYTES_PER_USER, PARKING_WORKERS, PAYLOAD_LEN_MAX, XATTR_VALUE_LEN_MAX,
};
use crate::queue::Queue;

/// What a change puts into the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Bytes of files.
    Content,
    /// Names and attributes: little, and the kernel keeps a directory locked for it.
    Names,
}

/// Most that one of them holds in the queue: an extended attribute and its header.
const NAMES_LEN_MAX: usize = 2 * XATTR_VALUE_LEN_MAX;

/// Stack of a thread that performs one change, bytes.
const STACK: usize = 512 << 10;
/// A worker that has had nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(10);
/// The least part of a write that is taken: up to the next page.
const PAGE: u64 = 4096;

/// What is to be done, and since when.
struct Job {
    change: Box<dyn FnOnce() + Send>,
    since: Instant,
}

thread_local! {
    static NEVER_WAITS: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread serves requests: it may not wait for room in the queue.
pub fn never_waits() -> bool {
    NEVER_WAITS.get()
}

/// Decides where a change runs, and runs it there. Clones share everything.
#[derive(Clone)]
pub struct Parking(Arc<Shared>);

struct Shared {
    queue: Arc<Queue>,
    /// Bytes that all serving threads together can ask for at once.
    margin: usize,
    margin_of_names: usize,
    /// Serving threads that perform a change, and how many at most.
    changing: AtomicUsize,
    changing_max: usize,
    parked: Mutex<Parked>,
    more: Condvar,
}

/// A leaf lock.
#[derive(Default)]
struct Parked {
    jobs: VecDeque<Job>,
    later: VecDeque<(Instant, Box<dyn FnOnce() + Send>)>,
    workers: usize,
    idle: usize,
    /// Bytes held by writes that wait, in all and for each user.
    held: usize,
    held_by: HashMap<u32, usize>,
}

/// Bytes of a write that waits; given back on drop.
pub struct Held {
    shared: Arc<Shared>,
    uid: u32,
    pub len: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut parked = self.shared.parked.lock();
        assert!(parked.held >= self.len, "a write that waits gives back more than it held");
        parked.held -= self.len;
        if let Some(held) = parked.held_by.get_mut(&self.uid) {
            *held -= self.len;
            if *held == 0 {
                parked.held_by.remove(&self.uid);
            }
        }
    }
}

impl Shared {
    fn perform(&self, job: Job) {
        self.queue.end_wait(job.since.elapsed());
        (job.change)();
    }
}

impl Parking {
    /// `threads` serve requests.
    pub fn new(queue: Arc<Queue>, threads: usize) -> Parking {
        // With very many threads and a small queue most of it stays usable.
        let margin = (threads * (PAYLOAD_LEN_MAX + (64 << 10))).min(queue.limit() / 2);
        let changing_max = threads.saturating_sub(1).max(1);
        Parking(Arc::new(Shared {
            queue,
            margin,
            margin_of_names: threads * NAMES_LEN_MAX,
            changing: AtomicUsize::new(0),
            changing_max,
            parked: Mutex::default(),
            more: Condvar::new(),
        }))
    }

    /// Lets a change be performed on this serving thread, for as long as the answer lives: it need not
    /// wait, and another thread stays free. `None`: park it.
    pub fn enter(&self, carries: Carries) -> Option<Serving<'_>> {
        let is_free = self.0.changing.fetch_add(1, SeqCst) < self.0.changing_max;
        let serving = Serving(&self.0.changing);
        let passes = is_free
            && match carries {
                Carries::Content => {
                    self.0.parked.lock().jobs.is_empty() && self.0.queue.has_room(self.0.margin)
                }
                Carries::Names => self.0.queue.has_room_for_names(self.0.margin_of_names),
            };
        NEVER_WAITS.set(passes);
        passes.then_some(serving)
    }

    /// Performs a change on a worker, when those before it are through.
    pub fn park(&self, change: impl FnOnce() + Send + 'static) {
        self.0.queue.begin_wait();
        let mut parked = self.0.parked.lock();
        parked.jobs.push_back(Job { change: Box::new(change), since: Instant::now() });
        let hands = parked.idle < parked.jobs.len() && parked.workers < PARKING_WORKERS;
        parked.workers += usize::from(hands);
        assert!(parked.workers > 0, "a change is parked and nobody comes for it");
        drop(parked);
        self.0.more.notify_one();
        if hands && let Err(error) = self.start_worker() {
            log::warn!("no thread for a writer that waits for room: {error}");
            let mut parked = self.0.parked.lock();
            parked.workers -= 1;
            let job = if parked.workers == 0 { parked.jobs.pop_back() } else { None };
            drop(parked);
            job.into_iter().for_each(|job| self.0.perform(job));
        }
    }

    /// As [`Parking::park`], not before `after` has passed.
    pub fn park_later(&self, after: Duration, change: impl FnOnce() + Send + 'static) {
        let due = Instant::now() + after;
        self.0.parked.lock().later.push_back((due, Box::new(change)));
        // Whoever takes the next job looks for it; there may be no worker.
        self.park(|| ());
    }

    /// How many of the bytes of a write may be kept while it waits: all `len`, or those up to the
    /// next page.
    pub fn hold(&self, uid: u32, offset: u64, len: usize) -> Held {
        let mut parked = self.0.parked.lock();
        let by_user = parked.held_by.get(&uid).copied().unwrap_or(0);
        let share = if uid == 0 { PARKED_BYTES_MAX } else { PARKED_BYTES_PER_USER };
        let fits = parked.held + len <= PARKED_BYTES_MAX && by_user + len <= share;
        let len = if fits { len } else { len.min((PAGE - offset % PAGE) as usize) };
        parked.held += len;
        *parked.held_by.entry(uid).or_default() += len;
        Held { shared: self.0.clone(), uid, len }
    }

    fn start_worker(&self) -> std::io::Result<()> {
        let shared = self.0.clone();
        let builder = std::thread::Builder::new().name("waiting".into()).stack_size(STACK);
        builder.spawn(move || Worker(shared).work()).map(drop)
    }

    /// Runs what waits for something else than room on a thread of its own: parked changes may be what
    /// it waits for. Here, if there is none to be had.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let job = Arc::new(Mutex::new(Some(job)));
        let spawned = std::thread::Builder::new().name("waiting".into()).stack_size(STACK).spawn({
            let job = job.clone();
            move || {
                let job = job.lock().take();
                job.into_iter().for_each(|job| job());
            }
        });
        if let Err(error) = spawned {
            log::warn!("no thread for what has to wait: {error}");
            let job = job.lock().take();
            job.into_iter().for_each(|job| job());
        }
    }
}

/// A serving thread that performs a change, while it lives.
pub struct Serving<'a>(&'a AtomicUsize);

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        NEVER_WAITS.set(false);
        let before = self.0.fetch_sub(1, SeqCst);
        assert!(before > 0, "a thread ends a change that it has not begun");
    }
}

/// A thread that may wait.
struct Worker(Arc<Shared>);

impl Worker {
    fn work(self) {
        while let Some(job) = self.next() {
            self.0.perform(job);
        }
    }

    /// `None`: there was nothing for long.
    fn next(&self) -> Option<Job> {
        let mut parked = self.0.parked.lock();
        let until = Instant::now() + IDLE;
        loop {
            let now = Instant::now();
            if let Some(job) = parked.jobs.pop_front() {
                return Some(job);
            }
            // They wait equally long: the first is the next.
            let due = parked.later.front().map(|(due, _)| *due);
            if due.is_some_and(|due| due <= now) {
                let (since, change) = parked.later.pop_front()?;
                self.0.queue.begin_wait();
                return Some(Job { change, since });
            }
            if due.is_none() && now >= until {
                return None;
            }
            parked.idle += 1;
            self.0.more.wait_until(&mut parked, due.unwrap_or(until));
            parked.idle -= 1;
        }
    }
}

impl Drop for Worker {
    /// After a panic too.
    fn drop(&mut self) {
        let mut parked = self.0.parked.lock();
        assert!(parked.workers > 0, "a worker ends that was not counted");
        parked.workers -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Epoch, Incarnation, Position};

    fn queue() -> Arc<Queue> {
        Queue::new(32 << 20, Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3)))
    }

    /// From 256 waiting writers on the threads that serve requests waited too, and nobody could read.
    #[test]
    fn thousands_wait_and_no_serving_thread_does() {
        let queue = queue();
        let full = queue.reserve(0, 36 << 20).unwrap();
        let parking = Parking::new(queue.clone(), 4);
        let done = Arc::new(AtomicUsize::new(0));
        let threads_before = threads();
        for _ in 0..3000 {
            let (queue, counted) = (queue.clone(), done.clone());
            let change = move || {
                let _room = queue.reserve(1 << 10, 0).unwrap();
                counted.fetch_add(1, SeqCst);
            };
            assert!(parking.enter(Carries::Content).is_none(), "it would have waited here");
            parking.park(change);
        }
        assert!(threads() <= threads_before + PARKING_WORKERS + 20, "other tests run beside this one");
        assert_eq!(done.load(SeqCst), 0);
        assert!(parking.enter(Carries::Names).is_none(), "the queue is full to the last byte");
        drop(full);
        let deadline = Instant::now() + Duration::from_secs(60);
        while done.load(SeqCst) < 3000 {
            assert!(Instant::now() < deadline, "{} of 3000", done.load(SeqCst));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn threads() -> usize {
        std::fs::read_dir("/proc/self/task").unwrap().count()
    }

    /// Slow changes took every thread, also from reads that had nothing to do with them.
    #[test]
    fn one_serving_thread_is_never_taken_by_changes() {
        let parking = Parking::new(queue(), 3);
        let first = parking.enter(Carries::Content).unwrap();
        let second = parking.enter(Carries::Content).unwrap();
        assert!(never_waits());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(parking.enter(Carries::Content).is_none()));
        });
        drop(second);
        let second = parking.enter(Carries::Content);
        assert!(second.is_some());
        drop((first, second));
        assert!(!never_waits());
    }

    #[test]
    fn what_waits_holds_no_more_than_its_share() {
        let parking = Parking::new(queue(), 4);
        let mut held: Vec<Held> = Vec::new();
        let mut taken = 0;
        for _ in 0..1000 {
            held.push(parking.hold(7, 0, 1 << 20));
            taken += held.last().unwrap().len;
        }
        assert!(taken <= PARKED_BYTES_PER_USER + 1000 * 4096, "{taken}");
        assert_eq!(parking.hold(7, 4000, 1 << 20).len, 96, "up to the next page");
        assert_eq!(parking.hold(8, 0, 1 << 20).len, 1 << 20, "another user has a share of their own");
        held.clear();
        assert_eq!(parking.hold(7, 0, 1 << 20).len, 1 << 20);
    }

    #[test]
    fn what_comes_later_comes() {
        let parking = Parking::new(queue(), 4);
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let since = Instant::now();
        parking.park_later(Duration::from_millis(30), move || sender.send(()).unwrap());
        receiver.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(since.elapsed() >= Duration::from_millis(30));
    }

    /// A creation that waited kept its directory locked in the kernel: nobody could open what is in it.
    #[test]
    fn names_go_on_while_content_waits() {
        let queue = queue();
        let parking = Parking::new(queue.clone(), 4);
        let _content = queue.reserve(0, (32 << 20) - (2 << 10)).unwrap();
        assert!(parking.enter(Carries::Content).is_none());
        parking.park({
            let queue = queue.clone();
            move || drop(queue.reserve(1 << 20, 0))
        });
        assert!(parking.enter(Carries::Names).is_some());
        queue.close();
    }
}
