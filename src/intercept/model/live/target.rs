//! A target in memory, by the rules of a replica that converges: packets are applied by their results,
//! what they name and no listing has shown is doubted, and a doubted directory is listed again.

mod vouched;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::packet::{
    Attributes, Birth, ContentResult, Entry, ItemNumber, LaneItem, ListedObject, ObjectId, Op, Reserve,
    Timestamp, Unlisted, Xattr,
};
use crate::resync::{Answer, Wanted};

type Inode = u64;
const ROOT: Inode = 0;

/// An object.
#[derive(Clone)]
pub struct Thing {
    pub birth: Birth,
    pub attributes: Attributes,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub content: Vec<u8>,
    pub names: BTreeMap<Vec<u8>, Inode>,
    /// Where a directory lies.
    parent: Option<(Inode, Vec<u8>)>,
    pub links: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doubt {
    /// A first chunk that comes from now on answers it.
    Asked,
    /// Its first chunk has come; the last one settles it.
    Answering,
}

struct Listing {
    dir: ObjectId,
    told: BTreeSet<Vec<u8>>,
}

struct Open {
    object: ObjectId,
    inode: Inode,
    /// `None`: bytes come at any offsets.
    reached: Option<u64>,
}

/// See the module.
#[derive(Default)]
pub struct Target {
    pub things: BTreeMap<Inode, Thing>,
    next: Inode,
    index: BTreeMap<ObjectId, Inode>,
    seen: BTreeSet<ObjectId>,
    listed: BTreeSet<ObjectId>,
    asked: BTreeSet<ObjectId>,
    incomplete: BTreeSet<ObjectId>,
    doubts: BTreeMap<ObjectId, Doubt>,
    listing: Option<Listing>,
    open: Option<Open>,
    root: ObjectId,
    /// What it says, in order.
    pub says: Vec<Answer>,
    /// Directories that were listed again, and loops that were opened.
    pub doubted: u64,
    /// A copy is complete, and everything is strict.
    is_good: bool,
    /// What the index knows counts as shown.
    vouches: bool,
    /// A copy of what is owed has begun, and nothing is in doubt.
    is_bad_by_owed: bool,
    called: BTreeSet<ObjectId>,
    /// Directories that listings have shown first, and whose names have not come; over sessions.
    unlisted: BTreeSet<ObjectId>,
}

impl Target {
    /// A replica of an empty directory.
    pub fn new(root: ObjectId) -> Target {
        let attributes = Attributes { mode: 0, uid: 0, gid: 0, mtime: Timestamp::default() };
        let mut target = Target { root, ..Target::default() };
        target.make(Birth::Directory, attributes);
        target.index.insert(root, ROOT);
        target.seen.insert(root);
        target.listed.insert(root);
        target
    }

    pub fn alive_root(&self) -> ObjectId {
        self.root
    }

    /// Objects that it knows no more.
    pub fn lose(&mut self, mut is_lost: impl FnMut() -> bool) {
        let root = self.root;
        self.index.retain(|id, _| *id == root || !is_lost());
    }

    fn make(&mut self, birth: Birth, attributes: Attributes) -> Inode {
        let inode = self.next;
        self.next += 1;
        let (xattrs, content, names) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        self.things
            .insert(inode, Thing { birth, attributes, xattrs, content, names, parent: None, links: 0 });
        inode
    }

    fn thing(&mut self, inode: Inode) -> &mut Thing {
        self.things.get_mut(&inode).unwrap()
    }

    fn alive(&self, id: ObjectId) -> Option<Inode> {
        self.index.get(&id).copied()
    }

    fn seen(&mut self, id: ObjectId) -> Option<&mut Thing> {
        let inode = self.alive(id).filter(|_| self.is_seen(id))?;
        self.things.get_mut(&inode)
    }

    fn id_of(&self, inode: Inode) -> Option<ObjectId> {
        self.index.iter().find(|(_, other)| **other == inode).map(|(id, _)| *id)
    }

    fn unname(&mut self, dir: Inode, name: &[u8]) {
        let Some(inode) = self.thing(dir).names.remove(name) else { return };
        let thing = self.thing(inode);
        thing.links -= 1;
        thing.parent = None;
    }

    fn is_below(&self, mut dir: Inode, above: Inode) -> bool {
        loop {
            if dir == above {
                return true;
            }
            match &self.things[&dir].parent {
                Some((parent, _)) => dir = *parent,
                None => return false,
            }
        }
    }

