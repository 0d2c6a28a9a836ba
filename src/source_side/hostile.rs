//! Targets that lie: the source must not panic, must keep what it has not been relieved of, and
//! says what was wrong.

mod copies;
mod epochs;
mod foreseen;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::{Around, Connection, Report, Settings, Watch};
use super::mark::{Mark, Marks};
use super::remote::Route;
use crate::connection::FaultKind;
use crate::control::{ConnectionState, WaitFor};
use crate::intercept::{Divergence, Fence, Fenced};
use crate::link::{Dial, FrameReceiver, Identity, Listener, Received, TargetEvent, TargetLink};
use crate::map::Map;
use crate::packet::{
    Chain, DataState, Epoch, Features, Frame, History, Incarnation, Op, Position, ReplicaProof, Sequence,
    SetId, SourceMessage, TargetMessage, Text, WIRE_VERSION,
};
use crate::queue::{Draft, Queue};
use crate::words::{Order, Target, WhenFull};

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// More than fits into the window of a target that does not take frames.
const PACKETS: u64 = 24;
const PACKET_LEN: usize = 256 << 10;

fn origin() -> Position {
    Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3))
}

/// What a scene begins with.
#[derive(Default)]
struct Stage {
    watch: Option<Watch>,
    divergence: Arc<Divergence>,
    marks: Arc<Marks>,
    map: Option<Arc<Map>>,
    is_known: bool,
    /// So many packets were given out before the connection is there.
    before: u64,
}

/// A source with packets in its queue, connected to a target that the test plays.
struct Scene {
    queue: Arc<Queue>,
    connection: Connection,
    target: TargetLink,
    listener: Listener,
    marks: Arc<Marks>,
    fence: Arc<Fence>,
    tree: tempfile::TempDir,
    /// The last position before the connection.
    start: Position,
}

impl Scene {
    fn new() -> Scene {
        Scene::watched(None)
    }

    fn watched(watch: Option<Watch>) -> Scene {
        Scene::on(Stage { watch, ..Stage::default() })
    }

    fn on(stage: Stage) -> Scene {
        let Stage { watch, divergence, marks, map, is_known, before } = stage;
        let (us, target) = (Arc::new(Identity::generate()), Arc::new(Identity::generate()));
        let loopback: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = Listener::bind(loopback, target.clone(), |_| true).unwrap();
        let queue = Queue::new(64 << 20, origin());
        let fence = Arc::<Fence>::default();
        let settings = Settings {
            id: 1,
            uuid: "c0ffee".into(),
            target: Target::Remote { host: "127.0.0.1".into(), port: 1, repset: "web".into() },
            is_known,
            set: SetId(7),
            set_name: "web".into(),
            ids: 1.into(),
            unwritten_at: Mark::now(),
            watch,
            divergence,
            fence: fence.clone(),
            roles: Arc::default(),
            marks: marks.clone(),
            map,
            merge: None,
            touched: false,
            when_full: WhenFull::default(),
            kept: Default::default(),
            delete_guard: Default::default(),
            owners: Default::default(),
            orphans: Default::default(),
            restored_at: None,
            goes_on: before > 0,
            left: None,
            terms: Default::default(),
        };
        let route = Route::Fixed(Dial::new(listener.local_addr(), target.fingerprint(), us));
        let tree = tempfile::tempdir().unwrap();
        let around = Around::of(route, tree.path(), &queue);
        append(&queue, before);
        let start = queue.last();
        let connection = Connection::start(settings, around, queue.clone(), None).unwrap();
        append(&queue, PACKETS);
        let link = listener.accept().expect("the source comes");
        let hello = link.messages().recv_timeout(LONG).expect("it greets");
        assert!(matches!(hello, TargetEvent::Message(SourceMessage::Hello { .. })), "{hello:?}");
        Scene { queue, connection, target: link, listener, marks, fence, tree, start }
    }

    /// The target has taken three packets and made them durable; their positions.
    fn in_line(&self) -> Vec<Position> {
        self.target.welcome();
        self.welcome(origin());
        let frames = self.target.frames();
        let positions = (0..3).map(|_| frame(&frames).position).collect();
        self.say(acknowledge(3, 3));
        let has = |report: &Report| super::sync::has(report, Sequence(3), WaitFor::Durable);
        assert!(has(&self.connection.wait(Instant::now() + LONG, has)));
        positions
    }

    /// The replica is said to be good up to here.
    fn welcome(&self, applied: Position) {
        self.say(welcome(WIRE_VERSION, proof(applied)));
    }

