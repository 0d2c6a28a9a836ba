//! What is behind a connection: hands the machine what happens, and does what it says. What is
//! around it ([`Surroundings`]) is links and threads in the product, a simulator in tests.

#[cfg(test)]
mod simulated;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, TrySendError, at, never, select};

use super::copying::{Copying, EndSaid};
use super::surroundings::{NetworkLink, Surroundings, Walked};
use super::{CopyOrder, Settings, Shared, Told};
use crate::clock;
use crate::connection::{Action, Event, Flow, Held, Jitter, Link, Machine, Repair, State, Window};
use crate::control::{AsideStatus, ConnectionState, MirrorStatus, Retrying, SetAside, unix_ms};
use crate::limits::{ASIDE_LISTED_MAX, RELIEF_AFTER, RELIEF_OBJECTS_MAX};
use crate::link::{LostBy, SourceEvent};
use crate::packet::{
    DataState, Features, ItemNumber, LeftOut, Position, ReplicaProof, Sequence, SourceMessage, Stuck,
    TargetMessage, Text, WIRE_VERSION, WIRE_VERSION_OLDEST,
};
use crate::queue::{CursorId, Queue};
use crate::resync::{CopyError, CopyReport, Wanted};
use crate::source_side::feed::{Lane, PacketFeed, Sent, Stream};
use crate::source_side::mark::Mark;
use crate::source_side::relief;

