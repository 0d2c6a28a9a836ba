//! The target's door: one UDP socket and one thread for all sources, strangers kept out.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use quinn::{Connection, Endpoint, Incoming, ServerConfig, VarInt};
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use super::ending::{End, refused_our_key};
use super::identity::{Identity, fingerprint_of};
use super::opening::{GREETING, Opening, Role, SessionToken};
use super::pairing::{self, PairingDesk};
use super::socket::{self, Purpose};
use super::target::{self, Packets, TargetLink};
use super::tls::{self, Authorise, Protocol, Strangers};
use crate::limits::{
    CLOSE_FLUSH, HANDSHAKE_TIME_MAX, HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX, HANDSHAKES_UNPROVEN,
    HEARTBEAT_INTERVAL_MAX, HEARTBEATS_MISSED, LINKS_MAX, LINKS_PER_KEY_MAX, RECEIVE_POOL_FREE_MAX,
};
use crate::paced::Paced;
use crate::pool::Pool;
use crate::words::Fingerprint;

/// Waits for sources. Dropped, it closes without waiting.
pub struct Listener {
    shared: Arc<Shared>,
    links: Receiver<TargetLink>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// Connections that were turned away since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Refusals {
    pub count: u64,
    /// One line about the last: who, and why.
    pub last: Option<String>,
}

struct Shared {
    identity: Arc<Identity>,
    authorise: Authorise,
    pairing: Option<pairing::Counter>,
    pool: Pool,
    /// Those under way, by where they come from.
    handshakes: Mutex<Vec<IpAddr>>,
    about: OnceLock<About>,
    sessions: Mutex<HashMap<(Fingerprint, SessionToken), Live>>,
    refusals: Mutex<Refusals>,
    refused: Paced,
    closing: Notify,
}

/// What there is to say about a key that is refused, beside that it is not paired.
type About = Box<dyn Fn(&Fingerprint) -> Option<String> + Send + Sync>;

/// A session that runs.
struct Live {
    /// Where its large connection goes, until it has come.
    packets: Option<oneshot::Sender<Packets>>,
    close: Box<dyn Fn(&str) + Send + Sync>,
}

impl Listener {
    /// Listens on a UDP address. `authorise` says of each key whether it may connect; it is
    /// called on the link thread and must not block.
    ///
    /// Errors: those of the socket, of TLS with this identity, or of starting a thread.
    pub fn bind(
        address: SocketAddr,
        identity: Arc<Identity>,
        authorise: impl Fn(&Fingerprint) -> bool + Send + Sync + 'static,
    ) -> io::Result<Listener> {
        Listener::bind_with_pairing(address, identity, authorise, None)
    }

    /// [`Listener::bind`], and strangers may speak to a pairing desk, and to nothing else.
    pub fn bind_with_pairing(
        address: SocketAddr,
        identity: Arc<Identity>,
        authorise: impl Fn(&Fingerprint) -> bool + Send + Sync + 'static,
        desk: Option<PairingDesk>,
    ) -> io::Result<Listener> {
        Bound::new(address, identity, authorise, desk)?.listen()
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next source; `None` once the listener is closed.
    pub fn accept(&self) -> Option<TargetLink> {
        self.links.recv().ok()
    }

    /// The sources that come, for those that wait for several things at once.
    pub fn links(&self) -> &Receiver<TargetLink> {
        &self.links
    }

    /// Says more about keys that are refused, where there is more to say. Called on the link thread.
    pub fn explain(&self, about: impl Fn(&Fingerprint) -> Option<String> + Send + Sync + 'static) {
        let _ = self.shared.about.set(Box::new(about));
    }

    pub fn refusals(&self) -> Refusals {
        self.shared.refusals.lock().clone()
    }

    /// Ends every connection as [`TargetLink::close`] does, and [`Listener::accept`] with `None`.
    /// Returns at once.
    pub fn close(&self) {
        self.shared.closing.notify_one();
    }
}

/// A listener that has its port and no thread yet: the place to give up privileges.
pub struct Bound {
    runtime: tokio::runtime::Runtime,
    door: Door,
    links: Receiver<TargetLink>,
    address: SocketAddr,
}

impl Bound {
    /// As [`Listener::bind_with_pairing`].
    pub fn new(
        address: SocketAddr,
        identity: Arc<Identity>,
        authorise: impl Fn(&Fingerprint) -> bool + Send + Sync + 'static,
        desk: Option<PairingDesk>,
    ) -> io::Result<Bound> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(pairing::DESK_THREADS)
            .build()?;
        let shared = Arc::new(Shared {
            identity,
            authorise: Arc::new(authorise),
            pairing: desk.map(pairing::Counter::new),
            pool: Pool::keeping(RECEIVE_POOL_FREE_MAX),
            handshakes: Mutex::default(),
            about: OnceLock::new(),
            sessions: Mutex::default(),
            refusals: Mutex::default(),
            refused: Paced::of_strangers(),
            closing: Notify::new(),
        });
        let config = shared.server_config().map_err(io::Error::other)?;
        let endpoint = {
            let _within = runtime.enter();
            socket::endpoint(address, Some((config, shared.identity.reset_key())))?
        };
        let address = endpoint.local_addr()?;
        let (sender, links) = unbounded();
        let door = Door { shared, endpoint, links: sender };
        Ok(Bound { runtime, door, links, address })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// From now on sources are let in.
    pub fn listen(self) -> io::Result<Listener> {
        let Bound { runtime, door, links, address } = self;
        let shared = door.shared.clone();
        let thread = std::thread::Builder::new()
            .name("link-target".into())
            .spawn(move || runtime.block_on(door.keep()))?;
        Ok(Listener { shared, links, address, thread: Some(thread) })
    }
}

impl Drop for Listener {
    /// The socket is free when this returns: the next listener can have the address.
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the link thread panicked");
        }
    }
}