    fn doubt(&mut self, id: ObjectId) {
        let is_begun = self.listing.as_ref().is_some_and(|listing| listing.dir == id);
        let is_asked = self.doubts.get(&id) == Some(&Doubt::Asked);
        if is_asked || !self.is_listed(id) && !is_begun && !self.doubts.contains_key(&id) {
            return;
        }
        self.doubts.insert(id, Doubt::Asked);
        self.is_bad_by_owed = false;
        self.doubted += 1;
        self.says.push(Answer::Doubt(vec![id]));
    }

    /// An object gets a name, whatever is in its way loses it.
    fn place(&mut self, dir: Inode, name: &[u8], inode: Inode) {
        match self.things[&dir].names.get(name) {
            Some(held) if *held == inode => return,
            Some(_) => self.unname(dir, name),
            None => {}
        }
        if self.things[&inode].birth == Birth::Directory {
            if let Some((parent, name)) = self.things[&inode].parent.clone() {
                self.unname(parent, &name);
            }
            if self.is_below(dir, inode) {
                let (parent, name) = self.things[&dir].parent.clone().unwrap();
                self.unname(parent, &name);
                if let Some(parent) = self.id_of(parent) {
                    self.doubt(parent);
                }
            }
            self.thing(inode).parent = Some((dir, name.to_vec()));
        }
        self.thing(dir).names.insert(name.to_vec(), inode);
        self.thing(inode).links += 1;
    }

    fn told(&mut self, at: &Entry, is_told: bool) {
        if let Some(listing) = self.listing.as_mut().filter(|listing| listing.dir == at.dir) {
            match is_told {
                true => _ = listing.told.insert(at.name.as_bytes().to_vec()),
                false => _ = listing.told.remove(at.name.as_bytes()),
            }
        }
    }

    fn set_name(&mut self, at: &Entry, id: ObjectId) {
        let Some(dir) = self.alive(at.dir) else { return };
        match self.alive(id) {
            Some(inode) => {
                self.told(at, true);
                self.place(dir, at.name.as_bytes(), inode);
            }
            None => self.unname(dir, at.name.as_bytes()),
        }
        if !self.is_seen(id) || self.alive(id).is_none() || self.unlisted.contains(&id) {
            self.doubt(at.dir);
        }
    }

    fn take_name(&mut self, at: &Entry) {
        if let Some(dir) = self.alive(at.dir) {
            self.unname(dir, at.name.as_bytes());
            self.told(at, false);
        }
    }

    fn gone(&mut self, id: ObjectId, links: u32) {
        if links > 0 {
            return;
        }
        self.index.remove(&id);
        self.doubts.remove(&id);
        for set in
            [&mut self.seen, &mut self.incomplete, &mut self.asked, &mut self.called, &mut self.unlisted]
        {
            set.remove(&id);
        }
        self.listing.take_if(|listing| listing.dir == id);
        self.open.take_if(|open| open.object == id);
    }

    fn set_dir_mtime(&mut self, dir: ObjectId, mtime: Timestamp) {
        if let Some(dir) = self.alive(dir) {
            self.thing(dir).attributes.mtime = mtime;
        }
    }

    fn set_mtime(&mut self, id: ObjectId, mtime: Option<Timestamp>) {
        if let (Some(thing), Some(mtime)) = (self.seen(id), mtime) {
            thing.attributes.mtime = mtime;
        }
    }

    fn bear(&mut self, at: &Entry, id: ObjectId, birth: &Birth, attributes: Attributes, xattrs: &[Xattr]) {
        let Some(dir) = self.alive(at.dir) else { return };
        // What items show is exact: it was made by a packet before them.
        let is_known = self.alive(id).is_some() && self.is_seen(id);
        assert!(!is_known, "{id} was shown before it was made");
        let inode = self.make(birth.clone(), attributes);
        self.thing(inode).xattrs = as_map(xattrs);
        self.index.insert(id, inode);
        self.incomplete.remove(&id);
        if *birth == Birth::Directory {
            self.listed.insert(id);
        }
        self.seen.insert(id);
        self.told(at, true);
        self.place(dir, at.name.as_bytes(), inode);
    }

    /// Changes the content of a file that a listing has shown; of another one it is only known that it
    /// is not as it was.
    fn change(&mut self, id: ObjectId, result: &ContentResult, change: impl FnOnce(&mut Vec<u8>)) {
        let Some(thing) = self.seen(id) else {
            if self.index.contains_key(&id) {
                self.incomplete.insert(id);
            }
            return;
        };
        change(&mut thing.content);
        thing.content.resize(result.size as usize, 0);
        thing.attributes.mtime = result.mtime;
        thing.attributes.mode = result.mode.unwrap_or(thing.attributes.mode);
    }

