//! Trees with everything that a file system can hold, brought to an empty, an older and a foreign replica, in each
//! mode, while programs rename, link, exchange and rewrite across the frontier of the copy.
//!
//! `STANDIN_SEED=x` runs one seed in each case, `STANDIN_SEEDS=n` so many new ones (each in the case whose turn
//! it is), `STANDIN_ODD_FILES=n` sets the size of the tree: files, beside a directory of twice as many names.
//! `STANDIN_ODD_ROUNDS=n` brings each tree so often to a replica of the case, with other changes each time: the tree
//! of a later round is what the programs of the one before have left.

pub mod fill;
mod load;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::host::{Protected, SYNC_MAX, Setup, StopAtEnd, heavy};
use crate::mirror::{connection, is_complete, told, wait_for_within};
use crate::random::{seeds, setting};
use crate::tree::Rules;
use fill::Names;

const FILES: u64 = 1500;
/// Programs that work meanwhile, and the most that each of them does.
const PROGRAMS: u64 = 2;
const STEPS: u64 = 200_000;
/// What is done to a replica past its target, and to a directory past its mount.
const DAMAGE: u64 = 300;

/// What the replica is before the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replica {
    Empty,
    /// In line once; since then it, and the directory, were changed by hand while nothing ran.
    Older(&'static str),
    /// Somebody else's tree, with many of the same names.
    Foreign,
}

const CASES: [Replica; 6] = [
    Replica::Empty,
    Replica::Older("full"),
    Replica::Older("differences"),
    Replica::Older("differences+checksum"),
    Replica::Older("checksum"),
    Replica::Foreign,
];

/// What flags keep goes all the same; and what is deep: the standard library takes half a minute for it.
pub struct Clean(pub PathBuf);

impl Drop for Clean {
    fn drop(&mut self) {
        ["source", "replica", "source/odd", "replica/odd"]
            .iter()
            .for_each(|side| fill::without_flags(&self.0.join(side)));
        let _ = Command::new("rm").arg("-rf").arg(self.0.join("source")).arg(self.0.join("replica")).status();
    }
}

fn run(seed: u64, case: Replica) -> u64 {
    let files = setting("STANDIN_ODD_FILES").unwrap_or(FILES) as usize;
    let rounds = setting("STANDIN_ODD_ROUNDS").unwrap_or(1);
    println!("STANDIN_SEED={seed} STANDIN_ODD_FILES={files} STANDIN_ODD_ROUNDS={rounds}: {case:?}");
    // A replica that was there and is empty is made anew only where that is said.
    let is_adopted = case == Replica::Foreign || case == Replica::Empty && rounds > 1;
    let arguments = if is_adopted { vec!["--adopt"] } else { Vec::new() };
    let mut protected = Protected::prepare(Setup { arguments, ..Setup::default() });
    // Dropped before it: its daemon has ended then, or the test fails.
    let _clean = Clean(protected.base.path().to_owned());
    let names = fill::fill(&protected.backing, seed, files);
    fill::with_flags(&protected.backing);
    let mut done = 0;
    for round in 0..rounds {
        let begun = Instant::now();
        // The first one is the seed itself.
        let seed = seed ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        prepare(&mut protected, case, (round, seed, files), &names);
        let prepared = begun.elapsed();
        done += copy_under_load(&mut protected, case, (seed, files), &names);
        let orphans = connection(&protected)["orphans"].clone();
        println!(
            "  round {round}: prepared in {prepared:?}, equal after {:?}, orphans {orphans}",
            begun.elapsed()
        );
        if case == Replica::Empty {
            assert_eq!(
                orphans["moved"].as_u64().unwrap_or(0),
                0,
                "whatever is not on the source was removed there"
            );
        }
        protected.stop();
    }
    done
}

/// The replica becomes what it is to be before the copy.
fn prepare(protected: &mut Protected, case: Replica, (round, seed, files): (u64, u64, usize), names: &Names) {
    if round > 0 && !matches!(case, Replica::Older(_)) {
        empty(&protected.replica);
    }
    match case {
        Replica::Empty => (),
        Replica::Foreign => {
            drop(fill::fill(&protected.replica, !seed, files));
            // The other way round.
            fill::with_other_flags(&protected.replica);
        }
        Replica::Older(_) => {
            if round == 0 {
                protected.start_at_once();
                wait(protected, files, "there", is_complete);
                protected.stop();
            }
            damage(protected, names, seed);
        }
    }
}

