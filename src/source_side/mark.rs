//! Moments up to which a target had everything, and when they are still worth something.
//!
//! A start asks of each file whether it changed after the mark, by its change time. That is an
//! answer only where
//! - the clock that stamps changes has not been set since: within one boot its distance from the
//!   clock that nobody can set (`CLOCK_BOOTTIME`) is the same; another boot has to begin after the
//!   mark, and its clock must not have been behind before;
//! - the source still has what it had shown to its targets: after a power loss it may be *behind*
//!   them, with old bytes under times that say nothing of it. Either the last run ended in an
//!   orderly way and its changes are on disk, or their page cache is still there (same boot, same
//!   mount).
//!
//! Whatever does not fit makes everything suspect.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FsWord, StatxFlags};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::map::{Changed, Map};
use crate::packet::{Incarnation, Position, Sequence, Timestamp};

/// Clocks of a file system tick coarser than the system's: what happened this long before a
/// moment still counts as after it.
pub(super) const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// A leap second. Adjusting a clock's rate (NTP) moves both clocks alike: anything more is a set
/// clock. Smaller than [`CLOCK_SLACK`], which makes up for it.
const STEP_MIN_MS: i64 = 1000;

const _: () = assert!((STEP_MIN_MS as u128) < CLOCK_SLACK.as_millis());

/// What changed at the beginning of time or later: everything.
pub const EVERYTHING: Timestamp = Timestamp { seconds: i64::MIN, nanoseconds: 0 };

/// A target had everything that happened before this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    as_of: Timestamp,
    boot: String,
    /// When this boot began, by the clock that stamped `as_of`; milliseconds since 1970.
    booted_ms: i64,
    /// How far the target was by then, on its disk; `None` where that was not noted.
    #[serde(default)]
    reached: Option<Reached>,
}

/// A position that a target had made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    pub run: Incarnation,
    pub sequence: Sequence,
}

impl Mark {
    /// This moment, on the safe side.
    pub fn now() -> Mark {
        Clock::now().mark()
    }

    /// A moment by the clock that stamps changes where they are made.
    pub(crate) fn of(as_of: Timestamp) -> Mark {
        Mark { as_of, ..Mark::now() }
    }

    /// The target had all of it when it had made this durable.
    pub fn reached(self, reached: Reached) -> Mark {
        Mark { reached: Some(reached), ..self }
    }

    /// It was noted in this run.
    pub fn is_of(&self, run: Incarnation) -> bool {
        self.reached.is_some_and(|reached| reached.run == run)
    }

    /// A target that has made `durable` durable was farther when this was noted: it was set back. `runs`:
    /// those of this source, the oldest first.
    fn was_farther(&self, durable: &Position, runs: &[Incarnation]) -> bool {
        let Some(reached) = self.reached else { return false };
        let number = |run: Incarnation| runs.iter().position(|&known| known == run);
        match (number(reached.run), number(durable.incarnation)) {
            (Some(then), Some(now)) if then == now => durable.sequence < reached.sequence,
            (Some(then), Some(now)) => now < then,
            // Of a run that nobody remembers, or of another source: no time says what it has.
            (None, _) | (_, None) => true,
        }
    }

    /// What changed at this moment or later may be missing.
    pub fn suspect_since(&self, clock: &Clock) -> Timestamp {
        if clock.fits(self) { self.as_of } else { EVERYTHING }
    }
}

/// The newest mark of each target, as it was typed: of earlier runs until this one has newer ones.
#[derive(Default)]
pub struct Marks(Mutex<Noted>);

#[derive(Default)]
struct Noted {
    marks: BTreeMap<String, Mark>,
    runs: Vec<Incarnation>,
    /// In this run.
    has_forgotten: bool,
}

impl Marks {
    /// `runs`: those of this source, the oldest first.
    pub fn set(&self, marks: &BTreeMap<String, Mark>, runs: &[Incarnation]) {
        let mut noted = self.0.lock();
        (noted.marks, noted.runs) = (marks.clone(), runs.to_vec());
    }

