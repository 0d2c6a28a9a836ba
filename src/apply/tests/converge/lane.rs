//! What the model source owes a target, and in which order it goes: the other half of a resynchronisation.

use std::collections::{BTreeMap, VecDeque};

use std::io::Write;
use std::os::fd::AsFd;

use super::super::*;
use super::origin::{Object, Origin, ROOT, id, name};
use super::owed::Mark;
use crate::blocks::{Hasher, Range};
use crate::limits::{HASH_BLOCK, HASHES_MAX};
use crate::random::Random;
use crate::reads::Reads;

/// Of the blocks of a session.
pub const HASH: BlockHash = BlockHash::Fast { key: [3; 32] };

/// Names in one chunk.
const CHUNK: usize = 2;
/// Bytes that are read at once.
const READ: usize = 900;

/// An item with its stamp: how many packets are before it.
pub struct Stamped {
    pub after: usize,
    pub item: LaneItem,
    pub payload: Vec<u8>,
    pub number: ItemNumber,
}

impl Stamped {
    /// Bytes may come before their turn.
    pub fn may_go_early(&self) -> bool {
        matches!(
            self.item,
            LaneItem::OpenContent { .. }
                | LaneItem::OpenBlocks { .. }
                | LaneItem::Content { .. }
                | LaneItem::Hashes { .. }
                | LaneItem::Hole { .. }
        )
    }
}

/// A directory that is to be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub dir: u64,
    /// The walk comes by: it goes down by itself.
    pub walks: bool,
}

struct Open {
    due: Due,
    rest: Vec<String>,
    is_first: bool,
}

pub enum Job {
    Open(u64),
    Content {
        object: u64,
        reached: usize,
    },
    Hashes(u64),
    Block(u64, u64),
    Xattrs(u64),
    Xattr(u64, Vec<String>),
    /// What has changed of a file.
    Owed(u64, Mark),
}

/// A listing that was not answered.
#[derive(Default)]
pub struct InFlight {
    walks: bool,
    pub entries: BTreeMap<ObjectId, bool>,
    large: Vec<u64>,
    has_old: Vec<ObjectId>,
    /// Files that were called.
    pub owed: BTreeMap<u64, Mark>,
}

#[derive(Default)]
pub struct Owed {
    pub due: Vec<Due>,
    open: Option<Open>,
    pub jobs: VecDeque<Job>,
    pub in_flight: BTreeMap<u64, InFlight>,
    /// Content goes by blocks where the target has other content.
    hasher: Option<Hasher>,
    /// Of which files hashes were sent that were not answered.
    hashed: VecDeque<(ItemNumber, u64)>,
    pub lane: VecDeque<Stamped>,
    numbers: u64,
    /// The end that counts.
    pub end: Option<ItemNumber>,
    /// One that came before a doubt.
    void: Option<ItemNumber>,
}

impl Owed {
    pub fn new() -> Owed {
        Owed { due: vec![Due { dir: ROOT, walks: true }], ..Owed::default() }
    }

    pub fn by_blocks(mut self) -> Owed {
        self.hasher = Some(Hasher::new(&HASH));
        self
    }

    pub fn push(&mut self, after: usize, item: LaneItem, payload: Vec<u8>) -> ItemNumber {
        self.numbers += 1;
        let number = ItemNumber(self.numbers);
        self.lane.push_back(Stamped { after, item, payload, number });
        number
    }

    /// Nothing is owed any more but what lies in the lane.
    pub fn is_done(&self) -> bool {
        let is_idle = self.due.is_empty() && self.open.is_none() && self.jobs.is_empty();
        is_idle && self.in_flight.is_empty() && self.hashed.is_empty()
    }

    pub fn hear(&mut self, message: TargetMessage) -> Result<bool, String> {
        match message {
            TargetMessage::Resynchronised { end, left_out, .. } => {
                // Where a doubt was heard before it, packets have settled that one meanwhile.
                if self.end.or(self.void) != Some(end) || !left_out.is_empty() {
                    return Err(format!("resynchronised at {end:?}, ended at {:?}: {left_out:?}", self.end));
                }
                return Ok(true);
            }
            TargetMessage::Doubt { directories } => {
                self.void = self.end.take().or(self.void);
                for dir in directories {
                    self.open.take_if(|open| open.due.dir == dir.inode);
                    self.due.retain(|due| due.dir != dir.inode || due.walks);
                    self.due.push(Due { dir: dir.inode, walks: false });
                }
            }
            TargetMessage::Wanted { listing, objects } => self.answered(listing, &objects)?,
            TargetMessage::HasOld { listing, objects } => {
                self.in_flight.get_mut(&listing.0).ok_or("old content of no listing")?.has_old = objects;
            }
            TargetMessage::Hashed { item, differing } => match self.hashed.pop_front() {
                Some((due, object)) if due == item => {
                    self.jobs.extend((differing != 0).then_some(Job::Block(object, differing)))
                }
                other => return Err(format!("{item:?} is answered, due is {other:?}")),
            },
            other => return Err(format!("{other:?}")),
        }
        Ok(false)
    }

