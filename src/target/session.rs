//! One source's session on a target: handshake, then frames one after the other.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, bounded};

use super::{Replicas, Seat};
use crate::apply::{Applier, DurablePoint, Fault, Outcome, Reconcile, Retry};
use crate::control::{Retrying, unix_ms};
use crate::limits::{
    ACKNOWLEDGE_DELAY, ACKNOWLEDGE_LATEST, ACKNOWLEDGE_PACKETS, DURABLE_INTERVAL, HANDSHAKE_TIME_MAX,
};
use crate::link::{FrameReceiver, Received, TargetEvent, TargetLink};
use crate::packet::{
    Features, Frame, FrameHeader, LaneItem, Op, Sequence, SourceMessage, Standing, TargetMessage, Text,
    WIRE_VERSION, WIRE_VERSION_OLDEST,
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
    let proof = applier.proof();
    link.send(TargetMessage::Welcome { version: WIRE_VERSION, features: Features::OFFERED, proof });
    link.welcome();
    let frames = link.frames();
    let mut session = Session {
        link: &link,
        seat: &seat,
        frames,
        applier: &mut applier,
        stopping,
        reconcile: Reconcile::new(),
        acknowledged: None,
        unacknowledged: 0,
        acknowledge_by: Instant::now(),
        sync: None,
        durable_due: Instant::now() + DURABLE_INTERVAL,
        durable_asked: false,
        lost: None,
    };
    session.show();
    let reason = session.serve();
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
    let SourceMessage::Hello { version_oldest, version, set, set_name, .. } = hello else {
        return Err("the source did not begin with its greeting".into());
    };
    if version_oldest > WIRE_VERSION || version < WIRE_VERSION_OLDEST {
        return Err(format!(
            "the source speaks versions {version_oldest} to {version} of the protocol, this target \
             {WIRE_VERSION_OLDEST} to {WIRE_VERSION}: update the older side"
        ));
    }
    replicas.open(link, set, &set_name.to_text()).map(Greeted::Seated)
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

struct Session<'a> {
    link: &'a TargetLink,
    seat: &'a Seat,
    frames: FrameReceiver,
    applier: &'a mut Applier,
    stopping: &'a AtomicBool,
    reconcile: Reconcile,
    /// What the source was told last.
    acknowledged: Option<(Sequence, Sequence, Sequence)>,
    /// Packets applied since then.
    unacknowledged: u64,
    /// When the first of them is to be acknowledged at the latest.
    acknowledge_by: Instant,
    sync: Option<SyncUnderWay>,
    durable_due: Instant,
    durable_asked: bool,
    /// The connection is gone; frames that had arrived are still here.
    lost: Option<String>,
}

/// A durable point whose sync runs on a thread of its own.
struct SyncUnderWay(Receiver<(DurablePoint, io::Result<()>)>);

