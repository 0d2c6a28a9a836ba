//! The source: the product's queue, feed and connection machine; a driver that does what the
//! machine says, as the product's own does; an imitation of the copy of a quiet tree.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::model::{ROOT, Tree, object};
use crate::connection::{Flow, Held, Machine, Window};
use crate::link::Feed;
use crate::packet::*;
use crate::queue::{CursorId, Draft, Queue};
use crate::source::{PacketFeed, Sent, Stream};

/// Room for any op that the model makes.
const OP_COST_MAX: usize = 6000;

/// A source process.
pub struct Source {
    pub queue: Arc<Queue>,
    cursor: CursorId,
    pub start: Position,
    pub machine: Machine,
    pub sending: Option<Sending>,
    /// The target was told to have it.
    pub acknowledged: Sequence,
    pub durable: Sequence,
    /// The last packet that earlier sessions sent.
    pub sent_upto: Sequence,
    /// Applications do not write yet: the replica was never in line.
    pub is_quiet: bool,
}

/// The source's end of a link.
pub struct Sending {
    pub link: u32,
    /// When the attempt succeeds or fails; `None`: it has succeeded.
    pub dialing: Option<Instant>,
    feed: PacketFeed,
    stream: Arc<Stream>,
    flow: Flow,
    pub copy: Option<Copy>,
    pub is_streaming: bool,
}

impl Source {
    pub fn new(limit: usize, start: Position, now: Instant) -> Source {
        let queue = Queue::new(limit, start);
        let (cursor, start) = queue.attach(|| {});
        Source {
            queue,
            cursor,
            start,
            machine: Machine::new(now, Window::Open),
            sending: None,
            acknowledged: start.sequence,
            durable: start.sequence,
            sent_upto: start.sequence,
            is_quiet: true,
        }
    }

    pub fn held(&self) -> Held {
        Held { last: self.queue.last(), oldest: self.queue.oldest(), acknowledged: self.acknowledged }
    }

    pub fn hello(&self) -> SourceMessage {
        SourceMessage::Hello {
            version_oldest: WIRE_VERSION_OLDEST,
            version: WIRE_VERSION,
            features: Features::OFFERED,
            set: super::target::SET,
            set_name: Text::from_str_cut("set"),
            last: self.queue.last(),
            oldest: self.queue.oldest(),
        }
    }

    pub fn has_room(&self) -> bool {
        self.queue.has_room(OP_COST_MAX)
    }

    /// The change is done on the disk: its op is queued.
    pub fn capture(&self, op: &Op, payload: Vec<u8>) -> Position {
        let header = encode_packet_header(b"", op).len();
        assert!(self.has_room(), "the only thread would wait for itself");
        let mut room = self.queue.reserve(payload.len(), header).expect("nobody closes the queue");
        self.queue.append(&mut room, Draft::new(b"", op, Bytes::from(payload)))
    }

    pub fn dial(&mut self, link: u32, through: Instant) {
        let stream = Stream::new(self.start, Flow::Hold);
        let (feed, _lane) = PacketFeed::new(self.queue.clone(), stream.clone(), Arc::new(Sent::default()));
        self.sending = Some(Sending {
            link,
            dialing: Some(through),
            feed,
            stream,
            flow: Flow::Hold,
            copy: None,
            is_streaming: false,
        });
    }

    /// The link is closed; answers which.
    pub fn close(&mut self) -> Option<u32> {
        let sending = self.sending.take()?;
        if sending.is_streaming {
            self.sent_upto = self.sent_upto.max(sending.stream.at().sequence);
        }
        Some(sending.link)
    }

    pub fn let_go(&self) {
        self.queue.detach(self.cursor);
    }

    /// What the target says of its progress.
    ///
    /// Errors: why no sound target says so.
    pub fn acknowledged(&mut self, applied: Sequence, durable: Sequence) -> Result<(), String> {
        if !self.sending.as_ref().is_some_and(|sending| sending.is_streaming) {
            return Ok(());
        }
        if applied > self.queue.last().sequence {
            return Err("the target acknowledged packets that were never given out".into());
        }
        if durable > applied {
            return Err("the target made durable what it had not applied".into());
        }
        self.queue.acknowledge_applied(self.cursor, applied);
        self.acknowledged = self.acknowledged.max(applied);
        self.durable = self.durable.max(durable);
        Ok(())
    }
}