    fn answered(&mut self, listing: ItemNumber, wanted: &[ObjectId]) -> Result<(), String> {
        let mut entry = self.in_flight.remove(&listing.0).ok_or("an answer to no listing")?;
        for object in wanted {
            match entry.entries.get(object) {
                // The walk of itself goes down there.
                Some(true) if entry.walks => {}
                Some(true) => self.due.push(Due { dir: object.inode, walks: false }),
                Some(false) if entry.owed.contains_key(&object.inode) => {
                    let mark = entry.owed.remove(&object.inode).unwrap_or_default();
                    self.jobs.push_back(Job::Owed(object.inode, mark));
                }
                Some(false) if entry.has_old.contains(object) => {
                    self.jobs.push_back(Job::Hashes(object.inode));
                }
                Some(false) => self.jobs.push_back(Job::Open(object.inode)),
                None => return Err(format!("{object} is wanted, and was not listed")),
            }
        }
        // Those of a file come with its content.
        let comes = |number: u64| entry.entries[&id(number)] || !wanted.contains(&id(number));
        let large = entry.large.into_iter().filter(|number| comes(*number));
        self.jobs.extend(large.map(Job::Xattrs));
        Ok(())
    }

    /// Looks at something that is owed, as of now.
    pub fn produce(&mut self, origin: &Origin, random: &mut Random) {
        let now = origin.log.len();
        let goes_on = matches!(self.jobs.front(), Some(Job::Content { .. } | Job::Xattr(..) | Job::Owed(..)));
        if !self.jobs.is_empty() && (goes_on || random.below(10) < 6) {
            return self.produce_job(origin, random, now);
        }
        if self.in_flight.len() < 3 {
            self.produce_listing(origin, random, now);
        }
    }

    /// This directory is listed next, to its end.
    pub fn list_whole(&mut self, origin: &Origin, dir: u64, random: &mut Random) {
        self.due.retain(|due| due.dir != dir);
        self.due.push(Due { dir, walks: true });
        while self.open.is_some() || self.due.iter().any(|due| due.dir == dir) {
            self.produce_listing(origin, random, origin.log.len());
        }
    }

    /// The next step of content that was asked for.
    pub fn copy_on(&mut self, origin: &Origin, random: &mut Random) {
        self.produce_job(origin, random, origin.log.len());
    }

    fn produce_listing(&mut self, origin: &Origin, random: &mut Random, now: usize) {
        if self.open.is_none()
            && let Some(due) = self.due.pop()
        {
            let Some(dir) = origin.in_the_set(due.dir) else {
                self.push(now, LaneItem::NotListed { dir: id(due.dir) }, Vec::new());
                return;
            };
            let mut rest: Vec<String> = dir.names.keys().cloned().collect();
            for at in (1..rest.len()).rev() {
                rest.swap(at, random.below(at as u64 + 1) as usize);
            }
            self.open = Some(Open { due, rest, is_first: true });
        }
        self.list(origin, random, now);
    }

    fn list(&mut self, origin: &Origin, random: &mut Random, now: usize) {
        let Some(open) = &mut self.open else { return };
        let number = open.due.dir;
        let Some(dir) = origin.in_the_set(number) else {
            self.open = None;
            self.push(now, LaneItem::NotListed { dir: id(number) }, Vec::new());
            return;
        };
        let chunk: Vec<String> = open.rest.drain(..open.rest.len().min(CHUNK)).collect();
        let (walks, first, last) = (open.due.walks, open.is_first, open.rest.is_empty());
        open.is_first = false;
        let mut sent = InFlight { walks, ..InFlight::default() };
        let mut entries = Vec::new();
        for text in chunk {
            let Some(&held) = dir.names.get(&text) else { continue };
            let object = &origin.objects[&held];
            let large_xattrs = !object.xattrs.is_empty() && random.one_in(8);
            if large_xattrs {
                sent.large.push(held);
            }
            sent.entries.insert(id(held), object.is_directory());
            if walks && object.is_directory() {
                self.due.push(Due { dir: held, walks: true });
            }
            entries.push(ListedObject {
                name: name(&text),
                object: id(held),
                birth: object.birth.clone(),
                attributes: object.attributes(),
                xattrs: if large_xattrs { Vec::new() } else { object.xattrs() },
                large_xattrs,
                size: object.content.len() as u64,
                links: object.links,
                suspect: object.suspect,
            });
        }
        let item =
            LaneItem::Listing { dir: id(number), dir_mtime: dir.mtime, entries, unlisted: None, first, last };
        if last {
            self.open = None;
        }
        let number = self.push(now, item, Vec::new());
        self.in_flight.insert(number.0, sent);
    }

    fn push_hashes(&mut self, object: u64, there: &Object, now: usize) {
        let (content, attributes, xattrs) = (&there.content, there.attributes(), there.xattrs());
        let size = content.len() as u64;
        let hashes = self.hashes_of(content);
        let item = LaneItem::Hashes { object: id(object), offset: 0, size, hashes };
        let item = self.push(now, item, Vec::new());
        self.push(now, LaneItem::CloseSame { object: id(object), size, attributes, xattrs }, Vec::new());
        self.hashed.push_back((item, object));
    }