    /// Another run begins.
    #[cfg(test)]
    pub(crate) fn begin_run(&self, run: Incarnation) {
        self.0.lock().runs.push(run);
    }

    /// Moments of before say nothing any more, those neither that nobody has noted yet.
    pub fn forget(&self) {
        let mut noted = self.0.lock();
        noted.marks.clear();
        noted.has_forgotten = true;
    }

    /// Since the start.
    pub fn have_forgotten(&self) -> bool {
        self.0.lock().has_forgotten
    }

    /// This target has everything as of a newer moment.
    pub fn advance(&self, target: &str, mark: Mark) {
        self.0.lock().marks.insert(target.to_owned(), mark);
    }

    /// A target that says this of itself had been farther by its mark.
    pub fn were_farther(&self, target: &str, durable: &Position) -> bool {
        let Noted { marks, runs, .. } = &*self.0.lock();
        marks.get(target).is_some_and(|mark| mark.was_farther(durable, runs))
    }

    /// Whether a target that has applied this has all that its mark speaks of, and nothing but of runs that are
    /// known.
    pub fn leads_to(&self, target: &str, applied: &Position) -> bool {
        let Noted { marks, runs, .. } = &*self.0.lock();
        marks.get(target).is_some_and(|mark| mark.reached.is_some() && !mark.was_farther(applied, runs))
    }

    /// What daemons before have marked, as kept in this map, since the target had everything. `None`: it is not known.
    pub fn left_on(&self, map: &Map, target: &str) -> Option<Changed> {
        let Noted { marks, runs, .. } = &*self.0.lock();
        let Reached { run, sequence } = marks.get(target)?.reached?;
        map.left_since(runs, (run, sequence))
    }

    /// How far a target was when its mark was noted.
    pub fn reached(&self, target: &str) -> Option<Reached> {
        self.0.lock().marks.get(target).and_then(|mark| mark.reached)
    }

    /// What changed at this moment or later may be missing on the target although size and
    /// mtime are the same. A target that was never in sync gets the beginning of time.
    pub fn suspect_since(&self, target: &str, clock: &Clock) -> Timestamp {
        self.0.lock().marks.get(target).map_or(EVERYTHING, |mark| mark.suspect_since(clock))
    }
}

/// The clock that stamps changes, as it is read now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    boot: String,
    wall_ms: i64,
    /// When this boot began, by this clock.
    booted_ms: i64,
    /// Something that was made in this boot, by the clock of that moment.
    early_ms: Option<i64>,
}

impl Clock {
    pub fn now() -> Clock {
        let (wall_ms, booted_ms) = wall_and_boot();
        Clock { boot: boot_id(), wall_ms, booted_ms, early_ms: birth_of_run() }
    }

    fn mark(&self) -> Mark {
        let as_of = self.wall_ms - CLOCK_SLACK.as_millis() as i64;
        Mark { as_of: timestamp_ms(as_of), boot: self.boot.clone(), booted_ms: self.booted_ms, reached: None }
    }

    fn fits(&self, mark: &Mark) -> bool {
        if self.boot.is_empty() {
            return false;
        }
        if self.boot == mark.boot {
            return !is_step(self.booted_ms, mark.booted_ms);
        }
        let as_of_ms = mark
            .as_of
            .seconds
            .saturating_mul(1000)
            .saturating_add(i64::from(mark.as_of.nanoseconds / 1_000_000));
        let was_behind = self.early_ms.is_some_and(|early| early < self.booted_ms - STEP_MIN_MS);
        self.booted_ms >= as_of_ms && !was_behind
    }
}

/// Sees that the clock is set, also there and back, while this process runs.
pub struct ClockWatch {
    booted_ms: i64,
}

impl ClockWatch {
    pub fn begin() -> ClockWatch {
        ClockWatch { booted_ms: wall_and_boot().1 }
    }

    /// As [`ClockWatch::was_set`], and the next look finds it again.
    pub fn is_set(&self) -> bool {
        is_step(wall_and_boot().1, self.booted_ms)
    }

