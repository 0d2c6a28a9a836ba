//! A source directory that is changed by plain system calls, the ops that say so, and a replica.

mod adopted;
mod aside;
mod beside;
mod check;
mod clones;
mod converge;
mod crash;
mod doubt;
mod fence;
mod finish;
mod flags;
mod flags_stay;
mod fuzz;
mod gives_way;
mod hostile;
mod keep;
mod kept_owed;
mod kept_own;
mod listed;
mod model;
mod nameless;
mod ops;
mod part;
mod peer;
mod policy;
mod presence;
mod relief;
mod settle;
mod source;
mod sync;
mod together;
pub mod tree;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::packet::*;
use source::Source;

const SET: SetId = SetId(0x5e7);

/// A source and its replica, in step through `say`.
struct Pair {
    temp: TempDir,
    source: Source,
    places: Places,
    applier: Option<Applier>,
}

type Said = (Op, Vec<u8>);

impl Pair {
    fn new() -> Pair {
        Self::with_replica(|temp| temp.join("replica"))
    }

    fn with_replica(root: impl FnOnce(&Path) -> PathBuf) -> Pair {
        let temp = tempfile::tempdir().unwrap();
        let root = root(temp.path());
        std::fs::create_dir(temp.path().join("source")).unwrap();
        std::fs::create_dir_all(&root).unwrap();
        let source = Source { root: temp.path().join("source") };
        let places = Places::beside(&root, &temp.path().join("state"));
        let mut replica = Replica::open(&places, SET).unwrap();
        replica.bind_root(source.id("")).unwrap();
        let origin = Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3));
        replica.adopt(origin).unwrap();
        replica.mark_good().unwrap();
        Pair { temp, source, places, applier: Some(Applier::new(replica)) }
    }

    fn applier(&mut self) -> &mut Applier {
        self.applier.as_mut().unwrap()
    }

    fn replica(&self, path: &str) -> PathBuf {
        self.places.root.join(path)
    }

    /// The process dies: nothing is synced or settled. Another one opens the replica.
    fn crash(&mut self) {
        drop(self.applier.take());
        self.applier = Some(Applier::new(Replica::open(&self.places, SET).unwrap()));
    }

    fn frame(&mut self, said: &Said) -> Frame {
        frame_after(&self.applier().replica().applied(), said)
    }

    fn try_say(&mut self, said: &Said) -> Outcome {
        let frame = self.frame(said);
        self.applier().handle(&frame)
    }

    #[track_caller]
    fn say(&mut self, said: Said) {
        match self.try_say(&said) {
            Outcome::Applied => {}
            other => panic!("{:?}: {other:?}", said.0),
        }
    }

    /// Text of the fault of one attempt; the op must not go through.
    #[track_caller]
    fn fails(&mut self, said: &Said) -> String {
        let frame = self.frame(said);
        let FrameHeader::Packet(packet) = &frame.header else { panic!("no packet") };
        match self.applier().perform(&frame, packet) {
            Err(fault) => fault.to_string(),
            Ok(()) => panic!("{:?} went through", said.0),
        }
    }

    #[track_caller]
    fn assert_same(&mut self) {
        self.applier().set_pending_times().unwrap();
        tree::assert_same(&self.source.root, &self.places.root);
    }
}

impl Applier {
    /// Tries one item once.
    pub(crate) fn take_item(
        &mut self,
        position: Position,
        number: ItemNumber,
        item: LaneItem,
        payload: Bytes,
    ) -> Result<Vec<TargetMessage>, Fault> {
        let header = FrameHeader::Item(ItemHeader { number, item });
        match self.handle(&Frame::new(position, HeaderDigest(0), header, payload)) {
            Outcome::Answered(answers) => Ok(answers),
            Outcome::Retry(Retry { fault, .. })
            | Outcome::Refused(Refusal::Proof(fault) | Refusal::Lacks(fault)) => Err(fault),
            other => panic!("an item came to {other:?}"),
        }
    }
}

fn frame_after(last: &Position, (op, payload): &Said) -> Frame {
    let header = encode_packet_header(b"", op);
    let digest = HeaderDigest::of(&header, payload.len());
    let packet = PacketHeader { path: Bounded(Vec::new()), op: op.clone(), to_whom: ToWhom::AllOf };
    Frame::new(last.next(digest), digest, FrameHeader::Packet(packet), Bytes::copy_from_slice(payload))
}

/// Takes a mount away again, whatever the test does.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, size: &str) -> Mounted {
        let data = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount("none", at, "tmpfs", rustix::mount::MountFlags::empty(), data.as_c_str())
            .unwrap();
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
