//! A source in memory: a tree, random changes of it, and the packets that tell of them.

use std::collections::BTreeMap;

use super::super::*;
use super::border::DirectoriesOut;
use crate::packet::LINKS_UNKNOWN;
use crate::random::Random;

/// Bytes that are written at once.
pub const REGION: usize = 700;
const REGIONS: u64 = 4;
pub const NAMES: u64 = 6;
pub const OBJECTS_MAX: usize = 26;

pub const ROOT: u64 = 1;

pub fn id(number: u64) -> ObjectId {
    ObjectId { birth_epoch: 1, generation: 7, inode: number }
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub birth: Birth,
    pub names: BTreeMap<String, u64>,
    pub content: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timestamp,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    pub links: u32,
    /// Its content has changed, and neither size nor mtime.
    pub suspect: bool,
}

impl Object {
    pub fn is_directory(&self) -> bool {
        self.birth == Birth::Directory
    }

    pub fn attributes(&self) -> Attributes {
        Attributes { mode: self.mode, uid: self.uid, gid: self.gid, mtime: self.mtime }
    }

    pub fn xattrs(&self) -> Vec<Xattr> {
        let xattr = |(name, value): (&String, &Vec<u8>)| Xattr {
            name: Bounded(name.clone().into_bytes()),
            value: Bounded(value.clone()),
        };
        self.xattrs.iter().map(xattr).collect()
    }
}

/// See the module.
pub struct Origin {
    pub objects: BTreeMap<u64, Object>,
    /// Packets of this history; the first follows its origin.
    pub log: Vec<Frame>,
    start: Position,
    pub next: u64,
    clock: i64,
    /// Two changes may have the same time.
    pub has_ticks: bool,
    /// Files that are removed are kept by targets.
    pub keeping: Option<Keeping>,
    /// Files leave the set by one of their names, and come back.
    pub has_border: bool,
    /// What directories do at the border, where they cross it.
    pub directories_out: Option<DirectoriesOut>,
}

impl Origin {
    pub fn new() -> Origin {
        let mut origin = Origin {
            objects: BTreeMap::new(),
            log: Vec::new(),
            start: Position::origin(Epoch { number: 1, writer: 2 }, Incarnation(3)),
            next: ROOT + 1,
            clock: 1_000_000,
            has_ticks: false,
            keeping: None,
            has_border: false,
            directories_out: None,
        };
        let root = origin.new_object(Birth::Directory);
        origin.objects.insert(ROOT, root);
        origin
    }

    /// The last position that was given out.
    pub fn position(&self) -> Position {
        self.log.last().map_or(self.start, |frame| frame.position)
    }

    pub fn position_after(&self, packets: usize) -> Position {
        packets.checked_sub(1).map_or(self.start, |last| self.log[last].position)
    }

    /// Another history begins: nobody knows the packets of before.
    pub fn begin_history(&mut self, incarnation: u64) {
        self.start = Position::origin(self.start.epoch, Incarnation(incarnation));
        self.log.clear();
    }

