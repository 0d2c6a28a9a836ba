//! How old a replica is: the latest moment, by its source's clock, of which it has everything.
//!
//! The source says now and then which position it has given out at which moment; the replica is as of that
//! moment as soon as it has the position. What is known of it is kept on disk with the positions that it is
//! about, so that it can be told without the source, and after a restart of the target: a moment counts as far
//! as the replica proves that it has its position.
//!
//! A clock that is set makes no moment wrong: each is the one of its position, as it was told. That it was set
//! is seen by a second clock of the source, which nobody can set, and said.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::limits::MOMENTS_MAX;
use crate::packet::{DataState, Position, SourceClock};

/// In the replica's state directory.
const FILE: &str = "moment";

/// Length of what is written there, in bytes: a checksum of 16 digits, the document, spaces.
const LEN: usize = 1024;

/// Clocks that are brought right smoothly differ less between two moments.
const STEP_MIN_MS: u64 = 1000;

/// What the source had given out at a moment of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    pub position: Position,
    /// Since 1970.
    pub at_ms: u64,
}

/// The source's clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// By the clock as it is since.
    pub at_ms: u64,
    pub by_ms: i64,
}

/// What is known of a replica's age, as it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age {
    /// The last ones of which the replica had everything, in the page cache and on disk.
    applied: Option<Moment>,
    durable: Option<Moment>,
    /// When the source was heard last.
    pub heard: Option<Moment>,
    /// How far its clock was ahead of this host's then.
    pub ahead_ms: Option<i64>,
    /// How far the one that can be set was ahead of the one that cannot.
    offset_ms: Option<i64>,
    pub clock_set: Option<Step>,
}

impl Age {
    /// The moment of which a replica that has these positions has everything; of one that is bad, had when it
    /// was good.
    pub fn as_of(&self, data: DataState, applied: &Position, durable: &Position) -> Option<u64> {
        let has = |moment: &Moment| {
            [applied, durable]
                .iter()
                .any(|has| has.same_history(&moment.position) && has.sequence >= moment.position.sequence)
        };
        let proven = self.applied.filter(has).or_else(|| self.durable.filter(has));
        let known = match data {
            DataState::Good => proven,
            // The positions are of the copy that began since.
            DataState::Bad => proven.or(self.durable),
            DataState::Empty => None,
        };
        known.map(|moment| moment.at_ms)
    }
}

/// Moments that were said, until their positions are reached.
#[derive(Debug, Default)]
struct Waiting {
    moments: VecDeque<Moment>,
    /// Of a long lag so many stand for one each; 0 is 1.
    stride: usize,
    /// How many have come since the last one that stays; then the newest gives way to the next.
    since: usize,
}

impl Waiting {
    fn said(&mut self, moment: Moment) {
        if self.moments.back().is_some_and(|newest| newest.position == moment.position) {
            // Its position is reached no earlier, so the later moment says more.
            self.moments.pop_back();
        } else {
            if self.since > 0 {
                self.moments.pop_back();
            }
            self.since = (self.since + 1) % self.stride.max(1);
        }
        if self.moments.len() >= MOMENTS_MAX {
            let mut every_second = [true, false].into_iter().cycle();
            self.moments.retain(|_| every_second.next() == Some(true));
            self.stride = self.stride.max(1) * 2;
        }
        self.moments.push_back(moment);
    }

    /// The latest moment whose position is reached.
    fn reached(&mut self, has: &Position) -> Option<Moment> {
        let mut latest = None;
        while let Some(next) = self.moments.front() {
            if !has.same_history(&next.position) || next.position.sequence > has.sequence {
                break;
            }
            latest = self.moments.pop_front();
        }
        if self.moments.is_empty() {
            (self.stride, self.since) = (1, 0);
        }
        latest
    }
}

/// Of one session.
pub(super) struct Moments {
    applied: Waiting,
    durable: Waiting,
    age: Age,
    path: PathBuf,
    written: Age,
}

/// What was kept of a replica's age; nothing where it cannot be read.
pub(super) fn kept(state: &Path) -> Age {
    std::fs::read(state.join(FILE)).ok().and_then(|bytes| parsed(&bytes)).unwrap_or_default()
}

fn parsed(bytes: &[u8]) -> Option<Age> {
    let (sum, document) = std::str::from_utf8(bytes).ok()?.trim_end().split_once(' ')?;
    let is_whole = u64::from_str_radix(sum, 16).ok()? == xxh3_64(document.as_bytes());
    is_whole.then(|| serde_json::from_str(document).ok()).flatten()
}

