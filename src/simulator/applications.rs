//! What applications do on the source: each change is made in the directory and in the model, and its op
//! is queued. They also write while a copy looks: between any two of its looks at the counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::backing::Backing;
use super::disk;
use super::kept::Removals;
use super::marking::Marking;
use super::model::{Model, Tree};
use crate::packet::*;
use crate::queue::{Draft, Queue};
use crate::random::Random;
use crate::resync::{Counts, Found, Looks};

/// Room for any op that the model makes.
pub const OP_COST_MAX: usize = 6000;

pub struct Applications {
    pub model: Model,
    pub backing: Backing,
    /// The tree as of the last packet.
    shown: Tree,
    /// What was given out, and the tree as of it.
    pub history: HashMap<Position, Tree>,
    pub queue: Arc<Queue>,
    /// Changes so far, by inode number of the directory.
    counts: BTreeMap<u64, u64>,
    /// Behind which packet, of this process that serves them.
    changed: BTreeMap<u64, Sequence>,
    random: Random,
    /// They write while they are not looked at.
    pub writes_between_looks: bool,
    /// Listings that a copy began anew.
    pub listed_again: u64,
    /// Large holes that a copy told as such.
    pub holes: u64,
    pub removals: Removals,
    pub marking: Marking,
    /// What they did is to be told.
    pub said: Vec<String>,
}

impl Applications {
    pub fn new(queue: Arc<Queue>, random: Random, marking: Marking) -> Applications {
        let model = Model::new();
        let backing = Backing::new(&model.tree);
        let history = HashMap::from([(queue.last(), model.tree.clone())]);
        let removals = Removals::new(Random::new(random.clone().number() ^ 0x4ee9));
        let (counts, changed, said) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Applications {
            shown: model.tree.clone(),
            model,
            backing,
            history,
            queue,
            counts,
            changed,
            random,
            writes_between_looks: false,
            listed_again: 0,
            holes: 0,
            removals,
            marking,
            said,
        }
    }

    /// Another process captures what they do.
    pub fn are_served_by(&mut self, queue: Arc<Queue>) {
        self.history.insert(queue.last(), self.model.tree.clone());
        self.queue = queue;
        self.changed.clear();
        self.writes_between_looks = false;
    }

    /// One random change, where it is possible and there is room for its op.
    pub fn change(&mut self, random: &mut Random) {
        if self.queue.has_room(OP_COST_MAX)
            && let Some((op, payload)) = self.model.change(random)
        {
            self.capture(&op, payload);
        }
    }

    /// One that nobody captures.
    pub fn change_unseen(&mut self, random: &mut Random) {
        if self.model.change(random).is_some() {
            let touched = self.backing.show(&self.model.tree);
            touched.iter().for_each(|inode| *self.counts.entry(*inode).or_default() += 1);
            self.shown = self.model.tree.clone();
        }
    }

    /// One behind which the process dies that captures it: marked and made, and no packet tells it.
    pub fn change_untold(&mut self, random: &mut Random, marks_late: bool) {
        let Some((op, payload)) = self.model.change(random) else { return };
        let op = &self.removals.told(&op);
        if !marks_late {
            self.marking.mark(&self.backing, &self.shown, op, payload.len());
        }
        let touched = self.backing.show(&self.model.tree);
        if !marks_late {
            self.marking.mark_new(&self.backing, op, self.queue.last().sequence);
        }
        touched.iter().for_each(|inode| *self.counts.entry(*inode).or_default() += 1);
        self.shown = self.model.tree.clone();
    }

    /// The change is done in the model: now on the disk, and its op is queued.
    pub fn capture(&mut self, op: &Op, payload: Vec<u8>) {
        let op = &self.removals.told(op);
        self.marking.mark(&self.backing, &self.shown, op, payload.len());
        let touched = self.backing.show(&self.model.tree);
        self.marking.mark_new(&self.backing, op, self.queue.last().sequence);
        touched.iter().for_each(|inode| *self.counts.entry(*inode).or_default() += 1);
        let header = encode_packet_header(b"", op).len();
        assert!(self.queue.has_room(OP_COST_MAX), "the only thread would wait for itself");
        let mut room = self.queue.reserve(payload.len(), header).expect("nobody closes the queue");
        let position = self.queue.append(&mut room, Draft::new(b"", op, Bytes::from(payload)));
        self.marking.is_told(position.sequence);
        self.changed.extend(touched.into_iter().map(|inode| (inode, position.sequence)));
        self.removals.note(&position, op, &self.shown);
        self.shown = self.model.tree.clone();
        self.history.insert(position, self.shown.clone());
        self.said.push(format!("packet {}: {}", position.sequence, described(op)));
    }

    /// As if nothing had been done since a position.
    pub fn go_back_to(&mut self, position: &Position) {
        self.model.tree = self.history[position].clone();
        self.shown = self.model.tree.clone();
        self.backing.show(&self.model.tree);
    }

    fn write_between_looks(&mut self) {
        if self.writes_between_looks && self.random.one_in(12) {
            let mut random = self.random.clone();
            self.change(&mut random);
            self.random = random;
        }
    }
}

