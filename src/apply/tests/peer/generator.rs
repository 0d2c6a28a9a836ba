//! What a hostile source can say: every kind of packet and lane item, with the values that lead
//! others astray. A seed gives the same words again.

use super::*;
use crate::limits::{HASH_BLOCK, HASHES_MAX, LISTING_ENTRIES_MAX, OWED_CALLED_MAX, XATTR_NAME_LEN_MAX};
use crate::random::Random;

/// What the peer knows, and what it can guess.
pub struct Words<'a> {
    pub random: &'a mut Random,
    /// Ids of objects of the replica, of others outside, and of nothing.
    pub ids: &'a [ObjectId],
    /// Names that are there, that were planted, and that the product uses itself.
    pub names: &'a [Vec<u8>],
    /// Paths outside.
    pub outside: &'a [Vec<u8>],
}

impl Words<'_> {
    fn id(&mut self) -> ObjectId {
        *self.random.one_of(self.ids)
    }

    fn name(&mut self) -> Name {
        let made = self.random.below(40);
        match self.random.below(8) {
            0 => Name::new(format!("made{made}").as_bytes()).unwrap(),
            1 => Name::new(&[b'x'; 255]).unwrap(),
            2 => Name::new(b"\xff\x1b[2J\n").unwrap(),
            _ => Name::new(self.random.one_of::<Vec<u8>>(self.names)).unwrap(),
        }
    }

    fn entry(&mut self) -> Entry {
        Entry { dir: self.id(), name: self.name() }
    }

    fn time(&mut self) -> Timestamp {
        let nanoseconds = *self.random.one_of(&[0, 1, 999_999_999, 1_000_000_000, 0x3fff_ffff, 0x3fff_fffe]);
        let seconds = *self.random.one_of(&[0, 1, -1, 1 << 33, i64::MIN, i64::MAX]);
        if self.random.one_in(4) {
            Timestamp { seconds, nanoseconds }
        } else {
            Timestamp { seconds: 7, nanoseconds: 8 }
        }
    }

    fn owner(&mut self) -> Owner {
        Owner {
            uid: *self.random.one_of(&[0, 1000, u32::MAX]),
            gid: *self.random.one_of(&[0, 0, 77, u32::MAX]),
        }
    }

    fn mode(&mut self) -> u32 {
        *self.random.one_of(&[0, 0o644, 0o755, 0o4755, 0o2755, 0o6777, 0o7777, 0o104_755, u32::MAX])
    }

    fn attributes(&mut self) -> Attributes {
        let Owner { uid, gid } = self.owner();
        Attributes { mode: self.mode(), uid, gid, mtime: self.time() }
    }

    fn xattr_name(&mut self) -> XattrName {
        let names: [&[u8]; 12] = [
            b"user.x",
            b"user.y",
            b"security.capability",
            b"security.selinux",
            b"trusted.standin.replica",
            b"trusted.standin.withheld",
            b"trusted.standin.",
            b"system.posix_acl_access",
            b"system.posix_acl_default",
            b"",
            b"no namespace",
            b"user.\0x",
        ];
        if self.random.one_in(10) {
            return Bounded(vec![b'u'; XATTR_NAME_LEN_MAX]);
        }
        Bounded(self.random.one_of(&names).to_vec())
    }

    fn xattrs(&mut self) -> Vec<Xattr> {
        let count = *self.random.one_of(&[0, 0, 1, 1, 3]);
        (0..count)
            .map(|_| {
                let len = *self.random.one_of(&[0usize, 1, 28, 5000]);
                Xattr { name: self.xattr_name(), value: Bounded(vec![1; len]) }
            })
            .collect()
    }

    fn birth(&mut self) -> Birth {
        let (major, minor) = (self.random.below(9) as u32, self.random.below(9) as u32);
        match self.random.below(9) {
            0 | 1 => Birth::File,
            2 | 3 => Birth::Directory,
            4 | 5 => Birth::Symlink { target: Bounded(self.random.one_of(self.outside).clone()) },
            6 => Birth::CharDevice { major, minor },
            7 => Birth::BlockDevice { major, minor },
            _ => self.random.one_of(&[Birth::Fifo, Birth::Socket]).clone(),
        }
    }

    fn result(&mut self) -> ContentResult {
        let mode = self.random.one_in(2).then(|| self.mode());
        ContentResult { size: number(self.random), mtime: self.time(), mode }
    }

    fn keeping(&mut self) -> Keeping {
        let days = *self.random.one_of(&[0, 1, 30, u16::MAX]);
        let into = self.name();
        if self.random.one_in(2) { Keeping::InPlace } else { Keeping::Aside { into, days } }
    }

    /// A packet's op with its payload, and the path that it claims to be about.
    pub fn packet(&mut self) -> (Op, Vec<u8>, Vec<u8>) {
        let bytes = vec![b'!'; self.random.below(3000) as usize];
        let hint = match self.random.below(3) {
            0 => self.random.one_of(self.outside).clone(),
            1 => self.random.one_of(self.names).clone(),
            _ => Vec::new(),
        };
        (self.op(), bytes, hint)
    }

    fn op(&mut self) -> Op {
        let object = self.id();
        let how = [Reserve::Allocate, Reserve::PunchHole, Reserve::ZeroRange, Reserve::ZeroRangeKeepSize];
        match self.random.below(19) {
            14 => {
                let (birth, attributes, xattrs) = (self.birth(), self.attributes(), self.xattrs());
                Op::Stage { object, may_be_known: self.random.one_in(2), birth, attributes, xattrs }
            }
            15 => {
                let links = *self.random.one_of(&[0, 1, LINKS_UNKNOWN]);
                let replaced = self.random.one_in(2).then(|| Replaced { object: self.id(), links });
                Op::Place { object, at: self.entry(), dir_mtime: self.time(), replaced }
            }
            16 => Op::Leave { at: self.entry(), dir_mtime: self.time(), object },
            17 => Op::Unstage { object },
            18 => {
                let links = *self.random.one_of(&[0, 1, LINKS_UNKNOWN]);
                let (at, dir_mtime, keeping) = (self.entry(), self.time(), self.keeping());
                Op::Keep { at, dir_mtime, object, links, keeping }
            }
            0 | 1 => {
                let (birth, attributes, xattrs) = (self.birth(), self.attributes(), self.xattrs());
                Op::Create { at: self.entry(), dir_mtime: self.time(), object, birth, attributes, xattrs }
            }
            2 => Op::Link { object, at: self.entry(), dir_mtime: self.time(), links: 1 },
            3 => {
                let links = *self.random.one_of(&[0, 0, LINKS_UNKNOWN]);
                Op::Unlink { at: self.entry(), dir_mtime: self.time(), object, links }
            }
            4 => Op::RemoveDirectory { at: self.entry(), dir_mtime: self.time(), object },
            5 => Op::Rename {
                from: self.entry(),
                from_mtime: self.time(),
                to: self.entry(),
                to_mtime: self.time(),
                object,
                object_mtime: self.random.one_in(2).then(|| self.time()),
                replaced: self.random.one_in(2).then(|| Replaced { object: self.id(), links: 0 }),
                whiteout: self
                    .random
                    .one_in(3)
                    .then(|| Whiteout { object: self.id(), attributes: self.attributes() }),
            },
            6 => Op::Exchange {
                left: self.entry(),
                left_mtime: self.time(),
                left_object: object,
                left_object_mtime: self.random.one_in(2).then(|| self.time()),
                right: self.entry(),
                right_mtime: self.time(),
                right_object: self.id(),
                right_object_mtime: None,
            },
            7 | 8 => Op::Write { object, offset: number(self.random), result: self.result() },
            9 => Op::Resize { object, result: self.result() },
            // A reserved range takes room on the disk: kept small here, the edges beside it.
            10 => {
                let length = *self.random.one_of(&[0, 1, 4096, 1 << 63, u64::MAX]);
                let (how, result) = (*self.random.one_of(&how), self.result());
                Op::Reserve { object, offset: number(self.random), length, how, result }
            }
            11 => {
                let (mode, owner) = (self.mode(), self.owner());
                Op::SetAttributes { object, mode: Some(mode), owner: Some(owner), mtime: Some(self.time()) }
            }
            12 => Op::SetXattr { object, name: self.xattr_name(), mode: Some(self.mode()) },
            _ => Op::RemoveXattr { object, name: self.xattr_name(), mode: Some(self.mode()) },
        }
    }

    fn set_rules(&mut self) -> Vec<SetRule> {
        let patterns: [&[u8]; 7] = [b"*", b"a/**/b", b"../x", b"\xff", b"[", b"", b"**/**/**/*"];
        let one = |random: &mut Random| SetRule {
            includes: random.one_in(2),
            is_recursive: random.one_in(2),
            pattern: Bounded(random.one_of(&patterns).to_vec()),
        };
        (0..self.random.below(4)).map(|_| one(self.random)).collect()
    }

    fn hashes(&mut self, object: ObjectId) -> LaneItem {
        let (offset, size) = (number(self.random) / HASH_BLOCK * HASH_BLOCK, number(self.random));
        let most = if self.random.one_in(10) { 2 * HASHES_MAX as u64 } else { 3 };
        let hashes = (0..self.random.below(most)).map(u128::from).collect();
        LaneItem::Hashes { object, offset, size, hashes }
    }

    fn hole(&mut self, object: ObjectId) -> LaneItem {
        let block = |random: &mut Random| number(random) / HASH_BLOCK * HASH_BLOCK;
        let (offset, size) = (block(self.random), number(self.random));
        let end = if self.random.one_in(3) { size } else { block(self.random) };
        LaneItem::Hole { object, offset, end, size }
    }

    fn called(&mut self) -> Vec<ObjectId> {
        let most = if self.random.one_in(40) { OWED_CALLED_MAX as u64 + 9 } else { 6 };
        (0..self.random.below(most)).map(|_| self.id()).collect()
    }

    fn begin_owed(&mut self) -> LaneItem {
        let percent_max = self.random.one_in(2).then_some(50);
        LaneItem::BeginOwed { percent_max, compares: self.random.one_in(3) }
    }

    pub fn item(&mut self) -> (LaneItem, Vec<u8>) {
        let object = self.id();
        let item = match self.random.below(37) {
            36 => self.hole(object),
            32 => self.begin_owed(),
            35 => LaneItem::Keeping { keeping: self.keeping() },
            33 | 34 => LaneItem::Owed { objects: self.called() },
            30 => LaneItem::Rules { rules: self.set_rules() },
            31 => LaneItem::Within { dir: object, path: Bounded(self.random.one_of(self.outside).clone()) },
            0 => LaneItem::Begin,
            18 | 19 => {
                let key = [7; 32];
                let content =
                    if self.random.one_in(4) { BlockHash::Audit { key } } else { BlockHash::Fast { key } };
                LaneItem::CheckBegin { content: (!self.random.one_in(4)).then_some(content) }
            }
            20..=22 => self.hashes(object),
            23 => LaneItem::CheckStop,
            12 | 13 => LaneItem::NotListed { dir: object },
            14 => {
                let names = (0..self.random.below(3)).map(|_| self.xattr_name()).collect();
                LaneItem::Xattrs { object, attributes: self.attributes(), names }
            }
            15 => LaneItem::Xattr { object, name: self.xattr_name() },
            16 => LaneItem::Attributes { object, attributes: self.attributes() },
            17 => LaneItem::Leave { object },
            24 => LaneItem::NamesMatch,
            25 => LaneItem::Afresh,
            26 => {
                let hash = BlockHash::Fast { key: [7; 32] };
                LaneItem::ByBlocks { hash, least: self.random.below(3) }
            }
            27 | 28 => LaneItem::OpenBlocks { object },
            29 => {
                let (attributes, xattrs) = (self.attributes(), self.xattrs());
                LaneItem::CloseSame { object, size: number(self.random), attributes, xattrs }
            }
            1 => LaneItem::Root { object, attributes: self.attributes(), xattrs: self.xattrs() },
            2..=5 => {
                let most = if self.random.one_in(40) { LISTING_ENTRIES_MAX as u64 + 9 } else { 6 };
                let entries = (0..self.random.below(most)).map(|_| self.listed()).collect();
                LaneItem::Listing {
                    dir: object,
                    dir_mtime: self.time(),
                    entries,
                    unlisted: match self.random.below(8) {
                        0 => Some(if self.random.one_in(2) { Unlisted::TheRest } else { Unlisted::NotShown }),
                        1 => Some(Unlisted::These(vec![self.name()])),
                        _ => None,
                    },
                    first: !self.random.one_in(4),
                    last: self.random.one_in(2),
                }
            }
            6 | 7 => LaneItem::OpenContent { object },
            8 | 9 => {
                let hole = number(self.random);
                let offset = if self.random.one_in(2) { hole } else { number(self.random) };
                LaneItem::Content { object, hole, offset }
            }
            10 => {
                let (attributes, xattrs) = (self.attributes(), self.xattrs());
                let hole = number(self.random);
                let size = if self.random.one_in(2) { hole } else { number(self.random) };
                LaneItem::CloseContent { object, hole, size, attributes, xattrs }
            }
            _ => LaneItem::End,
        };
        (item, vec![b'?'; self.random.below(3000) as usize])
    }

    fn listed(&mut self) -> ListedObject {
        ListedObject {
            name: self.name(),
            object: self.id(),
            birth: self.birth(),
            attributes: self.attributes(),
            xattrs: self.xattrs(),
            large_xattrs: self.random.one_in(4),
            size: number(self.random),
            links: self.random.below(3) as u32,
            suspect: self.random.one_in(2),
        }
    }
}

/// Numbers at the edges of what can be said.
pub fn number(random: &mut Random) -> u64 {
    let edges = [0, 1, 4095, 4096, 1 << 20, 1 << 40, i64::MAX as u64 - 1, i64::MAX as u64, 1 << 63];
    match random.below(4) {
        0 => *random.one_of(&edges),
        1 => u64::MAX - random.below(3),
        _ => random.below(100_000),
    }
}
