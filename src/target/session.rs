//! One source's session on a target: handshake, then frames one after the other.
//!
//! [`Session`] says what is done with a frame, a message, an end of a sync, and what is due; what
//! is around it ([`Surroundings`]) is a link and threads in the product, a simulator in tests.

use std::io;
use std::ops::DerefMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;

use super::{Replicas, Seat, View};
use crate::apply::{
    Applier, AsideView, DataStatus, DurablePoint, Fault, GivenUp, Outcome, Reconcile, Relief, Retry, Verdict,
};
use crate::clock;
use crate::control::{Retrying, unix_ms};
use crate::limits::{
    ACKNOWLEDGE_DELAY, ACKNOWLEDGE_LATEST, ACKNOWLEDGE_PACKETS, DURABLE_INTERVAL, HANDSHAKE_TIME_MAX,
    RELIEF_OBJECTS_MAX, set_aside_after,
};
use crate::link::{FrameReceiver, Received, TargetEvent, TargetLink};
use crate::packet::{
    DataState, Features, Frame, FrameHeader, LaneItem, ObjectId, Op, Sequence, SetId, SourceMessage,
    Standing, Stuck, TargetMessage, Text, WIRE_VERSION, WIRE_VERSION_OLDEST, WithheldCounts,
};

/// How often a session that has nothing to do looks for control messages.
const IDLE_POLL: Duration = Duration::from_millis(100);

/// Serves one source until its connection ends; answers why it ended.
///
/// Errors: the source was refused; the reason went to both sides.
pub fn run(link: TargetLink, replicas: &dyn Replicas, stopping: &AtomicBool) -> Result<String, String> {
    let seat = match handshake(&link, replicas) {
        Ok(Greeted::Seated(seat)) => seat,
        Ok(Greeted::Answered) => {
            let reason = "it only asked how things are";
            wait_and_close(&link, reason);
            return Ok(reason.into());
        }
        Err(reason) => {
            link.send(TargetMessage::Refused { reason: Text::from_str_cut(&reason) });
            wait_and_close(&link, &reason);
            return Err(reason);
        }
    };
    // An older session of the same source ends first.
    let mut applier = seat.applier.lock();
    if let Some(allow) = seat.allow {
        applier.replica().set_allow(allow);
    }
    let mut session = Session::welcome(Around { link: &link, seat: &seat, stopping }, &seat.view, applier);
    link.welcome();
    let reason = session.serve(&link.frames());
    session.finish();
    link.close(&reason);
    Ok(reason)
}

/// The source closes when it has read its answer; a silent one is not waited for.
fn wait_and_close(link: &TargetLink, reason: &str) {
    let _ = link.messages().recv_timeout(Duration::from_secs(2));
    link.close(reason);
}

/// What a source wanted.
enum Greeted {
    Seated(Seat),
    Answered,
}

fn handshake(link: &TargetLink, replicas: &dyn Replicas) -> Result<Greeted, String> {
    let hello = match link.messages().recv_timeout(HANDSHAKE_TIME_MAX) {
        Ok(TargetEvent::Message(message)) => message,
        Ok(TargetEvent::Lost { reason }) => return Err(reason),
        Err(_) => return Err("the source said nothing after it connected".into()),
    };
    if let SourceMessage::Ask { set_name } = &hello {
        link.send(about(replicas.about(&link.peer(), &set_name.to_text())));
        return Ok(Greeted::Answered);
    }
    let (set, name) = greeting(hello)?;
    replicas.open(link, set, &name).map(Greeted::Seated)
}

/// Set and name of the set that a source asks for with its first message.
///
/// Errors: it is refused; one line for both sides.
pub(crate) fn greeting(hello: SourceMessage) -> Result<(SetId, String), String> {
    let SourceMessage::Hello { version_oldest, version, set, set_name, .. } = hello else {
        return Err("the source did not begin with its greeting".into());
    };
    if version_oldest > WIRE_VERSION || version < WIRE_VERSION_OLDEST {
        return Err(format!(
            "the source speaks versions {version_oldest} to {version} of the protocol, this target \
             {WIRE_VERSION_OLDEST} to {WIRE_VERSION}: update the older side"
        ));
    }
    Ok((set, set_name.to_text()))
}

