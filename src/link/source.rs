//! The source's end: dials a target, sends what a feed gives, on a thread of its own.

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::control::{self, Outbox};
use super::dial::Dial;
use super::direct::Passage;
use super::ending::{self, End, refused_our_key};
use super::frames::{self, Feed, FrameReceiver, Waker};
use super::heartbeat;
use super::limited::Pacing;
use super::limiter::Rank;
use super::lookup::Lookup;
use super::opening::{GREETING, Opening, Role, SessionToken, bounded};
use super::outgoing::{Agreed, Outgoing, Wrapping};
use super::probe;
use super::socket::{self, Purpose};
use super::stats::{LinkStats, Meter};
use super::tls::{self, Protocol};
use super::traffic::Traffic;
use crate::limits::{CLOSE_FLUSH, HEARTBEATS_MISSED};
use crate::packet::{Features, SourceMessage, TargetMessage};
use crate::store;

/// What happens on a [`SourceLink`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// The target has accepted this source; messages come through.
    Up,
    Message(TargetMessage),
    /// The last event: the attempt failed or the connection ended.
    Lost {
        by: LostBy,
        reason: String,
    },
}

/// What is behind a [`SourceEvent::Lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostBy {
    /// Nobody answers, or a connection broke off: it may come back by itself.
    Network,
    /// One side does not take the other's key: a person has to pair them.
    Refusal,
}

/// A connection to a target, from the first attempt to its end. It is never dialled again:
/// after [`SourceEvent::Lost`] make a new one. Dropped, it closes without waiting.
pub struct SourceLink {
    way: Way,
    events: Receiver<SourceEvent>,
    waker: Waker,
}

enum Way {
    /// `None`: there could be no thread.
    Network(Arc<Shared>, Option<JoinHandle<()>>),
    /// To a target in this process.
    Direct(Arc<Passage>),
}

struct Shared {
    outbox: Arc<Outbox<SourceMessage>>,
    meter: Meter,
    outgoing: Outgoing,
    agreed: Agreed,
}

impl SourceLink {
    /// Starts dialling, a [`Dial`] or what a [`Lookup`] finds, and returns at once. What comes of it
    /// comes as events.
    pub fn dial(to: impl Into<Lookup>, feed: impl Feed) -> SourceLink {
        SourceLink::dial_within(to, feed, Outgoing::default())
    }

    /// As [`SourceLink::dial`]; sends on these terms.
    pub fn dial_within(to: impl Into<Lookup>, feed: impl Feed, outgoing: Outgoing) -> SourceLink {
        SourceLink::begin(to.into(), Traffic::Out(Box::new(feed)), outgoing)
    }

    /// As [`SourceLink::dial`], for frames that the target sends back.
    pub fn dial_to_read(to: impl Into<Lookup>) -> (SourceLink, FrameReceiver) {
        let (sender, receiver) = frames::channel();
        (SourceLink::begin(to.into(), Traffic::Back(sender), Outgoing::default()), receiver)
    }