    fn say(&self, message: TargetMessage) {
        self.target.send(message);
    }

    /// The reason for which the source gave this target up; the queue must be whole.
    #[track_caller]
    fn given_up(self) -> String {
        let report =
            self.connection.wait(Instant::now() + LONG, |report| report.state == ConnectionState::Error);
        assert_eq!(report.state, ConnectionState::Error, "it was believed: {}", report.reason);
        assert_eq!(self.queue.oldest(), Sequence(1), "packets were dropped: {}", report.reason);
        assert_eq!(self.queue.stats().packets, PACKETS);
        assert_eq!(report.applied, Sequence(0));
        // It comes again: no thread of it has died.
        self.listener.accept().expect("it dials again");
        self.connection.end();
        report.reason
    }
}

fn append(queue: &Arc<Queue>, packets: u64) {
    for number in 0..packets {
        let mut room = queue.reserve(PACKET_LEN, 64).unwrap();
        let payload = Bytes::from(vec![number as u8; PACKET_LEN]);
        queue.append(&mut room, Draft::new(b"", &Op::Barrier { durable: false, name: None }, payload));
    }
}

fn proof(applied: Position) -> ReplicaProof {
    ReplicaProof {
        data: DataState::Good,
        bad_by: Default::default(),
        applied,
        durable: applied,
        received: applied,
        process: 1,
    }
}

fn welcome(version: u16, proof: ReplicaProof) -> TargetMessage {
    TargetMessage::Welcome { version, features: Features(u64::MAX), proof }
}

fn acknowledge(applied: u64, durable: u64) -> TargetMessage {
    let (received, applied) = (Sequence(applied), Sequence(applied));
    TargetMessage::Acknowledge { received, applied, durable: Sequence(durable) }
}

