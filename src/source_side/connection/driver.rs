//! What is behind a connection: hands the machine what happens, and does what it says. What is
//! around it ([`Surroundings`]) is links and threads in the product, a simulator in tests.

mod checks;
mod compressed;
mod copies;
mod ending;
mod fenced;
mod foreseen;
mod full;
mod left;
mod limited;
mod mirror;
mod owed;
mod part;
mod rung;
mod scheduled;
#[cfg(test)]
mod simulated;
mod told;
mod trust;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, at, never, select};

use super::checking::{CheckWish, Checking};
use super::copying::Copying;
use super::healing::Healing;
use super::publishing::begun;
use super::surroundings::{NetworkLink, Surroundings, Walked};
use super::{Settings, Shared, Suspects, Told};
use crate::clock;
use crate::connection::{Action, Command, Event, Flow, Held, Jitter, Machine, NotNow, State};
use crate::control::{AsideStatus, MirrorStatus, unix_ms};
use crate::link::{LostBy, SourceEvent, was_unreadable};
use crate::packet::{
    Features, History, OrphanCounts, Position, ReplicaProof, Sequence, SourceClock, SourceMessage, Text,
    WIRE_VERSION, WIRE_VERSION_OLDEST,
};
use crate::queue::{CursorId, Queue, Reader};
use crate::resync::{CopyError, Pace};
use crate::source_side::activity::Merge;
use crate::source_side::backlog::LeftBehind;
use crate::source_side::delete_guard::{Asked, DeleteGuard};
use crate::source_side::feed::{Lane, PacketFeed, Sent, Stream};
use crate::source_side::kept::{FirstCopy, LastVerified, WishedMirror};
use crate::words::{CopyMode, HashKind, OrphanRules, OwnedBy};
use compressed::Level;
use fenced::reads_no_other;
pub use foreseen::Foreseen;
use left::begin_report;
use limited::Limits;
use owed::Lacks;
use scheduled::Timing;
use trust::Trust;

/// How often counters of the link are taken over, and a full queue is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Driver<S: Surroundings> {
    around: S,
    pub(super) settings: Settings,
    queue: Arc<Queue>,
    /// None while the queue holds nothing for the target.
    cursor: Option<CursorId>,
    start: Position,
    pub(super) shared: Arc<Shared>,
    sent: Arc<Sent>,
    guard: Arc<DeleteGuard>,
    pub(super) machine: Machine,
    timing: Timing,
    limits: Limits,
    level: Level,
    session: Option<OpenLink<S::Link>>,
    copy: Copying,
    /// A comparison under way; never beside a copy.
    checking: Option<Checking>,
    /// Asked for while the target has not said its last word on the one before.
    next_check: Option<CheckWish>,
    /// A mirror by hand that compares first, and has changed nothing yet.
    pub(super) wished: Option<WishedMirror>,
    /// The last comparison that came to an end.
    pub(super) verified: Option<LastVerified>,
    /// Up to when all were made that were due by themselves.
    pub(super) checks_served_s: i64,
    /// Files whose content the next copy sends whatever the target compares.
    suspects: Suspects,
    /// Of the next copy.
    pub(super) copy_mode: CopyMode,
    pub(super) copy_orphans: Option<OrphanRules>,
    /// As a person asked for it, where what is done is less: a part of that was done.
    asked_mode: Option<CopyMode>,
    /// What the target did with them at the end of a copy, until that is in line.
    orphans: Option<OrphanCounts>,
    /// Who has written the replica, where the target has said so.
    wrote: History,
    /// By which hashes it compares.
    pub(super) copy_hash: HashKind,
    /// Of copies, as a person wants it.
    pub(super) pace: Arc<Pace>,
    /// Nothing that programs do gets past the mount: copies may begin.
    is_captured: bool,
    healing: Healing,
    /// The target held nothing when copies to it began.
    from_nothing: Option<FirstCopy>,
    trust: Trust,
    lacks: Lacks,
    /// What is in doubt since a power loss of the source, until the target is in line.
    merge: Option<Arc<Merge>>,
    /// The directory was restored from the target: until it is in line, names say what it has.
    is_restored: bool,
    /// The target has applied everything up to here: the queue does not hold it for it.
    acknowledged: Sequence,
    /// What the run before this one has queued for it goes first.
    left: Option<LeftBehind>,
    /// Of that, until the target is in line: what it has said to have is of this history.
    left_upto: Option<Position>,
    /// The last packet that some session has sent.
    sent_upto: Sequence,
    /// So many looks in a row have found the queue full because of this connection.
    full_looks: u32,
    /// Since when the target has had no room.
    full_since: Option<Instant>,
    /// It was told what makes room up to here.
    relief_told: Sequence,
    /// Looks for that, while it has no room.
    relief_reader: Option<Reader>,
    /// Something happened that the report does not say yet.
    unpublished: bool,
    over: bool,
}

