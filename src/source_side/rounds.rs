//! What a director looks after while a directory is protected: the mount and its options, the clock,
//! until when targets had everything, the memory that a long queue left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};

use super::activity::Keeper;
use super::backlog::Leaves;
use super::connection::Connection;
use super::flush::Flusher;
use super::ground::Ground;
use super::kept::Kept;
use super::mark::ClockWatch;
use super::mount_options::OptionsWatch;
use super::mount_watch::MountWatch;
use super::notes::SyncNotes;
use super::recorder::Recorder;
use super::rules;
use super::schedule::PlannedChecks;
use super::served::{Book, How};
use super::writeback::WritebackWatch;
use crate::control::StopReport;
use crate::intercept::Serving;
use crate::limits::{BACKLOG_GIVEN_BACK, BACKLOG_SETTLES};
use crate::packet::DataState;
use crate::preflight::MountTable;
use crate::queue::Queue;

/// How often it is looked whether programs still reach the mount.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often it is noted until when targets had everything.
const NOTE_EVERY: Duration = Duration::from_secs(5);

/// How long a change that was not captured is an alarm at the least, also where a copy has found it at once: who
/// listens to events hears of what two looks in a row have seen, and there is one each second.
const UNCAPTURED_SHOWN: Duration = Duration::from_secs(3);

/// See the module.
pub struct Rounds {
    pub flusher: Arc<Flusher>,
    pub mount: MountWatch,
    pub options: OptionsWatch,
    _writeback: WritebackWatch,
    _keeper: Option<Keeper>,
    pub _planned: PlannedChecks,
    book: Option<Book>,
    clock: ClockWatch,
    /// What was noted by the clock before is being forgotten.
    forgetting: Option<Receiver<()>>,
    notes: SyncNotes,
    /// As the record was told last.
    kept: Vec<(u32, Kept)>,
    next_look: Instant,
    next_note: Instant,
    /// Since when there has been a change that was not captured.
    uncaptured_since: Option<Instant>,
    /// The most that the queue held since memory was given back.
    backlog: u64,
    /// It has been nearly empty since.
    emptied: Option<Instant>,
}

impl Rounds {
    /// Of a mount that came up just now.
    pub fn begin(
        ground: &Ground,
        serving: &Serving,
        flusher: Flusher,
        (writeback, keeper, planned, book): (WritebackWatch, Option<Keeper>, PlannedChecks, Book),
    ) -> Rounds {
        let directory = &ground.options.directory;
        Rounds {
            flusher: Arc::new(flusher),
            mount: MountWatch::begin(directory, ground.options.holder.then(|| serving.device())),
            options: OptionsWatch::begin(directory, serving.device(), ground.backing_mount.clone()),
            _writeback: writeback,
            _keeper: keeper,
            _planned: planned,
            book: Some(book),
            clock: ClockWatch::begin(),
            forgetting: None,
            notes: SyncNotes::default(),
            kept: Vec::new(),
            next_look: Instant::now(),
            next_note: Instant::now() + NOTE_EVERY,
            uncaptured_since: None,
            backlog: 0,
            emptied: None,
        }
    }

    /// The protection has ended, in order.
    pub fn close_book(&mut self, how: How, report: &StopReport) {
        self.book.take().into_iter().for_each(|book| book.close(how, report));
    }

    /// What there is to look after whether the mount is still there or not.
    pub fn make(&mut self, ground: &Ground, connections: &[Arc<Connection>], recorder: &mut Recorder) {
        self.give_back_after_backlog(&ground.queue);
        self.keep(connections, recorder);
        self.look_at_the_clock(ground, recorder);
        note_what_has_come(ground, connections, recorder);
        let was_shown = self.uncaptured_was_shown(ground);
        let all_were_compared = was_shown && all_were_compared(ground, connections, recorder);
        if is_due(&mut self.next_note, NOTE_EVERY) || all_were_compared {
            self.note_touched(ground, connections, recorder);
            match ground.volume.divergence().why() {
                Some(_) => {
                    if let Some(why) = ground.volume.divergence().uncaptured() {
                        recorder.note_divergence(&why);
                    }
                    if was_shown {
                        forget_divergence(ground, connections);
                    }
                }
                None if recorder.record().diverged.is_some() => {
                    if connections.iter().all(|connection| is_compared(connection, 0)) {
                        recorder.forget_divergence();
                    }
                }
                None => {
                    ground.followed.while_it_holds(|| {
                        if ground.volume.divergence().why().is_none() {
                            rules::settle(ground, recorder);
                        }
                    });
                    recorder.note(self.notes.look(ground, connections));
                    end_merge(ground, recorder);
                }
            }
        }
        if all_were_compared {
            // What waits for that is noted without delay, too: who stops now has nothing compared by the next start.
            self.next_note = Instant::now();
        }
    }

    /// Who keeps the activity log waits for it where the clock was set.
    fn look_at_the_clock(&mut self, ground: &Ground, recorder: &mut Recorder) {
        let at = Instant::now();
        if self.clock.was_set() {
            self.notes = SyncNotes::default();
            self.forgetting = Some(recorder.clock_was_set());
        }
        let is_forgotten = |tried: &mut Receiver<()>| tried.try_recv() != Err(TryRecvError::Empty);
        self.forgetting.take_if(is_forgotten);
        if self.forgetting.is_none() {
            ground.volume.activity().into_iter().for_each(|log| log.clock_is_looked_at(at));
        }
    }

