//! Owners by name: whoever sends tells the name of each number before the first frame that has it; whoever
//! receives puts the number of that name, as it is here, into the frames.
//!
//! ```text
//!  frame with 1001 ── Telling ──> names {1001: ada} frame ── Translating ──> frame with 2001
//!                       │                                        │
//!                  /etc/passwd: ada 1001                    /etc/passwd: ada 2001
//! ```
//! What has no name goes by number, and so does a name that is not known on the other side; root is root, and
//! nobody else becomes it. Each connection begins anew: a number keeps what it was first taken for until then.

use std::collections::{HashMap, HashSet};

use super::accounts::{Accounts, Table};
use crate::limits::{OWNER_NAMES_AT_ONCE, OWNER_NAMES_MAX};
use crate::packet::{Bounded, CodecError, EncodedFrame, Frame, OwnerName, OwnerNames, Owners, names_frame};

/// Of one session, at the end that sends.
pub(super) struct Telling {
    accounts: Accounts,
    users: HashSet<u32>,
    groups: HashSet<u32>,
    most: usize,
}

/// What is to be told of one frame.
struct Finds<'a> {
    telling: &'a mut Telling,
    users: Vec<(u32, OwnerName)>,
    groups: Vec<(u32, OwnerName)>,
}

impl Telling {
    pub(super) fn of_host() -> Telling {
        Telling::of(Accounts::of_host(), OWNER_NAMES_MAX)
    }

    fn of(accounts: Accounts, most: usize) -> Telling {
        Telling { accounts, users: HashSet::new(), groups: HashSet::new(), most }
    }

    /// What goes before this frame.
    pub(super) fn before(&mut self, frame: &EncodedFrame) -> Vec<EncodedFrame> {
        let mut decoded = frame.clone().decode().expect("our own frame is one");
        let mut finds = Finds { telling: self, users: Vec::new(), groups: Vec::new() };
        decoded.renumber(&mut finds);
        let Finds { users, groups, .. } = finds;
        let users = users.chunks(OWNER_NAMES_AT_ONCE);
        let users = users.map(|users| OwnerNames { users: users.to_vec(), groups: Vec::new() });
        let groups = groups.chunks(OWNER_NAMES_AT_ONCE);
        let groups = groups.map(|groups| OwnerNames { users: Vec::new(), groups: groups.to_vec() });
        users.chain(groups).map(|names| names_frame(&names)).collect()
    }
}

impl Owners for Finds<'_> {
    fn user(&mut self, id: u32) -> u32 {
        let Telling { accounts, users, most, .. } = self.telling;
        self.users.extend(find(id, &mut accounts.users, users, *most));
        id
    }

    fn group(&mut self, id: u32) -> u32 {
        let Telling { accounts, groups, most, .. } = self.telling;
        self.groups.extend(find(id, &mut accounts.groups, groups, *most));
        id
    }
}

/// Its name, where it has one that was not told.
fn find(id: u32, accounts: &mut Table, told: &mut HashSet<u32>, most: usize) -> Option<(u32, OwnerName)> {
    if id == 0 || told.contains(&id) || told.len() >= most {
        return None;
    }
    // Who has none may get one: nothing is remembered of it.
    let name = Bounded(accounts.name(id)?.to_vec());
    told.insert(id);
    if told.len() == most {
        log::warn!("{most} owners were told by name; all others go by number");
    }
    Some((id, name))
}

/// Of one session, at the end that receives.
pub(super) struct Translating {
    accounts: Accounts,
    users: Numbers,
    groups: Numbers,
    most: usize,
}

impl Translating {
    pub(super) fn of_host() -> Translating {
        Translating::of(Accounts::of_host(), OWNER_NAMES_MAX)
    }

    fn of(accounts: Accounts, most: usize) -> Translating {
        Translating { accounts, users: Numbers::default(), groups: Numbers::default(), most }
    }

    /// Of the frames that come behind it.
    ///
    /// Errors: more names than one connection has.
    pub(super) fn learn(&mut self, names: &OwnerNames) -> Result<(), CodecError> {
        self.users.learn("user", &names.users, &mut self.accounts.users, self.most)?;
        self.groups.learn("group", &names.groups, &mut self.accounts.groups, self.most)
    }

    pub(super) fn translate(&mut self, frame: &mut Frame) {
        if !(self.users.0.is_empty() && self.groups.0.is_empty()) {
            frame.renumber(self);
        }
    }
}

impl Owners for Translating {
    fn user(&mut self, id: u32) -> u32 {
        self.users.here(id)
    }

    fn group(&mut self, id: u32) -> u32 {
        self.groups.here(id)
    }
}

/// What numbers of the other side are here.
#[derive(Default)]
struct Numbers(HashMap<u32, u32>);

impl Numbers {
    fn learn(
        &mut self,
        what: &str,
        names: &[(u32, OwnerName)],
        accounts: &mut Table,
        most: usize,
    ) -> Result<(), CodecError> {
        for (id, name) in names {
            let own = accounts.number(&name.0);
            if own.is_none() {
                log::info!(
                    "there is no {what} {name:?} here: what belongs to it has number {id}, as on the source"
                );
            }
            // Root is root on every host, and nobody else is.
            let own = own.filter(|own| *own != 0 && *id != 0).unwrap_or(*id);
            self.0.entry(*id).or_insert(own);
            if self.0.len() > most {
                return Err(CodecError::TooLong { what: "names of owners", len: self.0.len(), max: most });
            }
        }
        Ok(())
    }

