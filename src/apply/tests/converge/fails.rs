//! Whatever fails once in the middle of a frame, and is tried again, comes to the same: at each place in turn.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use super::*;
use crate::failpoint;

/// Places whose fault ends a copy by design.
const ENDS: [&str; 1] = ["sync"];

/// How often a place was passed, and at which one the disk is full.
#[derive(Clone, Default)]
pub struct Faults {
    passed: Rc<Cell<u64>>,
    at: Option<u64>,
    /// Where it was.
    hit: Rc<Cell<Option<&'static str>>>,
}

impl Faults {
    pub fn in_the_middle<R>(&self, act: impl FnOnce() -> R) -> R {
        let faults = self.clone();
        let hook = move |place: &'static str| {
            if ENDS.contains(&place) {
                return Ok(());
            }
            let number = faults.passed.replace(faults.passed.get() + 1);
            if faults.at != Some(number) {
                return Ok(());
            }
            faults.hit.set(Some(place));
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        };
        failpoint::with(Rc::new(hook), act)
    }
}

/// Gives how many places were passed, and where it failed.
fn run_failing(seed: u64, at: Option<u64>) -> Result<(u64, Option<&'static str>), String> {
    let faults = Faults { at, ..Faults::default() };
    let told = |error| format!("seed {seed}, fault {at:?} ({:?}): {error}", faults.hit.get());
    run_in(World { faults: Some(faults.clone()), ..World::new() }, seed).map_err(told)?;
    Ok((faults.passed.get(), faults.hit.get()))
}

/// A listing that could not be noted was tried again as one that nobody had asked for.
#[test]
fn what_fails_once_in_the_middle_is_no_matter() {
    const TRIED: u64 = 40;
    let only = std::env::var("STANDIN_TEST_FAULT").ok().map(|fault| fault.parse().expect("a number"));
    let mut hits = BTreeMap::<&str, u64>::new();
    for seed in seeds(24) {
        println!("seed {seed}");
        let (passed, _) = run_failing(seed, None).unwrap_or_else(|error| panic!("{error}"));
        let mut random = Random::new(!seed);
        let tried: Vec<u64> = match only {
            Some(fault) => vec![fault],
            None => (0..TRIED.min(passed)).map(|_| random.below(passed)).collect(),
        };
        for at in tried {
            let (_, hit) = run_failing(seed, Some(at)).unwrap_or_else(|error| panic!("{error}"));
            *hits.entry(hit.unwrap_or("nowhere")).or_default() += 1;
        }
    }
    println!("{hits:?}");
    assert!(
        seeds(24).len() < 24 || ["incomplete", "time", "bind"].iter().all(|place| hits.contains_key(place)),
        "{hits:?}"
    );
}