    /// Applies a packet.
    pub fn op(&mut self, op: &Op, payload: &Bytes) {
        match op {
            Op::Create { at, dir_mtime, object, birth, attributes, xattrs } => {
                self.bear(at, *object, birth, *attributes, xattrs);
                self.set_dir_mtime(at.dir, *dir_mtime);
            }
            Op::Link { object, at, dir_mtime, .. } => {
                self.set_name(at, *object);
                self.set_dir_mtime(at.dir, *dir_mtime);
            }
            Op::Unlink { at, dir_mtime, object, links } => {
                self.take_name(at);
                self.gone(*object, *links);
                self.set_dir_mtime(at.dir, *dir_mtime);
            }
            Op::RemoveDirectory { at, dir_mtime, object } => {
                self.take_name(at);
                self.gone(*object, 0);
                self.set_dir_mtime(at.dir, *dir_mtime);
            }
            Op::Rename { from, from_mtime, to, to_mtime, object, object_mtime, replaced, whiteout } => {
                self.take_name(to);
                if let Some(replaced) = replaced {
                    self.gone(replaced.object, replaced.links);
                }
                self.take_name(from);
                self.set_name(to, *object);
                self.set_mtime(*object, *object_mtime);
                if let Some(whiteout) = whiteout {
                    let birth = Birth::CharDevice { major: 0, minor: 0 };
                    self.bear(from, whiteout.object, &birth, whiteout.attributes, &[]);
                }
                self.set_dir_mtime(from.dir, *from_mtime);
                self.set_dir_mtime(to.dir, *to_mtime);
            }
            Op::Exchange {
                left,
                left_mtime,
                left_object,
                left_object_mtime,
                right,
                right_mtime,
                right_object,
                right_object_mtime,
            } => {
                self.take_name(left);
                self.take_name(right);
                self.set_name(left, *right_object);
                self.set_name(right, *left_object);
                self.set_mtime(*left_object, *left_object_mtime);
                self.set_mtime(*right_object, *right_object_mtime);
                self.set_dir_mtime(left.dir, *left_mtime);
                self.set_dir_mtime(right.dir, *right_mtime);
            }
            _ => self.object_op(op, payload),
        }
    }

    /// One that changes no name.
    fn object_op(&mut self, op: &Op, payload: &Bytes) {
        match op {
            Op::Write { object, offset, result } => {
                self.change(*object, result, |content| put(content, *offset, payload));
            }
            Op::Resize { object, result } => self.change(*object, result, |_| ()),
            Op::Reserve { object, offset, length, how, result } => {
                self.change(*object, result, |content| match how {
                    Reserve::Allocate | Reserve::AllocateKeepSize => {}
                    Reserve::PunchHole | Reserve::ZeroRange | Reserve::ZeroRangeKeepSize => {
                        let end = content.len().min((offset + length) as usize);
                        let from = (*offset as usize).min(end);
                        content[from..end].fill(0);
                    }
                });
            }
            Op::SetAttributes { object, mode, owner, mtime } => {
                let Some(thing) = self.seen(*object) else { return };
                thing.attributes.mode = mode.unwrap_or(thing.attributes.mode);
                thing.attributes.mtime = mtime.unwrap_or(thing.attributes.mtime);
                if let Some(owner) = owner {
                    (thing.attributes.uid, thing.attributes.gid) = (owner.uid, owner.gid);
                }
            }
            Op::SetXattr { object, name, mode } => {
                let Some(thing) = self.seen(*object) else { return };
                thing.xattrs.insert(name.0.clone(), payload.to_vec());
                thing.attributes.mode = mode.unwrap_or(thing.attributes.mode);
            }
            Op::RemoveXattr { object, name, mode } => {
                let Some(thing) = self.seen(*object) else { return };
                thing.xattrs.remove(&name.0);
                thing.attributes.mode = mode.unwrap_or(thing.attributes.mode);
            }
            _ => {}
        }
    }