/// One network connection, from dialling to its end.
struct OpenLink<L> {
    link: L,
    lane: Lane,
    stream: Arc<Stream>,
    welcomed: bool,
    /// Changes that could not be captured, as the target was told.
    told_diverged: u64,
    /// While packets flow: what the target acknowledged last, applied and durable.
    acknowledged: Option<(Sequence, Sequence)>,
}

/// What a driver hears.
pub(crate) enum News {
    Told(Told),
    /// Of the link that is up, or dialled; `None`: its thread is gone.
    Link(Option<SourceEvent>),
    /// The walk of the attempt under way is over.
    Walked(Walked),
    /// Now and then: counters of the link are taken over, and a full queue is looked for.
    Look,
    /// Programs wait for room in the queue. Nobody says so while the target is there.
    Waits,
    /// What [`Driver::due`] said.
    Due,
}

impl<S: Surroundings> Driver<S> {
    /// Dials with its first [`Driver::act`].
    pub(super) fn new(
        settings: Settings,
        around: S,
        queue: Arc<Queue>,
        (cursor, start): (CursorId, Position),
        shared: Arc<Shared>,
        sent: Arc<Sent>,
    ) -> Driver<S> {
        let (timing, limits) = (Timing::new(&settings), Limits::new(settings.kept.limit.clone()));
        let level = Level::new(settings.kept.compression.clone());
        let guard = DeleteGuard::new(settings.delete_guard, settings.kept.names, settings.kept.asked);
        let machine = begun(&settings, timing.window(), &guard);
        let (copy_mode, copy_hash) = (settings.kept.copy_mode, settings.kept.copy_hash);
        let (verified, wished) = (settings.kept.verified.clone(), settings.kept.mirror.clone());
        let now_s = (unix_ms(SystemTime::now()) / 1000) as i64;
        let checks_served_s = settings.kept.checks_served_s.unwrap_or(now_s);
        let (copy_orphans, pace) = (settings.kept.copy_orphans, Arc::new(Pace::default()));
        pace.pause(settings.kept.copy_paused);
        let lacks = Lacks::at_start(start.sequence, &settings);
        begin_report(&mut shared.report.lock(), lacks.base(), settings.left.as_ref());
        let begins_at = settings.left.as_ref().map_or(start.sequence, |left| left.applied);
        Driver {
            merge: settings.merge.clone(),
            from_nothing: settings.kept.first_copy.clone(),
            is_restored: settings.restored_at.is_some(),
            left_upto: settings.left.as_ref().map(|left| left.upto),
            left: settings.left.clone(),
            around,
            settings,
            queue,
            cursor: Some(cursor),
            start,
            shared,
            sent,
            guard: Arc::new(guard),
            machine,
            timing,
            limits,
            level,
            session: None,
            copy: Copying::Resting,
            checking: None,
            next_check: None,
            wished,
            verified,
            checks_served_s,
            suspects: Suspects::default(),
            copy_mode,
            copy_orphans,
            asked_mode: None,
            orphans: None,
            wrote: History::default(),
            copy_hash,
            pace,
            is_captured: false,
            healing: Healing::new(),
            trust: Trust::AsNoted,
            lacks,
            acknowledged: begins_at,
            sent_upto: begins_at,
            full_looks: 0,
            full_since: None,
            relief_told: Sequence::default(),
            relief_reader: None,
            unpublished: true,
            over: false,
        }
    }

