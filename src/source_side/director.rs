//! The director: the one owner of what changes in a running source.
//!
//! ```text
//!  signals, control socket ── Event ──> Director ── Job ──> Hands (start, unmount, drain)
//!                                        │  ^ <── Done ──────┘
//!                     record ── on disk ─┤  └── clock
//!                                        └── Board: what everybody else reads
//! ```
//! What happens is taken in one by one and as a whole, and after each everything is checked. Nothing
//! here waits for a target, a program or a disk, and no program waits for it.

mod handing;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, never, select, tick};

use super::activity::Keeper;
use super::adding;
use super::board::{Board, Posted, Poster};
use super::commands::{self, Begun};
use super::connection::Connection;
use super::flush::Flusher;
use super::ground::Ground;
use super::hands::{Done, Hands, Job};
use super::haste::Haste;
use super::holder::{Holder, Left};
use super::identity;
use super::joining::Enlisted;
use super::life::{Ended, Ending, Life, Stage, Stop, StopAsker};
use super::managed::Managed;
use super::mark::{Mark, Marks, Reached};
use super::record::{FencedRecord, SetState};
use super::recorder::Recorder;
use super::rounds::{Rounds, note_what_has_come, targets_keep_something};
use super::rules;
use super::schedule::PlannedChecks;
use super::served::{Book, How};
use super::start::{Mounted, Start};
use super::startup::io_failure;
use super::stop::{Busy, Drain, Drained, Unmount};
use super::sync::{Upto, is_sent_nothing};
use super::upgrade::Successor;
use super::words::{farewell, ready, unmounted, unmounted_by_others};
use super::writeback::WritebackWatch;
use crate::control::{ConnectionChange, Reply, StopMode, StopReport, unix_ms};
use crate::failure::Failure;
use crate::intercept::{Mount, Serving};
use crate::limits::{DIRECTOR_EVENTS_MAX, MARKER_NAME_LEN_MAX};
use crate::packet::{MarkerName, Op, Sequence};
use crate::queue::Draft;
use crate::words::Target;

/// How often everything is checked while nothing happens.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// What comes to a director.
pub enum Event {
    /// To stop.
    Signal,
    Asked(Question),
    Done(Box<Done>),
    /// A fault of the program.
    HandsDied,
    /// Time has passed.
    Tick,
}

/// What callers of the control socket ask for, and what works for the director.
pub enum Question {
    Stop {
        mode: StopMode,
        answer: Reply<Result<StopReport, Failure>>,
    },
    /// See [`Director::barrier`].
    Barrier {
        durable: bool,
        /// Of a marker.
        name: Option<MarkerName>,
        answer: Reply<Result<Upto, Failure>>,
    },
    Change {
        change: ConnectionChange,
        which: Option<String>,
        answer: Reply<Result<Begun, Failure>>,
    },
    /// What is known of a target that is to be added.
    Enlist {
        target: Target,
        answer: Reply<Result<Enlisted, Failure>>,
    },
    /// It is one of the connections from here on; `false`: the directory is not served any more.
    Join {
        connection: Arc<Connection>,
        answer: Reply<bool>,
    },
    /// It stays over a restart from here on. What is given is dropped when it is on disk, or cannot be written.
    Add {
        target: Target,
        uuid: String,
        answered: bool,
        answer: Reply<Receiver<()>>,
    },
    /// To become another program, within so much time; answered only where that is not so.
    HandOver {
        successor: Box<Successor>,
        patience: Duration,
        answer: Reply<Failure>,
    },
    /// A connection that was disconnected.
    Forget {
        id: u32,
        answer: Reply<()>,
    },
    /// What connections are to keep over a restart. What is given is dropped when it is on disk, or cannot be
    /// written.
    Keep {
        answer: Reply<Receiver<()>>,
    },
}

