//! The set's record while the set is protected. It is changed here and put on disk by a thread of its
//! own, so that nobody waits for the disk but the end.
//!
//! ```text
//!  director ── as it is now ──> the record's thread ── set.json
//! ```
//! What is newer takes the place of what waits; what could not be written is tried again.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use super::backlog::LeftQueue;
use super::identity::Stamp;
use super::kept::Kept;
use super::mark::{Clock, Mark, Marks, Reached};
use super::record::{FencedRecord, SetRecord, SetState};
use super::settling::Disk;
use crate::packet::Incarnation;
use crate::sets::Rules;
use crate::target_side::OtherWriter;
use crate::words::{OwnedBy, Target};

/// Between two tries.
const RETRY_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub struct Recorder {
    /// As it is to be on disk.
    record: SetRecord,
    /// The record's, for everybody.
    marks: Arc<Marks>,
    /// By what targets were brought into line, as the disk says.
    on_disk: Arc<Mutex<Option<(Rules, OwnedBy)>>>,
    newest: Sender<Version>,
    /// To take back what has not been fetched.
    waiting: Receiver<Version>,
    thread: JoinHandle<SetState>,
}

struct Version {
    record: SetRecord,
    /// Dropped when it is on disk, or cannot be written.
    tried: Vec<Sender<()>>,
}

impl Recorder {
    pub fn start(state: SetState, marks: Arc<Marks>) -> io::Result<Recorder> {
        let record = state.record.clone();
        marks.set(&record.marks, &record.runs);
        let (newest, waiting) = bounded::<Version>(1);
        let on_disk = Arc::new(Mutex::new(None));
        let (inbox, saved) = (waiting.clone(), on_disk.clone());
        let keeps = move || keep(state, &inbox, &saved);
        let thread = std::thread::Builder::new().name("record".into()).spawn(keeps)?;
        Ok(Recorder { record, marks, on_disk, newest, waiting, thread })
    }

    pub fn record(&self) -> &SetRecord {
        &self.record
    }

    /// These targets had everything that happened before these moments.
    pub fn note(&mut self, marks: Vec<(String, Mark)>) {
        if !marks.is_empty() {
            // Its ids are known there from now on.
            self.record.restored_from.take_if(|from| marks.iter().any(|(target, _)| target == from));
            self.record.restored_at.take_if(|_| self.record.restored_from.is_none());
            self.record.marks.extend(marks);
            self.save(None);
        }
    }

    /// Whether every target that was owed something since a power loss has it, as of this run.
    pub fn ends_merge(&mut self, run: Incarnation) -> bool {
        let connections = &self.record.connections;
        let is_named = |target: &String| connections.get(target).is_some_and(|known| !known.disconnected);
        let is_owed = |mark: &Mark| !mark.is_of(run);
        let lacks = self.record.marks.iter().any(|(target, mark)| is_named(target) && is_owed(mark));
        if self.record.merging.is_none() || lacks {
            return false;
        }
        let marks = self.record.marks.clone();
        // Whoever is named again later was owed something, too.
        self.record.marks = marks.into_iter().filter(|(_, mark)| mark.is_of(run)).collect();
        self.record.merging = None;
        self.save(None);
        true
    }

    /// What is to stay of connections over a restart. What comes is dropped when it is on disk, or cannot be
    /// written.
    pub fn keep(&mut self, kept: impl Iterator<Item = (String, Kept)>) -> Receiver<()> {
        let (trying, tried) = bounded(1);
        for (target, mut kept) in kept {
            // What was forgotten is not learnt again from who has not heard of it.
            let says_something = |clock| kept.first_copy.as_ref().is_some_and(|copy| copy.counts(clock));
            if self.record.diverged.is_some() || !says_something(&Clock::now()) {
                kept.first_copy = None;
            }
            if let Some(connection) = self.record.connections.get_mut(&target) {
                connection.kept = kept;
            }
        }
        // Also what is known already: it may be on its way to the disk, and not be there.
        self.save(Some(trying));
        tried
    }

    /// A person has added this target. What comes is dropped when it is on disk, or cannot be written.
    pub fn add(&mut self, target: &Target, uuid: &str, answered: bool) -> Receiver<()> {
        let (trying, tried) = bounded(1);
        self.record.add(target, uuid, answered);
        self.save(Some(trying));
        tried
    }

    /// A person has disconnected this target: what they wanted of it before is over.
    pub fn disconnect(&mut self, target: &str) {
        if let Some(connection) = self.record.connections.get_mut(target) {
            connection.disconnected = true;
            connection.kept.wish = Default::default();
            self.save(None);
        }
    }

    /// These targets have answered.
    pub fn note_answered(&mut self, targets: &[String]) {
        let mut is_new = false;
        for target in targets {
            let connection = self.record.connections.get_mut(target);
            is_new |= connection.is_some_and(|known| !std::mem::replace(&mut known.answered, true));
        }
        if is_new {
            self.save(None);
        }
    }

