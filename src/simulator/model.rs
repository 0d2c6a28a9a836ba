//! The tree of the source as plain data, random changes of it, and the ops that say so.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::packet::*;
use crate::random::Random;

pub const ROOT: u64 = 1;
const NODES_MAX: usize = 18;

/// A tree at one position. Cheap to clone: nodes are shared until they change.
#[derive(Clone, Debug)]
pub struct Tree {
    pub nodes: BTreeMap<u64, Arc<Node>>,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub birth: Birth,
    pub attributes: Attributes,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub content: Vec<u8>,
    pub entries: BTreeMap<Name, u64>,
    pub links: u32,
    /// When anything of it changed last.
    pub ctime: Timestamp,
    /// Of a directory: where its name is.
    parent: u64,
}

/// An op and its payload.
pub type Said = (Op, Vec<u8>);

/// A name and what it holds.
type Place = (u64, Name, u64);

/// The tree that applications change, with its clock and its inode numbers.
pub struct Model {
    pub tree: Tree,
    next_inode: u64,
    /// Looks at the clock, which ticks with every second one: two changes may have one time.
    looks: i64,
}

pub fn object(inode: u64) -> ObjectId {
    ObjectId { birth_epoch: 1, generation: 7, inode }
}

impl Model {
    pub fn new() -> Model {
        let mut model = Model { tree: Tree { nodes: BTreeMap::new() }, next_inode: ROOT, looks: 0 };
        model.add(Birth::Directory, 0o755);
        model
    }

    /// One random change; `None` where this one is not possible now.
    pub fn change(&mut self, random: &mut Random) -> Option<Said> {
        let places = self.places();
        let any: Vec<&Place> = places.iter().collect();
        let of = |kind: fn(&Birth) -> bool| -> Vec<&Place> {
            places.iter().filter(|place| kind(&self.tree.nodes[&place.2].birth)).collect()
        };
        let (files, dirs) = (of(|birth| *birth == Birth::File), of(|birth| *birth == Birth::Directory));
        let mut homes: Vec<u64> = dirs.iter().map(|place| place.2).collect();
        homes.push(ROOT);
        let home = random.pick(&homes).copied()?;
        let name = Name::new(format!("n{}", random.below(9)).as_bytes()).ok()?;
        let free = !self.tree.nodes[&home].entries.contains_key(&name);
        let room = self.tree.nodes.len() < NODES_MAX;
        let mode = random.below(0o10000) as u32;
        let file = random.pick(&files).copied();
        let one = random.pick(&any).copied();
        let other = random.pick(&any).copied();
        match random.below(27) {
            0..=2 if free && room => Some(self.create(home, name, Birth::File, mode)),
            3 | 4 if free && room => Some(self.create(home, name, Birth::Directory, mode)),
            5 if free && room => Some(self.create(
                home,
                name,
                Birth::Symlink { target: Bounded(b"some/where".to_vec()) },
                0o777,
            )),
            6 if free && room => Some(self.create(home, name, Birth::Fifo, mode)),
            7 if free => self.link(file?.2, home, name),
            8 | 9 => self.unlink(one?.clone()),
            10 => self.remove_directory(random.pick(&dirs).copied()?.clone()),
            11 | 12 if free => self.rename(one?.clone(), home, name, None, random.one_in(4)),
            13 | 14 => {
                let (from, to) = (one?.clone(), other?.clone());
                self.rename(from, to.0, to.1, Some(to.2), false)
            }
            15 => self.exchange(one?.clone(), other?.clone()),
            16..=18 => Some(self.write(file?.2, random)),
            19 => Some(self.resize(file?.2, random.below(6000))),
            20 => Some(self.reserve(file?.2, random.below(5000), random.below(3000) + 1)),
            21 => Some(self.set_attributes(one?.2, mode, random)),
            24..=26 => Some(self.set_time_back(file?.2)),
            22 => Some(self.set_xattr(file?.2, random)),
            23 => Some((Op::Barrier { durable: random.one_in(2), name: None }, Vec::new())),
            _ => None,
        }
    }

    fn create(&mut self, dir: u64, name: Name, birth: Birth, mode: u32) -> Said {
        let inode = self.add(birth.clone(), mode);
        let dir_mtime = self.put(dir, &name, inode);
        let attributes = self.tree.nodes[&inode].attributes;
        let at = Entry { dir: object(dir), name };
        (
            Op::Create { at, dir_mtime, object: object(inode), birth, attributes, xattrs: Vec::new() },
            Vec::new(),
        )
    }

    fn link(&mut self, inode: u64, dir: u64, name: Name) -> Option<Said> {
        let dir_mtime = self.put(dir, &name, inode);
        let links = self.count(inode, 1);
        let at = Entry { dir: object(dir), name };
        Some((Op::Link { object: object(inode), at, dir_mtime, links }, Vec::new()))
    }

