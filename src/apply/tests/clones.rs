//! Clones of a replica that changes: each compared whole, when it is complete, with what the replica was at its
//! barrier. `STANDIN_TEST_SEED` replays one seed, `STANDIN_CLONE_SEEDS` says how many there are.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;

use super::*;
use crate::clone::{End, Force, Planted, Start, State, Stop, TestCopy, Turn, plant};
use crate::random::Random;

/// Sessions that are under way, with what each has to become.
pub struct Clones<D> {
    describe: fn(&Path) -> BTreeMap<PathBuf, D>,
    begun: u64,
    pub complete: u64,
    going: Vec<Going<D>>,
}

struct Going<D> {
    name: String,
    dir: PathBuf,
    expected: BTreeMap<PathBuf, D>,
    copy: Option<TestCopy>,
}

impl<D: PartialEq + Debug> Clones<D> {
    pub fn new(describe: fn(&Path) -> BTreeMap<PathBuf, D>) -> Clones<D> {
        Clones { describe, begun: 0, complete: 0, going: Vec::new() }
    }

    /// Begins one; what the replica is at this moment it has to become.
    pub fn start(&mut self, applier: &mut Applier, places: &Places, accepts_bad: bool) -> Result<(), String> {
        self.begun += 1;
        let (name, dir) =
            (format!("c{}", self.begun), places.root.with_file_name(format!("clone{}", self.begun)));
        let clones = applier.clones();
        let start = Start {
            name: name.clone(),
            dir: Some(dir.clone()),
            accepts_bad,
            room_max: None,
            keeps_off: Vec::new(),
        };
        let applier = RefCell::new(applier);
        clones
            .start(&start, || applier.borrow_mut().take_barrier())
            .map_err(|why| format!("clone {name} did not begin: {why}"))?;
        let expected = (self.describe)(&places.root);
        self.going.push(Going { name, dir, expected, copy: None });
        Ok(())
    }

    /// What was kept of a good replica is copied from now on, and has to become this.
    pub fn copy_good(
        &mut self,
        applier: &Applier,
        places: &Places,
        expected: BTreeMap<PathBuf, D>,
    ) -> Result<(), String> {
        self.begun += 1;
        let dir = places.root.with_file_name(format!("good{}", self.begun));
        let clones = applier.clones();
        let kept = clones.last_good().ok_or("nothing of what was good is kept")?;
        clones.copy(&kept.name, &dir, &[]).map_err(|why| format!("{} is not copied: {why}", kept.name))?;
        self.going.push(Going { name: kept.name, dir, expected, copy: None });
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.going.len()
    }

    /// The process was killed.
    pub fn killed(&mut self) {
        self.going.iter_mut().for_each(|going| going.copy = None);
    }

    /// A step of one of the copies.
    pub fn step(&mut self, applier: &mut Applier, random: &mut Random) -> Result<(), String> {
        if self.going.is_empty() {
            return Ok(());
        }
        let at = random.below(self.going.len() as u64) as usize;
        let going = &mut self.going[at];
        let name = going.name.clone();
        let in_clone = |why: String| format!("clone {name}: {why}");
        if going.copy.is_none() {
            going.copy = Some(applier.clones().copier(&going.name).map_err(in_clone)?);
            return Ok(());
        }
        let Some(copy) = &mut going.copy else { return Ok(()) };
        if copy.turn().map_err(in_clone)? == Turn::More {
            return Ok(());
        }
        let going = self.going.remove(at);
        self.complete += 1;
        let clones = applier.clones();
        clones.settle();
        let shown = clones.list().into_iter().find(|shown| shown.name == going.name);
        if shown.as_ref().map(|shown| shown.state) != Some(State::Split) {
            return Err(format!("clone {} is {shown:?}", going.name));
        }
        let found = (self.describe)(&going.dir);
        for path in going.expected.keys().chain(found.keys()) {
            let (there, here) = (going.expected.get(path), found.get(path));
            if there != here {
                return Err(format!("clone {}: {path:?} is {here:?}, at the barrier {there:?}", going.name));
            }
        }
        let stop = Stop { force: Force::No, removes: true };
        clones.stop(&going.name, stop).map_err(|why| why.to_string())?;
        match going.dir.exists() {
            true => Err(format!("clone {} was removed and is there", going.name)),
            false => Ok(()),
        }
    }