    fn here(&self, id: u32) -> u32 {
        self.0.get(&id).copied().unwrap_or(id)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use bytes::Bytes;

    use super::*;
    use crate::packet::{
        Attributes, FrameHeader, ItemHeader, ItemNumber, LaneItem, ObjectId, PREFIX_LEN, Position, Prefix,
        Timestamp, item_frame,
    };

    fn accounts(dir: &Path, users: &str, groups: &str) -> Accounts {
        let table = |name: &str, lines: &str| {
            let path = dir.join(name);
            let text: String = lines.split_whitespace().map(|line| format!("{line}:\n")).collect();
            fs::write(&path, text).unwrap();
            Table::of(path)
        };
        fs::create_dir_all(dir).unwrap();
        Accounts { users: table("passwd", users), groups: table("group", groups) }
    }

    fn owned(uid: u32, gid: u32) -> EncodedFrame {
        let attributes = Attributes { mode: 0o644, uid, gid, mtime: Timestamp::default() };
        let item = LaneItem::Attributes { object: ObjectId::default(), attributes };
        item_frame(&Position::default(), &ItemHeader { number: ItemNumber(1), item }, Bytes::new())
    }

    fn names(frame: &EncodedFrame) -> OwnerNames {
        let prefix: &[u8; PREFIX_LEN] = frame.head.first_chunk().unwrap();
        assert!(Prefix::decode(prefix).is_err(), "names are kept nowhere");
        Prefix::from_wire(prefix).unwrap().names(prefix, &frame.head[PREFIX_LEN..]).unwrap()
    }

    /// What comes of an owner on the way.
    fn on_the_way(telling: &mut Telling, translating: &mut Translating, uid: u32, gid: u32) -> (u32, u32) {
        let frame = owned(uid, gid);
        for before in telling.before(&frame) {
            translating.learn(&names(&before)).unwrap();
        }
        let mut frame = frame.decode().unwrap();
        translating.translate(&mut frame);
        match frame.header {
            FrameHeader::Item(ItemHeader { item: LaneItem::Attributes { attributes, .. }, .. }) => {
                (attributes.uid, attributes.gid)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_travel_and_numbers_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let here = accounts(
            &dir.path().join("a"),
            "root:x:0 ada:x:1001 bob:x:1002 toor:x:1003",
            "root:x:0 web:x:33",
        );
        let there =
            accounts(&dir.path().join("b"), "root:x:0 bob:x:1001 ada:x:2001 toor:x:0", "root:x:0 web:x:80");
        let (mut telling, mut translating) = (Telling::of(here, 100), Translating::of(there, 100));
        for ((uid, gid), expected) in [
            ((1001, 33), (2001, 80)),
            ((1002, 1001), (1001, 1001)),
            // No name here; no name there; root.
            ((77, 78), (77, 78)),
            ((1003, 0), (1003, 0)),
            ((0, 33), (0, 80)),
        ] {
            let got = on_the_way(&mut telling, &mut translating, uid, gid);
            assert_eq!(got, expected, "{uid}:{gid}");
        }
        assert!(telling.before(&owned(1001, 33)).is_empty(), "what was told is told again");
        // A user that is made while the connection is there.
        let mut text = fs::read_to_string(dir.path().join("a/passwd")).unwrap();
        text.push_str("new:x:77:\n");
        fs::write(dir.path().join("a/passwd"), text).unwrap();
        assert_eq!(names(&telling.before(&owned(77, 0))[0]).users, [(77, Bounded(b"new".to_vec()))]);
    }

    /// A source cannot make anybody root, nor move root's files.
    #[test]
    fn nobody_becomes_root_and_root_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut translating = Translating::of(accounts(dir.path(), "root:x:0 ada:x:7", ""), 10);
        let users = vec![(0, Bounded(b"ada".to_vec())), (5, Bounded(b"root".to_vec()))];
        translating.learn(&OwnerNames { users, groups: Vec::new() }).unwrap();
        assert_eq!([translating.user(0), translating.user(5)], [0, 5]);
    }

    #[test]
    fn there_is_a_bound_on_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        let users = "a:x:1 b:x:2 c:x:3 d:x:4";
        let mut telling = Telling::of(accounts(dir.path(), users, ""), 3);
        let told: usize = (1..=4).map(|uid| telling.before(&owned(uid, 0)).len()).sum();
        assert_eq!(told, 3);
        let mut translating = Translating::of(accounts(dir.path(), users, ""), 3);
        let name = |id: u32| OwnerNames { users: vec![(id, Bounded(b"a".to_vec()))], groups: Vec::new() };
        assert!((1..=3).chain(1..=3).all(|id| translating.learn(&name(id)).is_ok()));
        assert!(matches!(translating.learn(&name(4)), Err(CodecError::TooLong { .. })));
    }
}
