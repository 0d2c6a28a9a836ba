//! One source's session on a target: frames one after the other, and what is due besides.
//!
//! [`SourceSession`] says what is done with a frame, a message, an end of a sync, and what is due; what
//! is around it ([`Surroundings`]) is a link and threads in the product, a simulator in tests. What is
//! done about a fault the applier says; a session waits, tells, and acknowledges.

use std::io;
use std::ops::DerefMut;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, TryRecvError};
use parking_lot::Mutex;

use super::View;
use super::markers::Begun;
use super::moment::Moments;
use super::roles::keep_runs;
use crate::apply::{Applier, AsideView, DataStatus, DurablePoint, Fault, Outcome, Relief, Retry, Run};
use crate::clock;
use crate::control::{Retrying, unix_ms};
use crate::limits::{
    ACKNOWLEDGE_DELAY, ACKNOWLEDGE_LATEST, ACKNOWLEDGE_PACKETS, CLOSE_FLUSH, DURABLE_INTERVAL,
    PRESENCE_INTERVAL, PRESENCE_LOOKS_RUNNING,
};
use crate::link::{FrameReceiver, Received, TargetEvent};
use crate::packet::{
    DataState, Features, Frame, FrameHeader, ItemHeader, LaneItem, MarkerEnd, MarkerName, ObjectId, Op,
    PacketHeader, Position, Sequence, SourceClock, SourceMessage, Stuck, TargetMessage, Text, WIRE_VERSION,
    WithheldCounts,
};

/// How often a session that has nothing to do looks for control messages.
const IDLE_POLL: Duration = Duration::from_millis(100);

/// How often it is looked whether the command of a marker is through.
const MARKER_POLL: Duration = Duration::from_millis(5);

const ELSEWHERE: &str = "somebody moved or replaced it, or unmounted its disk";

/// What a session has around it.
pub(crate) trait Surroundings {
    /// Queues a message for the source. Never blocks.
    fn send(&self, message: TargetMessage);

    /// The next of what happened on the link beside frames, if anything did.
    fn next_event(&self) -> Option<TargetEvent>;

    /// Why the session has to end at once, if it has to.
    fn has_to_end(&self) -> Option<String>;

    fn sleep(&self, how_long: Duration);

    /// Syncs a durable point elsewhere; the outcome comes on the channel.
    fn sync(&self, point: DurablePoint) -> io::Result<Receiver<Synced>>;

    /// Waits for the outcome; `None`: it never comes.
    fn outcome(&self, sync: &Receiver<Synced>) -> Option<Synced> {
        sync.recv().ok()
    }
}

/// A durable point whose sync has ended, and how.
pub(crate) type Synced = (DurablePoint, io::Result<()>);

/// See the module. `A` lends the applier for as long as the session lives.
pub(crate) struct SourceSession<S, A> {
    around: S,
    view: Arc<Mutex<View>>,
    applier: A,
    /// What the source was told last.
    acknowledged: Option<(Sequence, Sequence, Sequence)>,
    /// State of the data, and what is set aside, as the source knows them.
    told: (DataStatus, AsideView),
    told_withheld: WithheldCounts,
    /// Packets applied since then.
    unacknowledged: u64,
    /// When the first of them is to be acknowledged at the latest.
    acknowledge_by: Instant,
    sync: Option<Receiver<Synced>>,
    durable_due: Instant,
    durable_asked: bool,
    /// When it is looked whether the replica is still there.
    presence_due: Instant,
    /// Room was made: the frame at the head is tried at once.
    hurry: bool,
    /// The command of a marker that an older session came upon may run.
    marker_may_run: bool,
    /// How old the replica is.
    moments: Moments,
    /// The source has said what its clock shows.
    is_clock_heard: bool,
    /// The connection is gone; frames that had arrived are still here.
    lost: Option<String>,
}