impl Session<'_> {
    /// Until the connection ends; answers why.
    fn serve(&mut self) -> String {
        loop {
            match self.next_frame() {
                Received::Frame(frame) => {
                    if let Err(reason) = self.frame(frame) {
                        return reason;
                    }
                    if self.unacknowledged >= ACKNOWLEDGE_PACKETS || self.acknowledge_is_late() {
                        self.acknowledge();
                    }
                }
                Received::Idle => {
                    self.acknowledge();
                    if let Err(reason) = self.rest() {
                        return reason;
                    }
                }
                Received::Closed { reason } => return reason,
            }
            if let Err(reason) = self.housekeeping() {
                return reason;
            }
        }
    }

    /// The next frame, or nothing where a sync ends or something is due first.
    fn next_frame(&self) -> Received {
        match &self.sync {
            Some(sync) => self.frames.recv_or_news(self.patience(), &sync.0),
            None => self.frames.recv(self.patience()),
        }
    }

    fn acknowledge_is_late(&self) -> bool {
        self.unacknowledged > 0 && Instant::now() >= self.acknowledge_by
    }

    /// How long to wait for the next frame before something else is due.
    fn patience(&self) -> Duration {
        if self.unacknowledged > 0 {
            return ACKNOWLEDGE_DELAY;
        }
        let now = Instant::now();
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
                    self.wait_to_retry(retry)?;
                    told = true;
                }
            }
        }
        if told {
            self.recovered(frame.position.sequence);
        }
        if self.unacknowledged == 0 {
            self.acknowledge_by = Instant::now() + ACKNOWLEDGE_LATEST;
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

    /// Nothing is skipped: the op stays at the head of the line until it goes through.
    fn wait_to_retry(&mut self, retry: Retry) -> Result<(), String> {
        self.tell_retrying(retry.sequence, retry.op, &retry.fault.to_string(), retry.attempts);
        self.acknowledge();
        self.pause(retry.after)
    }

    fn tell_retrying(&self, sequence: Sequence, op: &str, reason: &str, attempts: u32) {
        if attempts == 1 {
            log::warn!("packet {sequence} ({op}) cannot be performed, it is retried: {reason}");
        }
        let mut view = self.seat.view.lock();
        let since = view.retrying.as_ref().map(|retrying| retrying.since_unix_ms);
        view.retrying = Some(Retrying {
            op: format!("{op} (packet {sequence})"),
            reason: reason.to_owned(),
            since_unix_ms: since.unwrap_or_else(|| unix_ms(SystemTime::now())),
            attempts,
        });
        drop(view);
        self.link.send(TargetMessage::Retrying {
            sequence,
            op: Text::from_str_cut(op),
            reason: Text::from_str_cut(reason),
            attempts,
        });
    }

    fn recovered(&self, sequence: Sequence) {
        self.seat.view.lock().retrying = None;
        self.link.send(TargetMessage::Recovered { sequence });
    }

    /// Lets others see how the replica is now.
    fn show(&mut self) {
        self.seat.view.lock().update(self.applier);
    }

    /// Waits, but not for a connection that is gone.
    fn pause(&mut self, how_long: Duration) -> Result<(), String> {
        let until = Instant::now() + how_long;
        while Instant::now() < until {
            self.housekeeping()?;
            if let Some(reason) = &self.lost {
                // What was received and not applied comes again after the reconnection.
                return Err(format!("{reason}, while an op was being retried"));
            }
            std::thread::sleep(Duration::from_millis(20).min(how_long));
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
                    messages.into_iter().for_each(|message| self.link.send(message));
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
                    );
                    self.pause(after)?;
                }
            }
        }
    }

    /// What has to happen whether frames come or not.
    fn housekeeping(&mut self) -> Result<(), String> {
        if self.stopping.load(Relaxed) {
            return Err("the target stops".into());
        }
        if let Some(reason) = self.seat.cut.reason() {
            return Err(reason.to_owned());
        }
        while let Ok(event) = self.link.messages().try_recv() {
            match event {
                TargetEvent::Lost { reason } => self.lost = Some(reason),
                TargetEvent::Message(SourceMessage::MakeDurable) => self.durable_asked = true,
                TargetEvent::Message(SourceMessage::StreamFrom { .. } | SourceMessage::Goodbye) => {}
                TargetEvent::Message(SourceMessage::Hello { .. } | SourceMessage::Ask { .. }) => {
                    return Err("the source greeted twice".into());
                }
            }
        }
        self.durable()
    }

    /// Takes in what became of the last durable point and begins another when one is due.
    fn durable(&mut self) -> Result<(), String> {
        if let Some(sync) = self.sync.take() {
            match sync.0.try_recv() {
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
        // A copy syncs for itself, and the kernel tells of a failed write only once: it must be the
        // copy that hears of its own.
        if self.reconcile.is_running() {
            return Ok(());
        }
        let progress = self.applier.acknowledged();
        let due = self.durable_asked || Instant::now() >= self.durable_due;
        if !due || progress.applied == progress.durable {
            return Ok(());
        }
        self.durable_asked = false;
        self.durable_due = Instant::now() + DURABLE_INTERVAL;
        match self.applier.begin_durable() {
            Ok(point) => self.sync = Some(start_sync(point).map_err(|error| error.to_string())?),
            Err(fault @ Fault::SyncFailed(_)) => return Err(fault.to_string()),
            Err(fault) => log::warn!("no durable point could be begun, it is tried again: {fault}"),
        }
        Ok(())
    }

    /// Until no sync is under way.
    fn wait_for_sync(&mut self) -> Result<(), String> {
        let Some(sync) = self.sync.take() else { return Ok(()) };
        let (point, outcome) = sync.0.recv().map_err(|_| "the syncing thread died")?;
        self.applier.finish_durable(&point, outcome).map_err(|fault| fault.to_string())
    }

    fn acknowledge(&mut self) {
        let now = self.applier.acknowledged();
        let now = (now.received.sequence, now.applied.sequence, now.durable.sequence);
        self.unacknowledged = 0;
        if self.acknowledged == Some(now) {
            return;
        }
        self.acknowledged = Some(now);
        self.show();
        let (received, applied, durable) = now;
        self.link.send(TargetMessage::Acknowledge { received, applied, durable });
    }

    /// Nothing comes: pending times are set.
    fn rest(&mut self) -> Result<(), String> {
        if self.applier.next_deadline().is_some_and(|at| at <= Instant::now())
            && let Err(fault) = self.applier.rest()
        {
            log::warn!("times could not be set, it is tried again: {fault}");
        }
        Ok(())
    }

    /// The connection is gone: what was received is performed, now it is made durable.
    fn finish(&mut self) {
        if let Err(why) = self.wait_for_sync() {
            log::warn!("the last durable point failed: {why}");
        }
        if let Err(fault) = self.reconcile.interrupt(self.applier.replica()) {
            log::warn!("what was copied last will be copied again: {fault}");
        }
        let progress = self.applier.acknowledged();
        if progress.applied != progress.durable
            && let Err(fault) = self.applier.durable_point()
        {
            log::warn!("no durable point at the end of a session: {fault}");
        }
        self.seat.view.lock().retrying = None;
        self.show();
    }
}

fn start_sync(point: DurablePoint) -> io::Result<SyncUnderWay> {
    let (sender, outcome) = bounded(1);
    std::thread::Builder::new().name("durable".into()).spawn(move || {
        let synced = point.sync();
        let _ = sender.send((point, synced));
    })?;
    Ok(SyncUnderWay(outcome))
}