    pub fn new_object(&mut self, birth: Birth) -> Object {
        Object {
            birth,
            names: BTreeMap::new(),
            content: Vec::new(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: self.now(),
            xattrs: BTreeMap::new(),
            links: 1,
            suspect: false,
        }
    }

    pub fn now(&mut self) -> Timestamp {
        self.clock += 1;
        Timestamp { seconds: self.clock, nanoseconds: 5 }
    }

    pub fn say(&mut self, op: Op, payload: Vec<u8>) {
        let frame = frame_after(&self.position(), &(op, payload));
        self.log.push(frame);
    }

    pub fn at(dir: u64, name_: &str) -> Entry {
        Entry { dir: id(dir), name: name(name_) }
    }

    pub fn touch(&mut self, dir: u64) -> Timestamp {
        let now = self.now();
        self.objects.get_mut(&dir).unwrap().mtime = now;
        now
    }

    pub fn held(&self, dir: u64, name: &str) -> Option<u64> {
        self.objects[&dir].names.get(name).copied()
    }

    pub fn set(&mut self, dir: u64, name: &str, object: u64) {
        self.objects.get_mut(&dir).unwrap().names.insert(name.into(), object);
    }

    pub fn unset(&mut self, dir: u64, name: &str) -> u64 {
        self.objects.get_mut(&dir).unwrap().names.remove(name).unwrap()
    }

    /// A name of an object went; gives its link count.
    pub fn drop_link(&mut self, object: u64) -> u32 {
        let there = self.objects.get_mut(&object).unwrap();
        there.links -= 1;
        let links = if there.is_directory() { 0 } else { there.links };
        if links == 0 {
            self.objects.remove(&object);
        }
        links
    }

    pub fn create(&mut self, dir: u64, name: &str, birth: Birth) -> u64 {
        let number = self.next;
        self.next += 1;
        let object = self.new_object(birth.clone());
        let (attributes, xattrs) = (object.attributes(), object.xattrs());
        self.objects.insert(number, object);
        self.set(dir, name, number);
        let dir_mtime = self.touch(dir);
        let op =
            Op::Create { at: Self::at(dir, name), dir_mtime, object: id(number), birth, attributes, xattrs };
        self.say(op, Vec::new());
        number
    }

    pub fn link(&mut self, object: u64, dir: u64, name: &str) {
        self.objects.get_mut(&object).unwrap().links += 1;
        let links = self.objects[&object].links;
        self.set(dir, name, object);
        let dir_mtime = self.touch(dir);
        self.say(Op::Link { object: id(object), at: Self::at(dir, name), dir_mtime, links }, Vec::new());
    }

    pub fn remove(&mut self, dir: u64, name: &str) {
        let object = self.unset(dir, name);
        let is_directory = self.objects[&object].is_directory();
        let links = self.drop_link(object);
        let links = self.links_told(links);
        let (at, dir_mtime, object) = (Self::at(dir, name), self.touch(dir), id(object));
        let op = match (&self.keeping, is_directory) {
            (_, true) => Op::RemoveDirectory { at, dir_mtime, object },
            (None, false) => Op::Unlink { at, dir_mtime, object, links },
            (Some(keeping), false) => Op::Keep { at, dir_mtime, object, links, keeping: keeping.clone() },
        };
        self.say(op, Vec::new());
    }

    fn time_of_directory(&self, object: u64) -> Option<Timestamp> {
        let object = &self.objects[&object];
        object.is_directory().then_some(object.mtime)
    }

    /// One of its names goes, while it has another one out of the set: after the last one nothing of it is told.
    pub fn leave(&mut self, dir: u64, name: &str) -> u64 {
        let object = self.unset(dir, name);
        let there = self.objects.get_mut(&object).unwrap();
        there.links = (there.links - 1).max(1);
        let (at, dir_mtime) = (Origin::at(dir, name), self.touch(dir));
        self.say(Op::Unlink { at, dir_mtime, object: id(object), links: LINKS_UNKNOWN }, Vec::new());
        object
    }

    /// What was out of the set gets a name in it.
    pub fn come(&mut self, object: u64, dir: u64, name: &str, may_be_known: bool) {
        let there = &self.objects[&object];
        let (attributes, content) = (there.attributes(), there.content.clone());
        let xattrs = there.xattrs();
        let staged = Op::Stage { object: id(object), may_be_known, birth: Birth::File, attributes, xattrs };
        self.say(staged, Vec::new());
        let result = ContentResult { size: content.len() as u64, mtime: attributes.mtime, mode: None };
        self.say(Op::Resize { object: id(object), result }, Vec::new());
        self.say(Op::Write { object: id(object), offset: 0, result }, content);
        self.set(dir, name, object);
        let (at, dir_mtime) = (Origin::at(dir, name), self.touch(dir));
        self.say(Op::Place { object: id(object), at, dir_mtime, replaced: None }, Vec::new());
    }

    pub fn rename(&mut self, (from, old): (u64, &str), (to, new): (u64, &str)) {
        let object = self.unset(from, old);
        let replaced = self.held(to, new).map(|replaced| {
            self.unset(to, new);
            let links = self.drop_link(replaced);
            Replaced { object: id(replaced), links: self.links_told(links) }
        });
        self.set(to, new, object);
        self.touch(from);
        let to_mtime = self.touch(to);
        let op = Op::Rename {
            from: Self::at(from, old),
            from_mtime: self.objects[&from].mtime,
            to: Self::at(to, new),
            to_mtime,
            object: id(object),
            object_mtime: self.time_of_directory(object),
            replaced,
            whiteout: None,
        };
        self.say(op, Vec::new());
    }

    pub fn exchange(&mut self, (left, old): (u64, &str), (right, new): (u64, &str)) {
        let (left_object, right_object) = (self.unset(left, old), self.unset(right, new));
        self.set(left, old, right_object);
        self.set(right, new, left_object);
        self.touch(left);
        let right_mtime = self.touch(right);
        let op = Op::Exchange {
            left: Self::at(left, old),
            left_mtime: self.objects[&left].mtime,
            left_object: id(left_object),
            left_object_mtime: self.time_of_directory(left_object),
            right: Self::at(right, new),
            right_mtime,
            right_object: id(right_object),
            right_object_mtime: self.time_of_directory(right_object),
        };
        self.say(op, Vec::new());
    }

    /// Changes the content of a file; in the same tick of the clock as before where that can be.
    fn change_content(
        &mut self,
        object: u64,
        same_tick: bool,
        change: impl FnOnce(&mut Vec<u8>),
    ) -> ContentResult {
        let now = self.now();
        let same_tick = self.has_ticks && same_tick;
        let there = self.objects.get_mut(&object).unwrap();
        let before = there.content.len();
        change(&mut there.content);
        match same_tick {
            true => there.suspect |= before == there.content.len(),
            false => there.mtime = now,
        }
        ContentResult { size: there.content.len() as u64, mtime: there.mtime, mode: None }
    }

    pub fn write(&mut self, object: u64, offset: usize, bytes: &[u8], same_tick: bool) {
        let result = self.change_content(object, same_tick, |content| {
            content.resize(content.len().max(offset + bytes.len()), 0);
            content[offset..offset + bytes.len()].copy_from_slice(bytes);
        });
        self.say(Op::Write { object: id(object), offset: offset as u64, result }, bytes.to_vec());
    }

    pub fn resize(&mut self, object: u64, size: usize) {
        let result = self.change_content(object, false, |content| content.resize(size, 0));
        self.say(Op::Resize { object: id(object), result }, Vec::new());
    }

    pub fn punch(&mut self, object: u64, offset: usize, length: usize) {
        let result = self.change_content(object, false, |content| {
            let (from, end) = (offset.min(content.len()), (offset + length).min(content.len()));
            content[from..end].fill(0);
        });
        let (object, offset, length) = (id(object), offset as u64, length as u64);
        self.say(Op::Reserve { object, offset, length, how: Reserve::PunchHole, result }, Vec::new());
    }

    pub fn chmod(&mut self, object: u64, mode: u32, uid: u32) {
        let there = self.objects.get_mut(&object).unwrap();
        (there.mode, there.uid, there.gid) = (mode, uid, uid + 1);
        let owner = Some(Owner { uid, gid: uid + 1 });
        self.say(Op::SetAttributes { object: id(object), mode: Some(mode), owner, mtime: None }, Vec::new());
    }

    pub fn utimes(&mut self, object: u64) {
        let mtime = self.now();
        self.objects.get_mut(&object).unwrap().mtime = mtime;
        let object = id(object);
        self.say(Op::SetAttributes { object, mode: None, owner: None, mtime: Some(mtime) }, Vec::new());
    }

    /// A program gives a file the time that it had.
    pub fn set_time(&mut self, object: u64, mtime: Timestamp) {
        self.objects.get_mut(&object).unwrap().mtime = mtime;
        let object = id(object);
        self.say(Op::SetAttributes { object, mode: None, owner: None, mtime: Some(mtime) }, Vec::new());
    }

    pub fn set_xattr(&mut self, object: u64, name: &str, value: Option<Vec<u8>>) {
        let there = self.objects.get_mut(&object).unwrap();
        let (object, wire) = (id(object), Bounded(name.as_bytes().to_vec()));
        match value {
            Some(value) => {
                there.xattrs.insert(name.into(), value.clone());
                self.say(Op::SetXattr { object, name: wire, mode: None }, value);
            }
            None => {
                there.xattrs.remove(name);
                self.say(Op::RemoveXattr { object, name: wire, mode: None }, Vec::new());
            }
        }
    }

    pub fn is_below(&self, dir: u64, above: u64) -> bool {
        let mut at = dir;
        loop {
            if at == above {
                return true;
            }
            let holds = |object: &Object| object.names.values().any(|held| *held == at);
            match self.objects.iter().find(|(_, object)| object.is_directory() && holds(object)) {
                Some((parent, _)) => at = *parent,
                None => return false,
            }
        }
    }

    /// One random change, or none where this one cannot be.
    pub fn change(&mut self, random: &mut Random) {
        let inside = self.inside();
        let dirs: Vec<u64> = self.numbers(Object::is_directory);
        let dirs: Vec<u64> = dirs.into_iter().filter(|dir| inside.contains(dir)).collect();
        let dir = *random.one_of(&dirs);
        let new = format!("n{}", random.below(NAMES));
        let names: Vec<(u64, String, u64)> = dirs
            .iter()
            .flat_map(|dir| self.objects[dir].names.iter().map(|(name, held)| (*dir, name.clone(), *held)))
            .collect();
        if self.directories_out.is_some() && random.one_in(4) {
            return self.directories_cross((dir, &new), &names, random);
        }
        if self.has_border && random.one_in(8) {
            return self.cross_the_border((dir, &new), &names, random);
        }
        let kind = random.below(100);
        if kind < 22 {
            if self.held(dir, &new).is_none() && self.objects.len() < OBJECTS_MAX {
                let birth = match random.below(20) {
                    0 => Birth::Fifo,
                    1 => Birth::Symlink { target: Bounded(new.clone().into_bytes()) },
                    2..9 => Birth::Directory,
                    _ => Birth::File,
                };
                self.create(dir, &new, birth);
            }
            return;
        }
        let Some((from, old, object)) = random.pick(&names).cloned() else { return };
        match kind {
            22..30 if self.held(dir, &new).is_none() && !self.objects[&object].is_directory() => {
                self.link(object, dir, &new);
            }
            22..30 => {}
            30..42 if self.objects[&object].names.is_empty() => self.remove(from, &old),
            30..42 => {}
            42..68 => self.change_name((from, &old, object), (dir, &new)),
            68..74 => {
                let Some((to, name, other)) = random.pick(&names).cloned() else { return };
                if other != object && !self.is_below(from, other) && !self.is_below(to, object) {
                    self.exchange((from, &old), (to, &name));
                }
            }
            _ => self.change_object(object, random),
        }
    }

    fn cross_the_border(&mut self, to: (u64, &str), names: &[(u64, String, u64)], random: &mut Random) {
        let is_file = |object: &Object| object.birth == Birth::File;
        let out = self.numbers(|object| is_file(object) && object.links > 0);
        let out = out.into_iter().find(|number| names.iter().all(|(_, _, held)| held != number));
        match (out, random.pick(names).cloned()) {
            (Some(out), _) if random.one_in(2) && self.held(to.0, to.1).is_none() => {
                let there = self.objects.get_mut(&out).unwrap();
                there.mode ^= 0o20;
                there.suspect = true;
                there.content.iter_mut().for_each(|byte| *byte ^= 1);
                self.come(out, to.0, to.1, random.one_in(2));
            }
            (_, Some((dir, name, object))) if is_file(&self.objects[&object]) => {
                self.leave(dir, &name);
            }
            _ => {}
        }
    }

    fn change_name(&mut self, (from, old, object): (u64, &str, u64), (to, new): (u64, &str)) {
        if self.is_below(to, object) {
            return;
        }
        if let Some(replaced) = self.held(to, new) {
            let (moved, there) = (&self.objects[&object], &self.objects[&replaced]);
            if replaced == object || moved.is_directory() != there.is_directory() || !there.names.is_empty() {
                return;
            }
        }
        self.rename((from, old), (to, new));
    }

    fn change_object(&mut self, object: u64, random: &mut Random) {
        let same_tick = random.one_in(4);
        let (offset, byte) = (random.below(REGIONS) as usize * REGION, random.below(255) as u8 + 1);
        let is_file = self.objects[&object].birth == Birth::File;
        match random.below(20) {
            0..12 if is_file => self.write(object, offset, &[byte; REGION], same_tick),
            12 if is_file => self.resize(object, offset / 2),
            13 if is_file => self.punch(object, offset, REGION),
            14 | 15 if self.objects[&object].birth != Birth::Fifo => {
                if let Birth::Symlink { .. } = self.objects[&object].birth {
                    return self.utimes(object);
                }
                let value = (!random.one_in(3)).then(|| vec![byte; 20]);
                self.set_xattr(object, ["user.a", "user.b"][random.below(2) as usize], value);
            }
            16 => self.utimes(object),
            _ if matches!(self.objects[&object].birth, Birth::Symlink { .. }) => self.utimes(object),
            _ => self.chmod(object, 0o600 | random.below(0o100) as u32, random.below(5) as u32),
        }
    }

    pub fn numbers(&self, is_one: impl Fn(&Object) -> bool) -> Vec<u64> {
        self.objects.iter().filter(|(_, object)| is_one(object)).map(|(number, _)| *number).collect()
    }
}