fn about(standing: Result<String, String>) -> TargetMessage {
    TargetMessage::About {
        version_oldest: WIRE_VERSION_OLDEST,
        version: WIRE_VERSION,
        product: Text::from_str_cut(env!("CARGO_PKG_VERSION")),
        now_ms: unix_ms(SystemTime::now()),
        standing: match standing {
            Ok(text) => Standing::Welcome(Text::from_str_cut(&text)),
            Err(text) => Standing::Unwelcome(Text::from_str_cut(&text)),
        },
    }
}

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

    /// How long a fault of one object may hold up all others.
    fn patience(&self) -> Duration {
        set_aside_after()
    }

    /// Waits for the outcome; `None`: it never comes.
    fn outcome(&self, sync: &Receiver<Synced>) -> Option<Synced> {
        sync.recv().ok()
    }
}

/// A durable point whose sync has ended, and how.
pub(crate) type Synced = (DurablePoint, io::Result<()>);

/// The link and the threads of the product.
struct Around<'a> {
    link: &'a TargetLink,
    seat: &'a Seat,
    stopping: &'a AtomicBool,
}

impl Surroundings for Around<'_> {
    fn send(&self, message: TargetMessage) {
        self.link.send(message);
    }

    fn next_event(&self) -> Option<TargetEvent> {
        self.link.messages().try_recv().ok()
    }

    fn has_to_end(&self) -> Option<String> {
        if self.stopping.load(Relaxed) {
            return Some("the target stops".into());
        }
        self.seat.cut.reason().map(str::to_owned)
    }

    fn sleep(&self, how_long: Duration) {
        std::thread::sleep(how_long);
    }

    fn sync(&self, point: DurablePoint) -> io::Result<Receiver<Synced>> {
        let (sender, outcome) = bounded(1);
        std::thread::Builder::new().name("durable".into()).spawn(move || {
            let synced = point.sync();
            let _ = sender.send((point, synced));
        })?;
        Ok(outcome)
    }
}

/// See the module. `A` lends the applier for as long as the session lives.
pub(crate) struct Session<S, A> {
    around: S,
    view: Arc<Mutex<View>>,
    applier: A,
    reconcile: Reconcile,
    /// What the source was told last.
    acknowledged: Option<(Sequence, Sequence, Sequence)>,
    /// State of the data, and what is set aside, as the source knows them.
    told: (DataStatus, AsideView),
    told_withheld: WithheldCounts,
    /// A fault of one object sets it aside after so long.
    aside_after: Duration,
    /// Packets applied since then.
    unacknowledged: u64,
    /// When the first of them is to be acknowledged at the latest.
    acknowledge_by: Instant,
    sync: Option<Receiver<Synced>>,
    durable_due: Instant,
    durable_asked: bool,
    /// Room was made: the op at the head is tried at once.
    hurry: bool,
    /// The connection is gone; frames that had arrived are still here.
    lost: Option<String>,
}