fn written(age: &Age) -> Option<String> {
    let document = serde_json::to_string(age).ok()?;
    let line = format!("{:016x} {document}", xxh3_64(document.as_bytes()));
    (line.len() < LEN).then(|| format!("{line:<width$}\n", width = LEN - 1))
}

impl Moments {
    /// `state`: the directory of what is kept of the replica.
    pub(super) fn start(state: &Path) -> Moments {
        let age = kept(state);
        Moments {
            applied: Waiting::default(),
            durable: Waiting::default(),
            age,
            path: state.join(FILE),
            written: age,
        }
    }

    pub(super) fn known(&self) -> &Age {
        &self.age
    }

    /// `now_ms`: of this host's clock.
    pub(super) fn said(&mut self, position: Position, at: SourceClock, now_ms: u64) {
        let moment = Moment { position, at_ms: at.wall_ms };
        self.look_at_clock(&position, at);
        self.age.ahead_ms = Some(difference(at.wall_ms, now_ms));
        self.age.heard = Some(moment);
        self.applied.said(moment);
        self.durable.said(moment);
    }

    /// Of one run of the source the steady clock is one.
    fn look_at_clock(&mut self, position: &Position, at: SourceClock) {
        let offset_ms = difference(at.wall_ms, at.steady_ms);
        let is_same_run = self.age.heard.is_some_and(|heard| heard.position.same_history(position));
        let before_ms = self.age.offset_ms.replace(offset_ms).filter(|_| is_same_run);
        if let Some(by_ms) = before_ms.map(|before_ms| offset_ms.saturating_sub(before_ms))
            && by_ms.unsigned_abs() > STEP_MIN_MS
        {
            log::warn!(
                "the source's clock was set by {by_ms} ms: moments before and after are told by two clocks"
            );
            self.age.clock_set = Some(Step { at_ms: at.wall_ms, by_ms });
        }
    }

    /// A good replica has come to these positions.
    pub(super) fn reached(&mut self, applied: &Position, durable: &Position) {
        self.age.applied = self.applied.reached(applied).or(self.age.applied);
        self.age.durable = self.durable.reached(durable).or(self.age.durable);
    }

    /// Writes what is to be kept.
    pub(super) fn keep(&mut self) {
        if self.age == self.written {
            return;
        }
        // In place and never synced: who applies changes waits for no disk. Always as long as before.
        let Some(line) = written(&self.age) else { return };
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path);
        match file.and_then(|file| file.write_all_at(line.as_bytes(), 0)) {
            Ok(()) => self.written = self.age,
            Err(error) => log::debug!("the age of a replica is not kept: {error}"),
        }
    }
}