impl<S: Surroundings, A: DerefMut<Target = Applier>> SourceSession<S, A> {
    /// Tells the source what the replica is; from here on its frames are taken.
    pub(crate) fn welcome(around: S, view: &Arc<Mutex<View>>, mut applier: A) -> SourceSession<S, A> {
        let proof = applier.begin_session();
        around.send(TargetMessage::Welcome { version: WIRE_VERSION, features: Features::OFFERED, proof });
        let told = (applier.data(), AsideView::default());
        let moments = Moments::start(applier.state());
        let mut session = SourceSession {
            around,
            view: view.clone(),
            applier,
            acknowledged: None,
            told,
            told_withheld: WithheldCounts::default(),
            unacknowledged: 0,
            acknowledge_by: clock::now(),
            sync: None,
            durable_due: clock::now() + DURABLE_INTERVAL,
            durable_asked: false,
            presence_due: clock::now() + PRESENCE_INTERVAL,
            hurry: false,
            marker_may_run: true,
            moments,
            is_clock_heard: false,
            lost: None,
        };
        session.show();
        session.tell_data();
        session
    }

    #[cfg(test)]
    pub(crate) fn applier(&mut self) -> &mut Applier {
        &mut self.applier
    }

    #[cfg(test)]
    pub(crate) fn into_applier(self) -> A {
        self.applier
    }

    /// Takes frames until the connection ends; answers why.
    pub(super) fn run(&mut self, frames: &FrameReceiver) -> String {
        loop {
            let (run, received) = match (frames.at_hand(), &self.sync) {
                (Some(frame), _) => (Run::GoesOn, Received::Frame(frame)),
                // A sync that ends is due as well.
                (None, Some(sync)) => (Run::Begins, frames.recv_or_news(self.patience(), sync)),
                (None, None) => (Run::Begins, frames.recv(self.patience())),
            };
            if let Err(reason) = self.turn_in(run, received) {
                return reason;
            }
        }
    }

    /// How long to wait for the next frame before something else is due.
    fn patience(&self) -> Duration {
        if self.unacknowledged > 0 {
            return ACKNOWLEDGE_DELAY;
        }
        let now = clock::now();
        let rest = self.applier.next_deadline().map(|at| at.saturating_duration_since(now));
        IDLE_POLL.min(rest.unwrap_or(IDLE_POLL)).max(Duration::from_millis(1))
    }

    /// [`SourceSession::turn_in`] for a frame that came alone.
    #[cfg(test)]
    pub(crate) fn turn(&mut self, received: Received) -> Result<(), String> {
        self.turn_in(Run::Begins, received)
    }

    /// Does what comes next, and what is due; `run` says whether a frame came with the one before.
    ///
    /// Errors: why the session is over.
    pub(crate) fn turn_in(&mut self, run: Run, received: Received) -> Result<(), String> {
        match received {
            Received::Frame(frame) => {
                self.frame(run, &frame)?;
                if self.unacknowledged >= ACKNOWLEDGE_PACKETS || self.acknowledge_is_late() {
                    self.acknowledge();
                }
            }
            Received::Idle => {
                self.acknowledge();
                self.set_pending_times();
            }
            Received::Closed { reason } => {
                self.last_words()?;
                return Err(reason);
            }
        }
        self.housekeeping()
    }

    /// What the source said before it went comes by another connection, which may end later: how far it was, and what
    /// no packet tells.
    fn last_words(&mut self) -> Result<(), String> {
        let until = clock::now() + CLOSE_FLUSH * 2;
        self.hear()?;
        while self.lost.is_none() && self.around.has_to_end().is_none() && clock::now() < until {
            self.around.sleep(Duration::from_millis(10));
            self.hear()?;
        }
        Ok(())
    }

    /// The connection is gone: what was received is performed, now it is made durable.
    pub(crate) fn finish(&mut self) {
        if let Err(why) = self.wait_for_sync() {
            log::warn!("the last durable point failed: {why}");
        }
        assert!(self.sync.is_none(), "a session ends before its durable point");
        self.applier.end_session();
        self.view.lock().retrying = None;
        self.show();
        self.moments.keep();
    }

