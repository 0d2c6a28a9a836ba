//! Peers that speak TLS well and nothing else, or that show what is not theirs.

use super::*;
use quinn::{ClientConfig, Endpoint};

use crate::link::opening::{Opening, Role};
use crate::words::Fingerprint;

async fn connect(listener: &Listener, key: Fingerprint) -> (Endpoint, quinn::Connection) {
    let (tls, _) = tls::client(&Identity::generate(), key, tls::Protocol::Replication).unwrap();
    let endpoint = socket::endpoint(loopback(), None).unwrap();
    let mut config = ClientConfig::new(tls);
    config.transport_config(socket::transport(socket::Purpose::Small, LONG, None));
    let connection = endpoint.connect_with(config, listener.local_addr(), "x").unwrap().await.unwrap();
    (endpoint, connection)
}

/// Runs `act` on a fresh connection; gives the reason for which the target closed it.
fn closed_after<F: Future<Output = ()>>(act: impl FnOnce(quinn::Connection) -> F) -> String {
    let (listener, key) = listen(|_| true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (_endpoint, connection) = connect(&listener, key).await;
        act(connection.clone()).await;
        tokio::time::timeout(LONG, connection.closed()).await.expect("closed").to_string()
    })
}

fn opening(role: Role) -> [u8; 32] {
    Opening { role, heartbeat_interval: Duration::from_millis(100), session: 1 }.encode()
}

async fn open(connection: &quinn::Connection, bytes: &[u8]) -> (quinn::SendStream, quinn::RecvStream) {
    let mut streams = connection.open_bi().await.unwrap();
    streams.0.write_all(bytes).await.unwrap();
    streams
}

#[test]
fn junk_instead_of_an_opening() {
    let reason = closed_after(|connection| async move {
        open(&connection, &[7; 32]).await;
    });
    assert!(reason.contains("does not open"), "{reason}");
}

#[test]
fn an_opening_cut_short() {
    let reason = closed_after(|connection| async move {
        let (mut send, _receive) = open(&connection, &opening(Role::Control)[..10]).await;
        send.finish().unwrap();
        let _ = connection.closed().await;
    });
    assert!(reason.contains("within its opening"), "{reason}");
}

#[test]
fn packets_without_a_session() {
    let reason = closed_after(|connection| async move {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&opening(Role::Packets)).await.unwrap();
        let _ = connection.closed().await;
    });
    assert!(reason.contains("not there"), "{reason}");
}

#[test]
fn a_control_message_beyond_its_bound() {
    let reason = closed_after(|connection| async move {
        let mut bytes = opening(Role::Control).to_vec();
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        let _streams = open(&connection, &bytes).await;
        let _ = connection.closed().await;
    });
    assert!(reason.contains("control stream: message of 4294967295 bytes"), "{reason}");
}

#[test]
fn a_control_message_that_is_none() {
    let reason = closed_after(|connection| async move {
        let mut bytes = opening(Role::Control).to_vec();
        bytes.extend_from_slice(&8u32.to_le_bytes());
        bytes.extend_from_slice(&[0xff; 8]);
        let _streams = open(&connection, &bytes).await;
        let _ = connection.closed().await;
    });
    assert!(reason.contains("control stream: header cannot be decoded"), "{reason}");
}

#[test]
fn no_heartbeat_ever() {
    let reason = closed_after(|connection| async move {
        let _streams = open(&connection, &opening(Role::Control)).await;
        let _ = connection.closed().await;
    });
    assert!(reason.contains("no heartbeat for 0.3 s"), "{reason}");
}

/// A certificate is public: showing it must not be enough.
#[derive(Debug)]
struct Stolen(Arc<rustls::sign::CertifiedKey>);

impl Stolen {
    fn from(victim: &Identity) -> Arc<Stolen> {
        let own = Identity::generate();
        let key = rustls::crypto::ring::sign::any_supported_type(&own.key()).unwrap();
        Arc::new(Stolen(Arc::new(rustls::sign::CertifiedKey::new(vec![victim.certificate()], key))))
    }
}

