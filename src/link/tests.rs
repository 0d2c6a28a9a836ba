//! Both ends over loopback, in one process.

mod fuzz;
mod in_process;
mod misbehaving;
mod packing;
mod pairing;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::limits::{PAYLOAD_LEN_MAX, RECEIVE_WINDOW, STREAM_WINDOW};
use crate::packet::*;
use crate::words::Fingerprint;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// A queue of frames that a test fills.
#[derive(Clone, Default)]
struct Frames(Arc<Mutex<VecDeque<EncodedFrame>>>);

impl Frames {
    fn push(&self, frame: EncodedFrame) {
        self.0.lock().push_back(frame);
    }

    fn left(&self) -> usize {
        self.0.lock().len()
    }
}

impl Feed for Frames {
    fn next_frames(&mut self, max_bytes: usize) -> Vec<EncodedFrame> {
        let mut queue = self.0.lock();
        let mut bytes = 0;
        let mut batch = Vec::new();
        while bytes < max_bytes
            && let Some(frame) = queue.pop_front()
        {
            bytes += frame.len();
            batch.push(frame);
        }
        batch
    }
}

fn frame(sequence: u64, payload: Bytes) -> EncodedFrame {
    let op = Op::Write {
        object: ObjectId { birth_epoch: 1, generation: 2, inode: 3 },
        offset: sequence * 4096,
        result: ContentResult { size: 0, mtime: Timestamp::default(), mode: None },
    };
    let position = Position { sequence: Sequence(sequence), ..Position::default() };
    packet_frame(&position, &encode_packet_header(b"some/file", &op), payload)
}

/// Bytes that say which frame they belong to.
fn payload(sequence: u64, len: usize) -> Bytes {
    (0..len).map(|at| (sequence as usize * 7 + at * 13) as u8).collect::<Vec<u8>>().into()
}

struct Pair {
    listener: Listener,
    source: SourceLink,
    target: TargetLink,
    frames: Frames,
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

fn listen(authorise: impl Fn(&Fingerprint) -> bool + Send + Sync + 'static) -> (Listener, Fingerprint) {
    let identity = Arc::new(Identity::generate());
    let key = identity.fingerprint();
    (Listener::bind(loopback(), identity, authorise).unwrap(), key)
}

fn pair() -> Pair {
    pair_through(|address| address, HEARTBEAT)
}

const HEARTBEAT: Duration = Duration::from_secs(5);

/// A pair whose source dials the address that `detour` makes of the listener's.
fn pair_through(detour: impl FnOnce(SocketAddr) -> SocketAddr, heartbeat: Duration) -> Pair {
    let identity = Arc::new(Identity::generate());
    let paired = identity.fingerprint();
    let (listener, key) = listen(move |shown| *shown == paired);
    let mut dial = Dial::new(detour(listener.local_addr()), key, identity);
    dial.heartbeat_interval = heartbeat;
    let frames = Frames::default();
    let source = SourceLink::dial(dial, frames.clone());
    assert_eq!(source.events().recv_timeout(LONG), Ok(SourceEvent::Up));
    let target = listener.accept().unwrap();
    assert_eq!(target.peer().map(|peer| peer.key), Some(paired));
    target.welcome();
    Pair { listener, source, target, frames }
}

fn lost(source: &SourceLink) -> String {
    lost_by(source).1
}

fn lost_by(source: &SourceLink) -> (LostBy, String) {
    loop {
        match source.events().recv_timeout(LONG).expect("the link tells that it is lost") {
            SourceEvent::Lost { by, reason } => return (by, reason),
            SourceEvent::Up | SourceEvent::Message(_) => {}
        }
    }
}

fn target_lost(target: &TargetLink) -> String {
    loop {
        match target.messages().recv_timeout(LONG).expect("the link tells that it is lost") {
            TargetEvent::Lost { reason } => return reason,
            TargetEvent::Message(_) => {}
        }
    }
}

fn next(frames: &FrameReceiver) -> Frame {
    match frames.recv(LONG) {
        Received::Frame(frame) => frame,
        other => panic!("no frame but {other:?}"),
    }
}

/// A resolver may take half a minute: who ends a link does not wait for it.
#[test]
fn a_look_up_comes_through_and_its_end_is_not_waited_for() {
    let identity = Arc::new(Identity::generate());
    let (listener, key) = listen(|_| true);
    let (dial, (open, gate)) = (Dial::new(listener.local_addr(), key, identity), std::sync::mpsc::channel());
    let lookup = Lookup::begin(move || gate.recv().map(|()| dial).map_err(|_| "nowhere".into())).unwrap();
    let source = SourceLink::dial(lookup, Frames::default());
    source.events().recv_timeout(Duration::from_millis(50)).expect_err("its target is not known");
    open.send(()).unwrap();
    assert_eq!(source.events().recv_timeout(LONG), Ok(SourceEvent::Up));
    source.close("the test ends");
    let (_open, gate) = std::sync::mpsc::channel::<()>();
    let lookup =
        Lookup::begin(move || gate.recv().map_err(|_| String::new()).and(Err("late".into()))).unwrap();
    let source = SourceLink::dial(lookup, Frames::default());
    let (closed, is_closed) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        source.close("the test ends");
        let _ = closed.send(());
    });
    is_closed.recv_timeout(LONG).expect("it closes");
}