    /// Performs one frame, however long it takes.
    fn frame(&mut self, mut run: Run, frame: &Frame) -> Result<(), String> {
        if std::mem::take(&mut self.marker_may_run) {
            let markers = self.view.lock().markers.clone();
            while markers.runs() {
                self.pause(MARKER_POLL)?;
            }
        }
        if let FrameHeader::Packet(PacketHeader { op: Op::Barrier { name: Some(name), .. }, .. }) =
            &frame.header
        {
            self.marker(name, frame.position)?;
        }
        if let FrameHeader::Item(ItemHeader { item, .. }) = &frame.header
            && item.begins_a_copy()
        {
            // What a copy makes durable must not be taken for less by a point that began before.
            self.wait_for_sync()?;
        }
        let mut was_stuck = false;
        loop {
            match self.applier.handle_in(std::mem::replace(&mut run, Run::Begins), frame) {
                Outcome::Retry(retry) => {
                    self.wait_to_retry(&retry)?;
                    was_stuck = true;
                    continue;
                }
                Outcome::Refused(why) => return Err(why.to_string()),
                Outcome::Applied | Outcome::SetAside => self.passed(frame, was_stuck),
                Outcome::Answered(answers) => self.answered(frame, was_stuck, answers),
            }
            return Ok(());
        }
    }

    /// Everything before a marker is performed, and nothing behind it: whoever runs something for it sees that
    /// state, and nothing passes before he is through, or his time is over. The source hears how it went before
    /// the acknowledgement.
    fn marker(&mut self, name: &MarkerName, position: Position) -> Result<(), String> {
        if self.applier.acknowledged().applied.sequence.next() != position.sequence {
            return Ok(());
        }
        let (end, text) = match self.is_exact() {
            Ok(()) => self.hold(name, position)?,
            Err(why) => (MarkerEnd::NotGood, why),
        };
        log::info!("marker {} (packet {}): {end:?}: {text}", name.as_str(), position.sequence);
        let (sequence, text) = (position.sequence, Text::from_str_cut(&text));
        self.around.send(TargetMessage::Marker { sequence, end, text });
        Ok(())
    }

    /// The replica is what the source was, times of modification included.
    fn is_exact(&mut self) -> Result<(), String> {
        let data = self.applier.data();
        if data.state != DataState::Good || self.applier.is_copying() {
            let why = data.reason.unwrap_or_default();
            return Err(format!("the replica is no consistent state of its source ({why})"));
        }
        self.applier.set_pending_times().map_err(|fault| format!("modification times cannot be set: {fault}"))
    }

    fn hold(&mut self, name: &MarkerName, position: Position) -> Result<(MarkerEnd, String), String> {
        let markers = self.view.lock().markers.clone();
        let (number, hold) = match markers.begin(name, position) {
            Begun::Over(outcome) => return Ok(outcome),
            Begun::Held { number, hold } => (number, hold),
        };
        let reason = format!("its command runs, and holds the stream for {} s at most", hold.as_secs_f64());
        let op = format!("marker {}", name.as_str());
        self.tell_head(position.sequence, &op, &reason, (1, Stuck::Marker));
        self.acknowledge();
        let outcome = loop {
            if let Some(outcome) = markers.outcome(number) {
                break outcome;
            }
            self.pause(MARKER_POLL)?;
        };
        self.recovered(position.sequence);
        Ok(outcome)
    }

    /// An item is behind us.
    fn answered(&mut self, frame: &Frame, was_stuck: bool, answers: Vec<TargetMessage>) {
        self.show();
        if let FrameHeader::Item(ItemHeader { item: LaneItem::Root { .. } | LaneItem::End, .. }) =
            &frame.header
        {
            // Before the copy had been taken up a source believed no acknowledgement: all is said again.
            self.acknowledged = None;
        }
        answers.into_iter().for_each(|answer| self.around.send(answer));
        self.tell_doubts();
        if was_stuck {
            self.recovered(frame.position.sequence);
        }
    }