/// How often counters of the link are taken over, and a full queue is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Driver<S: Surroundings> {
    around: S,
    pub(super) settings: Settings,
    queue: Arc<Queue>,
    cursor: CursorId,
    start: Position,
    pub(super) shared: Arc<Shared>,
    sent: Arc<Sent>,
    pub(super) machine: Machine,
    session: Option<OpenLink<S::Link>>,
    copy: Copying,
    /// The target held nothing when copies to it began, at this moment.
    from_nothing: Option<Mark>,
    /// The target has applied everything up to here: the queue does not hold it for it.
    acknowledged: Sequence,
    /// The last packet that some session has sent.
    sent_upto: Sequence,
    /// The queue was full because of this connection when it was looked at last.
    was_full: bool,
    /// Since when the target has had no room.
    full_since: Option<Instant>,
    /// It was told what makes room up to here.
    relief_told: Sequence,
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
    /// The target was told that it may miss a change.
    told_diverged: bool,
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
        let machine = Machine::new(clock::now(), Window::Open).named(settings.id);
        Driver {
            around,
            settings,
            queue,
            cursor,
            start,
            shared,
            sent,
            machine,
            session: None,
            copy: Copying::Nobodys,
            from_nothing: None,
            acknowledged: start.sequence,
            sent_upto: start.sequence,
            was_full: false,
            full_since: None,
            relief_told: Sequence::default(),
            unpublished: true,
            over: false,
        }
    }

    /// Until the connection is over.
    pub(super) fn run(mut self, told: &Receiver<Told>) {
        let looks = crossbeam_channel::tick(LOOK_EVERY);
        self.act();
        while !self.over {
            let (events, walked, due) = (self.events(), self.walked(), self.due().map_or_else(never, at));
            let news = select! {
                recv(events) -> event => News::Link(event.ok()),
                recv(walked) -> outcome => News::Walked(
                    outcome.unwrap_or_else(|_| Err(CopyError::Answer("its thread died".into()))),
                ),
                recv(told) -> told => News::Told(told.unwrap_or(Told::End)),
                recv(looks) -> _ => News::Look,
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
        self.copy.ended()
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
            News::Walked(outcome) => self.copy_walked(outcome),
            News::Look => self.look(),
            News::Due => {
                self.unpublished = true;
                self.machine.handle_timeout(clock::now());
            }
        }
        self.act();
    }

    /// Does what the machine says, and lets everyone know.
    pub(crate) fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Dial { attempt } => self.dial(attempt),
                Action::Greet => self.greet(),
                Action::AwaitCopy { flow } => {
                    self.set_flow(flow);
                    self.begin_copy();
                }
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
        if std::mem::take(&mut self.unpublished) {
            self.publish();
        }
    }

    fn told(&mut self, told: Told) {
        self.unpublished = true;
        match told {
            Told::Command(command, answer) => {
                let outcome = self.machine.handle_command(clock::now(), command);
                self.act();
                let _ = answer.send(outcome);
            }
            Told::Copy(order) => self.order_copy(order),
            Told::End => self.machine.handle_end(clock::now(), "the source stops"),
        }
    }

    fn dial(&mut self, attempt: u32) {
        assert!(self.session.is_none(), "a network connection is dialled beside another one");
        let stream = Stream::new(self.start, self.machine.state().flow());
        let (feed, lane) = PacketFeed::new(self.queue.clone(), stream.clone(), self.sent.clone());
        let link = match self.around.dial(attempt, feed) {
            Ok(link) => link,
            Err(reason) => return self.lost(LostBy::Network, reason),
        };
        *self.shared.waker.lock() = Some(link.waker());
        self.session =
            Some(OpenLink { link, lane, stream, welcomed: false, told_diverged: false, acknowledged: None });
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

    /// Packets go from the one after this position, at once or when they are let.
    fn stream(&mut self, after: Position, flow: Flow) {
        assert!(
            self.acknowledged <= after.sequence,
            "what is acknowledged is not in the queue to be sent again"
        );
        self.send(SourceMessage::StreamFrom { after });
        self.applied(after.sequence, Sequence(0));
        if let Some(session) = &mut self.session {
            session.acknowledged = Some((after.sequence, Sequence(0)));
            session.stream.set_flow(flow);
            session.stream.start(after, self.sent_upto);
            session.link.waker().wake();
        }
        if let Some(copy) = self.copy.take() {
            self.update(|report| report.mirror = MirrorStatus::Complete);
            copy.came_true();
        }
    }

    fn set_flow(&self, flow: Flow) {
        if let Some(session) = &self.session {
            session.stream.set_flow(flow);
            session.link.waker().wake();
        }
    }

    fn close(&mut self, reason: &str) {
        *self.shared.waker.lock() = None;
        self.copy.cut_off();
        self.full_since = None;
        if let Some(session) = self.session.take() {
            session.link.send(SourceMessage::Goodbye);
            self.sent_upto = self.sent_upto.max(session.stream.at().sequence);
            assert!(self.acknowledged <= self.sent_upto, "more is acknowledged than was sent");
            session.link.close(reason);
        }
        let copies = self.copy.is_wanted();
        self.update(|report| {
            report.connected = None;
            report.streaming = false;
            if copies {
                report.mirror = MirrorStatus::Stopped;
            }
        });
    }

    /// The queue must not be held for a target that cannot resume, or writers would wait for ever.
    fn let_go(&self) {
        self.queue.detach(self.cursor);
        if let (Some(reason), false) =
            (self.machine.let_go(), matches!(self.machine.state(), State::Gone { .. }))
        {
            log::error!("connection {} to {}: {reason}", self.settings.id, self.settings.target);
        }
    }

    fn link_event(&mut self, event: Option<SourceEvent>) {
        match event {
            Some(SourceEvent::Up) => self.happened(Event::Up),
            Some(SourceEvent::Message(message)) => self.message(message),
            Some(SourceEvent::Lost { by, reason }) => self.lost(by, reason),
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
            LostBy::Refusal => {
                self.end_copy(Err(reason.clone()));
                self.happened(Event::Refused { reason, jitter });
            }
        }
    }

    fn message(&mut self, message: TargetMessage) {
        match message {
            TargetMessage::Welcome { version, proof, .. } => self.welcome(version, proof),
            TargetMessage::Refused { reason } => {
                self.lost(LostBy::Refusal, format!("refused by the target: {}", reason.to_text()));
            }
            TargetMessage::Acknowledge { applied, durable, .. } => self.acknowledge(applied, durable),
            TargetMessage::Wanted { listing, objects } => {
                if let Some(attempt) = self.copy.attempt()
                    && let Err(TrySendError::Full(_)) = attempt.wanted.try_send(Wanted { listing, objects })
                {
                    self.misbehaves("the target answers listings that it was not sent".into());
                }
            }
            TargetMessage::Resynchronised { end, orphans, left_out } => {
                self.resynchronised(end, orphans, left_out);
            }
            TargetMessage::Retrying { sequence, op, reason, attempts, stuck } => {
                self.update(|report| {
                    let since = report.retrying.as_ref().map(|retrying| retrying.since_unix_ms);
                    report.retrying = Some(Retrying {
                        op: format!("{} (packet {sequence})", op.to_text()),
                        reason: reason.to_text(),
                        since_unix_ms: since.unwrap_or_else(|| unix_ms(SystemTime::now())),
                        attempts,
                    });
                });
                match stuck {
                    Stuck::Full if self.machine.is_streaming() => self.target_is_full(sequence),
                    Stuck::Full | Stuck::Target | Stuck::Object => self.full_since = None,
                }
            }
            TargetMessage::Recovered { .. } => {
                self.full_since = None;
                self.update(|report| report.retrying = None);
            }
            TargetMessage::Data { state, reason, aside } => self.data_changed(state, &reason, aside),
            TargetMessage::SetAside { path, op, reason, since_ms } => {
                let is_new = self.machine.is_streaming()
                    && self.shared.report.lock().aside.objects.len() < ASIDE_LISTED_MAX;
                if is_new {
                    let (path, op, reason) = (path.to_text(), op.to_text(), reason.to_text());
                    let object = SetAside { path, op, reason, since_unix_ms: since_ms };
                    self.update(|report| report.aside.objects.push(object));
                }
            }
            TargetMessage::Withheld(counts) => self.update(|report| report.withheld = counts),
            // An answer to a question that this connection does not ask; a doubt that this copy of a
            // quiet tree gives no reason for.
            TargetMessage::About { .. } | TargetMessage::Doubt { .. } => {}
        }
    }

    /// The target says how its data is while packets flow.
    fn data_changed(&mut self, state: DataState, reason: &Text, aside: u64) {
        if !self.machine.is_streaming() {
            return;
        }
        if aside > 0 && self.shared.report.lock().aside.total == 0 {
            log::error!(
                "connection {} to {}: {}: the replica is no consistent copy before the protection is stopped and \
                 started",
                self.settings.id,
                self.settings.target,
                reason.to_text()
            );
        }
        self.update(|report| {
            report.data = state;
            report.data_reason = reason.to_text();
            report.aside.total = aside;
            if aside == 0 {
                report.aside.objects.clear();
            }
        });
    }

    /// What stands on a full target is a good copy as of a moment, until something is taken from it to
    /// make room: not at once, unless programs would wait soon.
    fn target_is_full(&mut self, from: Sequence) {
        let since = *self.full_since.get_or_insert_with(clock::now);
        let stats = self.queue.stats();
        let is_pressing = stats.bytes * 2 >= stats.limit_bytes;
        if is_pressing || clock::now().saturating_duration_since(since) >= RELIEF_AFTER {
            self.relieve(from);
        }
    }

    /// A full target may have files that are gone here: their removal waits in the queue.
    /// The first ones need not do, and stay in the queue until their turn comes: then the next ones.
    fn relieve(&mut self, from: Sequence) {
        let from = from.max(self.acknowledged.next());
        let (mut objects, mut upto) = relief::look(&self.queue, from.max(self.relief_told.next()));
        if objects.is_empty() && self.relief_told >= from {
            (objects, upto) = relief::look(&self.queue, from);
        }
        self.relief_told = upto;
        for objects in objects.chunks(RELIEF_OBJECTS_MAX) {
            self.send(SourceMessage::Relief { objects: objects.to_vec() });
        }
    }

    /// Another network connection may find a target that keeps to the protocol; a copy that somebody
    /// waits for ends here.
    fn misbehaves(&mut self, reason: String) {
        self.end_copy(Err(reason.clone()));
        self.lost(LostBy::Network, reason);
    }

    /// The target said what it can prove.
    fn welcome(&mut self, version: u16, proof: ReplicaProof) {
        let Some(session) = &mut self.session else { return };
        if std::mem::replace(&mut session.welcomed, true) {
            return self.misbehaves("the target greeted twice".into());
        }
        if !(WIRE_VERSION_OLDEST..=WIRE_VERSION).contains(&version) {
            return self.misbehaves(format!(
                "the target chose version {version} of the protocol, which was not offered"
            ));
        }
        let last = self.queue.last();
        self.update(|report| {
            report.data = proof.data;
            report.data_reason.clear();
            report.aside = AsideStatus::default();
            if proof.applied.same_history(&last) {
                // Less than it had said to have where it was set back.
                report.applied = report.applied.min(proof.applied.sequence);
                report.durable = report.durable.min(proof.durable.sequence);
            }
            report.connected = Some(SystemTime::now());
            report.retrying = None;
        });
        if let Some(session) = &self.session {
            session.link.start_feed();
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
        self.queue.acknowledge_applied(self.cursor, applied);
        self.queue.acknowledge_durable(self.cursor, durable);
        self.update(|report| {
            report.applied = report.applied.max(applied);
            report.durable = report.durable.max(durable);
        });
    }

    fn order_copy(&mut self, order: CopyOrder) {
        self.end_copy(Err("another copy took its place".into()));
        self.copy = Copying::order(order);
        match self.machine.state() {
            State::Started(Link::Copying) | State::Paused(Link::Copying) => self.begin_copy(),
            State::Started(Link::Streaming) | State::Paused(Link::Streaming) => {
                self.end_copy(Err("the target is in line already".into()));
            }
            State::Error { repair: Repair::Connected, .. } | State::Gone { .. } => {
                self.end_copy(Err("no copy can be made while programs write".into()));
            }
            // It begins with the next network connection.
            State::Started(_)
            | State::Paused(_)
            | State::Error { .. }
            | State::Stopped { .. }
            | State::Scheduled { .. } => {}
        }
    }

    /// Begins an attempt at the copy that is wanted, if one is.
    fn begin_copy(&mut self) {
        let (true, Some(session)) = (self.copy.is_wanted(), &self.session) else { return };
        if self.shared.report.lock().data == DataState::Empty {
            self.from_nothing = Some(self.settings.unwritten_at.clone());
        }
        let sink = session.lane.sink(session.link.waker());
        let from_nothing = self.from_nothing.as_ref();
        match self.copy.begin(&mut self.around, from_nothing, self.settings.birth_epoch, sink) {
            None => {}
            Some(Ok((progress, attempts))) => self.update(|report| {
                report.data = DataState::Bad;
                report.left_out = LeftOut::default();
                report.mirror = MirrorStatus::Mirroring { percent: 0.0 };
                report.copy_attempts = attempts;
                report.progress = Some(progress);
            }),
            Some(Err(why)) => self.end_copy(Err(why)),
        }
    }

    /// The walk is over: with an end, the target's word is awaited.
    fn copy_walked(&mut self, outcome: Walked) {
        self.copy.walked(&outcome);
        match outcome {
            Ok(CopyReport { end: Some(_), .. }) => self.in_line(),
            Ok(report) => self.end_copy(Ok(report)),
            // The link says why; the next one begins anew.
            Err(CopyError::Gone) => {}
            Err(error) => self.end_copy(Err(error.to_string())),
        }
    }

    fn resynchronised(&mut self, end: ItemNumber, orphans: u64, left_out: LeftOut) {
        if let Some(attempt) = self.copy.attempt() {
            attempt.hear(EndSaid { end, orphans, left_out });
            self.in_line();
        }
    }

    /// The walk is over and the target has its end: then it is in line.
    fn in_line(&mut self) {
        let Some(said) = self.copy.attempt().and_then(|attempt| attempt.complete()) else { return };
        let EndSaid { orphans, left_out, .. } = said;
        if orphans > 0 {
            log::warn!(
                "connection {} to {}: objects that are not here and are at the target: {orphans}; it keeps them in \
                 .REPSET.standin/orphans beside the replica until somebody removes them",
                self.settings.id,
                self.settings.target
            );
        }
        let Some(session) = &self.session else { return };
        let after = session.stream.at();
        self.update(|report| {
            report.data = if left_out.is_empty() { DataState::Good } else { DataState::Bad };
            report.data_reason = if left_out.is_empty() { String::new() } else { left_out.summary() };
            report.left_out = left_out;
            report.aside = AsideStatus::default();
            report.durable = report.durable.max(after.sequence);
            report.retrying = None;
        });
        self.happened(Event::InLine { after });
    }

    /// A copy that ended without bringing the target into line, or failed for good.
    fn end_copy(&mut self, outcome: Result<CopyReport, String>) {
        let Some(copy) = self.copy.take() else { return };
        self.update(|report| report.mirror = MirrorStatus::Stopped);
        copy.answer(outcome);
    }

    /// See [`News::Look`].
    fn look(&mut self) {
        if let Some(session) = &self.session {
            let stats = session.link.stats();
            self.update(|report| report.link = stats);
        }
        self.tell_diverged();
        // A queue that is full for a moment, with what is still under way, is none.
        let is_full = self.queue.is_full_because_of(self.cursor);
        if is_full && self.was_full {
            self.happened(Event::QueueFull);
        }
        self.was_full = is_full;
    }

    /// A target that calls its copy good has to hear that it may miss a change: it alone is asked
    /// when the source is gone.
    fn tell_diverged(&mut self) {
        let Some(why) = self.settings.divergence.why() else { return };
        let Some(session) = self.session.as_mut().filter(|_| self.machine.is_streaming()) else { return };
        if std::mem::replace(&mut session.told_diverged, true) {
            return;
        }
        session.link.send(SourceMessage::Diverged { reason: Text::from_str_cut(why) });
        self.update(|report| report.data = DataState::Bad);
    }
}

impl<S: Surroundings> Drop for Driver<S> {
    /// Nobody waits for what cannot come any more, and a fault of the program is not hidden.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Its link reads the queue.
            if let Some(session) = self.session.take() {
                session.link.close("a fault of the program ended the connection");
            }
            self.queue.detach(self.cursor);
            self.update(|report| {
                let reason =
                    "a fault of the program ended it: stop and start the protection, and report this";
                (report.state, report.since) = (ConnectionState::Error, SystemTime::now());
                report.needs_copy = Some(reason.into());
                report.reason = reason.into();
                report.streaming = false;
                report.connected = None;
                report.retry_at = None;
            });
        }
        if let Some(copy) = self.copy.take() {
            copy.answer(Err("the connection is over".into()));
        }
        if let Some(watch) = &self.settings.watch {
            watch(None);
        }
    }
}
