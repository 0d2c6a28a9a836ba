//! The model test of a [`Volume`]: random changes from several threads, without a mount; the queue is
//! performed by an applier in the same process, and the replica has to be the backing directory.
//!
//! ```text
//!  workers ── one goes on at a time, who is decided by the seed ──> Volume ──> backing directory
//!  (order.rs)  at every lock, before and after every system call      │              ║ equal
//!                                                                   queue ─> Applier ─> replica
//! ```
//! One seed replays all of it: what each thread does, the order in which they come through, and where
//! the disk takes only a part of a write. `STANDIN_TEST_SEED` replays one seed, `STANDIN_TEST_ROUNDS`
//! asks for so many.

mod live;
mod marks;
mod members;
mod order;
mod replica;
mod worker;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::Volume;
use super::change::{Planted, planted, turns};
use crate::failpoint;
use crate::mutation::rounds;
use crate::packet::{Epoch, Incarnation, Position};
use crate::queue::Queue;
use crate::random::Random;
use order::{Order, Place};
use replica::Copy;
use worker::Worker;

const THREADS: usize = 3;
/// Changes of each thread.
const CHANGES: usize = 40;
/// A plain run takes so many seeds.
const SEEDS: u64 = 1000;
/// A planted bug that is not found within so many seeds is not caught.
const SEEDS_PLANTED: u64 = 10_000;

/// A small file system in memory, taken away again whatever the test does.
struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Ground {
        let dir = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", dir.path(), "tmpfs", flags, None).unwrap();
        Ground { dir }
    }

    /// An empty place for one seed.
    fn place(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.dir.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// One seed, from two empty directories.
fn run(place: &Path, seed: u64, planted: Option<Planted>) {
    let backing = place.join("backing");
    std::fs::create_dir(&backing).unwrap();
    let start = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
    let queue = Queue::new(1 << 30, start);
    queue.attach(|_| ());
    let fd = std::fs::File::open(&backing).unwrap().into();
    let volume = Volume::new(fd, queue.clone(), 1).unwrap();
    volume.watch_for_others();
    let mut copy = Copy::new(place, &volume, start);
    work(&volume, seed, planted);
    assert_eq!(volume.divergence().why(), None, "what was done is told");
    copy.follow(&queue);
    copy.assert_same(&backing);
}

fn work(volume: &Volume, seed: u64, planted: Option<Planted>) {
    work_beside(volume, seed, planted, || ());
}

/// The first thread does something else, too.
fn work_beside(volume: &Volume, seed: u64, planted: Option<Planted>, beside: impl FnMut() + Send) {
    let mut beside = Some(beside);
    let order = Arc::new(Order::new(THREADS, Random::new(seed)));
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (order, beside) = (order.clone(), beside.take());
                let random = Random::new(seed ^ ((number as u64 + 1) << 56));
                scope.spawn(move || {
                    let place = Rc::new(Place::enter(order, number));
                    turns::set(Some(place));
                    planted::set(planted);
                    failpoint::set(Some(worker::disk(random.clone())));
                    let worker = Worker::new(volume, random);
                    match beside {
                        Some(beside) => worker.run_beside(CHANGES, beside),
                        None => worker.run(CHANGES),
                    }
                })
            })
            .collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    if let Some(Err(panic)) = outcomes.into_iter().find(Result::is_err) {
        resume_unwind(panic);
    }
}

fn tried(ground: &Ground, seed: u64, planted: Option<Planted>) -> Result<(), String> {
    tried_in(ground, seed, |place| run(place, seed, planted))
}

/// Each in a directory of its own; what was wrong with it.
fn tried_in(ground: &Ground, seed: u64, run: impl FnOnce(&Path)) -> Result<(), String> {
    let place = ground.place(&format!("{seed}"));
    let outcome = catch_unwind(AssertUnwindSafe(|| run(&place)));
    let _ = std::fs::remove_dir_all(&place);
    outcome.map_err(|panic| said(&*panic))
}

/// The first line of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn changes_of_several_threads_arrive() {
    let ground = Ground::new();
    for seed in rounds(SEEDS) {
        if let Err(wrong) = tried(&ground, seed, None) {
            panic!("STANDIN_TEST_SEED={seed}: {wrong}");
        }
    }
}

#[test]
fn every_planted_bug_is_found() {
    let ground = Ground::new();
    for planted in Planted::ALL {
        let find = |seed| tried(&ground, seed, Some(planted)).err().map(|wrong| (seed, wrong));
        let (seed, wrong) =
            (1..=SEEDS_PLANTED).find_map(find).unwrap_or_else(|| panic!("{planted:?} was not found"));
        println!("{planted:?}: seed {seed}: {wrong}");
    }
}