/// See the module.
pub struct Director {
    ground: Arc<Ground>,
    board: Arc<Board>,
    poster: Poster,
    itself: Sender<Event>,
    inbox: Receiver<Event>,
    hands: Hands,
    ticks: Receiver<Instant>,
    connections: Vec<Arc<Connection>>,
    /// Of a daemon that is gone, until the start goes on with it.
    left: Option<Left>,
    recorder: Recorder,
    last_barrier: Option<Barrier>,
    signals: Signals,
    managed: Managed,
    /// What this process becomes at the end.
    successor: Option<Successor>,
}

/// How a director has ended.
pub struct Run {
    pub outcome: Result<Ended, Failure>,
    /// Keeps other daemons from the set's record.
    pub set: Option<SetState>,
    /// Nothing has ended but this program: the mount, and all that waits, is for this one.
    pub successor: Option<Successor>,
}

/// The last barrier that was put into the stream.
struct Barrier {
    sequence: Sequence,
    durable: bool,
}

/// Signals that came.
#[derive(Default)]
struct Signals {
    /// Nothing has followed from the last one yet.
    pending: bool,
    /// Stops that signals began.
    stops: u32,
}

impl Director {
    pub fn new(
        ground: Arc<Ground>,
        connections: Vec<Arc<Connection>>,
        set: SetState,
        marks: Arc<Marks>,
        left: Option<Left>,
    ) -> std::io::Result<Director> {
        let (itself, inbox) = bounded(DIRECTOR_EVENTS_MAX);
        let (board, poster) = Board::new(connections.clone());
        Ok(Director {
            ground,
            board,
            poster,
            itself,
            inbox,
            hands: Hands::start()?,
            ticks: never(),
            connections,
            left,
            recorder: Recorder::start(set, marks)?,
            last_barrier: None,
            signals: Signals::default(),
            managed: Managed::of_process(),
            successor: None,
        })
    }

    pub fn board(&self) -> Arc<Board> {
        self.board.clone()
    }

    /// Where events go.
    pub fn address(&self) -> Sender<Event> {
        self.itself.clone()
    }

    /// From the start to the end of protection, or of this program.
    pub fn run(mut self) -> Run {
        let mut life = self.start();
        self.managed.tell(life.stage().phase(), &self.ground, &self.connections);
        loop {
            if let Life::Over { outcome, .. } = life {
                let successor = self.successor.take();
                return Run { outcome, set: self.recorder.finish(), successor };
            }
            let event = self.next();
            life = self.step(life, |director, life| director.apply(life, event));
            life = self.step(life, Director::check);
        }
    }

    fn start(&mut self) -> Life {
        if let Some(why) = &self.recorder.record().diverged {
            aside!("note: source and replicas differed before ({why}): everything is compared.");
        }
        let (interrupt, interrupted) = bounded(1);
        self.hands.give(Job::Start(Box::new(Start {
            ground: self.ground.clone(),
            connections: self.connections.clone(),
            record: self.recorder.record().clone(),
            left: self.left.take(),
            interrupt: interrupted,
        })));
        Life::Starting { interrupt }
    }

    fn next(&self) -> Event {
        select! {
            // This very director keeps it open.
            recv(self.inbox) -> event => event.unwrap_or(Event::Tick),
            recv(self.hands.done) -> done => done.map_or(Event::HandsDied, |done| Event::Done(Box::new(done))),
            recv(self.ticks) -> _ => Event::Tick,
        }
    }

    /// The only place where a life changes.
    fn step(&mut self, life: Life, step: impl FnOnce(&mut Director, Life) -> Life) -> Life {
        let before = life.stage();
        let life = step(self, life);
        let after = life.stage();
        assert!(before.may_become(after), "{before:?} cannot become {after:?}");
        if before != after {
            log::debug!("{}: {before:?} -> {after:?}", self.ground.options.name);
        }
        self.post(&life);
        self.managed.tell(life.stage().phase(), &self.ground, &self.connections);
        life
    }