/// What the link thread works with.
struct Door {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    links: Sender<TargetLink>,
}

impl Door {
    async fn keep(self) {
        loop {
            tokio::select! {
                incoming = self.endpoint.accept() => match incoming {
                    Some(incoming) => self.knock(incoming),
                    None => break,
                },
                () = self.shared.closing.notified() => break,
            }
        }
        self.close().await;
    }

    /// Lets a connection attempt in as far as its handshake, where there is room.
    fn knock(&self, incoming: Incoming) {
        let network = network_of(incoming.remote_address().ip());
        let (pending, from_there) = {
            let handshakes = self.shared.handshakes.lock();
            (handshakes.len(), handshakes.iter().filter(|from| **from == network).count())
        };
        if pending >= HANDSHAKES_MAX {
            incoming.refuse();
        } else if pending >= HANDSHAKES_UNPROVEN && incoming.may_retry() {
            // Fails only where the address is proven already.
            let _ = incoming.retry();
        } else if from_there >= HANDSHAKES_PER_ADDRESS_MAX && incoming.remote_address_validated() {
            incoming.refuse();
        } else {
            let pending = Pending::one(self.shared.clone(), network);
            tokio::spawn(self.shared.clone().receive(incoming, pending, self.links.clone()));
        }
    }

    async fn close(self) {
        let reason = "the target is stopping";
        self.shared.sessions.lock().values().for_each(|live| (live.close)(reason));
        let links_end = async {
            while !self.shared.sessions.lock().is_empty() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(CLOSE_FLUSH, links_end).await;
        self.endpoint.close(VarInt::from_u32(0), reason.as_bytes());
        let _ = timeout(CLOSE_FLUSH, self.endpoint.wait_idle()).await;
    }
}

/// Counts a handshake under way.
struct Pending(Arc<Shared>, IpAddr);

impl Pending {
    fn one(shared: Arc<Shared>, network: IpAddr) -> Pending {
        shared.handshakes.lock().push(network);
        Pending(shared, network)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut handshakes = self.0.handshakes.lock();
        let at = handshakes.iter().position(|from| *from == self.1);
        assert!(at.is_some(), "a handshake ends that was not counted");
        at.map(|at| handshakes.swap_remove(at));
    }
}

/// For people: an IPv4 address that came in at an IPv6 socket is an IPv4 address.
pub(super) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What one host can have addresses in: all of IPv4's address, 64 bits of IPv6's.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// What a source's connection turned out to be.
enum Visitor {
    Session(Box<(target::AcceptedSession, TargetLink)>, (Fingerprint, SessionToken)),
    Packets(Packets, (Fingerprint, SessionToken)),
    /// It came to pair, and has its answer.
    Paired,
}

impl Shared {
    async fn receive(self: Arc<Self>, incoming: Incoming, pending: Pending, links: Sender<TargetLink>) {
        let address = plain(incoming.remote_address());
        let visitor = match timeout(HANDSHAKE_TIME_MAX, self.identify(incoming)).await {
            Ok(Ok(visitor)) => visitor,
            Ok(Err(why)) => return self.refuse(address, &why),
            Err(_) => return self.refuse(address, "the handshake took too long"),
        };
        drop(pending);
        match visitor {
            Visitor::Session(ends, key) => self.run(*ends, key, links).await,
            Visitor::Packets(packets, key) => self.attach(packets, key, address),
            Visitor::Paired => {}
        }
    }

    /// TLS, then the opening of the first stream: what the connection is for.
    async fn identify(&self, incoming: Incoming) -> Result<Visitor, String> {
        let (connection, peer) = self.handshake(incoming).await?;
        match (tls::protocol_of(&connection), &self.pairing) {
            (Some(Protocol::Replication), _) if (self.authorise)(&peer) => {}
            (Some(Protocol::Pairing), Some(counter)) => {
                return counter.serve(&connection, peer).await.map(|()| Visitor::Paired);
            }
            _ => return Err(self.stranger(&peer)),
        }
        let visitor = tokio::select! {
            streams = connection.accept_bi() => match streams {
                Ok(streams) => self.open_session(&connection, peer, streams).await,
                Err(error) => Err(error.into()),
            },
            stream = connection.accept_uni() => match stream {
                Ok(mut stream) => Opening::read(&mut stream, Role::Packets)
                    .await
                    .map(|opening| Visitor::Packets((connection.clone(), stream), (peer, opening.session))),
                Err(error) => Err(error.into()),
            },
        };
        visitor.map_err(|end: End| {
            end.close(&connection);
            format!("key {peer}: {}", end.reason())
        })
    }