    /// A trace is left until the targets were looked at as a whole after the start that follows it.
    fn note_touched(&self, ground: &Ground, connections: &[Arc<Connection>], recorder: &mut Recorder) {
        let is_touched = ground.volume.divergence().touched().is_some();
        if is_touched || targets_keep_something(ground, connections) {
            recorder.note_touched(true);
        } else if connections.iter().all(|connection| is_compared(connection, 0)) {
            recorder.note_touched(false);
        }
    }

    /// What is to stay of connections over a restart, where it has changed.
    fn keep(&mut self, connections: &[Arc<Connection>], recorder: &mut Recorder) {
        let kept: Vec<(u32, Kept)> =
            connections.iter().map(|connection| (connection.id, connection.kept())).collect();
        if self.kept != kept {
            recorder.keep(
                connections.iter().map(|connection| (connection.target.to_string(), connection.kept())),
            );
            self.kept = kept;
        }
        let has_answered = |connection: &&Arc<Connection>| connection.report().connected.is_some();
        let answered =
            connections.iter().filter(has_answered).map(|connection| connection.target.to_string());
        recorder.note_answered(&answered.collect::<Vec<_>>());
    }

    /// Of a mount that serves: one that is being taken away is not lost.
    pub fn look_at_mount(&mut self, ground: &Ground) {
        if is_due(&mut self.next_look, LOOK_EVERY)
            && let Ok(table) = MountTable::read()
        {
            self.mount.look(&table);
            self.options.look(&table, &ground.view);
        }
    }

    /// Whether people and hooks could see what was not captured, if anything was not.
    fn uncaptured_was_shown(&mut self, ground: &Ground) -> bool {
        if ground.volume.divergence().uncaptured().is_none() {
            self.uncaptured_since = None;
            return true;
        }
        self.uncaptured_since.get_or_insert_with(Instant::now).elapsed() >= UNCAPTURED_SHOWN
    }

    /// The allocator keeps what a long queue held.
    fn give_back_after_backlog(&mut self, queue: &Queue) {
        let stats = queue.stats();
        // What went to disk was in memory before.
        let held = stats.bytes + stats.disk.map_or(0, |disk| disk.bytes);
        self.backlog = held.max(self.backlog);
        if self.backlog < BACKLOG_GIVEN_BACK || held >= BACKLOG_GIVEN_BACK / 16 {
            self.emptied = None;
            return;
        }
        // Links have to let go of the last of it, too.
        if self.emptied.get_or_insert_with(Instant::now).elapsed() >= BACKLOG_SETTLES {
            crate::sys::give_back_memory();
            (self.backlog, self.emptied) = (0, None);
        }
    }
}

/// What the run before had queued is all there: with the moment of its end.
pub(super) fn note_what_has_come(ground: &Ground, connections: &[Arc<Connection>], recorder: &mut Recorder) {
    let record = recorder.record();
    let is_doubted = record.diverged.is_some() || ground.volume.divergence().why().is_some();
    if is_doubted || ground.joining.marks.have_forgotten() {
        return;
    }
    let new = connections.iter().filter_map(|connection| {
        let (target, mark) = (connection.target.to_string(), connection.report().has_come?);
        (record.marks.get(&target) != Some(&mark)).then_some((target, mark))
    });
    let new = new.collect();
    recorder.note(new);
}

/// Every target was compared with everything since: nothing is missed any more.
fn forget_divergence(ground: &Ground, connections: &[Arc<Connection>]) {
    let divergence = ground.volume.divergence();
    // Of changes that were missed first: what comes into the set all the time keeps none of them.
    for count in divergence.uncaptured_count().into_iter().chain([divergence.count()]) {
        if connections.iter().all(|connection| is_compared(connection, count)) {
            divergence.is_mended(count);
        }
    }
}

/// Every target has what was in doubt since a power loss.
fn end_merge(ground: &Ground, recorder: &mut Recorder) {
    if recorder.ends_merge(ground.queue.last().incarnation) {
        log::info!("every target has what was in doubt since the power loss");
        ground.volume.activity().into_iter().for_each(|log| log.forget_carried());
    }
}

/// Replicas hold what the directory does not: with other rules for that, only a look at everything finds it.
pub(super) fn targets_keep_something(ground: &Ground, connections: &[Arc<Connection>]) -> bool {
    let keeps =
        |connection: &Arc<Connection>| connection.report().orphans.is_some_and(|counts| counts.kept > 0);
    ground.volume.keeping().is_some() || connections.iter().any(keeps)
}

/// A copy that began after so many divergences has brought the target into line.
pub(super) fn is_compared(connection: &Connection, divergences: u64) -> bool {
    let report = connection.report();
    // What the run before had queued for it says nothing of what came since.
    let is_older = matches!(report.leaves, Leaves::Older(_));
    let in_line =
        report.streaming && !is_older && report.data == DataState::Good && report.covers >= divergences;
    connection.is_null() || in_line
}

/// Whether something is to be compared, as far as is noted, and every target was. What the directory's own disk has
/// lost is mended by no comparison.
fn all_were_compared(ground: &Ground, connections: &[Arc<Connection>], recorder: &Recorder) -> bool {
    let divergence = ground.volume.divergence();
    let count = match divergence.why() {
        _ if divergence.lost_by_disk().is_some() => return false,
        Some(_) => divergence.uncaptured_count().unwrap_or_else(|| divergence.count()),
        None if recorder.record().diverged.is_some() => 0,
        None => return false,
    };
    !connections.is_empty() && connections.iter().all(|connection| is_compared(connection, count))
}

fn is_due(next: &mut Instant, every: Duration) -> bool {
    let now = Instant::now();
    let is_due = now >= *next;
    if is_due {
        *next = now + every;
    }
    is_due
}