/// Programs work while it is copied, and what there is in the end is equal. Gives how much they did.
fn copy_under_load(
    protected: &mut Protected,
    case: Replica,
    (seed, files): (u64, usize),
    names: &Names,
) -> u64 {
    protected.start_at_once();
    let (protected, mount) = (&*protected, &protected.mount);
    let is_over = AtomicBool::new(false);
    let done = std::thread::scope(|scope| {
        let _stop = StopAtEnd(&is_over);
        let work = |program| load::work(mount, names, seed ^ (program << 56), STEPS, &is_over);
        let programs: Vec<_> = (1..=PROGRAMS).map(|program| scope.spawn(move || work(program))).collect();
        if let Replica::Older(mode) = case {
            copy_by_hand(protected, files, mode);
        } else {
            wait(protected, files, "complete", is_complete);
        }
        is_over.store(true, Relaxed);
        programs.into_iter().map(|program| program.join().expect("a program")).sum()
    });
    wait(protected, files, "good", is_complete);
    assert_equal(protected, files);
    done
}

/// Whatever is in it, what flags keep as well, the target's own state too.
fn empty(replica: &Path) {
    for place in [replica.to_owned(), replica.join("odd")] {
        fill::without_flags(&place);
    }
    let gone = Command::new("rm").arg("-rf").arg(replica).status().expect("rm");
    assert!(gone.success(), "the replica stays");
    std::fs::create_dir(replica).expect("an empty replica");
}

/// Both sides are changed while nothing runs.
fn damage(protected: &Protected, names: &Names, seed: u64) {
    let never = AtomicBool::new(false);
    for (side, seed) in [(&protected.replica, !seed), (&protected.backing, seed.rotate_left(9))] {
        assert!(load::work(side, names, seed, DAMAGE, &never) > 0);
    }
}

/// What a start does by itself comes first.
fn copy_by_hand(protected: &Protected, files: usize, mode: &str) {
    wait(protected, files, "in line", is_complete);
    let began = now_ms();
    told(protected, &["start", "--mode", mode]);
    wait(protected, files, "complete", |connection| is_since(connection, began) && is_complete(connection));
    assert_eq!(connection(protected)["progress"]["mode"], mode);
}

/// A large tree takes its time, the more on a machine that does other things as well.
fn wait(protected: &Protected, files: usize, what: &str, is_so: impl Fn(&Value) -> bool) {
    wait_for_within(patience(files), protected, what, is_so);
}

pub fn patience(files: usize) -> Duration {
    SYNC_MAX * (1 + files as u32 / 10_000)
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as u64
}

fn is_since(connection: &Value, began: u64) -> bool {
    connection["progress"]["started_unix_ms"].as_u64() >= Some(began)
}

fn assert_equal(protected: &Protected, files: usize) {
    let seen = protected.assert_in_sync_by(&Rules { hole_slack: 64 * 1024, ..Rules::default() });
    assert!(seen.objects > files, "{seen:?}");
}

/// The judge of equality has a frame of the stack for each level.
fn on_a_large_stack(act: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(1 << 30).spawn(act);
    if let Err(panic) = thread.expect("a thread").join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn everything_odd_is_mirrored_in_each_mode_while_programs_work() {
    let _alone = heavy();
    on_a_large_stack(|| {
        let cases = CASES.iter().cycle();
        let is_one = setting("STANDIN_SEED").is_some();
        let seeds = match seeds(CASES.len() as u64) {
            seeds if is_one => vec![seeds[0]; CASES.len()],
            seeds => seeds,
        };
        for (seed, &case) in seeds.into_iter().zip(cases) {
            let begun = Instant::now();
            let done = run(seed, case);
            assert!(done > 0, "no program did anything");
            println!(
                "  {done} changes meanwhile, {:?} in all",
                Duration::from_secs(begun.elapsed().as_secs())
            );
        }
    });
}
