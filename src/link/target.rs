//! The target's end of one session: hands on frames and messages as they arrive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Duration, timeout};

use super::control::{self, Outbox};
use super::direct::Passage;
use super::ending::{self, End};
use super::frames::{self, Feed, FrameReceiver, FrameSender, Waker};
use super::heartbeat;
use super::listener::plain;
use super::outgoing::Wrapping;
use super::stats::{LinkStats, Meter};
use crate::limits::{HANDSHAKE_TIME_MAX, STREAM_WINDOW};
use crate::packet::{SourceMessage, TargetMessage};
use crate::pool::Pool;
use crate::words::{Fingerprint, OwnedBy};

/// What happens on a [`TargetLink`], beside frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetEvent {
    Message(SourceMessage),
    /// The last event.
    Lost {
        reason: String,
    },
}

/// A source that is connected. Dropped, it closes.
pub struct TargetLink {
    peer: Option<Peer>,
    frames: FrameReceiver,
    events: Receiver<TargetEvent>,
    way: Way,
}

/// A source on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its key: paired, or it would not be here.
    pub key: Fingerprint,
    /// Where it dialled from.
    pub address: SocketAddr,
}

#[derive(Clone)]
enum Way {
    Network { outbox: Arc<Outbox<TargetMessage>>, meter: Meter, welcome: Arc<Notify>, back: Arc<Back> },
    Direct(Arc<Passage>),
}

impl TargetLink {
    pub(super) fn direct(
        passage: Arc<Passage>,
        frames: FrameReceiver,
        events: Receiver<TargetEvent>,
    ) -> TargetLink {
        TargetLink { peer: None, frames, events, way: Way::Direct(passage) }
    }

    /// `None`: the source is in this process.
    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// The frames, for the one thread that applies them. Every frame that arrived before the end
    /// is handed out before [`super::Received::Closed`].
    pub fn frames(&self) -> FrameReceiver {
        self.frames.clone()
    }

    /// From now on frames are received. Before it next to nothing is held for the source.
    pub fn welcome(&self) {
        match &self.way {
            Way::Network { welcome, .. } => welcome.notify_one(),
            Way::Direct(passage) => passage.welcome(),
        }
    }

    /// Instead of a welcome: frames go to the source from now on, what `feed` gives. Wakes the feed;
    /// `None` within a process, where a source needs no link to read.
    pub fn send_back(&self, feed: impl Feed, owned_by: OwnedBy) -> Option<Waker> {
        let Way::Network { back, .. } = &self.way else { return None };
        let waker = Waker::new();
        waker.start();
        *back.feed.lock() = Some((Box::new(feed), waker.clone(), owned_by));
        back.given.notify_one();
        Some(waker)
    }

    pub fn messages(&self) -> &Receiver<TargetEvent> {
        &self.events
    }

    /// Queues a control message. Never blocks.
    pub fn send(&self, message: TargetMessage) {
        match &self.way {
            Way::Network { outbox, .. } => outbox.put(message),
            Way::Direct(passage) => passage.tell_source(message),
        }
    }

    pub fn stats(&self) -> LinkStats {
        self.way.stats()
    }

    pub fn handle(&self) -> TargetLinkHandle {
        TargetLinkHandle(self.way.clone())
    }

    /// Closes once the control messages have arrived; returns at once, [`TargetEvent::Lost`]
    /// says when it is done.
    pub fn close(&self, reason: &str) {
        self.way.close(reason);
    }
}

impl Drop for TargetLink {
    fn drop(&mut self) {
        self.close("the target dropped the connection");
    }
}

impl Way {
    fn close(&self, reason: &str) {
        match self {
            Way::Network { outbox, .. } => outbox.close(reason),
            Way::Direct(passage) => passage.end(reason),
        }
    }

    fn stats(&self) -> LinkStats {
        match self {
            Way::Network { meter, .. } => meter.read(),
            Way::Direct(passage) => passage.stats(),
        }
    }
}

/// Looks at a [`TargetLink`] and ends it from elsewhere.
#[derive(Clone)]
pub struct TargetLinkHandle(Way);

impl TargetLinkHandle {
    /// As [`TargetLink::close`].
    pub fn close(&self, reason: &str) {
        self.0.close(reason);
    }

    /// As [`TargetLink::stats`].
    pub fn stats(&self) -> LinkStats {
        self.0.stats()
    }

    /// Calls the source, again and again, until it is heard; whether it was, within this time.
    pub fn call(&self, patience: Duration) -> bool {
        let Way::Network { meter, .. } = &self.0 else { return true };
        let began = Instant::now();
        for round in 0u32.. {
            let waited = began.elapsed();
            if meter.heard.age() < waited {
                return true;
            }
            if waited >= patience {
                break;
            }
            if round.is_multiple_of(CALLS_APART) {
                meter.call.notify_one();
            }
            std::thread::sleep(CALL_LOOK);
        }
        false
    }
}