    fn apply(&mut self, life: Life, event: Event) -> Life {
        match event {
            Event::Tick => life,
            Event::Signal => {
                self.signals.pending = true;
                life
            }
            Event::Asked(question) => self.answer(life, question),
            Event::Done(done) => self.done(life, *done),
            Event::HandsDied => Life::failed(Failure::new(
                "A fault of the program ended the protection.",
                "What programs have written is in the directory; a target may lack the last of it.",
                "Start it again, and report this.",
            )),
        }
    }

    fn answer(&mut self, life: Life, question: Question) -> Life {
        match question {
            Question::Stop { mode, answer } => return self.stop(life, Stop { mode, asker: Some(answer) }),
            question @ Question::HandOver { .. } => return self.begin_handover(life, question),
            Question::Barrier { durable, name, answer } => answer.give(self.barrier(durable, name)),
            Question::Change { change, which, answer } => {
                let (phase, which) = (life.stage().phase(), which.as_deref());
                answer.give(commands::begin(&self.ground, phase, &self.connections, change, which));
            }
            Question::Enlist { target, answer } => {
                let phase = life.stage().phase();
                answer.give(adding::enlist(
                    &self.ground,
                    phase,
                    &self.connections,
                    self.recorder.record(),
                    &target,
                ));
            }
            Question::Join { connection, answer } => {
                let is_served = matches!(life, Life::Serving { .. });
                if is_served {
                    self.connections.push(connection.clone());
                    self.post(&life);
                    connection.captured();
                }
                answer.give(is_served);
            }
            Question::Add { target, uuid, answered, answer } => {
                answer.give(self.recorder.add(&target, &uuid, answered));
            }
            Question::Keep { answer } => {
                let kept = self.connections.iter();
                let kept = kept.map(|connection| (connection.target.to_string(), connection.kept()));
                answer.give(self.recorder.keep(kept));
            }
            Question::Forget { id, answer } => {
                let gone = self.connections.iter().find(|connection| connection.id == id);
                gone.into_iter().for_each(|gone| self.recorder.disconnect(&gone.target.to_string()));
                self.connections.retain(|connection| connection.id != id);
                self.post(&life);
                answer.give(());
            }
        }
        life
    }

    fn done(&mut self, life: Life, done: Done) -> Life {
        match (life, done) {
            (Life::Starting { .. }, Done::Started(Ok(mounted))) => self.serve(mounted),
            (Life::Starting { .. }, Done::Started(Err(failure))) => Life::failed(failure),
            (Life::Stopping { stop, rounds }, Done::Unmounted(Ok(mark))) => {
                // One signal more is for a drain that it has seen.
                self.signals.pending = false;
                self.drain(stop.mode, mark, None, Ending::Stopped(stop), rounds)
            }
            (Life::Stopping { stop, rounds }, Done::Unmounted(Err(busy))) => {
                let Busy { serving, alive, failure } = *busy;
                stop.refuse(failure);
                Life::Serving { serving, alive, rounds }
            }
            (Life::Draining { ending, rounds, hasty, .. }, Done::Drained(drained)) => {
                let over = self.end(ending, rounds, drained);
                if let Life::Over { stopped: Some(report), .. } = &over {
                    hasty.into_iter().for_each(|asker| asker.give(Ok(report.clone())));
                }
                over
            }
            (life, Done::Held(held)) => self.held(life, *held),
            (life, _) => panic!("nobody gave the hands this to do in {:?}", life.stage()),
        }
    }

    /// What has to be so whatever happened.
    fn check(&mut self, life: Life) -> Life {
        self.note_roles();
        let life = self.check_mount(life);
        let mut life = self.check_signals(life);
        match &mut life {
            Life::Starting { .. } | Life::Over { .. } => {}
            Life::Serving { rounds, .. } => {
                rounds.make(&self.ground, &self.connections, &mut self.recorder);
                rounds.look_at_mount(&self.ground);
                self.ground.holder.iter().for_each(Holder::look);
            }
            Life::Stopping { rounds, .. }
            | Life::Draining { rounds, .. }
            | Life::HandingOver { rounds, .. } => {
                rounds.make(&self.ground, &self.connections, &mut self.recorder);
            }
        }
        life
    }