    /// Whether it was set since the last look. Costs next to nothing.
    pub fn was_set(&mut self) -> bool {
        let booted_ms = wall_and_boot().1;
        let was_set = is_step(booted_ms, self.booted_ms);
        if was_set {
            self.booted_ms = booted_ms;
        }
        was_set
    }
}

/// `ms`: since 1970.
fn timestamp_ms(ms: i64) -> Timestamp {
    Timestamp { seconds: ms.div_euclid(1000), nanoseconds: ms.rem_euclid(1000) as u32 * 1_000_000 }
}

/// This moment, and when this boot began, both by the clock that can be set; milliseconds.
fn wall_and_boot() -> (i64, i64) {
    let boottime = clock_gettime(ClockId::Boottime);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    (wall, wall - (boottime.tv_sec * 1000 + boottime.tv_nsec / 1_000_000))
}

fn is_step(one_ms: i64, other_ms: i64) -> bool {
    one_ms.abs_diff(other_ms) > STEP_MIN_MS.unsigned_abs()
}

/// Empty where the kernel does not say; then nothing fits.
fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// `/run` is made early in every boot where it is a tmpfs: a clock that was behind has stamped it.
fn birth_of_run() -> Option<i64> {
    const TMPFS: FsWord = 0x0102_1994;
    let run = Path::new("/run");
    rustix::fs::statfs(run).ok().filter(|facts| facts.f_type == TMPFS)?;
    let status = rustix::fs::statx(rustix::fs::CWD, run, AtFlags::empty(), StatxFlags::BTIME).ok()?;
    let is_told = status.stx_mask & StatxFlags::BTIME.bits() != 0;
    let birth = status.stx_btime;
    is_told.then(|| birth.tv_sec * 1000 + i64::from(birth.tv_nsec / 1_000_000))
}

/// Where changes are that were made and are not on disk yet: gone with the boot or the mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageCache {
    boot: String,
    mount: u64,
}