    fn begin(lookup: Lookup, traffic: Traffic, outgoing: Outgoing) -> SourceLink {
        let (sender, events) = unbounded();
        let waker = Waker::new();
        let (outbox, meter, agreed) = (Outbox::new(), Meter::new(), Agreed::default());
        let shared = Arc::new(Shared { outbox, meter, outgoing, agreed });
        let session = Session { shared: shared.clone(), waker: waker.clone(), events: sender.clone() };
        let dialling = move || session.run(lookup, traffic);
        let thread = std::thread::Builder::new().name("link-source".into()).spawn(dialling);
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                let reason = format!("no thread for the link: {error}");
                let _ = sender.send(SourceEvent::Lost { by: LostBy::Network, reason });
                None
            }
        };
        SourceLink { way: Way::Network(shared, thread), events, waker }
    }

    pub(super) fn direct(passage: Arc<Passage>, events: Receiver<SourceEvent>) -> SourceLink {
        SourceLink { waker: passage.waker(), way: Way::Direct(passage), events }
    }

    /// Wakes this link's feed.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    pub fn events(&self) -> &Receiver<SourceEvent> {
        &self.events
    }

    /// Queues a control message; it goes as soon as the link is up. Never blocks.
    pub fn send(&self, message: SourceMessage) {
        match &self.way {
            Way::Network(shared, _) => shared.outbox.put(message),
            Way::Direct(passage) => passage.tell_target(message),
        }
    }

    /// From now on the feed is asked for frames. `theirs`: what the target offers; no more is used of what both
    /// know.
    pub fn start_feed(&self, theirs: Features) {
        match &self.way {
            Way::Network(shared, _) => {
                shared.agreed.agree(theirs);
                self.waker.start();
            }
            Way::Direct(passage) => passage.start(),
        }
    }

    /// All zero until the link is up; after its end what it was then.
    pub fn stats(&self) -> LinkStats {
        match &self.way {
            Way::Network(shared, _) => shared.meter.read(),
            Way::Direct(passage) => passage.stats(),
        }
    }

    /// Closes once the control messages have arrived, waiting up to [`CLOSE_FLUSH`] for that, and
    /// for the thread to end. Frames not yet sent are not.
    pub fn close(mut self, reason: &str) {
        self.begin_to_close(reason);
        if let Way::Network(_, thread) = &mut self.way
            && let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            log::error!("the link thread panicked");
        }
    }

    /// The first reason counts.
    fn begin_to_close(&self, reason: &str) {
        match &self.way {
            Way::Network(shared, _) => shared.outbox.close(reason),
            Way::Direct(passage) => passage.end(reason),
        }
    }
}

impl Drop for SourceLink {
    fn drop(&mut self) {
        self.begin_to_close("the source dropped the connection");
    }
}

/// What the link thread works with.
struct Session {
    shared: Arc<Shared>,
    waker: Waker,
    events: Sender<SourceEvent>,
}

/// It knows whom to dial.
struct DialledSession {
    dial: Dial,
    shared: Arc<Shared>,
    waker: Waker,
    events: Sender<SourceEvent>,
}

/// The streams of a link that is up.
struct Streams {
    small: Connection,
    control: (SendStream, RecvStream),
    large: Connection,
    packets: SendStream,
}

impl Session {
    fn run(self, lookup: Lookup, traffic: Traffic) {
        let events = self.events.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let end = match runtime {
            Ok(runtime) => runtime.block_on(self.look_up_and_serve(lookup, traffic)),
            Err(error) => End::Lost(format!("no runtime for the link: {error}")),
        };
        let by = match &end {
            End::Refused(_) => LostBy::Refusal,
            End::Closed(_) | End::Lost(_) | End::Fault(_) => LostBy::Network,
        };
        let _ = events.send(SourceEvent::Lost { by, reason: end.reason().to_owned() });
    }

    async fn look_up_and_serve(self, lookup: Lookup, traffic: Traffic) -> End {
        let found = tokio::select! {
            found = lookup.found() => found,
            end = self.shared.outbox.closing() => return end,
        };
        let Session { shared, waker, events } = self;
        match found {
            Ok(dial) => DialledSession { dial, shared, waker, events }.dial_and_serve(traffic).await,
            Err(end) => end,
        }
    }
}

impl DialledSession {
    async fn dial_and_serve(&self, traffic: Traffic) -> End {
        // A socket each, so that heartbeats never wait in a full buffer behind acknowledgements.
        let local = socket::local_for(self.dial.address);
        let paced = |rank| {
            socket::paced_endpoint(local, Pacing { limiter: self.shared.outgoing.limiter.clone(), rank })
        };
        let endpoints = match (paced(Rank::First), paced(Rank::Then)) {
            (Ok(small), Ok(large)) => [small, large],
            (Err(error), _) | (_, Err(error)) => return End::Lost(format!("no UDP socket: {error}")),
        };
        let connected = tokio::select! {
            connected = timeout(self.dial.patience, self.connect(&endpoints, &traffic)) => connected,
            end = self.shared.outbox.closing() => return end,
            end = probe::nobody_there(self.dial.address) => return end,
        };
        let end = match connected {
            Ok(Ok(streams)) => self.serve(streams, traffic).await,
            Ok(Err(end)) => end,
            Err(_) => {
                End::Lost(format!("no answer from {} within {:?}", self.dial.address, self.dial.patience))
            }
        };
        for endpoint in &endpoints {
            let _ = timeout(CLOSE_FLUSH, endpoint.wait_idle()).await;
        }
        end
    }