    pub fn finish(&mut self, applier: &mut Applier, random: &mut Random) -> Result<(), String> {
        while !self.going.is_empty() {
            self.step(applier, random)?;
        }
        Ok(())
    }
}

fn seeds(count: u64) -> Vec<u64> {
    if let Ok(seed) = std::env::var("STANDIN_TEST_SEED") {
        return vec![seed.parse().expect("a number")];
    }
    let count =
        std::env::var("STANDIN_CLONE_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(count);
    (1..=count).collect()
}

/// Random changes in order, while clones begin, are copied, and lose their process.
fn run(seed: u64) -> Result<u64, String> {
    let (mut pair, mut random) = (Pair::new(), Random::new(seed));
    let mut clones = Clones::new(tree::describe);
    let (mut changes, steps) = (0, random.below(4));
    while changes < 250 {
        let Some(said) = model::change(&pair.source, &mut random) else { continue };
        changes += 1;
        pair.say(said);
        if changes > 40 && clones.len() < 3 && random.one_in(25) {
            let places = pair.places.clone();
            clones.start(pair.applier(), &places, false)?;
        }
        for _ in 0..random.below(steps + 1) {
            clones.step(pair.applier(), &mut random)?;
        }
        match random.below(60) {
            0 => {
                clones.killed();
                pair.crash();
            }
            1..=4 => pair.applier().set_pending_times().map_err(|fault| fault.to_string())?,
            5 => pair.applier().durable_point().map_err(|fault| fault.to_string())?,
            _ => {}
        }
    }
    clones.finish(pair.applier(), &mut random)?;
    pair.applier().set_pending_times().map_err(|fault| fault.to_string())?;
    tree::assert_same(&pair.source.root, &pair.places.root);
    let left = std::fs::read_dir(pair.places.limbo.join("clones")).into_iter().flatten().count();
    if left > 0 { Err(format!("{left} areas are left")) } else { Ok(clones.complete) }
}

#[test]
fn clones_are_what_the_replica_was() {
    let mut complete = 0;
    for seed in seeds(15) {
        println!("seed {seed}");
        complete += run(seed).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    println!("{complete} clones");
    assert!(complete > 30 || seeds(15).len() < 15, "{complete}");
}

#[test]
fn every_rule_that_is_left_out_spoils_a_clone() {
    for planted in Planted::ALL {
        plant(Some(planted));
        let is_found = (1..=40).any(|seed| {
            let run = match planted {
                Planted::NotWhileConverging => super::converge::run_with_clones,
                _ => run,
            };
            !matches!(std::panic::catch_unwind(|| run(seed)), Ok(Ok(_)))
        });
        plant(None);
        assert!(is_found, "{planted:?}");
    }
}

/// A replica with something in it, and a clone of it that has begun.
fn begun(room_max: Option<u64>) -> (Pair, PathBuf) {
    let mut pair = Pair::new();
    pair.say(pair.source.mkdir("d", 0o755));
    pair.say(pair.source.create("d/f", 0o640));
    pair.say(pair.source.write("d/f", 0, &[7; 40_000]));
    let dir = pair.temp.path().join("clone");
    begin(&mut pair, &dir, room_max, false).unwrap();
    (pair, dir)
}

pub fn begin(pair: &mut Pair, dir: &Path, room_max: Option<u64>, accepts_bad: bool) -> Result<(), String> {
    let clones = pair.applier().clones();
    let start =
        Start { name: "one".into(), dir: Some(dir.to_owned()), accepts_bad, room_max, keeps_off: Vec::new() };
    let applier = RefCell::new(pair.applier());
    let begun = clones.start(&start, || applier.borrow_mut().take_barrier());
    begun.map(drop).map_err(|why| why.to_string())
}

fn only(pair: &mut Pair) -> crate::clone::Shown {
    let mut all = pair.applier().clones().list();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

pub fn copy_all(pair: &mut Pair) -> Result<(), String> {
    let mut copy = pair.applier().clones().copier("one")?;
    while copy.turn()? == Turn::More {}
    Ok(())
}

/// Replication goes on as if there were no clone; the clone says why it is none.
#[test]
fn an_area_at_its_limit_fails_its_clone_alone() {
    let (mut pair, dir) = begun(Some(20_000));
    pair.say(pair.source.write("d/f", 0, &[8; 10_000]));
    assert_eq!(only(&mut pair).state, State::Synchronizing);
    pair.say(pair.source.write("d/f", 10_000, &[9; 30_000]));
    pair.say(pair.source.create("g", 0o644));
    pair.assert_same();
    let shown = only(&mut pair);
    assert_eq!(shown.state, State::Failed);
    assert!(shown.reason.unwrap().contains("at its limit"));
    assert!(copy_all(&mut pair).is_err());
    // Another process finds it failed as well.
    pair.crash();
    assert_eq!(only(&mut pair).state, State::Failed);
    assert!(!dir.exists());
}

#[test]
fn what_is_not_complete_does_not_outlive_its_boot() {
    let (mut pair, dir) = begun(None);
    pair.say(pair.source.write("d/f", 0, b"later"));
    drop(pair.applier.take());
    let path = pair.places.state.join("clones/one/session.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let boot = crate::sys::boot_id().unwrap().to_string();
    assert!(text.contains(&boot));
    std::fs::write(&path, text.replace(&boot, "1")).unwrap();
    pair.crash();
    let shown = only(&mut pair);
    assert_eq!(shown.state, State::Failed);
    assert!(shown.reason.unwrap().contains("started anew"), "it says why");
    assert!(!dir.exists());
}

#[test]
fn a_complete_clone_needs_nothing_any_more() {
    let (mut pair, dir) = begun(None);
    pair.say(pair.source.unlink("d/f"));
    pair.say(pair.source.rmdir("d"));
    copy_all(&mut pair).unwrap();
    assert_eq!(std::fs::read(dir.join("d/f")).unwrap(), [7; 40_000]);
    pair.crash();
    let shown = only(&mut pair);
    assert!(shown.state == State::Split && shown.is_ready && shown.room == 0);
    assert!(!pair.places.limbo.join("clones/one").exists());
    let stop = Stop { force: Force::No, removes: false };
    pair.applier().clones().stop("one", stop).unwrap();
    assert!(dir.join("d/f").exists() && pair.applier().clones().list().is_empty());
    assert!(!pair.places.state.join("clones/one").exists());
}

/// Each with one line, and nothing changed.
#[test]
fn what_is_not_possible_is_refused() {
    let (mut pair, dir) = begun(None);
    let clones = pair.applier().clones();
    let stop =
        |force| clones.stop("one", Stop { force, removes: false }).map(drop).map_err(|why| why.to_string());
    assert!(stop(Force::No).unwrap_err().contains("--force"));
    assert_eq!(only(&mut pair).state, State::Synchronizing);
    let other = pair.temp.path().join("other");
    assert!(begin(&mut pair, &other, None, false).unwrap_err().contains("already"));
    assert_eq!(stop(Force::Yes), Ok(()));
    assert!(stop(Force::Yes).unwrap_err().contains("no such clone"));
    assert!(!dir.exists() && !pair.temp.path().join(".clone.standin-clone").exists());
    let table = [
        (pair.replica("below"), "belongs to the replica"),
        (pair.places.limbo.join("x"), "belongs to the replica"),
        (PathBuf::from("relative/x"), "absolute"),
        (pair.temp.path().join("missing/x"), "cannot be reached"),
        (pair.source.root.clone(), "is there already"),
    ];
    for (dir, why) in table {
        let refused = begin(&mut pair, &dir, None, false).unwrap_err();
        assert!(refused.contains(why) && !refused.contains('\n'), "{refused}");
    }
    pair.applier().replica().mark_bad("for a test").unwrap();
    let refused = begin(&mut pair, &dir, None, false).unwrap_err();
    assert!(refused.contains("for a test") && refused.contains("--accept-bad-data"), "{refused}");
    assert!(clones.list().is_empty());
    begin(&mut pair, &dir, None, true).unwrap();
    assert!(only(&mut pair).barrier.unwrap().is_bad);
    let left = std::fs::read_dir(pair.places.state.join("clones")).unwrap().count();
    assert_eq!(left, 1);
}

/// Nothing of it is left when the replica is good again, unless somebody had it copied meanwhile.
#[test]
fn the_last_good_state_is_kept_while_it_is_wanted() {
    let (mut pair, dir) = begun(None);
    let clones = pair.applier().clones();
    clones.stop("one", Stop { force: Force::Yes, removes: false }).unwrap();
    let name = |pair: &mut Pair| pair.applier().clones().last_good().map(|kept| kept.name);
    pair.applier().diverged("nobody wants it").unwrap();
    assert_eq!(name(&mut pair), None);
    pair.applier().replica().mark_good().unwrap();
    clones.keep_good(true);
    pair.applier().diverged("for a test").unwrap();
    pair.applier().diverged("for another").unwrap();
    let kept = only(&mut pair);
    assert!(
        kept.keeps_good && kept.dir.is_none() && !kept.is_ready && kept.state == State::Synchronizing,
        "{kept:?}"
    );
    assert!(!kept.barrier.unwrap().is_bad);
    pair.say(pair.source.write("d/f", 0, &[9; 40_000]));
    pair.crash();
    pair.applier().take_barrier();
    assert_eq!(name(&mut pair).as_deref(), Some("last-good"), "kept over a kill");
    pair.applier().replica().mark_good().unwrap();
    pair.applier().take_barrier();
    assert_eq!(pair.applier().clones().list(), []);
    assert_eq!(std::fs::read_dir(pair.places.limbo.join("clones")).unwrap().count(), 0);
    // And again; this time somebody needs it.
    pair.applier().clones().keep_good(true);
    pair.applier().diverged("for a test").unwrap();
    pair.say(pair.source.write("d/f", 0, &[7; 10_000]));
    pair.say(pair.source.unlink("d/f"));
    let clones = pair.applier().clones();
    let inside = pair.places.limbo.join("x");
    assert!(
        clones.copy("last-good", &inside, &[]).unwrap_err().to_string().contains("belongs to the replica")
    );
    clones.copy("last-good", &dir, &[]).unwrap();
    let again = clones.copy("last-good", &dir, &[]).unwrap_err().to_string();
    assert!(again.contains("has a directory already"), "{again}");
    pair.applier().replica().mark_good().unwrap();
    pair.applier().take_barrier();
    let mut copy = clones.copier("last-good").unwrap();
    while copy.turn().unwrap() == Turn::More {}
    assert_eq!(std::fs::read(dir.join("d/f")).unwrap(), [9; 40_000]);
    assert!(clones.copy("last-good", &inside, &[]).unwrap_err().to_string().contains("already"));
    assert!(matches!(clones.copy("other", &inside, &[]), Err(crate::clone::Refusal::Unknown)));
}

/// An immutable file keeps a directory from being removed by who lacks the capability: the session stays as one that
/// is being ended, whatever its worker comes to, and each further stop tries again.
#[test]
fn an_end_that_is_held_up_is_tried_again() {
    let (mut pair, dir) = begun(None);
    copy_all(&mut pair).unwrap();
    crate::xattr::immutable(&dir.join("d/f"), true);
    let clones = pair.applier().clones();
    let stop = |removes| {
        let shown = clones.stop("one", Stop { force: Force::No, removes });
        shown.map(|shown| shown.end).map_err(|why| why.to_string())
    };
    let first = stop(true);
    clones.fail_worker("one");
    clones.tend();
    let (shown, second) = (only(&mut pair), stop(true));
    crate::xattr::immutable(&dir.join("d/f"), false);
    assert!(first.unwrap_err().contains("d/f") && second.unwrap_err().contains("d/f"));
    assert_eq!((shown.state, shown.is_ready), (State::TerminationInProgress, false));
    assert!(dir.exists());
    // Somebody wants to keep it now: it is told that something of it has gone.
    assert_eq!(stop(false), Ok(Some(End::KeptInPart)));
    assert!(dir.exists());
    assert!(clones.list().is_empty() && !pair.places.state.join("clones/one").exists());
}

/// Of a clone that was given up nothing is left; of one whose directory was moved it is said.
#[test]
fn what_became_of_the_directory_is_told() {
    for (is_complete, is_moved, removes, expected) in [
        (true, false, false, End::Kept),
        (true, false, true, End::Removed),
        (true, true, true, End::NotThere),
        (true, true, false, End::NotThere),
        (false, false, false, End::NeverComplete),
    ] {
        let (mut pair, dir) = begun(None);
        if is_complete {
            copy_all(&mut pair).unwrap();
        }
        if is_moved {
            std::fs::rename(&dir, dir.with_file_name("elsewhere")).unwrap();
        }
        let ended = pair.applier().clones().stop("one", Stop { force: Force::Yes, removes }).unwrap();
        assert_eq!(ended.end, Some(expected), "{is_complete} {is_moved} {removes}");
        assert_eq!(dir.exists(), expected == End::Kept);
        assert_eq!(dir.with_file_name("elsewhere").exists(), is_moved);
    }
}

/// Places of other sets, of this daemon and of others.
#[test]
fn a_clone_does_not_lie_in_what_others_have() {
    let (mut pair, _) = begun(None);
    let temp = pair.temp.path().to_owned();
    for name in ["taken", ".other.standin", ".x.standin-clone", "marked", "marked/deep", "free"] {
        std::fs::create_dir(temp.join(name)).unwrap();
    }
    let marked = temp.join("marked");
    rustix::fs::setxattr(&marked, "trusted.standin.set", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    std::os::unix::fs::symlink(&marked, temp.join("link")).unwrap();
    let clones = pair.applier().clones();
    let keeps_off = vec![temp.join("taken")];
    for (dir, why) in [
        ("taken/in", "uses otherwise"),
        (".other.standin/in", "standin's own"),
        (".x.standin-clone/in", "standin's own"),
        (".new.standin", "standin's own"),
        ("marked/in", "a protected directory"),
        ("marked/deep/in", "a protected directory"),
        ("link/in", "a protected directory"),
    ] {
        let (name, dir, keeps_off) = ("two".into(), temp.join(dir), keeps_off.clone());
        let start = Start { name, dir: Some(dir.clone()), accepts_bad: false, room_max: None, keeps_off };
        let applier = RefCell::new(pair.applier());
        let refused = clones.start(&start, || applier.borrow_mut().take_barrier());
        let refused = refused.expect_err("it is refused").to_string();
        assert!(refused.contains(why), "{refused}");
        assert!(!dir.exists());
    }
    let (name, dir) = ("two".into(), Some(temp.join("free/in")));
    let start = Start { name, dir, accepts_bad: false, room_max: None, keeps_off };
    let applier = RefCell::new(pair.applier());
    clones.start(&start, || applier.borrow_mut().take_barrier()).unwrap();
}

/// What is immutable or append-only in a clone keeps nobody from removing it.
#[test]
fn a_clone_with_flags_is_removed() {
    use std::os::fd::AsFd;

    use crate::xattr::{Flags, Unflagged};
    let (mut pair, dir) = begun(None);
    let _unflagged = Unflagged(pair.temp.path().to_owned());
    copy_all(&mut pair).unwrap();
    for (name, flags) in [("d/f", Flags::APPEND_ONLY), ("d", Flags::IMMUTABLE)] {
        flags.set(std::fs::File::open(dir.join(name)).unwrap().as_fd()).unwrap();
    }
    pair.applier().clones().stop("one", Stop { force: Force::No, removes: true }).unwrap();
    assert!(!dir.exists() && pair.applier().clones().list().is_empty());
}