    /// Takes a lane item.
    pub fn item(&mut self, number: ItemNumber, item: &LaneItem, payload: &Bytes) {
        let takes_it = !self.is_good || item.begins_a_copy();
        let is_late = matches!(item, LaneItem::NotListed { .. } | LaneItem::LeftOut { .. } | LaneItem::End);
        assert!(takes_it || is_late, "{} comes to a good replica", item.name());
        match item {
            LaneItem::Begin => self.begin(),
            LaneItem::BeginOwed { .. } => self.begin_owed(),
            LaneItem::Owed { objects } => self.call(number, objects),
            LaneItem::OpenBlocks { object } => self.open_blocks(*object),
            LaneItem::Afresh => panic!("nobody asked for a copy afresh"),
            LaneItem::Rules { .. } | LaneItem::Within { .. } | LaneItem::Keeping { .. } => {
                panic!("the set has no rules")
            }
            LaneItem::Root { object, attributes, xattrs } => {
                assert_eq!(*object, self.root);
                let root = self.thing(ROOT);
                (root.attributes, root.xattrs) = (*attributes, as_map(xattrs));
            }
            LaneItem::Listing { dir, dir_mtime, entries, unlisted, first, last } => {
                self.list(number, *dir, *dir_mtime, entries, unlisted.as_ref(), (*first, *last));
            }
            LaneItem::NamesMatch | LaneItem::OrphanRules { .. } => {}
            LaneItem::NotListed { dir } => {
                self.listing.take_if(|listing| listing.dir == *dir);
                self.doubts.remove(dir);
                self.asked.remove(dir);
            }
            LaneItem::OpenContent { object } => {
                let inode = self.alive(*object).filter(|_| self.asked.contains(object));
                self.open = inode.map(|inode| Open { object: *object, inode, reached: Some(0) });
                if let Some(inode) = inode {
                    self.thing(inode).content.clear();
                }
            }
            LaneItem::Content { object, hole, offset } => self.content(*object, *hole, *offset, payload),
            LaneItem::CloseContent { object, hole, size, attributes, xattrs } => {
                self.close(*object, (*hole, *size), *attributes, xattrs);
            }
            LaneItem::Leave { object } => {
                self.asked.remove(object);
                self.called.remove(object);
                self.open = None;
            }
            LaneItem::End => self.end(number),
            LaneItem::Xattrs { .. } | LaneItem::Xattr { .. } | LaneItem::Attributes { .. } => {
                self.dress(item, payload);
            }
            LaneItem::LeftOut { .. }
            | LaneItem::CheckBegin { .. }
            | LaneItem::Hashes { .. }
            | LaneItem::Hole { .. }
            | LaneItem::ByBlocks { .. }
            | LaneItem::CloseSame { .. }
            | LaneItem::CheckStop => panic!("of a tree that has none: {item:?}"),
        }
    }

    fn begin(&mut self) {
        self.seen = BTreeSet::from([self.root]);
        self.listed.clear();
        self.asked.clear();
        self.doubts.clear();
        self.called.clear();
        (self.listing, self.open, self.is_good) = (None, None, false);
        (self.vouches, self.is_bad_by_owed) = (false, false);
        self.says.clear();
    }

    fn list(
        &mut self,
        number: ItemNumber,
        dir: ObjectId,
        dir_mtime: Timestamp,
        entries: &[ListedObject],
        unlisted: Option<&Unlisted>,
        (first, last): (bool, bool),
    ) {
        assert_eq!(unlisted, None);
        let nothing = Answer::Wanted(Wanted { listing: number, objects: Vec::new() });
        let Some(inode) = self.alive(dir).filter(|_| self.is_seen(dir)) else {
            self.doubts.remove(&dir);
            self.listing.take_if(|listing| listing.dir == dir);
            self.says.push(nothing);
            return;
        };
        if first {
            self.listing = Some(Listing { dir, told: BTreeSet::new() });
            if let Some(doubt) = self.doubts.get_mut(&dir) {
                *doubt = Doubt::Answering;
            }
        }
        if self.listing.as_ref().is_none_or(|listing| listing.dir != dir) {
            self.says.push(nothing);
            return;
        }
        let answers = self.vouches || self.doubts.contains_key(&dir);
        let objects =
            entries.iter().filter_map(|listed| self.take_entry(dir, inode, listed, answers)).collect();
        self.says.push(Answer::Wanted(Wanted { listing: number, objects }));
        if last {
            let told = self.listing.take().unwrap().told;
            let names: Vec<Vec<u8>> = self.things[&inode].names.keys().cloned().collect();
            names.iter().filter(|name| !told.contains(*name)).for_each(|name| self.unname(inode, name));
            self.thing(inode).attributes.mtime = dir_mtime;
            self.listed.insert(dir);
            self.unlisted.remove(&dir);
            self.asked.remove(&dir);
            self.doubts.retain(|id, doubt| *id != dir || *doubt == Doubt::Asked);
        }
    }

