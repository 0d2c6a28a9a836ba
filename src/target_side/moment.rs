//! How old a replica is: the latest moment, by its source's clock, of which it has everything.
//!
//! The source says now and then which position it has given out at which moment; the replica is as of that
//! moment as soon as it has the position. Of what is durable the moment is kept on disk, so that it can be
//! told without the source and after a restart of the target.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::clock;
use crate::limits::MOMENTS_MAX;
use crate::packet::Sequence;

/// In the replica's state directory.
const FILE: &str = "moment";

/// How often it is written while it moves on: what is lost makes a replica look older.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// Moments that were said, until their positions are reached.
#[derive(Debug, Default)]
struct Waiting(VecDeque<(Sequence, u64)>);

impl Waiting {
    fn said(&mut self, last: Sequence, at_ms: u64) {
        // Its position is reached no earlier, so the later moment says more.
        if self.0.back().is_some_and(|newest| newest.0 == last) {
            self.0.pop_back();
        }
        // Of a long lag some moments are enough.
        if self.0.len() < MOMENTS_MAX {
            self.0.push_back((last, at_ms));
        }
    }

    /// The latest moment whose position is reached.
    fn reached(&mut self, position: Sequence) -> Option<u64> {
        let mut latest = None;
        while let Some(&(_, at_ms)) = self.0.front().filter(|(last, _)| *last <= position) {
            latest = Some(at_ms);
            self.0.pop_front();
        }
        latest
    }
}

/// Of one session.
pub(super) struct Moments {
    applied: Waiting,
    durable: Waiting,
    /// Of what is applied.
    pub(super) as_of_ms: Option<u64>,
    /// What the source had given out when it was heard last.
    pub(super) given_out: Option<Sequence>,
    kept: Kept,
}

/// On disk.
struct Kept {
    path: PathBuf,
    due: Instant,
    durable_ms: Option<u64>,
    written_ms: Option<u64>,
}

/// The moment of which a replica had everything on its disk, as it was kept.
pub(super) fn kept(state: &Path) -> Option<u64> {
    std::fs::read_to_string(state.join(FILE)).ok()?.trim().parse().ok()
}

impl Moments {
    /// `state`: the directory of what is kept of the replica.
    pub(super) fn start(state: &Path) -> Moments {
        let as_of_ms = kept(state);
        let path = state.join(FILE);
        let kept = Kept { path, due: clock::now(), durable_ms: as_of_ms, written_ms: as_of_ms };
        Moments { applied: Waiting::default(), durable: Waiting::default(), as_of_ms, given_out: None, kept }
    }

    pub(super) fn said(&mut self, last: Sequence, at_ms: u64) {
        self.given_out = Some(last);
        self.applied.said(last, at_ms);
        self.durable.said(last, at_ms);
    }

    /// A good replica has come to these positions.
    pub(super) fn reached(&mut self, applied: Sequence, durable: Sequence) {
        self.as_of_ms = self.applied.reached(applied).or(self.as_of_ms);
        self.kept.durable_ms = self.durable.reached(durable).or(self.kept.durable_ms);
    }

    /// Writes what is to be kept, now and then or at once.
    pub(super) fn keep(&mut self, at_once: bool) {
        let Kept { path, due, durable_ms, written_ms } = &mut self.kept;
        let (Some(as_of_ms), true) = (*durable_ms, durable_ms != written_ms) else { return };
        if !at_once && clock::now() < *due {
            return;
        }
        *due = clock::now() + KEEP_EVERY;
        // In place and never synced: who applies changes waits for no disk. Always as long as before.
        let text = format!("{as_of_ms:020}\n");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        match file.and_then(|file| file.write_all_at(text.as_bytes(), 0)) {
            Ok(()) => *written_ms = *durable_ms,
            Err(error) => log::debug!("the moment of a replica is not kept: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_as_of_a_moment_when_it_has_its_position() {
        let dir = tempfile::tempdir().unwrap();
        let mut moments = Moments::start(dir.path());
        assert_eq!(moments.as_of_ms, None);
        moments.said(Sequence(5), 100);
        moments.said(Sequence(5), 200);
        moments.said(Sequence(8), 300);
        moments.reached(Sequence(4), Sequence(4));
        assert_eq!(moments.as_of_ms, None);
        moments.reached(Sequence(6), Sequence(4));
        assert_eq!(moments.as_of_ms, Some(200), "nothing was written between the two");
        moments.keep(true);
        assert_eq!(kept(dir.path()), None, "nothing of it is durable");
        moments.reached(Sequence(8), Sequence(7));
        moments.keep(true);
        assert_eq!((moments.as_of_ms, kept(dir.path())), (Some(300), Some(200)));
        assert_eq!(Moments::start(dir.path()).as_of_ms, Some(200), "another session");
    }

    #[test]
    fn a_long_lag_takes_bounded_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut moments = Moments::start(dir.path());
        for number in 1..=10 * MOMENTS_MAX as u64 {
            moments.said(Sequence(number), number);
        }
        assert_eq!(moments.applied.0.len(), MOMENTS_MAX);
        let last = MOMENTS_MAX as u64;
        moments.reached(Sequence(u64::MAX), Sequence(0));
        assert_eq!(moments.as_of_ms, Some(last), "older than it is, never younger");
        moments.said(Sequence(10 * last + 1), 7777);
        moments.reached(Sequence(u64::MAX), Sequence(0));
        assert_eq!(moments.as_of_ms, Some(7777));
    }
}