/// A peer may say anything.
fn difference(one_ms: u64, other_ms: u64) -> i64 {
    i64::try_from(i128::from(one_ms) - i128::from(other_ms)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Chain, Epoch, Incarnation, Sequence};

    fn at(sequence: u64) -> Position {
        of_run(3, sequence)
    }

    fn of_run(run: u64, sequence: u64) -> Position {
        let epoch = Epoch { number: 1, writer: 2 };
        Position {
            epoch,
            incarnation: Incarnation(run),
            sequence: Sequence(sequence),
            chain: Chain(sequence),
        }
    }

    /// Both clocks go on alike.
    fn clock(wall_ms: u64) -> SourceClock {
        SourceClock { wall_ms, steady_ms: wall_ms }
    }

    fn good(age: &Age, applied: u64, durable: u64) -> Option<u64> {
        age.as_of(DataState::Good, &at(applied), &at(durable))
    }

    #[test]
    fn a_replica_is_as_of_a_moment_when_it_has_its_position() {
        let dir = tempfile::tempdir().unwrap();
        let mut moments = Moments::start(dir.path());
        for (sequence, at_ms) in [(5, 100), (5, 200), (8, 300), (20, 400)] {
            moments.said(at(sequence), clock(at_ms), at_ms);
        }
        for (applied, durable, as_of) in
            [(4, 4, None), (6, 4, Some(200)), (8, 7, Some(300)), (19, 7, Some(300))]
        {
            moments.reached(&at(applied), &at(durable));
            assert_eq!(good(moments.known(), applied, durable), as_of, "{applied} is applied");
        }
        let heard = moments.known().heard.unwrap();
        assert_eq!((heard.position.sequence.0, heard.at_ms), (20, 400));
        moments.keep();
        let again = kept(dir.path());
        assert_eq!(again, *moments.known(), "another process");
        assert_eq!(good(&again, 19, 7), Some(300));
        assert_eq!(good(&again, 7, 7), Some(200), "after a power loss it has what is durable");
        assert_eq!(good(&again, 4, 4), None, "it was set back");
    }

    #[test]
    fn what_is_known_of_one_run_says_nothing_of_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut moments = Moments::start(dir.path());
        moments.said(at(5), clock(100), 100);
        moments.reached(&at(5), &at(5));
        let (applied, durable) = (of_run(4, 9), of_run(4, 9));
        let age = *moments.known();
        assert_eq!(age.as_of(DataState::Good, &applied, &durable), None);
        assert_eq!(age.as_of(DataState::Bad, &applied, &durable), Some(100), "it was good then");
        assert_eq!(age.as_of(DataState::Empty, &applied, &durable), None);
        // Heard before the copy of the new run has begun here.
        moments.said(of_run(4, 2), clock(900), 900);
        moments.reached(&at(5), &at(5));
        assert_eq!(good(moments.known(), 5, 5), Some(100));
        moments.reached(&of_run(4, 2), &at(5));
        assert_eq!(moments.known().as_of(DataState::Good, &of_run(4, 2), &at(5)), Some(900));
    }

    #[test]
    fn a_clock_that_is_set_is_said_and_makes_no_moment_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let mut moments = Moments::start(dir.path());
        let said = |moments: &mut Moments, position, wall_ms, steady_ms, now_ms| {
            moments.said(position, SourceClock { wall_ms, steady_ms }, now_ms);
            moments.known().clock_set
        };
        assert_eq!(said(&mut moments, at(1), 1_000_000, 500, 1_000_000), None);
        assert_eq!(
            said(&mut moments, at(2), 1_000_900, 1000, 1_000_500),
            None,
            "it is brought right smoothly"
        );
        // Set back by a quarter of an hour.
        let back = Some(Step { at_ms: 101_400, by_ms: -900_000 });
        assert_eq!(said(&mut moments, at(3), 101_400, 1500, 1_001_000), back);
        assert_eq!(moments.known().ahead_ms, Some(-899_600));
        moments.keep();
        moments.reached(&at(2), &at(0));
        assert_eq!(good(moments.known(), 2, 0), Some(1_000_900));
        moments.reached(&at(3), &at(0));
        assert_eq!(good(moments.known(), 3, 0), Some(101_400));
        // While it was away, and this target, too.
        let mut moments = Moments::start(dir.path());
        let on = Some(Step { at_ms: 1_002_400, by_ms: 900_000 });
        assert_eq!(said(&mut moments, at(3), 1_002_400, 2500, 1_002_000), on);
        // The host was started anew: its steady clock is another one.
        assert_eq!(said(&mut moments, of_run(4, 1), 1_009_000, 3, 1_009_000), on);
        assert_eq!(said(&mut moments, of_run(4, 1), u64::MAX, 4, 1_009_000).unwrap().by_ms, -1_008_997);
    }

    #[test]
    fn a_long_lag_takes_bounded_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut moments = Moments::start(dir.path());
        let last = 10 * MOMENTS_MAX as u64;
        for number in 1..=last {
            moments.said(at(number), clock(number), number);
        }
        assert!(moments.applied.moments.len() <= MOMENTS_MAX);
        for applied in [last / 20, last / 3, last / 2, last] {
            moments.reached(&at(applied), &at(0));
            let as_of = good(moments.known(), applied, 0).unwrap();
            assert!(as_of <= applied, "younger than it is");
            assert!(applied - as_of <= 32, "{as_of} for {applied}");
        }
    }

    #[test]
    fn what_is_kept_is_whole_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let moment = Moment {
            position: Position { chain: Chain(u64::MAX), ..of_run(u64::MAX, u64::MAX) },
            at_ms: u64::MAX,
        };
        let longest = Age {
            applied: Some(moment),
            durable: Some(moment),
            heard: Some(moment),
            ahead_ms: Some(i64::MIN),
            offset_ms: Some(i64::MIN),
            clock_set: Some(Step { at_ms: u64::MAX, by_ms: i64::MIN }),
        };
        let line = written(&longest).unwrap();
        assert_eq!(line.len(), LEN);
        assert_eq!(parsed(line.as_bytes()), Some(longest));
        let torn = [&line.as_bytes()[..600], &written(&Age::default()).unwrap().as_bytes()[600..]].concat();
        assert_eq!(parsed(&torn), None);
        std::fs::write(dir.path().join(FILE), "00000000001764231073\n").unwrap();
        assert_eq!(kept(dir.path()), Age::default());
    }
}
