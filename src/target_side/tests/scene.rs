//! A source in a test's hand, in the middle of its stream, and its target over loopback.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::apply::{Hold, Places, Replica};
use crate::link::{Dial, Feed, SourceEvent, SourceLink};
use crate::packet::*;
use crate::target_side::*;
use crate::words::Allow;

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);

pub const SET: SetId = SetId(7);

/// Frames that a test gives.
#[derive(Clone, Default)]
pub struct Frames(Arc<Mutex<VecDeque<EncodedFrame>>>);

impl Feed for Frames {
    fn next_frames(&mut self, _max_bytes: usize) -> Vec<EncodedFrame> {
        self.0.lock().drain(..).collect()
    }
}

/// The one replica of a test, and what its sessions say of who came.
pub struct One(SharedApplier, Arc<Mutex<Vec<&'static str>>>);

impl Replicas for One {
    fn open(&self, _link: &TargetLink, _set: SetId, _name: &str) -> Result<Seat, NoSeat> {
        Ok(Seat::alone(self.0.clone()))
    }

    fn read(&self, _link: &TargetLink, _name: &str, accept: reading::Accept) -> Result<ReadingSeat, String> {
        Ok(ReadingSeat {
            seat: Seat::alone(self.0.clone()),
            set: SET,
            accept,
            allowed: Allow::ALL,
            progress: Arc::default(),
        })
    }

    fn turned_away(&self, _peer: &Fingerprint, _name: &str, _why: &str) {
        self.1.lock().push("turned away");
    }

    fn taken_in(&self, _peer: &Fingerprint, _name: &str) {
        self.1.lock().push("taken in");
    }

    fn about(&self, _peer: &Fingerprint, name: &str) -> Result<String, String> {
        if name == "one" { Ok("here".into()) } else { Err("not here".into()) }
    }
}

/// A source in the middle of its stream, and the target's disk.
pub struct Scene {
    pub source: SourceLink,
    pub dial: Dial,
    pub frames: Frames,
    pub at: Position,
    pub disk: Arc<Hold>,
    pub came: Arc<Mutex<Vec<&'static str>>>,
    pub _server: TargetServer,
}

impl Scene {
    pub fn begin(dir: &Path) -> Scene {
        std::fs::create_dir(dir.join("replica")).unwrap();
        let places = Places::beside(&dir.join("replica"), &dir.join("state"));
        let mut replica = Replica::open(&places, SET).unwrap();
        let at = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
        replica.adopt(at).unwrap();
        replica.mark_good().unwrap();
        let disk = replica.hold.clone();
        let came = Arc::<Mutex<Vec<_>>>::default();
        let one = One(Arc::new(Mutex::new(Applier::new(replica))), came.clone());
        let identity = Arc::new(Identity::generate());
        let loopback = (Ipv4Addr::LOCALHOST, 0).into();
        let server = TargetServer::start(loopback, identity.clone(), |_| true, None, Arc::new(one)).unwrap();
        let frames = Frames::default();
        let dial = Dial::new(server.address(), identity.fingerprint(), identity);
        let source = SourceLink::dial(dial.clone(), frames.clone());
        let scene = Scene { source, dial, frames, at, disk, came, _server: server };
        scene.greet();
        scene
    }

    /// Another connection of the same source.
    pub fn again(&mut self) {
        let source = SourceLink::dial(self.dial.clone(), self.frames.clone());
        std::mem::replace(&mut self.source, source).close("the test dials again");
    }

    /// Says that it speaks this version, and none before it.
    pub fn hello(&self, version: u16) {
        self.source.send(SourceMessage::Hello {
            version_oldest: version,
            version,
            features: Features::OFFERED,
            set: SET,
            set_name: Text::from_str_cut("one"),
            last: self.at,
            oldest: Sequence(1),
        });
    }

    pub fn greet(&self) -> ReplicaProof {
        self.hello(WIRE_VERSION);
        let welcome = self.message(|message| matches!(message, TargetMessage::Welcome { .. }));
        let TargetMessage::Welcome { proof, .. } = welcome else { panic!("{welcome:?}") };
        self.source.send(SourceMessage::StreamFrom { after: self.at });
        self.source.start_feed(Features::OFFERED);
        proof
    }

    pub fn barrier(&mut self, durable: bool) {
        self.packet(b"", &Op::Barrier { durable, name: None });
    }

    pub fn packet(&mut self, path: &[u8], op: &Op) {
        let header = encode_packet_header(path, op);
        self.at = self.at.next(HeaderDigest::of(&header, 0));
        self.frames.0.lock().push_back(packet_frame(&self.at, &header, Bytes::new()));
        self.source.waker().wake();
    }

    pub fn items(&self, items: impl IntoIterator<Item = LaneItem>) {
        for (number, item) in (1..).zip(items) {
            let header = ItemHeader { number: ItemNumber(number), item };
            self.frames.0.lock().push_back(item_frame(&self.at, &header, Bytes::new()));
        }
        self.source.waker().wake();
    }

    pub fn message(&self, fits: impl Fn(&TargetMessage) -> bool) -> TargetMessage {
        wait_for(&self.source, fits)
    }

    /// Every *durable* that is said until everything up to `applied` is applied and up to
    /// `durable` durable.
    pub fn durables_until(&self, applied: u64, durable: u64) -> Vec<u64> {
        let mut said = Mutex::new(Vec::new());
        self.message(|message| match message {
            TargetMessage::Acknowledge { applied: now, durable: on_disk, .. } => {
                said.lock().push(on_disk.0);
                now.0 >= applied && on_disk.0 >= durable
            }
            _ => false,
        });
        said.get_mut().dedup();
        said.into_inner()
    }

    pub fn wait_for_sync(&self) {
        let deadline = Instant::now() + LONG;
        while self.disk.waiting() == 0 {
            assert!(Instant::now() < deadline, "no sync began");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits for a message that fits.
pub fn wait_for(source: &SourceLink, fits: impl Fn(&TargetMessage) -> bool) -> TargetMessage {
    let deadline = Instant::now() + LONG;
    loop {
        match source.events().recv_deadline(deadline).expect("the target says it in time") {
            SourceEvent::Message(message) if fits(&message) => return message,
            SourceEvent::Message(_) | SourceEvent::Up => {}
            SourceEvent::Lost { reason, .. } => panic!("the connection was lost: {reason}"),
        }
    }
}
