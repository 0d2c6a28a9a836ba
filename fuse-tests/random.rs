//! Random operations from three threads that hold handles across renames and unlinks, then
//! backing tree against replica, and the mount's view against the backing tree.
//!
//! `STANDIN_SEED=x` runs one seed, `STANDIN_SEEDS=n` so many new ones, `STANDIN_OPS=n` sets the
//! operations of each thread. Threads race, so a seed replays what each did, not who was first.

pub mod worker;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use crate::host::{Protected, Setup, heavy};
use crate::tree::{self, Rules};
use standin::random::Random;
use worker::{KINDS, Worker};

const THREADS: u64 = 3;
pub const OPS: u64 = 3000;
const SEEDS: u64 = 5;

/// A number from the environment.
pub fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Seeds to run: the one that is named, else as many new ones as wanted.
pub fn seeds(default: u64) -> Vec<u64> {
    if let Some(seed) = setting("STANDIN_SEED") {
        return vec![seed];
    }
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let mut random = Random::new(clock.as_nanos() as u64);
    (0..setting("STANDIN_SEEDS").unwrap_or(default)).map(|_| random.number() >> 16).collect()
}

/// Lets all threads work below `root`; gives how often each kind of operation succeeded.
pub fn work(root: &Path, seed: u64, ops: u64) -> BTreeMap<&'static str, u64> {
    let directory = File::open(root).expect("the root");
    let fd = directory.as_fd();
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || Worker::new(fd, root, Random::new(seed ^ (thread << 56))).run(ops))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker")).collect()
    });
    let mut done = BTreeMap::new();
    for (worker, unexpected) in results {
        assert!(unexpected.is_empty(), "seed {seed}: errors that no disk gives:\n{}", unexpected.join("\n"));
        worker.into_iter().for_each(|(kind, count)| *done.entry(kind).or_default() += count);
    }
    done
}

pub fn prepare(root: &Path) {
    for outer in worker::DIRECTORIES {
        for inner in worker::DIRECTORIES {
            fs::create_dir_all(root.join(outer).join(inner)).expect("a directory");
        }
    }
}

pub fn run_seed(seed: u64, ops: u64, arguments: &[&'static str]) -> BTreeMap<&'static str, u64> {
    println!("STANDIN_SEED={seed}");
    let protected = Protected::start(Setup { arguments: arguments.to_vec(), ..Setup::default() });
    prepare(&protected.mount);
    let done = work(&protected.mount, seed, ops);
    println!("{done:?}");
    let rules = Rules { hole_slack: 64 * 1024, ..Rules::default() };
    let seen = protected.assert_in_sync_by(&rules);
    assert!(seen.objects > 20, "seed {seed}: {seen:?}");
    let rules = Rules { ignore_times: true, ignore_holes: true, ..Rules::default() };
    tree::assert_same_by(&protected.mount, &protected.backing, &rules);
    done
}

/// Every kind of operation must have succeeded somewhere, or the test tests less than it says.
/// One seed alone may miss the rarest: about 1 in 60 never copied a range.
#[test]
fn random_operations_arrive() {
    let _alone = heavy();
    let ops = setting("STANDIN_OPS").unwrap_or(OPS);
    let seeds = seeds(SEEDS);
    let mut done: BTreeMap<&'static str, u64> = BTreeMap::new();
    for &seed in &seeds {
        run_seed(seed, ops, &[])
            .into_iter()
            .for_each(|(kind, count)| *done.entry(kind).or_default() += count);
    }
    if ops >= OPS && seeds.len() >= SEEDS as usize {
        let never: Vec<_> =
            KINDS.iter().map(|(kind, _)| kind).filter(|kind| !done.contains_key(*kind)).collect();
        assert!(never.is_empty(), "seeds {seeds:?}: never succeeded: {never:?}, of {done:?}");
    }
}

/// The operations must be what disks answer as well; else an error on the mount proves nothing.
#[test]
fn random_operations_work_on_a_plain_directory() {
    let dir = crate::host::dir_on_disk();
    prepare(dir.path());
    work(dir.path(), 1, 500);
}