    async fn handshake(&self, incoming: Incoming) -> Result<(Connection, Fingerprint), String> {
        // A verifier for each handshake, so that the line about a stranger names the right key.
        let (tls, seen) = tls::server(&self.identity, self.authorise.clone(), self.strangers())
            .map_err(|error| format!("TLS: {error}"))?;
        let mut config = self.server_config()?;
        config.crypto = tls;
        let connecting = incoming.accept_with(Arc::new(config)).map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| match seen.get() {
            Some(stranger) if !(self.authorise)(stranger) => self.stranger(stranger),
            _ if refused_our_key(&error) => format!(
                "it expects another key than this host's {}: pair them again",
                self.identity.fingerprint()
            ),
            _ => super::ending::describe(&error),
        })?;
        let peer = peer_key(&connection).ok_or("it shows no key")?;
        Ok((connection, peer))
    }

    async fn open_session(
        &self,
        connection: &Connection,
        peer: Fingerprint,
        (mut send, mut receive): (quinn::SendStream, quinn::RecvStream),
    ) -> Result<Visitor, End> {
        let opening = Opening::read(&mut receive, Role::Control).await?;
        send.write_all(&GREETING).await?;
        let ends = target::session(
            connection.clone(),
            peer,
            (send, receive),
            opening.heartbeat_interval,
            self.pool.clone(),
        );
        Ok(Visitor::Session(Box::new(ends), (peer, opening.session)))
    }

    /// Runs a session to its end.
    async fn run(
        &self,
        (session, link): (target::AcceptedSession, TargetLink),
        key: (Fingerprint, SessionToken),
        links: Sender<TargetLink>,
    ) {
        let (sender, packets) = oneshot::channel();
        {
            let mut sessions = self.sessions.lock();
            let of_this_key = sessions.keys().filter(|(peer, _)| *peer == key.0).count();
            if sessions.len() >= LINKS_MAX || of_this_key >= LINKS_PER_KEY_MAX || sessions.contains_key(&key)
            {
                drop(sessions);
                return session.refuse("the target has no room for another connection");
            }
            sessions.insert(key, Live { packets: Some(sender), close: Box::new(session.closer()) });
        }
        if links.send(link).is_ok() {
            let end = session.serve(packets).await;
            log::debug!("connection of {} ended: {}", key.0, end.reason());
        }
        let live = self.sessions.lock().remove(&key);
        assert!(live.is_some(), "a connection ends that was not among those that live");
    }

    /// Hands a large connection to its session.
    fn attach(&self, packets: Packets, key: (Fingerprint, SessionToken), address: SocketAddr) {
        let slot = self.sessions.lock().get_mut(&key).and_then(|live| live.packets.take());
        let unclaimed = match slot {
            Some(slot) => slot.send(packets).err(),
            None => Some(packets),
        };
        if let Some((connection, _)) = unclaimed {
            let end = End::Fault("packets for a session that is not there".into());
            end.close(&connection);
            self.refuse(address, end.reason());
        }
    }

    /// Counts and logs a connection that was turned away.
    fn refuse(&self, address: SocketAddr, why: &str) {
        let line = format!("refused a connection from {address}: {why}");
        let mut refusals = self.refusals.lock();
        self.refused.line(Instant::now(), &line).iter().for_each(|line| log::warn!("{line}"));
        refusals.count += 1;
        refusals.last = Some(line);
    }

    fn stranger(&self, key: &Fingerprint) -> String {
        let about = self.about.get().and_then(|about| about(key)).map(|more| format!(": {more}"));
        format!("the key {key} is not paired with this host{}", about.unwrap_or_default())
    }

    fn strangers(&self) -> Strangers {
        if self.pairing.is_some() { Strangers::MayPair } else { Strangers::Refused }
    }

    fn server_config(&self) -> Result<ServerConfig, String> {
        let (tls, _) = tls::server(&self.identity, self.authorise.clone(), self.strangers())
            .map_err(|error| format!("TLS: {error}"))?;
        let mut config = ServerConfig::with_crypto(tls);
        // The source's own, shorter time counts as soon as it is known.
        let idle = HEARTBEAT_INTERVAL_MAX * HEARTBEATS_MISSED * 2;
        config.transport_config(socket::transport(Purpose::Incoming, idle, None));
        config
            .max_incoming(HANDSHAKES_MAX)
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(2 << 20);
        Ok(config)
    }
}

fn peer_key(connection: &Connection) -> Option<Fingerprint> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    fingerprint_of(identity.first()?).ok()
}