#[test]
fn frames_of_all_sizes_arrive_in_order_and_whole() {
    let pair = pair();
    let sizes = [0, 1, 63, 64, 1000, 1200, 4096, 4097, 65_536, 300_000, PAYLOAD_LEN_MAX];
    let count = 200;
    let size = |sequence: u64| sizes[sequence as usize * 5 % sizes.len()];
    (0..count / 2).for_each(|n| pair.frames.push(frame(n, payload(n, size(n)))));
    pair.source.start_feed(Features::OFFERED);
    let received = pair.target.frames();
    for sequence in 0..count {
        if sequence == 10 {
            (count / 2..count).for_each(|n| pair.frames.push(frame(n, payload(n, size(n)))));
            pair.source.waker().wake();
        }
        let frame = next(&received);
        assert_eq!(frame.position.sequence, Sequence(sequence));
        assert!(frame.payload == payload(sequence, size(sequence)), "payload of {sequence} is damaged");
    }
    assert!(matches!(received.recv(Duration::from_millis(1)), Received::Idle));
}

#[test]
fn the_feed_is_not_asked_before_the_start() {
    let pair = pair();
    pair.frames.push(frame(1, Bytes::new()));
    pair.source.waker().wake();
    assert!(matches!(pair.target.frames().recv(Duration::from_millis(100)), Received::Idle));
    pair.source.start_feed(Features::OFFERED);
    assert_eq!(next(&pair.target.frames()).position.sequence, Sequence(1));
}

/// A lost wake would leave a packet lying until the next one comes.
#[test]
fn no_wake_is_lost() {
    let pair = pair();
    pair.source.start_feed(Features::OFFERED);
    let (received, waker) = (pair.target.frames(), pair.source.waker());
    for sequence in 0..2000 {
        pair.frames.push(frame(sequence, Bytes::new()));
        waker.wake();
        assert_eq!(next(&received).position.sequence, Sequence(sequence));
    }
}

#[test]
fn messages_go_both_ways_and_arrive_before_the_end() {
    let pair = pair();
    for n in 0..1000 {
        pair.source.send(SourceMessage::StreamFrom {
            after: Position { sequence: Sequence(n), ..Position::default() },
        });
        pair.target.send(TargetMessage::Recovered { sequence: Sequence(n) });
    }
    for n in 0..1000 {
        let after = Position { sequence: Sequence(n), ..Position::default() };
        let sent = SourceMessage::StreamFrom { after };
        assert_eq!(pair.target.messages().recv_timeout(LONG), Ok(TargetEvent::Message(sent)));
        let sent = TargetMessage::Recovered { sequence: Sequence(n) };
        assert_eq!(pair.source.events().recv_timeout(LONG), Ok(SourceEvent::Message(sent)));
    }
    pair.source.send(SourceMessage::Goodbye);
    pair.source.close("all is sent");
    assert_eq!(pair.target.messages().recv_timeout(LONG), Ok(TargetEvent::Message(SourceMessage::Goodbye)));
    assert!(target_lost(&pair.target).contains("all is sent"));
    assert!(
        matches!(pair.target.frames().recv(LONG), Received::Closed { reason } if reason.contains("all is sent"))
    );
}