    /// A packet is behind us.
    fn passed(&mut self, frame: &Frame, was_stuck: bool) {
        if was_stuck {
            self.recovered(frame.position.sequence);
        }
        // Before the acknowledgement of what was not done.
        self.tell_data();
        self.tell_doubts();
        if self.unacknowledged == 0 {
            self.acknowledge_by = clock::now() + ACKNOWLEDGE_LATEST;
        }
        self.unacknowledged += 1;
        if let FrameHeader::Packet(packet) = &frame.header
            && let Op::Barrier { durable, .. } = packet.op
        {
            // The sync runs on a thread of its own: what comes behind the barrier does not wait for
            // the disk. One that is under way began before the barrier and does not cover it.
            self.durable_asked |= durable;
            self.acknowledge();
        }
    }

    /// Nothing passes the frame at the head of the line before it went through or was given up.
    fn wait_to_retry(&mut self, retry: &Retry) -> Result<(), String> {
        self.tell_retrying(retry);
        self.acknowledge();
        self.pause(retry.after)
    }

    /// Waits, but not for a connection that is gone.
    fn pause(&mut self, how_long: Duration) -> Result<(), String> {
        let until = clock::now() + how_long;
        while clock::now() < until {
            self.housekeeping()?;
            if std::mem::take(&mut self.hurry) {
                return Ok(());
            }
            if let Some(reason) = &self.lost {
                // What was received and not applied comes again after the reconnection.
                return Err(format!("{reason}, while an op was being retried"));
            }
            self.around.sleep(Duration::from_millis(20).min(how_long));
        }
        Ok(())
    }

    /// What has to happen whether frames come or not.
    fn housekeeping(&mut self) -> Result<(), String> {
        if let Some(reason) = self.around.has_to_end() {
            return Err(reason);
        }
        self.hear()?;
        self.applier.take_barrier();
        self.applier.hear_of_sync().map_err(|fault| fault.to_string())?;
        self.look_for_objects()?;
        self.durable()
    }

    fn hear(&mut self) -> Result<(), String> {
        while let Some(event) = self.around.next_event() {
            match event {
                TargetEvent::Lost { reason } => self.lost = Some(reason),
                TargetEvent::Message(SourceMessage::MakeDurable) => self.durable_asked = true,
                TargetEvent::Message(SourceMessage::Diverged { reason }) => self.diverged(&reason)?,
                TargetEvent::Message(SourceMessage::Relief { objects }) => self.relieve(&objects),
                TargetEvent::Message(SourceMessage::GaveOut { last, at }) => self.gave_out(last, at),
                TargetEvent::Message(SourceMessage::Runs { runs }) => keep_runs(self.applier.state(), &runs),
                TargetEvent::Message(SourceMessage::StreamFrom { .. } | SourceMessage::Goodbye) => {}
                TargetEvent::Message(
                    SourceMessage::Hello { .. }
                    | SourceMessage::Ask { .. }
                    | SourceMessage::AskReplica { .. }
                    | SourceMessage::Writes(_)
                    | SourceMessage::Restore { .. },
                ) => {
                    return Err("the source greeted twice".into());
                }
                TargetEvent::Message(SourceMessage::OfCopy(_)) => {
                    return Err("the source speaks of a copy that it does not get".into());
                }
            }
        }
        Ok(())
    }

    /// Who has emptied the replica leaves a copy that only a new session can mend; one that is not where
    /// it was is no session's: whoever opens it sees what is there now.
    fn look_for_objects(&mut self) -> Result<(), String> {
        if clock::now() < self.presence_due {
            return Ok(());
        }
        self.presence_due = clock::now() + PRESENCE_INTERVAL;
        if !self.applier.is_where_it_was() {
            log::error!("the replica is not where it was: {ELSEWHERE}");
            return Err(format!("the directory of the replica is not where it was: {ELSEWHERE}"));
        }
        // What is removed does not come back: not before the source has said how late it is.
        if let Some(ahead_ms) = self.moments.known().ahead_ms.filter(|_| self.is_clock_heard) {
            self.applier.remove_overdue(ahead_ms);
        }
        match self.applier.look_for_objects(PRESENCE_LOOKS_RUNNING) {
            Ok(None) => Ok(()),
            Ok(Some(missing)) => Err(missing),
            Err(fault) => {
                log::debug!("whether the replica is still there cannot be told: {fault}");
                Ok(())
            }
        }
    }