impl PageCache {
    /// That of the mount on which a directory lies. Not of a clone of it, which is another each time.
    pub fn of(dir: impl AsFd) -> io::Result<PageCache> {
        /// `STATX_MNT_ID_UNIQUE` (`linux/stat.h`, since 6.8): never given twice in one boot.
        const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
        /// `STATX_MNT_ID` (since 5.8): given again after an unmount.
        const REUSED: StatxFlags = StatxFlags::MNT_ID;
        for wanted in [UNIQUE, REUSED] {
            let status = rustix::fs::statx(&dir, c"", AtFlags::EMPTY_PATH, wanted)?;
            if status.stx_mask & wanted.bits() != 0 {
                return Ok(PageCache { boot: boot_id(), mount: status.stx_mnt_id });
            }
        }
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether what was written then is still there now.
    pub fn is_still(&self, now: Option<&PageCache>) -> bool {
        !self.boot.is_empty() && now == Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn clock(boot: &str, wall_ms: i64, booted_ms: i64) -> Clock {
        Clock { boot: boot.into(), wall_ms, booted_ms, early_ms: None }
    }

    /// A clock that was ahead at the last stop, or set back later, made a rewrite of equal size and
    /// time look older than the mark: it was never copied.
    #[test]
    fn a_clock_that_was_set_makes_everything_suspect() {
        let mark = clock("a", 20 * HOUR, 10 * HOUR).mark();
        let as_of = Timestamp { seconds: 20 * 3600 - 2, nanoseconds: 0 };
        let early = |early_ms, clock: Clock| Clock { early_ms: Some(early_ms), ..clock };
        let cases = [
            ("the same boot, later", clock("a", 21 * HOUR, 10 * HOUR), true),
            ("a leap second", clock("a", 21 * HOUR, 10 * HOUR - 1000), true),
            ("set back by an hour since", clock("a", 20 * HOUR, 9 * HOUR), false),
            ("set back, and long after", clock("a", 99 * HOUR, 9 * HOUR), false),
            ("set ahead since", clock("a", 22 * HOUR, 11 * HOUR), false),
            ("a later boot", clock("b", 22 * HOUR, 21 * HOUR), true),
            ("a boot right after", clock("b", 20 * HOUR + 60_000, 20 * HOUR), true),
            ("a boot before the mark: ahead then, or behind now", clock("b", 21 * HOUR, 19 * HOUR), false),
            ("a boot in 1970", clock("b", HOUR, 0), false),
            ("a boot whose clock went forward in it", early(HOUR, clock("b", 22 * HOUR, 21 * HOUR)), false),
            ("a boot whose clock was right", early(21 * HOUR + 500, clock("b", 22 * HOUR, 21 * HOUR)), true),
            ("a kernel that says nothing", clock("", 22 * HOUR, 21 * HOUR), false),
        ];
        for (what, now, fits) in cases {
            let expected = if fits { as_of } else { EVERYTHING };
            assert_eq!(mark.suspect_since(&now), expected, "{what}");
        }
    }

    /// A target that was put back together with its state while its source was stopped: what was
    /// rewritten since with the same size and time was never copied.
    #[test]
    fn a_target_that_had_more_was_set_back() {
        let runs = [1, 2, 3].map(Incarnation);
        let at = |run, sequence| Position {
            incarnation: Incarnation(run),
            sequence: Sequence(sequence),
            ..Position::default()
        };
        let mark = Mark::now().reached(Reached { run: Incarnation(2), sequence: Sequence(50) });
        for (durable, was_farther) in [
            (at(2, 50), false),
            (at(2, 60), false),
            (at(2, 49), true),
            // A later copy has brought it on, and the note of that is lost.
            (at(3, 1), false),
            (at(1, 90), true),
            (at(7, 90), true),
            (Position::default(), true),
        ] {
            assert_eq!(mark.was_farther(&durable, &runs), was_farther, "{durable}");
        }
        assert!(mark.was_farther(&at(2, 50), &runs[2..]), "a run that nobody remembers");
        assert!(!Mark::now().was_farther(&at(2, 1), &runs), "noted by an earlier version");
        let marks = Marks::default();
        let of = |mark: &Mark| BTreeMap::from([("null:".to_owned(), mark.clone())]);
        marks.set(&of(&mark), &runs);
        assert!(marks.leads_to("null:", &at(2, 60)) && marks.leads_to("null:", &at(3, 1)));
        assert!(!marks.leads_to("null:", &at(2, 49)) && !marks.leads_to("null:", &at(7, 90)));
        marks.set(&of(&Mark::now()), &runs);
        assert!(!marks.leads_to("null:", &at(2, 60)), "noted by an earlier version");
    }

    #[test]
    fn a_step_of_the_clock_is_seen_and_a_rate_is_not() {
        let mut watch = ClockWatch::begin();
        assert!(!watch.was_set());
        watch.booted_ms += 999;
        assert!(!watch.was_set());
        watch.booted_ms += 3000;
        assert!(watch.was_set());
        assert!(!watch.was_set(), "once for each step");
        let mark = Mark::now();
        assert_ne!(mark.suspect_since(&Clock::now()), EVERYTHING, "{mark:?} {:?}", Clock::now());
    }

    #[test]
    fn a_page_cache_is_of_one_boot_and_one_mount() {
        let dir = tempfile::tempdir().unwrap();
        let cache = PageCache::of(std::fs::File::open(dir.path()).unwrap()).unwrap();
        assert!(cache.is_still(Some(&PageCache::of(std::fs::File::open(dir.path()).unwrap()).unwrap())));
        assert!(!cache.is_still(None));
        assert!(!cache.is_still(Some(&PageCache { boot: "other".into(), ..cache.clone() })));
        assert!(!cache.is_still(Some(&PageCache { mount: cache.mount + 1, ..cache.clone() })));
        let silent = PageCache { boot: String::new(), mount: 1 };
        assert!(!silent.is_still(Some(&silent.clone())));
    }
}