impl Sending {
    pub fn start(&mut self, after: Position, again_upto: Sequence) {
        self.is_streaming = true;
        self.copy = None;
        self.stream.start(after, again_upto);
    }

    pub fn set_flow(&mut self, flow: Flow) {
        self.flow = flow;
        self.stream.set_flow(flow);
    }

    /// The position that the copy of the quiet tree is valid after.
    pub fn stands_at(&mut self) -> Position {
        self.stream.at()
    }

    /// What the link takes next.
    pub fn next_frames(&mut self, at: Position, max_bytes: usize) -> Vec<EncodedFrame> {
        match &mut self.copy {
            Some(_) if self.flow == Flow::Hold => Vec::new(),
            Some(copy) => copy.next_frame(at).into_iter().collect(),
            None => self.feed.next_frames(max_bytes),
        }
    }
}

/// The lane items that make a target equal to a quiet tree.
pub struct Copy {
    tree: Tree,
    items: VecDeque<(LaneItem, Bytes)>,
    numbers: u64,
    /// Listings that the target has not answered.
    open: usize,
    asked: HashSet<ObjectId>,
    pub end: Option<ItemNumber>,
}

impl Copy {
    pub fn new(tree: Tree) -> Copy {
        let root = &tree.nodes[&ROOT];
        let xattrs = Vec::new();
        let root = LaneItem::Root { object: object(ROOT), attributes: root.attributes, xattrs };
        let mut items = VecDeque::from([(LaneItem::Begin, Bytes::new()), (root, Bytes::new())]);
        let mut dirs = VecDeque::from([ROOT]);
        let mut open = 0;
        while let Some(dir) = dirs.pop_front() {
            items.push_back((listing(&tree, dir), Bytes::new()));
            open += 1;
            let inner = tree.nodes[&dir].entries.values().copied();
            dirs.extend(inner.filter(|inode| tree.nodes[inode].birth == Birth::Directory));
        }
        Copy { tree, items, numbers: 0, open, asked: HashSet::new(), end: None }
    }

    /// The target's answer to a listing.
    pub fn wanted(&mut self, objects: Vec<ObjectId>) {
        self.open -= 1;
        for id in objects {
            if self.asked.insert(id) {
                self.send_content(id);
            }
        }
        if self.open == 0 {
            self.items.push_back((LaneItem::End, Bytes::new()));
        }
    }

    fn send_content(&mut self, id: ObjectId) {
        let node = self.tree.nodes[&id.inode].clone();
        self.items.push_back((LaneItem::OpenContent { object: id }, Bytes::new()));
        if !node.content.is_empty() {
            let content = Bytes::from(node.content.clone());
            self.items.push_back((LaneItem::Content { object: id, offset: 0 }, content));
        }
        let size = node.content.len() as u64;
        let xattrs = xattrs_of(&self.tree, id.inode);
        let close = LaneItem::CloseContent { object: id, size, attributes: node.attributes, xattrs };
        self.items.push_back((close, Bytes::new()));
    }

    fn next_frame(&mut self, at: Position) -> Option<EncodedFrame> {
        let (item, payload) = self.items.pop_front()?;
        self.numbers += 1;
        let number = ItemNumber(self.numbers);
        if item == LaneItem::End {
            self.end = Some(number);
        }
        Some(item_frame(&at, &ItemHeader { number, item }, payload))
    }
}

fn listing(tree: &Tree, dir: u64) -> LaneItem {
    let node = &tree.nodes[&dir];
    let entries = node.entries.iter().map(|(name, inode)| {
        let held = &tree.nodes[inode];
        ListedObject {
            name: name.clone(),
            object: object(*inode),
            birth: held.birth.clone(),
            attributes: held.attributes,
            xattrs: xattrs_of(tree, *inode),
            size: held.content.len() as u64,
            links: held.links,
            suspect: true,
        }
    });
    let (dir_mtime, entries) = (node.attributes.mtime, entries.collect());
    LaneItem::Listing { dir: object(dir), dir_mtime, entries, last: true }
}

fn xattrs_of(tree: &Tree, inode: u64) -> Vec<Xattr> {
    let xattrs = tree.nodes[&inode].xattrs.iter();
    xattrs.map(|(name, value)| Xattr { name: Bounded(name.clone()), value: Bounded(value.clone()) }).collect()
}