    /// The source changed something that no packet tells.
    fn diverged(&mut self, reason: &Text) -> Result<(), String> {
        // A durable point that began before would say `good`.
        self.wait_for_sync()?;
        self.applier
            .diverged(&format!("its source: {}", reason.to_text()))
            .map_err(|fault| fault.to_string())?;
        self.show();
        self.tell_data();
        Ok(())
    }

    /// Files that the source has removed since are emptied, so that the op at the head goes through.
    fn relieve(&mut self, objects: &[ObjectId]) {
        match self.applier.relieve(objects) {
            Ok(Relief::Some) => self.hurry = true,
            Ok(Relief::Nothing) => {}
            Err(fault) => log::warn!("no room could be made: {fault}"),
        }
        self.tell_data();
    }

    /// Takes in what became of the last durable point and begins another when one is due.
    fn durable(&mut self) -> Result<(), String> {
        match self.sync.as_ref().map(Receiver::try_recv) {
            Some(Ok(synced)) => {
                self.sync = None;
                self.synced(synced)?;
                self.acknowledge();
            }
            Some(Err(TryRecvError::Empty)) => return Ok(()),
            Some(Err(TryRecvError::Disconnected)) => return Err("the syncing thread died".into()),
            None => {}
        }
        if self.applier.sync_failed() {
            self.note_failed_sync();
            return Ok(());
        }
        // A copy syncs for itself, and the kernel tells of a failed write only once: it must be the
        // copy that hears of its own. What it has come to is no state of the source, in any case.
        let progress = self.applier.acknowledged();
        let is_due = self.durable_asked || clock::now() >= self.durable_due;
        if self.applier.is_half_copied() || !is_due || progress.applied == progress.durable {
            return Ok(());
        }
        assert!(self.sync.is_none(), "a durable point begins while another one is under way");
        self.durable_asked = false;
        self.durable_due = clock::now() + DURABLE_INTERVAL;
        self.begin_durable()
    }

    fn begin_durable(&mut self) -> Result<(), String> {
        let begun = self.applier.begin_durable();
        self.tell_data();
        match begun {
            Ok(point) => {
                let applied = self.applier.acknowledged().applied;
                assert_eq!(point.position(), applied, "a durable point is not of what is applied");
                self.sync = Some(self.around.sync(point).map_err(|error| error.to_string())?);
            }
            Err(fault @ Fault::SyncFailed(_)) => return Err(fault.to_string()),
            Err(fault) => log::warn!("no durable point could be begun, it is tried again: {fault}"),
        }
        Ok(())
    }

    /// After a failed sync nothing becomes durable any more: what is left is to say so on the disk.
    fn note_failed_sync(&mut self) {
        if clock::now() >= self.durable_due {
            self.durable_due = clock::now() + DURABLE_INTERVAL;
            if let Err(fault) = self.applier.note_failed_sync() {
                log::warn!("a failed sync could not be noted on disk, it is tried again: {fault}");
            }
        }
    }

    /// Until no sync is under way.
    fn wait_for_sync(&mut self) -> Result<(), String> {
        let Some(sync) = self.sync.take() else { return Ok(()) };
        let synced = self.around.outcome(&sync).ok_or("the syncing thread died")?;
        self.synced(synced)
    }

    /// A failed sync ends the session: a later one would succeed and prove nothing.
    fn synced(&mut self, (point, outcome): Synced) -> Result<(), String> {
        self.applier.finish_durable(&point, outcome).map_err(|fault| fault.to_string())
    }

    /// Nothing comes: pending times are set.
    fn set_pending_times(&mut self) {
        if self.applier.next_deadline().is_some_and(|at| at <= clock::now())
            && let Err(fault) = self.applier.set_pending_times()
        {
            log::debug!("times could not be set, it is tried again: {fault}");
            self.tell_data();
        }
    }