    /// What the connections have heard is to be known to the next start.
    fn note_roles(&mut self) {
        if self.ground.roles.look(Instant::now(), self.ground.volume.fence()) {
            // They wait for a target that takes nothing from here any more.
            self.ground.queue.let_all_in();
        }
        self.recorder.note_other_writer(self.ground.roles.other());
        let Some(fenced) = self.ground.volume.fence().raised() else { return };
        if self.recorder.record().fenced.is_none() {
            self.recorder.note_fenced(FencedRecord {
                epoch: fenced.epoch,
                told_by: fenced.told_by.clone(),
                since_unix_ms: unix_ms(SystemTime::now()),
            });
        }
    }

    /// An unmount by somebody else is a stop like any other: what is queued is sent.
    fn check_mount(&mut self, life: Life) -> Life {
        let Life::Serving { serving, alive, rounds } = life else { return life };
        let looked = Mark::now();
        if !serving.ended() {
            return Life::Serving { serving, alive: looked, rounds };
        }
        log::warn!("{}", unmounted(&self.ground));
        let gone = Some((serving, rounds.flusher.clone()));
        self.drain(StopMode::Orderly, alive, gone, Ending::UnmountedByOthers, rounds)
    }

    /// One that comes while the mount is being taken away counts when that has failed. The second
    /// one is a wish for haste: a service manager that stops what a person is stopping is none.
    fn check_signals(&mut self, life: Life) -> Life {
        if !self.signals.pending {
            return life;
        }
        match life {
            Life::Starting { interrupt } => {
                // Nor is the program of before to go on where this one was told to stop.
                self.ground.holder.iter().for_each(Holder::forget_program_before);
                // It may be through already: then it stops right after.
                let _ = interrupt.try_send(());
                Life::Starting { interrupt }
            }
            life @ Life::Serving { .. } => {
                let mode = self.signals.take();
                self.stop(life, Stop { mode, asker: None })
            }
            life @ Life::Draining { .. } => match self.signals.take() {
                StopMode::Orderly | StopMode::Covered => life,
                StopMode::Now => self.hasten(life, None),
            },
            life @ (Life::Stopping { .. } | Life::HandingOver { .. } | Life::Over { .. }) => life,
        }
    }

    /// Ends a drain that runs; whoever asks for it hears of the end.
    fn hasten(&self, life: Life, asker: Option<StopAsker>) -> Life {
        let Life::Draining { ending, rounds, haste, mut hasty } = life else { return life };
        if !haste.is_made() {
            let directory = self.ground.options.directory.display();
            aside!("note: what is queued for the targets of {directory} is not waited for any longer.");
        }
        haste.make();
        hasty.extend(asker);
        Life::Draining { ending, rounds, haste, hasty }
    }

    fn post(&mut self, life: &Life) {
        let rounds = life.rounds();
        let owned = |text: &str| text.to_owned();
        self.poster.post(Posted {
            phase: life.stage().phase(),
            connections: self.connections.clone(),
            flusher: rounds.map(|rounds| rounds.flusher.clone()),
            mount_lost: rounds.and_then(|rounds| rounds.mount.lost()).map(owned),
            options_trouble: rounds.and_then(|rounds| rounds.options.trouble()).map(owned),
            stopped: match life {
                Life::Over { stopped, .. } => stopped.clone(),
                Life::Starting { .. }
                | Life::Serving { .. }
                | Life::HandingOver { .. }
                | Life::Stopping { .. }
                | Life::Draining { .. } => None,
            },
        });
    }

    /// Programs are served from here on, and nothing that they do gets past the mount: what targets lack is
    /// copied meanwhile.
    fn serve(&mut self, Mounted { mount, answered }: Mounted) -> Life {
        self.recorder.note_answered(&answered);
        let (serving, rounds) = match self.bring_up(mount) {
            Ok(up) => up,
            Err(failure) => return Life::failed(failure),
        };
        self.recorder.forget_left();
        self.ground.queue.leave_nothing();
        self.ticks = tick(CHECK_EVERY);
        let life = Life::Serving { serving, alive: Mark::now(), rounds };
        self.post(&life);
        self.connections.iter().for_each(|connection| connection.captured());
        ready(&self.ground, &self.connections);
        life
    }

