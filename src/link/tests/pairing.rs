//! Strangers at the desk, and nowhere else.

use super::*;
use crate::limits::{PAIRING_ATTEMPTS_PER_SECOND, PAIRING_LEN_MAX};
use crate::words::Fingerprint;

/// A listener that authorises nobody and repeats what strangers say, with their session's binding.
fn desk() -> (Listener, Fingerprint) {
    let identity = Arc::new(Identity::generate());
    let key = identity.fingerprint();
    let desk: PairingDesk = Arc::new(|visit: PairingVisit| {
        [visit.request, visit.binding.to_vec(), visit.peer.bytes().to_vec()].concat()
    });
    (Listener::bind_with_pairing(loopback(), identity, |_| false, Some(desk)).unwrap(), key)
}

#[test]
fn a_stranger_speaks_to_the_desk_in_a_session_of_its_own() {
    let (listener, key) = desk();
    let identity = Arc::new(Identity::generate());
    let dial = Dial::new(listener.local_addr(), key, identity.clone());
    let mut bindings = Vec::new();
    for _ in 0..2 {
        let mut here = [0; 32];
        let answer = visit_desk(&dial, |binding| {
            here = *binding;
            b"hello".to_vec()
        });
        let expected = [b"hello".as_slice(), &here, &identity.fingerprint().bytes()].concat();
        assert_eq!(answer, Ok(expected), "both ends know the same of the session");
        bindings.push(here);
    }
    assert_ne!(bindings[0], bindings[1], "another session, another binding");
    assert_eq!(listener.refusals().count, 0);
}

#[test]
fn a_stranger_gets_no_further_than_the_desk() {
    let (listener, key) = desk();
    let dial = Dial::new(listener.local_addr(), key, Arc::new(Identity::generate()));
    let source = SourceLink::dial(dial, Frames::default());
    assert!(lost(&source).contains("does not know this host's key"));
    assert!(listener.links().is_empty());
}

/// Both protocols offered: the key is checked as for the one that gives rights.
#[test]
fn a_stranger_that_offers_both_protocols_is_refused() {
    let (listener, key) = desk();
    let me = Identity::generate();
    let mut config = tls::client_config(&me, key, tls::Protocol::Pairing).unwrap().0;
    config.alpn_protocols.push(b"standin/1".to_vec());
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let refused = runtime.block_on(async {
        let endpoint = socket::endpoint(loopback(), None).unwrap();
        match endpoint.connect_with(config, listener.local_addr(), "x").unwrap().await {
            Err(error) => ending::describe(&error),
            Ok(connection) => ending::describe(&connection.closed().await),
        }
    });
    assert!(refused.contains("refused this host's key"), "{refused}");
}

#[test]
fn a_listener_without_a_desk_has_none() {
    let (listener, key) = listen(|_| true);
    let dial = Dial::new(listener.local_addr(), key, Arc::new(Identity::generate()));
    visit_desk(&dial, |_| b"hello".to_vec()).unwrap_err();
}

#[test]
fn another_target_than_the_token_names_is_told_apart() {
    let (listener, _) = desk();
    let named = Identity::generate().fingerprint();
    let dial = Dial::new(listener.local_addr(), named, Arc::new(Identity::generate()));
    let why = visit_desk(&dial, |_| unreachable!("nothing is said to a stranger")).unwrap_err();
    assert!(why.contains("but the token names"), "{why}");
}

/// A closed port was waited for until the patience for a handshake was over.
#[test]
fn where_nobody_listens_is_said_as_such() {
    let address = UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
    let target = Identity::generate().fingerprint();
    let dial = Dial::new(address, target, Arc::new(Identity::generate()));
    let why = visit_desk(&dial, |_| unreachable!("nobody is there")).unwrap_err();
    assert!(why.contains("nobody listens at"), "{why}");
}

#[test]
fn long_requests_and_many_are_refused() {
    let (listener, key) = desk();
    let dial = Dial::new(listener.local_addr(), key, Arc::new(Identity::generate()));
    let why = visit_desk(&dial, |_| vec![0; PAIRING_LEN_MAX + 1]).unwrap_err();
    assert!(why.contains("too long"), "{why}");
    let many: Vec<_> = (0..3 * PAIRING_ATTEMPTS_PER_SECOND)
        .map(|_| {
            let dial = dial.clone();
            std::thread::spawn(move || visit_desk(&dial, |_| b"hello".to_vec()))
        })
        .collect();
    let answers: Vec<_> = many.into_iter().map(|one| one.join().unwrap()).collect();
    let refused = answers
        .iter()
        .filter(|answer| answer.as_ref().is_err_and(|why| why.contains("too many pairing attempts")));
    assert!(refused.count() > 0, "{answers:?}");
}

/// The process behind a listener dies and another one takes its place: sources hear of it at once.
#[test]
fn a_source_hears_of_a_restart_without_missing_heartbeats() {
    let (us, identity) = (Arc::new(Identity::generate()), Arc::new(Identity::generate()));
    let paired = us.fingerprint();
    let listener = Listener::bind(loopback(), identity.clone(), move |key| *key == paired).unwrap();
    let address = listener.local_addr();
    // Packets of this source go through a socket that the dead process's successor takes over.
    let front = UdpSocket::bind(loopback()).unwrap();
    let mut dial = Dial::new(front.local_addr().unwrap(), identity.fingerprint(), us);
    dial.heartbeat_interval = Duration::from_millis(1000);
    let to = Arc::new(Mutex::new(address));
    let end = Arc::new(AtomicBool::new(false));
    let relay = relay(front, to.clone(), end.clone());
    let source = SourceLink::dial(dial, Frames::default());
    assert_eq!(source.events().recv_timeout(LONG), Ok(SourceEvent::Up));
    let successor = Listener::bind(loopback(), identity, |_| true).unwrap();
    let began = Instant::now();
    *to.lock() = successor.local_addr();
    let why = lost(&source);
    assert!(why.contains("restarted"), "{why}");
    assert!(began.elapsed() < Duration::from_millis(2900), "{:?}", began.elapsed());
    end.store(true, SeqCst);
    relay.join().unwrap();
}

/// Passes datagrams of any clients on to `to`, and the answers back.
fn relay(front: UdpSocket, to: Arc<Mutex<SocketAddr>>, end: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let pause = Some(Duration::from_millis(2));
        front.set_read_timeout(pause).unwrap();
        let mut backs: Vec<(SocketAddr, UdpSocket)> = Vec::new();
        let mut buffer = vec![0; 65536];
        while !end.load(SeqCst) {
            if let Ok((len, client)) = front.recv_from(&mut buffer) {
                if !backs.iter().any(|(known, _)| *known == client) {
                    let back = UdpSocket::bind(loopback()).unwrap();
                    back.set_read_timeout(Some(Duration::from_micros(200))).unwrap();
                    backs.push((client, back));
                }
                let (_, back) = backs.iter().find(|(known, _)| *known == client).unwrap();
                back.send_to(&buffer[..len], *to.lock()).unwrap();
            }
            for (client, back) in &backs {
                while let Ok((len, from)) = back.recv_from(&mut buffer) {
                    // A dead process says nothing any more.
                    if from == *to.lock() {
                        front.send_to(&buffer[..len], *client).unwrap();
                    }
                }
            }
        }
    })
}