#[test]
fn a_target_closes_with_its_reason() {
    let pair = pair();
    pair.target.send(TargetMessage::Refused { reason: Text::from_str_cut("not today") });
    pair.target.close("wrong set");
    let message = TargetMessage::Refused { reason: Text::from_str_cut("not today") };
    assert_eq!(pair.source.events().recv_timeout(LONG), Ok(SourceEvent::Message(message)));
    assert!(lost(&pair.source).contains("wrong set"));
}

#[test]
fn a_stranger_is_refused_and_both_sides_say_so() {
    let (listener, key) = listen(|_| false);
    let stranger = Arc::new(Identity::generate());
    let shown = stranger.fingerprint().to_string();
    let source = SourceLink::dial(Dial::new(listener.local_addr(), key, stranger), Frames::default());
    let (by, reason) = lost_by(&source);
    assert!(reason.contains("does not know this host's key") && reason.contains(&shown), "{reason}");
    assert_eq!(by, LostBy::Refusal);
    wait_for(|| listener.refusals().count == 1);
    let line = listener.refusals().last.unwrap();
    assert!(line.contains(&shown) && line.contains("not paired"), "{line}");
    assert!(listener.links().try_recv().is_err());
}

#[test]
fn a_target_with_another_key_is_refused_and_both_sides_say_so() {
    let (listener, key) = listen(|_| true);
    let expected = Identity::generate().fingerprint();
    let dial = Dial::new(listener.local_addr(), expected, Arc::new(Identity::generate()));
    let (by, reason) = lost_by(&SourceLink::dial(dial, Frames::default()));
    assert!(reason.contains(&key.to_string()) && reason.contains(&expected.to_string()), "{reason}");
    assert_eq!(by, LostBy::Refusal);
    wait_for(|| listener.refusals().last.is_some_and(|line| line.contains("expects another key")));
}

#[test]
fn a_target_that_is_not_there_is_given_up() {
    let silent = UdpSocket::bind(loopback()).unwrap();
    let identity = Arc::new(Identity::generate());
    let mut dial = Dial::new(silent.local_addr().unwrap(), identity.fingerprint(), identity);
    dial.patience = Duration::from_millis(200);
    assert!(lost(&SourceLink::dial(dial.clone(), Frames::default())).contains("no answer"));
    dial.patience = LONG;
    let source = SourceLink::dial(dial, Frames::default());
    let asked = Instant::now();
    source.close("not wanted any more");
    assert!(asked.elapsed() < LONG / 2);
}

/// The network says at once that nobody listens; the source waited out its patience.
#[test]
fn a_closed_port_is_told_from_silence() {
    let address = UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
    let identity = Arc::new(Identity::generate());
    let mut dial = Dial::new(address, identity.fingerprint(), identity);
    dial.patience = LONG;
    let (by, reason) = lost_by(&SourceLink::dial(dial, Frames::default()));
    assert!(reason.contains("nobody listens at"), "{reason}");
    assert_eq!(by, LostBy::Network);
}

#[test]
fn a_damaged_frame_ends_the_connection_with_the_reason() {
    for damage in [0, 40, 70, 200] {
        let pair = pair();
        pair.frames.push(frame(1, payload(1, 500)));
        let good = frame(2, payload(2, 500));
        let mut bytes = [&good.head[..], &good.payload[..]].concat();
        bytes[damage] ^= 1;
        pair.frames.push(EncodedFrame { head: bytes.into(), payload: Bytes::new() });
        pair.source.start_feed(Features::OFFERED);
        let reason = lost(&pair.source);
        assert!(reason.contains("packet stream"), "{reason}");
        // What came before is not lost with it.
        let received = pair.target.frames();
        assert_eq!(next(&received).position.sequence, Sequence(1));
        assert!(
            matches!(received.recv(LONG), Received::Closed { reason } if reason.contains("packet stream"))
        );
        assert!(target_lost(&pair.target).contains("packet stream"));
    }
}