impl<S: Surroundings, A: DerefMut<Target = Applier>> Session<S, A> {
    /// Tells the source what the replica is; from here on its frames are taken.
    pub(crate) fn welcome(around: S, view: &Arc<Mutex<View>>, applier: A) -> Session<S, A> {
        let proof = applier.proof();
        around.send(TargetMessage::Welcome { version: WIRE_VERSION, features: Features::OFFERED, proof });
        let aside_after = around.patience();
        let told = (applier.data(), AsideView::default());
        let mut session = Session {
            around,
            view: view.clone(),
            applier,
            reconcile: Reconcile::new(),
            acknowledged: None,
            told,
            told_withheld: WithheldCounts::default(),
            aside_after,
            unacknowledged: 0,
            acknowledge_by: clock::now(),
            sync: None,
            durable_due: clock::now() + DURABLE_INTERVAL,
            durable_asked: false,
            hurry: false,
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

    /// Until the connection ends; answers why.
    fn serve(&mut self, frames: &FrameReceiver) -> String {
        loop {
            // A sync that ends is due as well.
            let received = match &self.sync {
                Some(sync) => frames.recv_or_news(self.patience(), sync),
                None => frames.recv(self.patience()),
            };
            if let Err(reason) = self.turn(received) {
                return reason;
            }
        }
    }

    /// Does what comes next, and what is due.
    ///
    /// Errors: why the session is over.
    pub(crate) fn turn(&mut self, received: Received) -> Result<(), String> {
        match received {
            Received::Frame(frame) => {
                self.frame(frame)?;
                if self.unacknowledged >= ACKNOWLEDGE_PACKETS || self.acknowledge_is_late() {
                    self.acknowledge();
                }
            }
            Received::Idle => {
                self.acknowledge();
                self.rest()?;
            }
            Received::Closed { reason } => return Err(reason),
        }
        self.housekeeping()
    }

    fn acknowledge_is_late(&self) -> bool {
        self.unacknowledged > 0 && clock::now() >= self.acknowledge_by
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

    /// Performs one frame, however long it takes.
    fn frame(&mut self, frame: Frame) -> Result<(), String> {
        self.applier.received(frame.position);
        let mut told = false;
        loop {
            match self.applier.handle(&frame) {
                Outcome::Applied => break,
                Outcome::Item => return self.item(frame),
                Outcome::Refused(error) => return Err(error.to_string()),
                Outcome::Retry(retry) => {
                    told = true;
                    match self.applier.judge(Some(&frame), &retry.fault, self.aside_after) {
                        Verdict::Wait { stuck, left } => self.wait_to_retry(retry, stuck, left)?,
                        Verdict::GiveUp => match self.applier.give_up(&frame, &retry.fault) {
                            Ok(GivenUp::Op) => break,
                            Ok(GivenUp::Time) => {}
                            Err(fault) => {
                                self.wait_to_retry(Retry { fault, ..retry }, Stuck::Target, None)?
                            }
                        },
                    }
                }
            }
        }
        if told {
            self.recovered(frame.position.sequence);
        }
        self.recover_from_relief()?;
        // Before the acknowledgement of what was not done.
        self.tell_data();
        if self.unacknowledged == 0 {
            self.acknowledge_by = clock::now() + ACKNOWLEDGE_LATEST;
        }
        self.unacknowledged += 1;
        if let FrameHeader::Packet(packet) = &frame.header
            && let Op::Barrier { durable } = packet.op
        {
            // The sync runs on a thread of its own: what comes behind the barrier does not wait for
            // the disk. One that is under way began before the barrier and does not cover it.
            self.durable_asked |= durable;
            self.acknowledge();
        }
        Ok(())
    }

    /// Nothing passes an op at the head of the line before it went through or was given up.
    fn wait_to_retry(&mut self, retry: Retry, stuck: Stuck, left: Option<Duration>) -> Result<(), String> {
        self.tell_retrying(retry.sequence, retry.op, &retry.fault.to_string(), retry.attempts, stuck);
        self.acknowledge();
        self.pause(left.map_or(retry.after, |left| left.min(retry.after)))
    }

    /// Where what was emptied to make room is gone the replica is good again.
    fn recover_from_relief(&mut self) -> Result<(), String> {
        if self.told.0.state != DataState::Bad {
            return Ok(());
        }
        match self.applier.recover_from_relief() {
            Ok(_) => Ok(()),
            Err(fault @ Fault::SyncFailed(_)) => Err(fault.to_string()),
            Err(fault) => {
                log::warn!("the replica could not be marked good again, it is tried again: {fault}");
                Ok(())
            }
        }
    }

    /// The source hears that the data has changed its state, and what is set aside.
    fn tell_data(&mut self) {
        let now = (self.applier.data(), self.applier.aside());
        if self.reconcile.is_running() || now == self.told {
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

    /// Files that the source has removed since are emptied, so that the op at the head goes through.
    fn relieve(&mut self, objects: &[ObjectId]) -> Result<(), String> {
        let objects = &objects[..objects.len().min(RELIEF_OBJECTS_MAX)];
        match self.applier.replica().relieve(objects) {
            Ok(Relief::Some) => self.hurry = true,
            Ok(Relief::Nothing) => {}
            Err(fault) => log::warn!("no room could be made: {fault}"),
        }
        self.tell_data();
        Ok(())
    }

    fn tell_retrying(&self, sequence: Sequence, op: &str, reason: &str, attempts: u32, stuck: Stuck) {
        if attempts == 1 {
            log::warn!("packet {sequence} ({op}) cannot be performed, it is retried: {reason}");
        }
        let mut view = self.view.lock();
        let since = view.retrying.as_ref().map(|retrying| retrying.since_unix_ms);
        view.retrying = Some(Retrying {
            op: format!("{op} (packet {sequence})"),
            reason: reason.to_owned(),
            since_unix_ms: since.unwrap_or_else(|| unix_ms(SystemTime::now())),
            attempts,
        });
        drop(view);
        self.around.send(TargetMessage::Retrying {
            sequence,
            op: Text::from_str_cut(op),
            reason: Text::from_str_cut(reason),
            attempts,
            stuck,
        });
    }

    fn recovered(&self, sequence: Sequence) {
        self.view.lock().retrying = None;
        self.around.send(TargetMessage::Recovered { sequence });
    }

    /// Lets others see how the replica is now.
    fn show(&mut self) {
        self.view.lock().update(&mut self.applier);
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

    fn item(&mut self, frame: Frame) -> Result<(), String> {
        let FrameHeader::Item(header) = frame.header else { unreachable!("only items come here") };
        if matches!(header.item, LaneItem::Begin) {
            self.wait_for_sync()?;
        }
        let mut attempts = 0;
        loop {
            let item = header.item.clone();
            let handled = self.reconcile.handle_item(
                self.applier.replica(),
                frame.position,
                header.number,
                item,
                &frame.payload,
            );
            match handled {
                Ok(messages) => {
                    self.show();
                    messages.into_iter().for_each(|message| self.around.send(message));
                    if attempts > 0 {
                        self.recovered(frame.position.sequence);
                    }
                    return Ok(());
                }
                Err(fault @ Fault::SyncFailed(_)) => {
                    self.reconcile.give_up();
                    return Err(fault.to_string());
                }
                Err(fault) => {
                    attempts += 1;
                    let after = crate::limits::apply_retry_delay(attempts);
                    self.tell_retrying(
                        frame.position.sequence,
                        header.item.name(),
                        &fault.to_string(),
                        attempts,
                        Stuck::Target,
                    );
                    self.pause(after)?;
                }
            }
        }
    }

    /// What has to happen whether frames come or not.
    fn housekeeping(&mut self) -> Result<(), String> {
        if let Some(reason) = self.around.has_to_end() {
            return Err(reason);
        }
        while let Some(event) = self.around.next_event() {
            match event {
                TargetEvent::Lost { reason } => self.lost = Some(reason),
                TargetEvent::Message(SourceMessage::MakeDurable) => self.durable_asked = true,
                TargetEvent::Message(SourceMessage::Diverged { reason }) => self.diverged(&reason)?,
                TargetEvent::Message(SourceMessage::Relief { objects }) => self.relieve(&objects)?,
                TargetEvent::Message(SourceMessage::StreamFrom { .. } | SourceMessage::Goodbye) => {}
                TargetEvent::Message(SourceMessage::Hello { .. } | SourceMessage::Ask { .. }) => {
                    return Err("the source greeted twice".into());
                }
            }
        }
        self.durable()
    }

    /// The source changed something that no packet tells.
    fn diverged(&mut self, reason: &Text) -> Result<(), String> {
        // A durable point that began before would say `good`.
        self.wait_for_sync()?;
        let reason = format!("the source could not capture a change ({})", reason.to_text());
        self.applier.replica().mark_bad(&reason).map_err(|fault| fault.to_string())?;
        self.show();
        self.tell_data();
        Ok(())
    }

    /// Takes in what became of the last durable point and begins another when one is due.
    fn durable(&mut self) -> Result<(), String> {
        if let Some(sync) = self.sync.take() {
            match sync.try_recv() {
                Ok((point, outcome)) => {
                    // A failed sync ends the session: a later one would succeed and prove nothing.
                    self.applier.finish_durable(&point, outcome).map_err(|fault| fault.to_string())?;
                    self.acknowledge();
                }
                Err(crossbeam_channel::TryRecvError::Empty) => {
                    self.sync = Some(sync);
                    return Ok(());
                }
                Err(crossbeam_channel::TryRecvError::Disconnected) => {
                    return Err("the syncing thread died".into());
                }
            }
        }
        if self.applier.replica().sync_failed() {
            return self.note_failed_sync();
        }
        // A copy syncs for itself, and the kernel tells of a failed write only once: it must be the
        // copy that hears of its own.
        if self.reconcile.is_running() {
            return Ok(());
        }
        let progress = self.applier.acknowledged();
        let due = self.durable_asked || clock::now() >= self.durable_due;
        if !due || progress.applied == progress.durable {
            return Ok(());
        }
        self.durable_asked = false;
        self.durable_due = clock::now() + DURABLE_INTERVAL;
        self.recover_from_relief()?;
        self.tell_data();
        match self.applier.begin_durable() {
            Ok(point) => self.sync = Some(self.around.sync(point).map_err(|error| error.to_string())?),
            Err(fault) => {
                log::warn!("no durable point could be begun, it is tried again: {fault}");
                self.time_is_stuck(&fault);
            }
        }
        Ok(())
    }

    /// After a failed sync nothing becomes durable any more: what is left is to say so on the disk.
    fn note_failed_sync(&mut self) -> Result<(), String> {
        if clock::now() >= self.durable_due {
            self.durable_due = clock::now() + DURABLE_INTERVAL;
            if let Err(fault) = self.applier.replica().note_failed_sync() {
                log::warn!("a failed sync could not be noted on disk, it is tried again: {fault}");
            }
        }
        Ok(())
    }

    /// Until no sync is under way.
    fn wait_for_sync(&mut self) -> Result<(), String> {
        let Some(sync) = self.sync.take() else { return Ok(()) };
        let (point, outcome) = self.around.outcome(&sync).ok_or("the syncing thread died")?;
        self.applier.finish_durable(&point, outcome).map_err(|fault| fault.to_string())
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
        let now = (now.received.sequence, now.applied.sequence, now.durable.sequence);
        self.unacknowledged = 0;
        if self.acknowledged == Some(now) {
            return;
        }
        self.acknowledged = Some(now);
        self.show();
        let (received, applied, durable) = now;
        self.around.send(TargetMessage::Acknowledge { received, applied, durable });
    }

    /// Nothing comes: pending times are set.
    fn rest(&mut self) -> Result<(), String> {
        if self.applier.next_deadline().is_some_and(|at| at <= clock::now())
            && let Err(fault) = self.applier.rest()
        {
            log::debug!("times could not be set, it is tried again: {fault}");
            self.time_is_stuck(&fault);
        }
        Ok(())
    }

    /// One object whose time cannot be set must not keep all others from being made durable.
    fn time_is_stuck(&mut self, fault: &Fault) {
        let Fault::Time { object, .. } = fault else { return };
        if self.applier.judge(None, fault, self.aside_after) == Verdict::GiveUp {
            match self.applier.give_time_up(*object, fault) {
                Ok(()) => self.tell_data(),
                Err(fault) => log::warn!("it could not be set aside: {fault}"),
            }
        }
    }

    /// The connection is gone: what was received is performed, now it is made durable.
    pub(crate) fn finish(&mut self) {
        if let Err(why) = self.wait_for_sync() {
            log::warn!("the last durable point failed: {why}");
        }
        if let Err(fault) = self.reconcile.interrupt(self.applier.replica()) {
            log::warn!("what was copied last will be copied again: {fault}");
        }
        if let Err(fault) = self.applier.replica().note_failed_sync() {
            log::warn!("a failed sync could not be noted on disk: {fault}");
        }
        self.applier.come_to_rest();
        let progress = self.applier.acknowledged();
        if progress.applied != progress.durable
            && !self.applier.replica().sync_failed()
            && let Err(fault) = self.applier.durable_point()
        {
            log::warn!("no durable point at the end of a session: {fault}");
        }
        self.view.lock().retrying = None;
        self.show();
    }
}