    /// What a copy has to look at again.
    fn tell_doubts(&mut self) {
        while let Some(doubts) = self.applier.take_doubts() {
            self.around.send(doubts);
        }
    }

    fn acknowledge_is_late(&self) -> bool {
        self.unacknowledged > 0 && clock::now() >= self.acknowledge_by
    }

    /// The source hears what was not taken as it came.
    fn tell_withheld(&mut self) {
        let now = self.view.lock().withheld.counts();
        if std::mem::replace(&mut self.told_withheld, now) != now {
            self.around.send(TargetMessage::Withheld(now));
        }
    }

    fn acknowledge(&mut self) {
        self.tell_withheld();
        let now = self.applier.acknowledged();
        // What is durable of another history has no number in this one.
        let durable = if now.durable.same_history(&now.applied) { now.durable.sequence } else { Sequence(0) };
        let now = (now.received.sequence, now.applied.sequence, durable);
        self.unacknowledged = 0;
        if self.acknowledged == Some(now) {
            return;
        }
        self.acknowledged = Some(now);
        self.show();
        let (received, applied, durable) = now;
        self.around.send(TargetMessage::Acknowledge { received, applied, durable });
    }

    /// The source hears that the data has changed its state, and what is set aside.
    fn tell_data(&mut self) {
        let now = (self.applier.data(), self.applier.aside());
        if self.applier.is_copying() || now == self.told {
            return;
        }
        let known = self.told.1.listed.len().min(now.1.listed.len());
        for aside in &now.1.listed[known..] {
            self.around.send(TargetMessage::SetAside {
                path: Text::from_str_cut(&aside.path),
                op: Text::from_str_cut(&aside.op),
                reason: Text::from_str_cut(&aside.reason),
                since_ms: aside.since_ms,
            });
        }
        self.around.send(TargetMessage::Data {
            state: now.0.state,
            reason: Text::from_str_cut(now.0.reason.as_deref().unwrap_or_default()),
            aside: now.1.total,
        });
        self.told = now;
        self.show();
    }

    fn tell_retrying(&self, Retry { sequence, op, reason, attempts, stuck, .. }: &Retry) {
        if *attempts == 1 {
            log::warn!("packet {sequence} ({op}) cannot be performed, it is retried: {reason}");
        }
        self.tell_head(*sequence, op, reason, (*attempts, *stuck));
    }

    /// What stands at the head of the line, and keeps everything behind it from passing.
    fn tell_head(&self, sequence: Sequence, op: &str, reason: &str, (attempts, stuck): (u32, Stuck)) {
        self.around.send(TargetMessage::Retrying {
            sequence,
            op: Text::from_str_cut(op),
            reason: Text::from_str_cut(reason),
            attempts,
            stuck,
        });
        let mut view = self.view.lock();
        let since_unix_ms = view
            .retrying
            .as_ref()
            .map_or_else(|| unix_ms(SystemTime::now()), |retrying| retrying.since_unix_ms);
        let op = format!("{op} (packet {sequence})");
        let (reason, marker) = (reason.to_owned(), stuck == Stuck::Marker);
        view.retrying = Some(Retrying { op, reason, since_unix_ms, attempts, marker });
    }

    fn recovered(&self, sequence: Sequence) {
        self.view.lock().retrying = None;
        self.around.send(TargetMessage::Recovered { sequence });
    }

    /// The replica may be as of this moment already.
    fn gave_out(&mut self, last: Position, at: SourceClock) {
        self.moments.said(last, at, unix_ms(SystemTime::now()));
        self.is_clock_heard = true;
        self.show();
        self.moments.keep();
    }

    /// Lets others see how the replica is now.
    fn show(&mut self) {
        let now = self.applier.acknowledged();
        if self.applier.data().state == DataState::Good {
            self.moments.reached(&now.applied, &now.durable);
        }
        let mut view = self.view.lock();
        view.age = *self.moments.known();
        view.update(&self.applier);
    }
}