impl rustls::client::ResolvesClientCert for Stolen {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Stolen {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[test]
fn a_source_with_a_stolen_certificate() {
    let victim = Identity::generate();
    let paired = victim.fingerprint();
    let (listener, key) = listen(move |shown| *shown == paired);
    let mut config = tls::client_config(&victim, key, tls::Protocol::Replication).unwrap().0;
    config.client_auth_cert_resolver = Stolen::from(&victim);
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let endpoint = socket::endpoint(loopback(), None).unwrap();
        let config = ClientConfig::new(Arc::new(crypto));
        let dialled = endpoint.connect_with(config, listener.local_addr(), "x").unwrap().await;
        if let Ok(connection) = dialled {
            let error = tokio::time::timeout(LONG, connection.closed()).await.expect("closed");
            assert!(matches!(error, quinn::ConnectionError::ConnectionClosed(_)), "{error}");
        }
    });
    wait_for(|| listener.refusals().count == 1);
    assert!(listener.links().try_recv().is_err());
}

#[test]
fn a_target_with_a_stolen_certificate() {
    let victim = Identity::generate();
    let mut config = tls::server_config(&victim, Arc::new(|_| true), tls::Strangers::Refused).unwrap().0;
    config.cert_resolver = Stolen::from(&victim);
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = socket::endpoint(loopback(), Some((config, victim.reset_key()))).unwrap();
        let address = endpoint.local_addr().unwrap();
        let identity = Arc::new(Identity::generate());
        let source = SourceLink::dial(Dial::new(address, victim.fingerprint(), identity), Frames::default());
        assert!(endpoint.accept().await.unwrap().await.is_err());
        let event = tokio::task::spawn_blocking(move || source.events().recv_timeout(LONG)).await.unwrap();
        let Ok(SourceEvent::Lost { reason, .. }) = event else { panic!("{event:?}") };
        assert!(reason.contains("BadSignature") || reason.contains("certificate"), "{reason}");
    });
}

/// Many handshakes at once, and the door still opens to the next one.
#[test]
fn a_crowd_at_the_door() {
    let (listener, key) = listen(|_| true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let crowd = (0..40).map(|_| connect(&listener, key));
        let mut visitors = Vec::new();
        for visitor in crowd {
            visitors.push(visitor.await);
        }
    });
    let dial = Dial::new(listener.local_addr(), key, Arc::new(Identity::generate()));
    let source = SourceLink::dial(dial, Frames::default());
    assert_eq!(source.events().recv_timeout(LONG), Ok(SourceEvent::Up));
}

/// Answers that a source does not read pile up to their bound, not to the end of memory.
#[test]
fn a_source_that_reads_nothing_is_cut_off() {
    let pair = pair();
    let objects = vec![ObjectId::default(); 1000];
    for number in 0..600 {
        pair.target.send(TargetMessage::Wanted { listing: ItemNumber(number), objects: objects.clone() });
    }
    let reason = target_lost(&pair.target);
    assert!(reason.contains("bytes of control messages unread"), "{reason}");
}

/// Before its source is welcomed a target takes next to nothing of it.
#[test]
fn a_source_that_is_not_welcome_fills_no_window() {
    let (us, listener_key) = (Arc::new(Identity::generate()), listen(|_| true));
    let (listener, key) = listener_key;
    let source = SourceLink::dial(Dial::new(listener.local_addr(), key, us), {
        let frames = Frames::default();
        (0..40).for_each(|n| frames.push(frame(n, payload(0, PAYLOAD_LEN_MAX))));
        frames
    });
    let target = listener.accept().unwrap();
    assert_eq!(source.events().recv_timeout(LONG), Ok(SourceEvent::Up));
    source.start_feed(Features::OFFERED);
    std::thread::sleep(Duration::from_millis(500));
    let before = target.stats().received_bytes;
    assert!(before < 2 * u64::from(crate::limits::STRANGER_WINDOW), "{before} bytes");
    assert_eq!(target.frames().waiting_bytes(), 0);
    target.welcome();
    assert_eq!(next(&target.frames()).position.sequence, Sequence(0));
}