    /// Gives the object where it is wanted.
    fn take_entry(
        &mut self,
        dir: ObjectId,
        inode: Inode,
        listed: &ListedObject,
        answers: bool,
    ) -> Option<ObjectId> {
        let id = listed.object;
        let known = self.alive(id).filter(|known| self.things[known].birth == listed.birth);
        let entry = known.unwrap_or_else(|| {
            let made = self.make(listed.birth.clone(), listed.attributes);
            self.index.insert(id, made);
            made
        });
        let was_seen = known.is_some() && self.is_seen(id) || self.seen.contains(&id);
        self.seen.insert(id);
        self.shows(id, !was_seen && listed.birth == Birth::Directory);
        self.told(&Entry { dir, name: listed.name.clone() }, true);
        self.place(inode, listed.name.as_bytes(), entry);
        let is_incomplete = self.incomplete.contains(&id);
        let thing = self.thing(entry);
        thing.xattrs = as_map(&listed.xattrs);
        let before = std::mem::replace(&mut thing.attributes, listed.attributes);
        if listed.birth == Birth::Directory {
            let wants = answers && !self.is_listed(id) && self.asked.insert(id);
            return wants.then_some(id);
        }
        if listed.birth != Birth::File {
            return None;
        }
        let differs = thing.content.len() as u64 != listed.size || before.mtime != listed.attributes.mtime;
        let is_complete = match (known, was_seen) {
            (Some(_), true) => !is_incomplete,
            (Some(_), false) => !is_incomplete && !differs && !listed.suspect,
            (None, _) => false,
        };
        if !is_complete {
            self.incomplete.insert(id);
            // Without its content it is not to be taken for what has this time.
            self.thing(entry).attributes.mtime = Timestamp::default();
        }
        (!is_complete && self.asked.insert(id)).then_some(id)
    }

    fn content(&mut self, object: ObjectId, hole: u64, offset: u64, payload: &Bytes) {
        let Some(open) = self.open.as_mut().filter(|open| open.object == object) else { return };
        let (from, inode) = (offset - hole, open.inode);
        let is_whole = open.reached.is_some();
        if let Some(reached) = &mut open.reached {
            assert_eq!(*reached, from, "content follows without a gap");
            *reached = offset + payload.len() as u64;
        }
        let content = &mut self.thing(inode).content;
        // A hole keeps the end of a file.
        let zeros = if is_whole { hole } else { hole.min((content.len() as u64).saturating_sub(from)) };
        put(content, from.min(if is_whole { from } else { content.len() as u64 }), &vec![0; zeros as usize]);
        if !payload.is_empty() {
            put(content, offset, payload);
        }
    }

    fn close(
        &mut self,
        object: ObjectId,
        (hole, size): (u64, u64),
        attributes: Attributes,
        xattrs: &[Xattr],
    ) {
        let Some(open) = self.open.take().filter(|open| open.object == object) else { return };
        if self.alive(object) != Some(open.inode) {
            return;
        }
        let thing = self.things.get_mut(&open.inode).unwrap();
        if let Some(reached) = open.reached {
            assert!(reached + hole == size || hole == 0 && reached > size, "content ends at its size");
            put(&mut thing.content, reached, &vec![0; hole as usize]);
        }
        thing.content.resize(size as usize, 0);
        (thing.attributes, thing.xattrs) = (attributes, as_map(xattrs));
        self.incomplete.remove(&object);
        self.asked.remove(&object);
        self.called.remove(&object);
    }

    fn end(&mut self, number: ItemNumber) {
        if self.is_good || !self.doubts.is_empty() {
            return;
        }
        let is_inside = |id: &&ObjectId| self.alive(**id).is_some_and(|inode| self.is_reached(ROOT, inode));
        let owed: Vec<ObjectId> = self.incomplete.iter().filter(is_inside).copied().collect();
        if !owed.is_empty() {
            self.listed.clear();
            self.vouches = false;
            owed.iter().for_each(|id| _ = self.asked.remove(id));
            self.doubts.insert(self.root, Doubt::Asked);
            self.says.push(Answer::Doubt(vec![self.root]));
            return;
        }
        self.is_good = true;
        self.says.push(Answer::Complete(number));
    }

    fn is_reached(&self, dir: Inode, inode: Inode) -> bool {
        let held = |below: &Inode| *below == inode || self.is_reached(*below, inode);
        self.things[&dir].names.values().any(held)
    }
}

fn put(content: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, end) = (offset as usize, offset as usize + bytes.len());
    if content.len() < end {
        content.resize(end, 0);
    }
    content[from..end].copy_from_slice(bytes);
}

fn as_map(xattrs: &[Xattr]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    xattrs.iter().map(|xattr| (xattr.name.0.clone(), xattr.value.0.clone())).collect()
}