#[track_caller]
fn frame(frames: &FrameReceiver) -> Frame {
    match frames.recv(LONG) {
        Received::Frame(frame) => frame,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(word: &str, act: impl FnOnce(&Scene)) {
    let scene = Scene::new();
    act(&scene);
    let reason = scene.given_up();
    assert!(reason.contains(word), "no '{word}' in: {reason}");
}

/// Once such a word made the queue drop what was not sent, and the link thread panic on it.
#[test]
fn more_is_acknowledged_than_was_sent() {
    for applied in [PACKETS, PACKETS + 1, u64::MAX] {
        check("which it was not sent", |scene| {
            scene.welcome(origin());
            scene.say(acknowledge(applied, 0));
        });
    }
}

/// The durable lag grew until the next session.
#[test]
fn a_session_ends_once_everything_is_on_the_disk() {
    let scene = Scene::new();
    scene.target.welcome();
    scene.welcome(origin());
    let plan = "queue=1".parse().unwrap();
    scene.connection.schedule(Order::Set(plan)).recv().unwrap().unwrap();
    let frames = scene.target.frames();
    (0..PACKETS).for_each(|_| drop(frame(&frames)));
    scene.say(acknowledge(PACKETS, PACKETS - 1));
    let is_over = |report: &Report| report.state == ConnectionState::Scheduled;
    let report = scene.connection.wait(Instant::now() + Duration::from_secs(3), is_over);
    assert_eq!((report.state, report.applied), (ConnectionState::Started, Sequence(PACKETS)));
    scene.say(acknowledge(PACKETS, PACKETS));
    let report = scene.connection.wait(Instant::now() + LONG, is_over);
    assert_eq!((report.state, report.durable), (ConnectionState::Scheduled, Sequence(PACKETS)));
    scene.connection.end();
}

#[test]
fn more_is_durable_than_applied() {
    check("durable what it had not applied", |scene| {
        scene.welcome(origin());
        scene.say(acknowledge(0, u64::MAX));
    });
}

#[test]
fn an_acknowledgement_is_taken_back() {
    let scene = Scene::new();
    scene.target.welcome();
    scene.welcome(origin());
    let frames = scene.target.frames();
    for _ in 0..3 {
        frame(&frames);
    }
    scene.say(acknowledge(3, 2));
    scene.say(acknowledge(2, 2));
    let report =
        scene.connection.wait(Instant::now() + LONG, |report| report.state == ConnectionState::Error);
    assert!(report.reason.contains("took back"), "{}", report.reason);
    // What was true before stays true.
    assert_eq!((report.applied, report.durable), (Sequence(3), Sequence(2)));
    assert_eq!(scene.queue.oldest(), Sequence(4));
    scene.connection.end();
}

#[test]
fn a_greeting_that_was_not_offered_or_comes_twice() {
    for version in [0, WIRE_VERSION + 1, u16::MAX] {
        check("which was not offered", |scene| scene.say(welcome(version, proof(origin()))));
    }
    check("greeted twice", |scene| {
        scene.welcome(origin());
        scene.welcome(origin());
    });
}

/// A proof that cannot be is no way to resume: no packet is sent for it, and no acknowledgement believed.
#[test]
fn forged_proofs_resume_nothing() {
    let last = |scene: &Scene| scene.queue.last();
    let forged: [fn(Position) -> Position; 4] = [
        |last| Position { chain: Chain(1), ..last },
        |last| Position { sequence: Sequence(u64::MAX), ..last },
        |last| Position { epoch: Epoch { number: 1, writer: 9 }, ..last },
        |last| Position { incarnation: Incarnation(9), ..last },
    ];
    for forge in forged {
        let scene = Scene::new();
        scene.target.welcome();
        scene.welcome(forge(last(&scene)));
        scene.say(acknowledge(PACKETS, PACKETS));
        let waits = |reason: &str| reason.contains("brought into line by a copy");
        let report = scene.connection.wait(Instant::now() + LONG, |report| waits(&report.reason));
        assert!(waits(&report.reason) && !report.streaming, "{}", report.reason);
        scene.say(TargetMessage::Refused { reason: Text::from_str_cut("\x1b[2Jthe\nend") });
        let fails = |report: &Report| report.state == ConnectionState::Error;
        let report = scene.connection.wait(Instant::now() + LONG, fails);
        assert!(report.reason.contains("\u{fffd}[2Jthe\u{fffd}end"), "{:?}", report.reason);
        assert_eq!((report.applied, report.data), (Sequence(0), DataState::Bad));
        scene.connection.end();
    }
}

/// A target whose disk was set back: `wait-sync` went on to say that it has everything, and
/// `status` that it is behind by nothing.
#[test]
fn what_a_target_has_lost_does_not_count() {
    let scene = Scene::new();
    let positions = scene.in_line();
    let has = |report: &Report| super::sync::has(report, Sequence(3), WaitFor::Durable);
    scene.target.close("it is set back");
    let target = scene.listener.accept().expect("it dials again");
    target.send(welcome(WIRE_VERSION, proof(positions[0])));
    let is_copied_to = |report: &Report| report.reason.contains("is back at 1");
    let report = scene.connection.wait(Instant::now() + LONG, is_copied_to);
    assert!(is_copied_to(&report), "{}", report.reason);
    assert!(!has(&report));
    assert_eq!((report.applied, report.durable), (Sequence(1), Sequence(1)));
    scene.connection.end();
}

/// A connection whose thread died said for ever that it streams, and held the queue until writers
/// waited.
#[test]
fn a_thread_that_dies_is_seen() {
    let watch: Watch = Box::new(|standing| assert!(standing.is_none_or(|standing| !standing.in_line)));
    let scene = Scene::watched(Some(watch));
    scene.welcome(origin());
    let needs_copy = |report: &Report| report.needs_copy.is_some();
    let report = scene.connection.wait(Instant::now() + LONG, needs_copy);
    assert!(needs_copy(&report) && !report.streaming, "{}", report.reason);
    assert_eq!((report.state, scene.queue.stats().packets), (ConnectionState::Error, 0));
    scene.connection.end();
}

/// A change that could not be captured was said on the source alone, and only while it ran.
#[test]
fn a_target_hears_of_a_divergence() {
    let divergence = Arc::new(Divergence::default());
    let scene = Scene::on(Stage { divergence: divergence.clone(), ..Stage::default() });
    scene.welcome(origin());
    divergence.note("write: I/O error");
    let deadline = Instant::now() + LONG;
    let reason = loop {
        match scene.target.messages().recv_deadline(deadline).expect("it is told") {
            TargetEvent::Message(SourceMessage::Diverged { reason }) => break reason.to_text(),
            TargetEvent::Message(_) => {}
            TargetEvent::Lost { reason } => panic!("{reason}"),
        }
    };
    assert_eq!(reason, "a change could not be captured (write: I/O error)");
    let bad = |report: &Report| report.data == DataState::Bad;
    assert!(bad(&scene.connection.wait(deadline, bad)));
    scene.connection.end();
}