    /// Until the connection is over.
    pub(super) fn run(mut self, told: &Receiver<Told>) {
        let (looks, waits) = (crossbeam_channel::tick(LOOK_EVERY), self.queue.waits());
        self.tick_limit();
        self.tick_compression();
        self.act();
        while !self.over {
            let (events, walked, due) = (self.events(), self.walked(), self.due().map_or_else(never, at));
            // What was there before it went, and whether anybody waits, is looked at with each step.
            let waits = if self.machine.is_away() { waits.clone() } else { never() };
            let news = select! {
                recv(events) -> event => News::Link(event.ok()),
                recv(walked) -> outcome => News::Walked(
                    outcome.unwrap_or_else(|_| Err(CopyError::Answer("its thread died".into()))),
                ),
                recv(told) -> told => News::Told(told.unwrap_or(Told::End)),
                recv(looks) -> _ => News::Look,
                recv(waits) -> _ => News::Waits,
                recv(due) -> _ => News::Due,
            };
            self.hear(news);
        }
    }

    /// What happens on the link that is up, or dialled.
    pub(crate) fn events(&self) -> Receiver<SourceEvent> {
        self.session.as_ref().map_or_else(never, |session| session.link.events().clone())
    }

    /// The end of the walk that is under way.
    pub(crate) fn walked(&self) -> Receiver<Walked> {
        self.checking.as_ref().map_or_else(|| self.copy.ended(), Checking::ended)
    }