    /// What was noted by the clock before is worth nothing. What comes is dropped when that is on disk, or cannot be
    /// written.
    pub fn clock_was_set(&mut self) -> Receiver<()> {
        log::warn!("the clock was set: until targets are up to date again, everything counts as changed");
        self.record.forget_moments();
        self.marks.forget();
        let (trying, tried) = bounded(1);
        self.save(Some(trying));
        tried
    }

    /// A change could not be captured: from now on no target is noted to have everything.
    pub fn note_divergence(&mut self, why: &str) {
        if self.record.diverge(why) {
            self.marks.forget();
            self.save(None);
        }
    }

    /// Whether somebody may have changed something past the mount that nobody has looked for since.
    pub fn note_touched(&mut self, touched: bool) {
        if self.record.touched != touched {
            self.record.touched = touched;
            self.save(None);
        }
    }

    /// Every target was brought into line by these.
    pub fn note_rules(&mut self, rules: &Rules, owners: OwnedBy) {
        if self.record.rules != *rules || self.record.owners != owners {
            (self.record.rules, self.record.owners) = (rules.clone(), owners);
            self.save(None);
        }
    }

    /// Whether that was written in this run.
    pub fn has_on_disk(&self, rules: &Rules, owners: OwnedBy) -> bool {
        self.on_disk.lock().as_ref().is_some_and(|(saved, by)| saved == rules && *by == owners)
    }

    /// The directory takes no changes any more, also after a restart.
    pub fn note_fenced(&mut self, fenced: FencedRecord) {
        if self.record.fenced.is_none() {
            self.record.fenced = Some(fenced);
            self.save(None);
        }
    }

    /// Who else writes the set, as one of two.
    pub fn note_other_writer(&mut self, other: Option<OtherWriter>) {
        if other.is_some() && self.record.other_writer != other {
            self.record.other_writer = other;
            self.save(None);
        }
    }

    /// What the last run has left is taken up.
    pub fn forget_left(&mut self) {
        if self.record.left.take().is_some() {
            self.save_now();
        }
    }

    /// Every target was compared with everything.
    pub fn forget_divergence(&mut self) {
        if self.record.diverged.take().is_some() {
            self.save(None);
        }
    }

    /// Notes how the directory was left: up to when these targets had everything, if they had, and
    /// whether what was shown to targets is on this disk, so that it is not behind them after a power
    /// loss; then the directory gets a stamp. Returns when that is on disk, or cannot be written.
    pub fn note_end(
        &mut self,
        targets: impl Iterator<Item = (String, Reached)>,
        mark: Option<Mark>,
        (disk, left): (Disk, Option<LeftQueue>),
        stamp: impl FnOnce(Stamp) -> io::Result<()>,
    ) {
        // It may have become known since the mark was taken that they miss something.
        if let Some(mark) = mark.filter(|_| self.record.diverged.is_none()) {
            let marks = targets.map(|(target, reached)| (target, mark.clone().reached(reached)));
            self.record.marks.extend(marks);
        }
        match disk {
            Disk::Settled => {
                self.record.left = left.filter(|_| self.record.diverged.is_none());
                self.stamp_end(stamp);
                self.record.settled = true;
            }
            Disk::Unknown => {}
            Disk::Failed => self.record.forget_moments(),
        }
        self.save_now();
    }

    /// An image of the directory from before this end is told from it. Until the directory carries the stamp,
    /// both are known.
    fn stamp_end(&mut self, stamp: impl FnOnce(Stamp) -> io::Result<()>) {
        if self.record.stamps.is_empty() {
            // It takes none.
            return;
        }
        let end = Stamp::new();
        self.record.stamps.push(end);
        self.save_now();
        match stamp(end) {
            Ok(()) => self.record.stamps = vec![end],
            Err(error) => log::warn!("the directory could not be stamped: {error}"),
        }
    }

    /// Returns when it is on disk, or cannot be written.
    fn save_now(&self) {
        let (trying, tried) = bounded(1);
        self.save(Some(trying));
        let _ = tried.recv();
    }

    /// Nothing is written any more. `None`: the thread died.
    pub fn finish(self) -> Option<SetState> {
        drop((self.newest, self.waiting));
        self.thread.join().inspect_err(|_| log::error!("the thread of the set's record panicked")).ok()
    }

    fn save(&self, tried: Option<Sender<()>>) {
        let has_marks = !self.record.marks.is_empty();
        assert!(!has_marks || self.record.diverged.is_none(), "targets have everything, and miss a change");
        self.marks.set(&self.record.marks, &self.record.runs);
        // Whoever waits for what this one replaces waits for this one.
        let mut waiting = self.waiting.try_recv().map(|older| older.tried).unwrap_or_default();
        waiting.extend(tried);
        let sent = self.newest.try_send(Version { record: self.record.clone(), tried: waiting });
        assert!(
            !matches!(sent, Err(TrySendError::Full(_))),
            "the newest record is left out for an older one"
        );
    }
}