    fn unlink(&mut self, (dir, name, inode): Place) -> Option<Said> {
        if self.is_dir(inode) {
            return None;
        }
        let dir_mtime = self.take(dir, &name);
        let links = self.count(inode, -1);
        let at = Entry { dir: object(dir), name };
        Some((Op::Unlink { at, dir_mtime, object: object(inode), links }, Vec::new()))
    }

    fn remove_directory(&mut self, (dir, name, inode): Place) -> Option<Said> {
        if !self.tree.nodes[&inode].entries.is_empty() {
            return None;
        }
        let dir_mtime = self.take(dir, &name);
        self.tree.nodes.remove(&inode);
        let at = Entry { dir: object(dir), name };
        Some((Op::RemoveDirectory { at, dir_mtime, object: object(inode) }, Vec::new()))
    }

    fn rename(
        &mut self,
        from: Place,
        to_dir: u64,
        to: Name,
        over: Option<u64>,
        whiteout: bool,
    ) -> Option<Said> {
        let (from_dir, from_name, inode) = from;
        if over == Some(inode) || self.lies_in(to_dir, inode) {
            return None;
        }
        if let Some(over) = over {
            let same_kind = self.is_dir(over) == self.is_dir(inode);
            if !same_kind || !self.tree.nodes[&over].entries.is_empty() || over == from_dir {
                return None;
            }
        }
        let whiteout = whiteout && self.tree.nodes.len() < NODES_MAX;
        let mut from_mtime = self.take(from_dir, &from_name);
        let to_mtime = self.put(to_dir, &to, inode);
        let replaced = over.map(|over| Replaced { object: object(over), links: self.let_go(over) });
        let whiteout = whiteout.then(|| {
            let left = self.add(Birth::CharDevice { major: 0, minor: 0 }, 0);
            from_mtime = self.put(from_dir, &from_name, left);
            Whiteout { object: object(left), attributes: self.tree.nodes[&left].attributes }
        });
        if from_dir == to_dir {
            from_mtime = self.tree.nodes[&to_dir].attributes.mtime;
        }
        let to_mtime = if from_dir == to_dir { from_mtime } else { to_mtime };
        let from = Entry { dir: object(from_dir), name: from_name };
        let to = Entry { dir: object(to_dir), name: to };
        let object_mtime = (from_dir != to_dir).then(|| self.moved(inode)).flatten();
        let object = object(inode);
        let op = Op::Rename { from, from_mtime, to, to_mtime, object, object_mtime, replaced, whiteout };
        Some((op, Vec::new()))
    }

    fn exchange(&mut self, left: Place, right: Place) -> Option<Said> {
        let nested = self.lies_in(left.0, right.2) || self.lies_in(right.0, left.2);
        if left.2 == right.2 || nested {
            return None;
        }
        self.put(left.0, &left.1, right.2);
        let right_mtime = self.put(right.0, &right.1, left.2);
        let left_mtime = self.tree.nodes[&left.0].attributes.mtime;
        let entry = |(dir, name, _): Place| Entry { dir: object(dir), name };
        let (left_object, right_object) = (object(left.2), object(right.2));
        let (left_object_mtime, right_object_mtime) = (self.moved(left.2), self.moved(right.2));
        let (left, right) = (entry(left), entry(right));
        let op = Op::Exchange {
            left,
            left_mtime,
            left_object,
            left_object_mtime,
            right,
            right_mtime,
            right_object,
            right_object_mtime,
        };
        Some((op, Vec::new()))
    }

    fn write(&mut self, inode: u64, random: &mut Random) -> Said {
        let (mut offset, mut len) = (random.below(4000) as usize, random.below(1500) as usize + 1);
        // Most databases write without making their files longer.
        let size = self.tree.nodes[&inode].content.len();
        if size > 0 && random.one_in(2) {
            offset %= size;
            len = len.min(size - offset);
        }
        let bytes = vec![random.number() as u8; len];
        let node = self.node(inode);
        node.content.resize(node.content.len().max(offset + len), 0);
        node.content[offset..offset + len].copy_from_slice(&bytes);
        (Op::Write { object: object(inode), offset: offset as u64, result: self.result(inode) }, bytes)
    }

    fn resize(&mut self, inode: u64, size: u64) -> Said {
        self.node(inode).content.resize(size as usize, 0);
        (Op::Resize { object: object(inode), result: self.result(inode) }, Vec::new())
    }

    fn reserve(&mut self, inode: u64, offset: u64, length: u64) -> Said {
        let node = self.node(inode);
        let end = (offset + length) as usize;
        node.content.resize(node.content.len().max(end), 0);
        node.content[offset as usize..end].fill(0);
        let result = self.result(inode);
        (Op::Reserve { object: object(inode), offset, length, how: Reserve::ZeroRange, result }, Vec::new())
    }