    /// The blocks that differed, and the end.
    fn push_blocks(&mut self, object: u64, there: &Object, differing: u64, now: usize) {
        let (content, attributes, xattrs) = (&there.content, there.attributes(), there.xattrs());
        let object = id(object);
        self.push(now, LaneItem::OpenBlocks { object }, Vec::new());
        for (number, block) in content.chunks(HASH_BLOCK as usize).enumerate() {
            if differing >> number & 1 == 1 {
                let offset = number as u64 * HASH_BLOCK;
                self.push(now, LaneItem::Content { object, hole: 0, offset }, block.to_vec());
            }
        }
        let size = content.len() as u64;
        self.push(now, LaneItem::CloseContent { object, hole: 0, size, attributes, xattrs }, Vec::new());
    }

    /// Some of what has changed; then the end.
    fn push_owed(&mut self, number: u64, there: &Object, mark: Mark, now: usize) {
        let (object, size) = (id(number), there.content.len());
        self.push(now, LaneItem::OpenBlocks { object }, Vec::new());
        if let Some((bytes, rest)) = mark.next(size, READ) {
            let payload = there.content[bytes.clone()].to_vec();
            let zeros = payload.iter().all(|byte| *byte == 0);
            let len = bytes.end as u64 - bytes.start as u64;
            let (hole, offset, payload) =
                if zeros { (len, bytes.end as u64, Vec::new()) } else { (0, bytes.start as u64, payload) };
            self.push(now, LaneItem::Content { object, hole, offset }, payload);
            self.jobs.push_front(Job::Owed(number, rest));
            return;
        }
        let (attributes, xattrs, size) = (there.attributes(), there.xattrs(), size as u64);
        self.push(now, LaneItem::CloseContent { object, hole: 0, size, attributes, xattrs }, Vec::new());
    }

    fn hashes_of(&mut self, content: &[u8]) -> Vec<u128> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        let range = Range { offset: 0, blocks: HASHES_MAX, size: content.len() as u64 };
        let hasher = self.hasher.as_mut().expect("nobody else is asked for hashes");
        hasher.hash(file.as_fd(), range, Reads::Cached).unwrap()
    }

    fn produce_job(&mut self, origin: &Origin, random: &mut Random, now: usize) {
        let Some(job) = self.jobs.pop_front() else { return };
        let (Job::Open(object)
        | Job::Content { object, .. }
        | Job::Hashes(object)
        | Job::Block(object, _)
        | Job::Xattrs(object)
        | Job::Owed(object, _)
        | Job::Xattr(object, _)) = job;
        let Some(there) = origin.objects.get(&object) else {
            if !matches!(job, Job::Xattrs(_) | Job::Xattr(..)) {
                self.push(now, LaneItem::Leave { object: id(object) }, Vec::new());
            }
            return;
        };
        let attributes = there.attributes();
        match job {
            Job::Open(_) => {
                self.push(now, LaneItem::OpenContent { object: id(object) }, Vec::new());
                self.jobs.push_front(Job::Content { object, reached: 0 });
            }
            Job::Content { reached, .. } => {
                let content = &there.content;
                let hole = match random.one_in(2) {
                    true => content.iter().skip(reached).take_while(|byte| **byte == 0).count(),
                    false => 0,
                };
                let offset = reached + hole;
                if offset < content.len() {
                    let end = content.len().min(offset + READ);
                    let item =
                        LaneItem::Content { object: id(object), hole: hole as u64, offset: offset as u64 };
                    self.push(now, item, content[offset..end].to_vec());
                    self.jobs.push_front(Job::Content { object, reached: end });
                } else {
                    let size = content.len() as u64;
                    let hole = size.saturating_sub(reached as u64);
                    let (object, xattrs) = (id(object), there.xattrs());
                    self.push(
                        now,
                        LaneItem::CloseContent { object, hole, size, attributes, xattrs },
                        Vec::new(),
                    );
                }
            }
            Job::Owed(_, mark) => self.push_owed(object, there, mark, now),
            Job::Hashes(_) if there.content.is_empty() => self.jobs.push_front(Job::Open(object)),
            Job::Hashes(_) => self.push_hashes(object, there, now),
            Job::Block(_, differing) => self.push_blocks(object, there, differing, now),
            Job::Xattrs(_) => {
                let names: Vec<String> = there.xattrs.keys().cloned().collect();
                let on_wire = names.iter().map(|name| Bounded(name.clone().into_bytes())).collect();
                let item = LaneItem::Xattrs { object: id(object), attributes, names: on_wire };
                self.push(now, item, Vec::new());
                self.jobs.push_front(Job::Xattr(object, names));
            }
            Job::Xattr(_, mut names) => match names.pop() {
                Some(name) => {
                    if let Some(value) = there.xattrs.get(&name) {
                        let name = Bounded(name.into_bytes());
                        self.push(now, LaneItem::Xattr { object: id(object), name }, value.clone());
                    }
                    self.jobs.push_front(Job::Xattr(object, names));
                }
                None => {
                    self.push(now, LaneItem::Attributes { object: id(object), attributes }, Vec::new());
                }
            },
        }
    }
}