fn keep(
    mut state: SetState,
    inbox: &Receiver<Version>,
    on_disk: &Mutex<Option<(Rules, OwnedBy)>>,
) -> SetState {
    let mut unsaved = false;
    loop {
        let next = match unsaved {
            true => inbox.recv_timeout(RETRY_EVERY),
            false => inbox.recv().map_err(RecvTimeoutError::from),
        };
        let _tried = match next {
            Ok(version) => {
                state.record = version.record;
                version.tried
            }
            Err(RecvTimeoutError::Timeout) => Vec::new(),
            Err(RecvTimeoutError::Disconnected) => return state,
        };
        unsaved = !is_saved(&state, unsaved);
        *on_disk.lock() = (!unsaved).then(|| (state.record.rules.clone(), state.record.owners));
    }
}

/// `again`: the last try failed, too.
fn is_saved(state: &SetState, again: bool) -> bool {
    let Err(error) = state.save() else { return true };
    match state.record.diverged {
        _ if again => log::debug!("the set's record: {error}"),
        Some(_) => {
            log::error!("the set's record does not take that everything has to be compared: {error}")
        }
        None => log::warn!("the set's record could not be written: {error}"),
    }
    false
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::identity::{Found, Label};
    use super::super::record::Stranger;
    use super::*;
    use crate::packet::Epoch;
    use crate::packet::{Incarnation, Sequence};

    fn open(dir: &Path) -> SetState {
        let found = Found::at(std::fs::File::open(dir).unwrap()).unwrap();
        let found = Found { label: Label::Impossible, ..found };
        SetState::open(dir, Path::new("/srv"), &found, Stranger::Adopt).unwrap()
    }

    fn reached(target: &str) -> (String, Reached) {
        (target.to_owned(), Reached { run: Incarnation(1), sequence: Sequence(2) })
    }

    #[test]
    fn at_the_end_the_last_version_is_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::start(open(dir.path()), Arc::default()).unwrap();
        for target in 0..100 {
            recorder.note(vec![(format!("local:/{target}"), Mark::now())]);
        }
        recorder.note_end(
            std::iter::once(reached("null:")),
            Some(Mark::now()),
            (Disk::Settled, None),
            |_| Ok(()),
        );
        let written = std::fs::read_to_string(dir.path().join("set.json")).unwrap();
        let written: SetRecord = serde_json::from_str(&written).unwrap();
        assert_eq!((written.marks.len(), written.settled), (101, true));
        assert!(recorder.finish().is_some());
    }

    /// A stop that a person was told of was lost by a kill: a look that comes every second had noted it a moment
    /// before, and it was still on its way.
    #[test]
    fn what_is_to_stay_is_on_disk_whoever_noted_it_first() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let mut state = open(dir.path());
            state.record.connection(&Target::Null);
            let mut recorder = Recorder::start(state, Arc::default()).unwrap();
            let kept = Kept { names: Some(round + 1), ..Kept::default() };
            let of_target = || std::iter::once(("null:".to_owned(), kept.clone()));
            let _noted = recorder.keep(of_target());
            let _ = recorder.keep(of_target()).recv();
            let written = std::fs::read_to_string(dir.path().join("set.json")).unwrap();
            let written: SetRecord = serde_json::from_str(&written).unwrap();
            assert_eq!(written.connections["null:"].kept.names, Some(round + 1), "round {round}");
            assert!(recorder.finish().is_some());
        }
    }

    /// Nor is the fence, by whatever is noted after it.
    #[test]
    fn a_fence_stays_in_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::start(open(dir.path()), Arc::default()).unwrap();
        let fenced = |number| FencedRecord {
            epoch: Epoch { number, writer: 9 },
            told_by: "standin://target.example.org:7447/web".into(),
            since_unix_ms: 7,
        };
        recorder.note_fenced(fenced(2));
        recorder.note_fenced(fenced(3));
        recorder.note(vec![("null:".into(), Mark::now())]);
        recorder.note_divergence("write: I/O error");
        drop(recorder.keep(std::iter::empty()));
        recorder.note_end(
            std::iter::once(reached("null:")),
            Some(Mark::now()),
            (Disk::Unknown, None),
            |_| Ok(()),
        );
        drop(recorder.finish());
        assert_eq!(open(dir.path()).record.fenced, Some(fenced(2)));
    }

    /// What could not be captured is forgotten by no later note, and only by a comparison.
    #[test]
    fn a_divergence_stays_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::start(open(dir.path()), Arc::default()).unwrap();
        recorder.note(vec![("null:".into(), Mark::now())]);
        recorder.note_divergence("write: I/O error");
        recorder.note_end(
            std::iter::once(reached("null:")),
            Some(Mark::now()),
            (Disk::Unknown, None),
            |_| Ok(()),
        );
        drop(recorder.finish());
        let mut recorder = Recorder::start(open(dir.path()), Arc::default()).unwrap();
        assert_eq!(recorder.record().diverged.as_deref(), Some("write: I/O error"));
        assert!(recorder.record().marks.is_empty() && !recorder.record().settled);
        recorder.forget_divergence();
        recorder.note_end(std::iter::empty(), None, (Disk::Failed, None), |_| Ok(()));
        drop(recorder.finish());
        assert_eq!(open(dir.path()).record.diverged, None);
    }
}