    /// First the small connection, up to the target's greeting; then the large one.
    async fn connect(&self, endpoints: &[Endpoint; 2], traffic: &Traffic) -> Result<Streams, End> {
        let session = store::random_u128();
        let small = self.handshake(&endpoints[0], Purpose::Small).await?;
        let control = self.greet(&small, session).await?;
        let large = self.handshake(&endpoints[1], traffic.purpose(self.dial.address)).await?;
        let mut packets = large.open_uni().await?;
        packets.write_all(&self.opening(Role::Packets, session)).await?;
        Ok(Streams { small, control, large, packets })
    }

    async fn handshake(&self, endpoint: &Endpoint, purpose: Purpose) -> Result<Connection, End> {
        let Dial { address, target, identity, .. } = &self.dial;
        let (tls, seen) = tls::client(identity, *target, Protocol::Replication)
            .map_err(|error| End::Lost(format!("TLS: {error}")))?;
        let every = bounded(self.dial.heartbeat_interval);
        let mut config = ClientConfig::new(tls);
        config.transport_config(socket::transport(purpose, every * HEARTBEATS_MISSED * 2, Some(every)));
        let connecting = endpoint
            .connect_with(config, *address, tls::SERVER_NAME)
            .map_err(|error| End::Lost(format!("cannot dial {address}: {error}")))?;
        connecting.await.map_err(|error| match seen.get() {
            Some(shown) if shown != target => End::Refused(format!(
                "the target at {address} shows the key {shown}, but {target} is paired: pair them again"
            )),
            _ => self.ended(error),
        })
    }

    /// Opens the control stream. Only the answer proves that the target accepts this source's key:
    /// a refusal comes at any moment until then.
    async fn greet(
        &self,
        small: &Connection,
        session: SessionToken,
    ) -> Result<(SendStream, RecvStream), End> {
        let greeted = self.exchange_greetings(small, session).await;
        match small.close_reason() {
            Some(error) => Err(self.ended(error)),
            None => greeted,
        }
    }

    async fn exchange_greetings(
        &self,
        small: &Connection,
        session: SessionToken,
    ) -> Result<(SendStream, RecvStream), End> {
        let (mut send, mut receive) = small.open_bi().await?;
        send.write_all(&self.opening(Role::Control, session)).await?;
        let mut greeting = [0; GREETING.len()];
        match receive.read_exact(&mut greeting).await {
            Ok(()) if greeting == GREETING => Ok((send, receive)),
            _ => Err(End::Fault("the target does not greet as one of this protocol".into())),
        }
    }

    fn ended(&self, error: ConnectionError) -> End {
        if !refused_our_key(&error) {
            return error.into();
        }
        let (address, key) = (self.dial.address, self.dial.identity.fingerprint());
        End::Refused(format!("the target at {address} does not know this host's key {key}: pair them first"))
    }

    fn opening(&self, role: Role, session: SessionToken) -> [u8; super::opening::OPENING_LEN] {
        let heartbeat_interval = bounded(self.dial.heartbeat_interval);
        Opening { role, heartbeat_interval, session }.encode()
    }

    /// Runs every part until the first one ends; then all end.
    async fn serve(&self, streams: Streams, traffic: Traffic) -> End {
        let Streams { small, control: (send, receive), large, packets } = streams;
        let meter = &self.shared.meter;
        meter.set_small(small.clone());
        meter.set_large(large.clone());
        let _ = self.events.send(SourceEvent::Up);
        let every = bounded(self.dial.heartbeat_interval);
        let mut parts = JoinSet::new();
        parts.spawn(heartbeat::beat(small, every, meter.heard.clone()));
        let receiving = traffic.spawn(
            &mut parts,
            large.clone(),
            packets,
            self.waker.clone(),
            Wrapping::new(self.shared.outgoing.clone(), self.shared.agreed.clone()),
        );
        parts.spawn(ending::gone(large));
        self.shared.outbox.spawn(&mut parts, send);
        let messages = control::receive(receive, self.events.clone(), SourceEvent::Message);
        let end = ending::first_of(parts, messages, || meter.connections()).await;
        meter.stop();
        // Before the last sender goes: the receiver reads it when it finds no sender any more.
        receiving.iter().for_each(|sender| end.reason().clone_into(&mut sender.reason.lock()));
        end
    }
}