    fn bring_up(&self, mount: Mount) -> Result<(Serving, Rounds), Failure> {
        let options = &self.ground.options;
        let (point, profile, lag) = (options.directory.clone(), options.profile, options.mmap_lag);
        let flusher = Flusher::start(point, self.ground.volume.clone(), profile, lag)
            .map_err(|error| io_failure("the helper that flushes shared mappings does not start", &error))?;
        let writeback = WritebackWatch::begin(&self.ground)
            .map_err(|error| io_failure("the disk of the directory cannot be watched", &error))?;
        let planned = PlannedChecks::begin(&self.ground, &self.board)
            .map_err(|error| io_failure("verifications have no thread", &error))?;
        self.ground.volume.watch_for_others();
        let serving = mount.serve().map_err(|error| io_failure("the mount cannot be served", &error))?;
        if let Some(holder) = &self.ground.holder {
            holder.serving(&options.directory);
            // Where the daemon before knew of no marks its holder is told of them only now (`startup::tell_places`).
            let (view, under) = (self.ground.view.as_fd(), self.ground.under.as_fd());
            if let Err(failure) =
                holder.places(view, under, self.ground.volume.map().and_then(|map| map.memory()))
            {
                log::warn!("what is marked as changed does not outlive this daemon: {}", failure.what);
            }
        }
        let keeper = Keeper::begin(&self.ground)
            .map_err(|error| io_failure("the activity log has no thread", &error))?;
        let book = Book::begin(&self.ground, &self.board)
            .map_err(|error| io_failure("how the set is served is noted by no thread", &error))?;
        let rounds = Rounds::begin(&self.ground, &serving, flusher, (writeback, keeper, planned, book));
        Ok((serving, rounds))
    }

    /// Takes the mount away and sends what is queued. A busy mount is as it was.
    fn stop(&mut self, life: Life, stop: Stop) -> Life {
        let (serving, rounds) = match life {
            Life::Serving { serving, rounds, .. } => (serving, rounds),
            Life::Draining { .. } if stop.mode == StopMode::Now => return self.hasten(life, stop.asker),
            Life::Starting { .. }
            | Life::HandingOver { .. }
            | Life::Stopping { .. }
            | Life::Draining { .. }
            | Life::Over { .. } => {
                stop.refuse(not_serving(&self.ground, life.stage()));
                return life;
            }
        };
        self.hands.give(Job::Unmount(Unmount {
            ground: self.ground.clone(),
            board: self.board.clone(),
            flusher: rounds.flusher.clone(),
            serving,
            mode: stop.mode,
        }));
        Life::Stopping { stop, rounds }
    }

    /// Sends what is queued, up to the end that `ending` says.
    fn drain(
        &self,
        mode: StopMode,
        mark: Mark,
        gone: Option<(Serving, Arc<Flusher>)>,
        ending: Ending,
        rounds: Rounds,
    ) -> Life {
        let haste = Haste::default();
        self.hands.give(Job::Drain(Drain {
            ground: self.ground.clone(),
            board: self.board.clone(),
            director: self.itself.clone(),
            mode,
            haste: haste.clone(),
            mark,
            gone,
        }));
        Life::Draining { ending, rounds, haste, hasty: Vec::new() }
    }