fn described(op: &Op) -> String {
    let of = |object: &ObjectId| object.inode;
    match op {
        Op::Create { at, object, birth, .. } => {
            format!("create {}/{} = {} {birth:?}", of(&at.dir), disk::shown(&at.name), of(object))
        }
        Op::Link { at, object, .. } => {
            format!("link {}/{} = {}", of(&at.dir), disk::shown(&at.name), of(object))
        }
        Op::Unlink { at, object, links, .. } => {
            format!("unlink {}/{} = {}, {links} left", of(&at.dir), disk::shown(&at.name), of(object))
        }
        Op::RemoveDirectory { at, object, .. } => {
            format!("rmdir {}/{} = {}", of(&at.dir), disk::shown(&at.name), of(object))
        }
        Op::Rename { from, to, object, replaced, whiteout, .. } => format!(
            "rename {}/{} to {}/{} = {}, over {:?}, whiteout {:?}",
            of(&from.dir),
            disk::shown(&from.name),
            of(&to.dir),
            disk::shown(&to.name),
            of(object),
            replaced.as_ref().map(|replaced| (of(&replaced.object), replaced.links)),
            whiteout.as_ref().map(|whiteout| of(&whiteout.object)),
        ),
        Op::Exchange { left, left_object, right, right_object, .. } => format!(
            "exchange {}/{} = {} and {}/{} = {}",
            of(&left.dir),
            disk::shown(&left.name),
            of(left_object),
            of(&right.dir),
            disk::shown(&right.name),
            of(right_object),
        ),
        Op::Write { object, offset, result } => {
            format!("write {} at {offset}, size {}, mtime {:?}", of(object), result.size, result.mtime)
        }
        Op::Resize { object, result } => {
            format!("resize {} to {}, mtime {:?}", of(object), result.size, result.mtime)
        }
        Op::Reserve { object, offset, length, .. } => {
            format!("zero {} at {offset}, {length} bytes", of(object))
        }
        Op::SetAttributes { object, mode, owner, mtime } => {
            format!("attributes of {}: {mode:?} {owner:?} {mtime:?}", of(object))
        }
        Op::SetXattr { object, .. } | Op::RemoveXattr { object, .. } => {
            format!("{} of {}", op.name(), of(object))
        }
        Op::Barrier { .. } | Op::Stage { .. } | Op::Place { .. } | Op::Leave { .. } | Op::Unstage { .. } => {
            op.name().to_owned()
        }
        Op::Keep { at, object, links, keeping, .. } => {
            let name = disk::shown(&at.name);
            format!("keep {}/{name} = {}, {links} left, {keeping:?}", of(&at.dir), of(object))
        }
    }
}

/// An item of a copy, for the trace.
pub fn shown(item: &LaneItem, payload: usize) -> String {
    match item {
        LaneItem::Listing { dir, entries, first, last, .. } => {
            let entries = entries.iter().map(|entry| {
                format!("{} = {}", String::from_utf8_lossy(entry.name.as_bytes()), entry.object.inode)
            });
            let ends =
                format!("{}{}", if *first { ", first" } else { "" }, if *last { ", last" } else { "" });
            format!("listing of {}: {:?}{ends}", dir.inode, entries.collect::<Vec<_>>())
        }
        LaneItem::OpenContent { object }
        | LaneItem::Content { object, .. }
        | LaneItem::Leave { object }
        | LaneItem::NotListed { dir: object } => {
            format!("{} of {}, {payload} bytes", item.name(), object.inode)
        }
        LaneItem::CloseContent { object, size, attributes, .. } => {
            format!("close {}: {size} bytes, mtime {:?}", object.inode, attributes.mtime)
        }
        LaneItem::Owed { objects } => {
            format!("owed: {:?}", objects.iter().map(|object| object.inode).collect::<Vec<_>>())
        }
        _ => item.name().to_owned(),
    }
}

/// What a copy is told of changes.
pub struct Watch {
    pub applications: Arc<Mutex<Applications>>,
    /// A planted bug: nothing that happens is counted.
    pub is_blind: bool,
}

impl Looks for Watch {
    fn counts(&self, inode: u64) -> Counts {
        let mut applications = self.applications.lock();
        applications.write_between_looks();
        let count = applications.counts.get(&inode).copied().unwrap_or_default();
        let count = if self.is_blind { 0 } else { count };
        Counts { begun: count, ended: count }
    }

    fn changed_at(&self, inode: u64) -> Option<Sequence> {
        Some(self.applications.lock().changed.get(&inode).copied().unwrap_or_default())
    }

    fn keeping(&self) -> Option<Keeping> {
        self.applications.lock().removals.keeping.clone()
    }

    fn while_still(&self, _: Found<'_>, _: Option<Found<'_>>, look: &mut dyn FnMut()) {
        let write = std::mem::take(&mut self.applications.lock().writes_between_looks);
        look();
        self.applications.lock().writes_between_looks = write;
    }
}