    /// When it wants to hear [`News::Due`].
    pub(crate) fn due(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    /// Takes in what happened, and does what follows.
    pub(crate) fn hear(&mut self, news: News) {
        match news {
            News::Told(told) => self.told(told),
            News::Link(event) => self.link_event(event),
            News::Walked(outcome) if self.checking.is_some() => self.check_walked(outcome),
            News::Walked(outcome) => self.copy_walked(outcome),
            News::Look => self.look(),
            // With what follows.
            News::Waits => {}
            News::Due => {
                self.unpublished = true;
                self.machine.handle_timeout(clock::now());
            }
        }
        self.take_up_mirror();
        self.ask_about_deletes();
        self.act();
    }

    /// Does what the machine says, and lets everyone know.
    pub(crate) fn act(&mut self) {
        self.let_go_of_who_is_away();
        while let Some(action) = self.machine.poll_action() {
            self.perform(action);
            self.let_go_of_who_is_away();
        }
        if std::mem::take(&mut self.unpublished) {
            self.publish();
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dial { attempt } => self.dial(attempt),
            Action::Greet => self.greet(),
            Action::AwaitCopy { flow } => self.await_copy(flow),
            Action::Stream { after, flow } => self.stream(after, flow),
            Action::SetFlow(flow) => self.set_flow(flow),
            Action::Close { reason } => self.close(&reason),
            Action::LetGo => self.let_go(),
            Action::End => {
                assert!(self.session.is_none(), "a connection is over before its network connection is");
                self.over = true;
            }
        }
    }

    fn told(&mut self, told: Told) {
        self.unpublished = true;
        match told {
            Told::Command(command, answer) => {
                let outcome = self.command(command);
                let _ = answer.send(outcome);
            }
            Told::Mirror(command, answer) => {
                let outcome = self.mirror(command);
                self.act();
                let _ = answer.send(outcome);
            }
            Told::Schedule(order, answer) => {
                self.order_schedule(order);
                self.act();
                let _ = answer.send(Ok(()));
            }
            Told::Limit(order, answer) => {
                self.order_limit(order);
                self.act();
                let _ = answer.send(Ok(()));
            }
            Told::Compression(order, answer) => {
                self.order_compression(order);
                self.act();
                let _ = answer.send(Ok(()));
            }
            Told::Terms(terms) => self.follow_terms(terms),
            Told::Foresee(answer) => drop(answer.send(self.foresee())),
            Told::Verify(wish) => self.begin_check(wish),
            Told::Repair { suspects, part, answer } => {
                let outcome = self.repair(suspects, part);
                self.act();
                let _ = answer.send(outcome);
            }
            Told::StopVerifying => self.end_check(Err("it was stopped".into())),
            Told::Captured => {
                self.is_captured = true;
                self.begin_copy();
            }
            Told::End => {
                // The target is told before nobody tells it anything any more.
                self.tell_diverged();
                self.machine.handle_end(clock::now(), "the source stops");
            }
        }
    }

    /// What a person asks for. Deletions that wait for their word go with no other one.
    pub(crate) fn command(&mut self, command: Command) -> Result<(), NotNow> {
        let is_paused = matches!(self.machine.state(), State::Paused(_));
        let would_send = command == Command::Resume || command == Command::Start && is_paused;
        let asked = self.guard.asks().filter(|_| would_send);
        match asked.map(|asked| asked.by_copy) {
            Some(false) => return Err(NotNow::Deletes),
            // They are counted again: the files may have been put back.
            Some(true) => self.guard.forget(),
            None => {}
        }
        let starts = command == Command::StartReplication && self.machine.is_unqueued();
        if command == Command::Start || starts {
            self.begin_by_hand()?;
        }
        let outcome = self.machine.handle_command(clock::now(), command);
        if command == Command::AcceptDeletes && outcome.is_ok() {
            self.guard.accept(self.queue.last().sequence);
        }
        if outcome.is_ok() && (command == Command::AcceptDeletes || asked.is_some()) {
            self.begin_copy();
        }
        self.act();
        outcome
    }

    fn dial(&mut self, attempt: u32) {
        assert!(self.session.is_none(), "a network connection is dialled beside another one");
        let at = if self.left.is_some() { self.last_of_history() } else { self.start };
        let stream = Stream::guarded(at, self.machine.state().flow(), self.guard.clone());
        stream.stop_behind(self.wall());
        let (feed, lane) = PacketFeed::new(self.queue.clone(), stream.clone(), self.sent.clone());
        let link = match self.around.dial(attempt, feed) {
            Ok(link) => link,
            Err(reason) => return self.lost(LostBy::Network, reason),
        };
        *self.shared.waker.lock() = Some(link.waker());
        self.session =
            Some(OpenLink { link, lane, stream, welcomed: false, told_diverged: 0, acknowledged: None });
    }

    fn greet(&self) {
        assert!(self.session.is_some(), "a greeting to nobody");
        self.send(SourceMessage::Hello {
            version_oldest: WIRE_VERSION_OLDEST,
            version: WIRE_VERSION,
            features: Features::OFFERED,
            set: self.settings.set,
            set_name: Text::from_str_cut(&self.settings.set_name),
            last: self.queue.last(),
            oldest: self.queue.oldest(),
        });
    }

    fn send(&self, message: SourceMessage) {
        if let Some(session) = &self.session {
            session.link.send(message);
        }
    }

    /// Packets go from the one after this position, at once or when they are let; after a copy they do
    /// already.
    fn stream(&mut self, after: Position, flow: Flow) {
        self.set_flow(flow);
        let Some(session) = self.session.as_mut().filter(|session| !session.stream.is_started()) else {
            return;
        };
        assert!(
            self.acknowledged <= after.sequence,
            "what is acknowledged is not in the queue to be sent again"
        );
        session.acknowledged = Some((after.sequence, Sequence(0)));
        match self.left {
            // Its names were counted by the run before.
            Some(_) => self.guard.knows_the_rest(after.sequence),
            None if self.settings.goes_on => self.lacks.goes_on(after.sequence, self.start.sequence),
            None => {}
        }
        session.stream.start(after, self.sent_upto);
        session.link.send(SourceMessage::StreamFrom { after });
        session.link.waker().wake();
        self.shows_resumed(after.sequence);
        self.applied(after.sequence, Sequence(0));
        self.tell_moment();
    }

    fn set_flow(&mut self, flow: Flow) {
        if flow == Flow::Hold {
            self.forbid_checks("its connection was paused");
        }
        if let Some(session) = &self.session {
            session.stream.set_flow(flow);
            session.link.waker().wake();
        }
    }

    fn close(&mut self, reason: &str) {
        *self.shared.waker.lock() = None;
        self.end_check(Err(format!("the connection ended: {reason}")));
        self.forget_checks();
        let copies = !self.copy.is_resting();
        if self.copy.attempt().is_some_and(|attempt| attempt.is_full && attempt.is_heard) {
            // What it has brought is compared, as with all others: one that is longer than its session would never end.
            (self.copy_mode, self.asked_mode) = (CopyMode::Checksum, None);
        }
        self.copy.end();
        (self.full_since, self.relief_reader) = (None, None);
        // Nobody is left to say later how old the replica is.
        self.tell_moment();
        if let Some(session) = self.session.take() {
            session.link.send(SourceMessage::Goodbye);
            session.stream.set_flow(Flow::Hold);
            self.sent_upto = self.sent_upto.max(session.stream.at().sequence);
            assert!(self.acknowledged <= self.sent_upto, "more is acknowledged than was sent");
            // Nothing reads the queue for it any more. Programs that wait for room do not wait for a network
            // connection that nobody answers, too.
            if self.machine.lets_go_next() {
                self.let_go();
            }
            session.link.close(reason);
        }
        self.update(|report| {
            report.connected = None;
            report.streaming = false;
            if copies {
                report.mirror = MirrorStatus::Stopped;
            }
            report.resync.iter_mut().for_each(|resync| resync.running = false);
        });
    }

    /// The queue must not be held for a target that cannot resume, or writers would wait for ever.
    fn let_go(&mut self) {
        let Some(cursor) = self.cursor.take() else { return };
        self.full_looks = 0;
        self.forget_left();
        self.queue.detach(cursor);
        if let (Some(reason), false) = (self.machine.let_go(), *self.machine.state() == State::Gone) {
            let is_through = self.left_upto.is_some() && self.shared.report.lock().has_come.is_some();
            let is_wanted = self.machine.is_unqueued() || is_through || self.shared.report.lock().begins_copy;
            let level = if is_wanted { log::Level::Debug } else { log::Level::Warn };
            log::log!(level, "connection {} to {}: {reason}", self.settings.id, self.settings.target);
        }
    }

    fn link_event(&mut self, event: Option<SourceEvent>) {
        match event {
            Some(SourceEvent::Up) => {
                // Before it is decided what is sent.
                self.ask_about_deletes();
                self.happened(Event::Up);
            }
            Some(SourceEvent::Message(message)) => self.message(message),
            Some(SourceEvent::Lost { by, reason }) => {
                let is_greeted = self.session.as_ref().is_none_or(|session| session.welcomed);
                match !is_greeted && was_unreadable(&reason) {
                    true => self.lost(LostBy::Refusal, reads_no_other(&reason)),
                    false => self.lost(by, reason),
                }
            }
            None => self.lost(LostBy::Network, "the link thread ended".into()),
        }
    }

    fn happened(&mut self, event: Event) {
        self.unpublished = true;
        self.machine.handle_event(clock::now(), event);
    }

    fn lost(&mut self, by: LostBy, reason: String) {
        let level = match self.machine.attempts() {
            0 => log::Level::Warn,
            _ => log::Level::Debug,
        };
        log::log!(level, "connection {} to {}: {reason}", self.settings.id, self.settings.target);
        let jitter = Jitter(self.around.random() as u16);
        match by {
            LostBy::Network => self.happened(Event::Lost { reason, jitter }),
            LostBy::Refusal => self.happened(Event::Refused { reason, jitter }),
        }
    }

    /// Another network connection may find a target that keeps to the protocol.
    fn misbehaves(&mut self, reason: String) {
        self.lost(LostBy::Network, reason);
    }

    /// The target said what it can prove.
    fn welcome(&mut self, version: u16, theirs: Features, proof: ReplicaProof) {
        let Some(session) = &mut self.session else { return };
        if std::mem::replace(&mut session.welcomed, true) {
            return self.misbehaves("the target greeted twice".into());
        }
        if !(WIRE_VERSION_OLDEST..=WIRE_VERSION).contains(&version) {
            return self.misbehaves(format!(
                "the target chose version {version} of the protocol, which was not offered"
            ));
        }
        if self.settings.owners == OwnedBy::Name && !theirs.has(Features::OWNER_NAMES) {
            let reason = "the target's version of standin knows no owners by name: update it there, or protect without \
                          --owner name";
            return self.lost(LostBy::Network, reason.into());
        }
        self.left_is_proved(&proof);
        let last = self.last_of_history();
        if let (Some(known), Some(kept_out)) = (proof.stood_in(), last.epoch.kept_out_by(proof.stood_in())) {
            return self.kept_out(known, History::of(known), kept_out.to_string());
        }
        let said = self.shared.report.lock().durable;
        let is_ours = proof.applied.same_history(&last);
        let is_left = self.left_upto.is_some_and(|upto| proof.applied.same_history(&upto));
        let has = if is_ours || is_left { proof.durable.sequence } else { Sequence(0) };
        self.trust = self.trust_after(has < said, is_ours, &proof);
        self.lacks.welcome(proof);
        self.level.is_taken = Some(theirs.has(Features::COMPRESSION));
        self.level.takes_holes = theirs.has(Features::HOLES);
        let replica_of = proof.applied.incarnation;
        self.from_nothing.take_if(|copy| !copy.has_made(replica_of));
        self.update(|report| {
            report.data = proof.data;
            report.data_reason.clear();
            report.aside = AsideStatus::default();
            if is_ours {
                // Less than it had said to have where it was set back.
                report.applied = report.applied.min(proof.applied.sequence);
                report.durable = report.durable.min(proof.durable.sequence);
            }
            report.connected = Some(SystemTime::now());
            report.heard = true;
            report.retrying = None;
        });
        if let Some(session) = &self.session {
            session.link.send(SourceMessage::Runs { runs: self.settings.roles.runs.clone() });
            session.link.start_feed(theirs);
        }
        let held = Held { last, oldest: self.queue.oldest(), acknowledged: self.acknowledged };
        self.happened(Event::Welcome { proof, held });
    }

    /// The queue lets go of what is acknowledged: only what can be true counts.
    fn acknowledge(&mut self, applied: Sequence, durable: Sequence) {
        let Some(session) = &mut self.session else { return };
        // Before packets flow the target may speak of another history.
        let Some(before) = session.acknowledged else { return };
        if applied > session.stream.at().sequence {
            return self
                .misbehaves(format!("the target acknowledged packet {applied}, which it was not sent"));
        }
        if durable > applied {
            return self.misbehaves("the target made durable what it had not applied".into());
        }
        if applied < before.0 || durable < before.1 {
            return self.misbehaves("the target took back what it had acknowledged".into());
        }
        session.acknowledged = Some((applied, durable));
        self.applied(applied, durable);
    }

    fn applied(&mut self, applied: Sequence, durable: Sequence) {
        assert!(durable <= applied, "the queue lets go of what is not applied");
        self.acknowledged = self.acknowledged.max(applied);
        if let Some(cursor) = self.cursor {
            self.queue.acknowledge_applied(cursor, applied);
            self.queue.acknowledge_durable(cursor, durable);
        }
        if self.copy.is_resting() {
            self.lacks.durable(durable);
        }
        let base = self.lacks.base();
        let (shown, on_disk) = (self.shown(applied), self.shown(durable));
        let leaves = self.left.is_some().then(|| self.leaves_behind());
        self.update(|report| {
            report.base = base;
            report.applied = report.applied.max(shown);
            report.durable = report.durable.max(on_disk);
            if let Some(leaves) = leaves {
                report.leaves = leaves;
            }
        });
        self.left_is_durable(durable);
    }

    /// See [`News::Look`].
    fn look(&mut self) {
        if let Some(session) = &self.session {
            let stats = session.link.stats();
            self.update(|report| report.link = stats);
        }
        let jitter = || Jitter(self.around.random() as u16);
        self.unpublished |= self.machine.handle_silence(clock::now(), jitter);
        self.tick_schedule();
        self.tick_limit();
        self.tick_compression();
        self.tell_diverged();
        self.tell_moment();
        self.pass_what_is_marked();
        self.unpublished |= self.guard.noted() != self.shared.report.lock().kept.names;
        self.ask_about_deletes();
        if self.machine.is_streaming() && self.healing.is_due(clock::now()) {
            self.out_of_line("objects that the target lacks are tried again".into());
        }
        self.look_at_queue();
    }

    /// A target says how old its replica is by this, also when the source is gone.
    pub(super) fn tell_moment(&self) {
        if !self.session.as_ref().is_some_and(|session| session.stream.is_started()) {
            return;
        }
        // In this order: what returns in between has a position behind the moment, and counts as younger.
        let at = SourceClock { wall_ms: unix_ms(SystemTime::now()), steady_ms: crate::clock::steady_ms() };
        self.send(SourceMessage::GaveOut { last: self.queue.last(), at });
    }

    pub(super) fn guard_noted(&self) -> Option<u64> {
        self.guard.noted()
    }

    pub(super) fn guard_asks(&self) -> Option<Asked> {
        self.guard.asks()
    }

    fn ask_about_deletes(&mut self) {
        if let Some(asked) = self.guard.asks() {
            self.happened(Event::ManyDeletes { reason: asked.to_string() });
        }
    }
}
