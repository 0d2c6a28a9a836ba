//! The model test of a set with rules: random changes across its border. The replica has to be what the
//! rules leave of the backing directory; where capture says that something has to be compared, a copy runs
//! before.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Timespec, Timestamps};

use super::replica::Copy;
use super::{Ground, SEEDS, said, work};
use crate::intercept::Volume;
use crate::mutation::rounds;
use crate::packet::{Epoch, Incarnation, Position};
use crate::queue::Queue;
use crate::resync::Still;
use crate::sets::{DirRules, Matcher, Rule, Rules};

/// Over the names that the workers use.
const RULES: [&[&str]; 8] = [
    &["-c"],
    &["-a", "-e"],
    &["-/b"],
    &["-a/b", "-d/*"],
    &["+a", "+b", "+/d"],
    &["-*", "+c"],
    &["-b/", "-a/**/c"],
    &["~a", "-d", "+d/e"],
];

fn rules_of(seed: u64) -> Rules {
    let of = |text: &&str| match text.split_at(1) {
        ("+", pattern) => Rule::include(pattern),
        ("-", pattern) => Rule::exclude(pattern),
        (_, pattern) => Rule { is_recursive: false, ..Rule::exclude(pattern) },
    };
    Rules(RULES[seed as usize % RULES.len()].iter().map(of).collect())
}

/// Takes away what the rules leave out; directories keep their times.
fn prune(dir: &Path, matcher: &Matcher, rules: &DirRules) {
    let before = rustix::fs::stat(dir).unwrap();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, is_directory) = (entry.path(), entry.file_type().unwrap().is_dir());
        let name = entry.file_name();
        match matcher.enter(rules, name.as_bytes()) {
            Some(rules) if is_directory => prune(&path, matcher, &rules),
            _ if is_directory => fs::remove_dir_all(&path).unwrap(),
            _ if matcher.has_file(rules, name.as_bytes()) => {}
            _ => fs::remove_file(&path).unwrap(),
        }
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(before.st_atime, before.st_atime_nsec as _),
        last_modification: time(before.st_mtime, before.st_mtime_nsec as _),
    };
    rustix::fs::utimensat(rustix::fs::CWD, dir, &times, AtFlags::empty()).unwrap();
}

/// Whether a copy was needed.
fn run(place: &Path, seed: u64) -> bool {
    let backing = place.join("backing");
    fs::create_dir(&backing).unwrap();
    let start = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
    let queue = Queue::new(1 << 30, start);
    queue.attach(|_| ());
    let volume = Volume::new(File::open(&backing).unwrap().into(), queue.clone(), 1).unwrap();
    volume.watch_for_others();
    let rules = rules_of(seed);
    volume.set_rules(&rules).unwrap();
    let matcher = volume.matcher().unwrap();
    let mut copy = Copy::new(place, &volume, start);
    work(&volume, seed, None);
    let aside = copy.follow_with_faults(&queue);
    let why = volume.divergence().why();
    assert!(aside.is_empty() || why.is_some(), "set aside, and nobody says that it has to be: {aside:?}");
    assert_eq!(copy.aside(), Vec::<String>::new(), "what comes into the set is no fault of an object");
    if why.is_some() {
        copy.converge(&backing, Arc::new(Still(Some(matcher.clone()))), queue.last());
    }
    prune(&backing, &matcher, &matcher.root());
    prune(copy.root(), &matcher, &matcher.root());
    copy.assert_same(&backing);
    why.is_some()
}

#[test]
fn a_set_with_rules_arrives() {
    let ground = Ground::new();
    let mut compared: HashMap<bool, u32> = HashMap::new();
    let seeds = rounds(SEEDS);
    for &seed in &seeds {
        let place = ground.place(&format!("{seed}"));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&place, seed)));
        let _ = fs::remove_dir_all(&place);
        match outcome {
            Ok(was_compared) => *compared.entry(was_compared).or_default() += 1,
            Err(panic) => panic!("STANDIN_TEST_SEED={seed} ({:?}): {}", rules_of(seed), said(&*panic)),
        }
    }
    assert!(seeds.len() < 100 || compared.len() == 2, "nothing came over the border, or all: {compared:?}");
    println!("with a copy at the end, and without: {compared:?}");
}