/// A target that does not apply must neither fill memory nor stop hearing and answering.
#[test]
fn a_target_that_does_not_take_frames_slows_the_source_down() {
    let pair = pair();
    let body = payload(0, PAYLOAD_LEN_MAX);
    let count = 80;
    (0..count).for_each(|n| pair.frames.push(frame(n, body.clone())));
    pair.source.start_feed(Features::OFFERED);
    let received = pair.target.frames();
    wait_for(|| received.waiting_bytes() > RECEIVE_WINDOW - 2 * PAYLOAD_LEN_MAX);
    let mut left = pair.frames.left();
    // It has come to rest when nothing was taken for a while.
    while std::mem::replace(&mut left, pair.frames.left()) != pair.frames.left() || left == count as usize {
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(received.waiting_bytes() <= RECEIVE_WINDOW);
    let under_way = (count as usize - left) * PAYLOAD_LEN_MAX;
    assert!(
        under_way <= RECEIVE_WINDOW + 2 * STREAM_WINDOW as usize + (2 << 20),
        "{under_way} bytes under way"
    );
    assert!(left > 0);
    pair.source.send(SourceMessage::MakeDurable);
    assert_eq!(
        pair.target.messages().recv_timeout(LONG),
        Ok(TargetEvent::Message(SourceMessage::MakeDurable))
    );
    pair.target.send(TargetMessage::Recovered { sequence: Sequence(7) });
    let answer = SourceEvent::Message(TargetMessage::Recovered { sequence: Sequence(7) });
    assert_eq!(pair.source.events().recv_timeout(LONG), Ok(answer));
    for sequence in 0..count {
        assert_eq!(next(&received).position.sequence, Sequence(sequence));
    }
    assert_eq!(received.waiting_bytes(), 0);
}

/// 1,000 changes of 4 KiB, each on its own, with an acknowledgement each: the promise of byte economy.
#[test]
fn small_packets_cost_little_more_than_their_bytes() {
    let pair = pair();
    pair.source.start_feed(Features::OFFERED);
    let (received, waker) = (pair.target.frames(), pair.source.waker());
    for n in 0..1000 {
        pair.frames.push(frame(n, payload(n, 4096)));
        waker.wake();
        assert_eq!(next(&received).position.sequence, Sequence(n));
        let sequence = Sequence(n);
        pair.target.send(TargetMessage::Acknowledge {
            received: sequence,
            applied: sequence,
            durable: sequence,
        });
        pair.source.events().recv_timeout(LONG).unwrap();
        std::thread::sleep(Duration::from_millis(2));
    }
    let stats = pair.source.stats();
    let bytes = stats.sent_bytes + stats.received_bytes;
    assert!((4_096_000..4_500_000).contains(&bytes), "{bytes} bytes: {stats:?}");
    assert_eq!(stats.mtu, 8952);
}

#[test]
fn a_listener_that_ends_is_noticed_and_frees_its_address() {
    let pair = pair();
    let address = pair.listener.local_addr();
    drop(pair.listener);
    assert!(lost(&pair.source).contains("stopping"));
    assert!(target_lost(&pair.target).contains("stopping"));
    Listener::bind(address, Arc::new(Identity::generate()), |_| true).unwrap();
}

#[test]
fn a_closed_listener_lets_its_acceptor_go() {
    let (listener, _) = listen(|_| true);
    std::thread::scope(|scope| {
        let acceptor = scope.spawn(|| listener.accept().is_none());
        listener.close();
        assert!(acceptor.join().unwrap());
    });
}

/// Datagrams between a source and a listener; each flow can be cut without a word to anyone.
struct Proxy {
    address: SocketAddr,
    cut_small: Arc<AtomicBool>,
    cut_large: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    large_datagrams: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Proxy {
    fn before(listener: SocketAddr) -> Proxy {
        let front = Arc::new(UdpSocket::bind(loopback()).unwrap());
        front.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let mut proxy = Proxy {
            address: front.local_addr().unwrap(),
            cut_small: Arc::default(),
            cut_large: Arc::default(),
            stop: Arc::default(),
            large_datagrams: Arc::default(),
            threads: Vec::new(),
        };
        let (cut_small, cut_large) = (proxy.cut_small.clone(), proxy.cut_large.clone());
        let (stop, large_datagrams) = (proxy.stop.clone(), proxy.large_datagrams.clone());
        proxy.threads.push(std::thread::spawn(move || {
            // In the order in which they come: the small connection, then the large one.
            let mut flows: Vec<(SocketAddr, UdpSocket)> = Vec::new();
            let mut buffer = vec![0; 65_536];
            while !stop.load(SeqCst) {
                if let Ok((len, from)) = front.recv_from(&mut buffer)
                    && buffer[..len] != probe::KNOCK
                {
                    let known = flows.iter().position(|(peer, _)| *peer == from);
                    let flow = known.unwrap_or_else(|| {
                        let back = UdpSocket::bind(loopback()).unwrap();
                        back.connect(listener).unwrap();
                        back.set_nonblocking(true).unwrap();
                        flows.push((from, back));
                        flows.len() - 1
                    });
                    let cut = if flow == 0 { &cut_small } else { &cut_large };
                    if !cut.load(SeqCst) {
                        let _ = flows[flow].1.send(&buffer[..len]);
                        large_datagrams.fetch_add(u64::from(flow == 1), SeqCst);
                    }
                }
                for (flow, (peer, back)) in flows.iter().enumerate() {
                    while let Ok(len) = back.recv(&mut buffer) {
                        let cut = if flow == 0 { &cut_small } else { &cut_large };
                        if !cut.load(SeqCst) {
                            let _ = front.send_to(&buffer[..len], peer);
                        }
                    }
                }
            }
        }));
        proxy
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn pair_behind_proxy(heartbeat: Duration) -> (Pair, Proxy) {
    let mut proxy = None;
    let pair = pair_through(|address| proxy.insert(Proxy::before(address)).address, heartbeat);
    (pair, proxy.unwrap())
}

#[test]
fn a_cut_network_is_noticed_by_both_sides() {
    let (pair, proxy) = pair_behind_proxy(Duration::from_millis(400));
    std::thread::sleep(Duration::from_secs(2));
    assert!(pair.source.events().try_recv().is_err(), "heartbeats keep an idle link up");
    assert!(pair.source.stats().heartbeat_age_ms < 1200);
    proxy.cut_small.store(true, SeqCst);
    proxy.cut_large.store(true, SeqCst);
    assert!(lost(&pair.source).contains("no heartbeat"));
    assert!(target_lost(&pair.target).contains("no heartbeat"));
    assert!(matches!(pair.target.frames().recv(LONG), Received::Closed { .. }));
}

/// A target that wanted to know waited for heartbeats to be missed.
#[test]
fn a_source_that_is_called_is_heard_at_once_or_silent() {
    let (pair, proxy) = pair_behind_proxy(Duration::from_secs(600));
    wait_for(|| pair.target.stats().heartbeat_age_ms > 100);
    for _ in 0..3 {
        assert!(pair.target.handle().call(LONG), "it lives");
    }
    // Nothing of its packets is waited for.
    proxy.cut_large.store(true, SeqCst);
    assert!(pair.target.handle().call(LONG), "it lives");
    proxy.cut_small.store(true, SeqCst);
    // What was under way may still come.
    wait_for(|| !pair.target.handle().call(Duration::from_millis(200)));
    proxy.cut_small.store(false, SeqCst);
    assert!(pair.target.handle().call(LONG), "it is there again");
}

/// Heartbeats that stop end the link though packets still come through.
#[test]
fn lost_heartbeats_are_noticed_while_packets_flow() {
    let (pair, proxy) = pair_behind_proxy(Duration::from_millis(100));
    pair.source.start_feed(Features::OFFERED);
    proxy.cut_small.store(true, SeqCst);
    let cut_at = proxy.large_datagrams.load(SeqCst);
    let received = pair.target.frames();
    let mut sequence = 0;
    let reason = loop {
        pair.frames.push(frame(sequence, Bytes::new()));
        pair.source.waker().wake();
        if let Received::Closed { reason } = received.recv(Duration::from_millis(20)) {
            break reason;
        }
        sequence += 1;
    };
    assert!(reason.contains("no heartbeat"), "{reason}");
    assert!(proxy.large_datagrams.load(SeqCst) > cut_at, "no packet came through meanwhile");
    let reason = lost(&pair.source);
    assert!(reason.contains("no heartbeat"), "{reason}");
}

fn wait_for(condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < LONG, "it never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}