    fn set_attributes(&mut self, inode: u64, mode: u32, random: &mut Random) -> Said {
        let id = object(inode);
        let is_symlink = matches!(self.tree.nodes[&inode].birth, Birth::Symlink { .. });
        let mode = if is_symlink { 0o777 } else { mode };
        let attributes = &mut self.node(inode).attributes;
        let op = match random.below(3) {
            0 => {
                attributes.mode = mode;
                Op::SetAttributes { object: id, mode: Some(mode), owner: None, mtime: None }
            }
            1 => {
                let owner = Owner { uid: random.below(3000) as u32, gid: random.below(3000) as u32 };
                (attributes.uid, attributes.gid, attributes.mode) = (owner.uid, owner.gid, mode);
                Op::SetAttributes { object: id, mode: Some(mode), owner: Some(owner), mtime: None }
            }
            _ => {
                let mtime = Timestamp { seconds: random.below(1000) as i64 - 500, nanoseconds: mode };
                attributes.mtime = mtime;
                Op::SetAttributes { object: id, mode: None, owner: None, mtime: Some(mtime) }
            }
        };
        (op, Vec::new())
    }

    /// Whatever was written, its time does not tell.
    fn set_time_back(&mut self, inode: u64) -> Said {
        let mtime = Timestamp { seconds: 0, nanoseconds: 0 };
        self.node(inode).attributes.mtime = mtime;
        let object = object(inode);
        (Op::SetAttributes { object, mode: None, owner: None, mtime: Some(mtime) }, Vec::new())
    }

    fn set_xattr(&mut self, inode: u64, random: &mut Random) -> Said {
        let name: XattrName = Bounded(format!("user.x{}", random.below(2)).into_bytes());
        let mode = Some(self.tree.nodes[&inode].attributes.mode);
        let value = random.number().to_le_bytes().to_vec();
        let xattrs = &mut self.node(inode).xattrs;
        if random.one_in(3) {
            xattrs.remove(&name.0);
            return (Op::RemoveXattr { object: object(inode), name, mode }, Vec::new());
        }
        xattrs.insert(name.0.clone(), value.clone());
        (Op::SetXattr { object: object(inode), name, mode }, value)
    }

    fn places(&self) -> Vec<Place> {
        let entries = |(dir, node): (&u64, &Arc<Node>)| {
            let dir = *dir;
            node.entries.iter().map(|(name, inode)| (dir, name.clone(), *inode)).collect::<Vec<_>>()
        };
        self.tree.nodes.iter().flat_map(entries).collect()
    }

    fn is_dir(&self, inode: u64) -> bool {
        self.tree.nodes[&inode].birth == Birth::Directory
    }

    /// Whether a directory is this object or lies in it.
    fn lies_in(&self, mut dir: u64, inode: u64) -> bool {
        while dir != ROOT && dir != inode {
            dir = self.tree.nodes[&dir].parent;
        }
        dir == inode
    }

    fn now(&mut self) -> Timestamp {
        self.looks += 1;
        self.clock()
    }

    /// What the clock shows.
    pub fn clock(&self) -> Timestamp {
        let ticks = self.looks / 2;
        Timestamp { seconds: 1_700_000_000 + ticks, nanoseconds: (ticks * 1003 % 1_000_000) as u32 }
    }

    fn node(&mut self, inode: u64) -> &mut Node {
        let ctime = self.clock();
        let node = Arc::make_mut(self.tree.nodes.get_mut(&inode).expect("it is there"));
        node.ctime = ctime;
        node
    }

    fn add(&mut self, birth: Birth, mode: u32) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        let ctime = self.now();
        let attributes = Attributes { mode, uid: 0, gid: 0, mtime: ctime };
        let (xattrs, content, entries) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let node = Node { birth, attributes, xattrs, content, entries, links: 1, ctime, parent: ROOT };
        self.tree.nodes.insert(inode, Arc::new(node));
        inode
    }

    fn put(&mut self, dir: u64, name: &Name, inode: u64) -> Timestamp {
        self.node(dir).entries.insert(name.clone(), inode);
        if self.is_dir(inode) {
            self.node(inode).parent = dir;
        }
        self.touch(dir)
    }

    fn take(&mut self, dir: u64, name: &Name) -> Timestamp {
        self.node(dir).entries.remove(name);
        self.touch(dir)
    }

    fn touch(&mut self, inode: u64) -> Timestamp {
        let now = self.now();
        self.node(inode).attributes.mtime = now;
        now
    }

    /// A directory that gets another place changes itself on some file systems.
    fn moved(&mut self, inode: u64) -> Option<Timestamp> {
        self.is_dir(inode).then(|| self.touch(inode))
    }

    /// Adds to a link count; an object without a name is gone.
    fn count(&mut self, inode: u64, by: i32) -> u32 {
        let links = self.tree.nodes[&inode].links.saturating_add_signed(by);
        self.node(inode).links = links;
        if links == 0 {
            self.tree.nodes.remove(&inode);
        }
        links
    }

    fn let_go(&mut self, inode: u64) -> u32 {
        self.count(inode, -1)
    }

    fn result(&mut self, inode: u64) -> ContentResult {
        let mtime = self.touch(inode);
        ContentResult { size: self.tree.nodes[&inode].content.len() as u64, mtime, mode: None }
    }
}