/// How often it is looked whether a called source was heard: a round trip of a near one.
const CALL_LOOK: Duration = Duration::from_millis(5);

/// So many looks are between two calls.
const CALLS_APART: u32 = 50;

/// What sends it, who wakes that, and by what owners are told.
type Given = (Box<dyn Feed>, Waker, OwnedBy);

/// What is to be sent to the source, once somebody says so.
#[derive(Default)]
struct Back {
    feed: Mutex<Option<Given>>,
    given: Notify,
}

/// What the link thread works with.
pub(super) struct AcceptedSession {
    small: Connection,
    control: (SendStream, RecvStream),
    heartbeat_interval: Duration,
    frames: FrameSender,
    events: Sender<TargetEvent>,
    outbox: Arc<Outbox<TargetMessage>>,
    meter: Meter,
    welcome: Arc<Notify>,
    back: Arc<Back>,
    pool: Pool,
}

/// The large connection with its packet stream, when it comes.
pub(super) type Packets = (Connection, RecvStream);

/// The two ends of a new session.
pub(super) fn session(
    small: Connection,
    peer: Fingerprint,
    control: (SendStream, RecvStream),
    heartbeat_interval: Duration,
    pool: Pool,
) -> (AcceptedSession, TargetLink) {
    let (frame_sender, frames) = frames::channel();
    let (event_sender, events) = unbounded();
    let (outbox, meter, welcome) = (Outbox::new(), Meter::new(), Arc::new(Notify::new()));
    let back = Arc::<Back>::default();
    meter.set_small(small.clone());
    let link = TargetLink {
        peer: Some(Peer { key: peer, address: plain(small.remote_address()) }),
        frames,
        events,
        way: Way::Network {
            outbox: outbox.clone(),
            meter: meter.clone(),
            welcome: welcome.clone(),
            back: back.clone(),
        },
    };
    let session = AcceptedSession {
        small,
        control,
        heartbeat_interval,
        frames: frame_sender,
        events: event_sender,
        outbox,
        meter,
        welcome,
        back,
        pool,
    };
    (session, link)
}

impl AcceptedSession {
    /// Asks for the end from outside.
    pub(super) fn closer(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let outbox = self.outbox.clone();
        move |reason| outbox.close(reason)
    }

    /// Turns the source away before anything has run.
    pub(super) fn refuse(self, reason: &str) {
        End::Fault(reason.to_owned()).close(&self.small);
    }

    /// Runs every part until the first one ends; then all end.
    pub(super) async fn serve(self, packets: oneshot::Receiver<Packets>) -> End {
        let AcceptedSession { small, control: (send, receive), frames, events, meter, .. } = self;
        let mut parts = JoinSet::new();
        self.outbox.spawn(&mut parts, send);
        parts.spawn(heartbeat::answer(
            small,
            self.heartbeat_interval,
            meter.heard.clone(),
            meter.call.clone(),
        ));
        let start = Start { welcome: self.welcome, back: self.back };
        parts.spawn(serve_packets(packets, start, meter.clone(), self.pool, frames.clone()));
        let messages = control::receive(receive, events.clone(), TargetEvent::Message);
        let end = ending::first_of(parts, messages, || meter.connections()).await;
        meter.stop();
        // Before the last sender goes: the receiver reads it when it finds no sender any more.
        *frames.reason.lock() = end.reason().to_owned();
        drop(frames);
        let _ = events.send(TargetEvent::Lost { reason: end.reason().to_owned() });
        end
    }
}

/// What starts the frames, either way.
struct Start {
    welcome: Arc<Notify>,
    back: Arc<Back>,
}

/// Waits for the large connection and for the welcome, then receives frames from it; or sends some.
async fn serve_packets(
    packets: oneshot::Receiver<Packets>,
    start: Start,
    meter: Meter,
    pool: Pool,
    frames: FrameSender,
) -> End {
    match timeout(HANDSHAKE_TIME_MAX, packets).await {
        Ok(Ok((connection, stream))) => {
            meter.set_large(connection.clone());
            let gone = ending::gone(connection.clone());
            tokio::select! {
                () = start.welcome.notified() => {}
                () = start.back.given.notified() => return send_back(connection, stream, &start.back).await,
                end = gone => return end,
            }
            connection.set_receive_window(STREAM_WINDOW.into());
            frames::receive(stream, pool, frames).await
        }
        Ok(Err(_)) | Err(_) => End::Fault("the connection for packets never came".into()),
    }
}

/// Opens the one stream that goes this way. `idle`, which carries nothing, stays open with it.
async fn send_back(connection: Connection, idle: RecvStream, back: &Back) -> End {
    let feed = back.feed.lock().take();
    let Some((feed, waker, owned_by)) = feed else { return End::Fault("there is nothing to send".into()) };
    let end = match connection.open_uni().await {
        Ok(stream) => frames::send(connection, stream, feed, waker, Wrapping::plain(owned_by)).await,
        Err(error) => error.into(),
    };
    drop(idle);
    end
}