    fn end(&mut self, ending: Ending, mut rounds: Rounds, drained: Drained) -> Life {
        let Drained { report, ended, mark, disk, left } = drained;
        if let Some(why) = self.ground.volume.divergence().uncaptured() {
            self.recorder.note_divergence(&why);
        }
        let is_touched = self.ground.volume.divergence().touched().is_some();
        if is_touched || targets_keep_something(&self.ground, &self.connections) {
            self.recorder.note_touched(true);
        }
        if matches!(ended, Ended::Complete) {
            self.recorder.note_rules(&rules::in_force(&self.ground.volume), self.ground.options.owners);
        }
        note_what_has_come(&self.ground, &self.connections, &mut self.recorder);
        let run = self.ground.queue.last().incarnation;
        let targets = self.connections.iter().map(|connection| {
            (connection.target.to_string(), Reached { run, sequence: connection.report().durable })
        });
        let backing = &self.ground.backing;
        self.recorder.note_end(targets, mark, (disk, left), |stamp| identity::stamp(backing, stamp));
        if self.recorder.record().left.is_none() {
            self.ground.queue.leave_nothing();
        }
        let how = match ending {
            Ending::Stopped(_) => How::Stopped,
            Ending::UnmountedByOthers => How::Unmounted,
        };
        rounds.close_book(how, &report);
        let outcome = match ending {
            Ending::Stopped(stop) => {
                stop.asker.into_iter().for_each(|asker| asker.give(Ok(report.clone())));
                farewell(&self.ground, &report);
                Ok(ended)
            }
            Ending::UnmountedByOthers => Ok(unmounted_by_others(&self.ground, &report)),
        };
        Life::Over { outcome, rounds: Some(rounds), stopped: Some(report) }
    }

    /// Puts a barrier into the stream; everything before it is what its position means.
    ///
    /// Never waits for room: a full queue must not keep a stop or a waiting call beyond its time.
    /// While nothing came after the last barrier that one serves again, so that many calls on a
    /// full queue add nothing. Where nobody would be sent it there is none: it would be what they lack.
    ///
    /// A marker is always one of its own, and those who are sent it later see it later.
    fn barrier(&mut self, durable: bool, name: Option<MarkerName>) -> Result<Upto, Failure> {
        let queued = Upto::queued(&self.ground.queue);
        let serves = |last: &Barrier| last.sequence == queued.barrier && (last.durable || !durable);
        let is_there = self.last_barrier.as_ref().is_some_and(serves) || is_sent_nothing(&self.connections);
        if name.is_none() && is_there {
            return Ok(queued);
        }
        let closed = |_| Failure::new("The daemon is stopping.", "Nothing was changed.", "");
        let mut room = self.ground.queue.reserve_beyond(64 + MARKER_NAME_LEN_MAX).map_err(closed)?;
        let draft = Draft::new(b"", &Op::Barrier { durable, name }, Bytes::new());
        let sequence = self.ground.queue.append(&mut room, draft).sequence;
        self.last_barrier = Some(Barrier { sequence, durable });
        Ok(Upto { barrier: sequence, ..queued })
    }
}

impl Signals {
    /// What follows from the one that is pending.
    fn take(&mut self) -> StopMode {
        self.pending = false;
        self.stops += 1;
        if self.stops > 1 { StopMode::Now } else { StopMode::Orderly }
    }
}

impl Stop {
    /// The directory goes on being protected, or was not yet; whoever asked is told why.
    fn refuse(self, failure: Failure) {
        match self.asker {
            Some(asker) => asker.give(Err(failure)),
            None => aside!("{failure}"),
        }
    }
}

fn not_serving(ground: &Ground, stage: Stage) -> Failure {
    Failure::new(
        format!("The daemon of {} is not serving at this moment.", ground.options.directory.display()),
        "Nothing was changed.",
        match stage {
            Stage::Starting => format!(
                "To end it before that: Ctrl-C in its terminal, or kill -TERM {}.",
                std::process::id()
            ),
            Stage::Draining => {
                "It is about to end; `standin status` says what it still sends, and `standin stop --now` does not \
                 wait for that."
                    .to_owned()
            }
            Stage::HandingOver => {
                "It is about to become another program, which takes seconds: then try again.".to_owned()
            }
            Stage::Serving | Stage::Stopping | Stage::Over => {
                "It is about to end; `standin status` says what it still sends.".to_owned()
            }
        },
    )
}
