//! Names of owners, which travel before the first frame that has their numbers, and where numbers stand in frames.
//!
//! A frame of kind 4 has them. It has no position, is no part of the history, and is never on a disk: whoever receives
//! it puts other numbers into the frames that come behind it. It goes only to a peer that offers
//! [`Features::OWNER_NAMES`](super::Features::OWNER_NAMES).

use bincode::{Decode, Encode};
use bytes::Bytes;

use super::bounded::Bounded;
use super::codec::{Frame, FrameHeader};
use super::item::LaneItem;
use super::op::{Attributes, Op, Owner, Xattr};
use crate::limits::OWNER_NAME_LEN_MAX;

/// Name of a user or a group, as `/etc/passwd` and `/etc/group` have it.
pub type OwnerName = Bounded<OWNER_NAME_LEN_MAX>;

/// Header of a frame of names; it has no payload. At most [`crate::limits::OWNER_NAMES_AT_ONCE`] of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct OwnerNames {
    pub users: Vec<(u32, OwnerName)>,
    pub groups: Vec<(u32, OwnerName)>,
}

/// Other numbers for users and groups, or the same.
pub trait Owners {
    fn user(&mut self, id: u32) -> u32;
    fn group(&mut self, id: u32) -> u32;
}

const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// An ACL as the kernel has it: a version, then entries of a tag, rights and a number.
const ACL_HEADER: usize = 4;
const ACL_ENTRY: usize = 8;
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

impl Frame {
    /// Gives every number of an owner in it, and puts what comes back in its place.
    pub fn renumber(&mut self, owners: &mut impl Owners) {
        let has_acl = match &mut self.header {
            FrameHeader::Packet(packet) => renumber_op(&mut packet.op, owners),
            FrameHeader::Item(item) => renumber_item(&mut item.item, owners),
            FrameHeader::Skip(_) => false,
        };
        if has_acl {
            let mut value = self.payload.to_vec();
            renumber_acl(&mut value, owners);
            if value != *self.payload {
                self.set_payload(Bytes::from(value));
            }
        }
    }
}

/// Whether the payload is an ACL.
fn renumber_op(op: &mut Op, owners: &mut impl Owners) -> bool {
    match op {
        Op::Create { attributes, xattrs, .. } | Op::Stage { attributes, xattrs, .. } => {
            renumber_all(attributes, xattrs, owners);
        }
        Op::Rename { whiteout: Some(whiteout), .. } => renumber_attributes(&mut whiteout.attributes, owners),
        Op::SetAttributes { owner: Some(owner), .. } => {
            let Owner { uid, gid } = *owner;
            *owner = Owner { uid: owners.user(uid), gid: owners.group(gid) };
        }
        Op::SetXattr { name, .. } => return ACLS.contains(&&*name.0),
        Op::Link { .. }
        | Op::Unlink { .. }
        | Op::RemoveDirectory { .. }
        | Op::Rename { whiteout: None, .. }
        | Op::Exchange { .. }
        | Op::Write { .. }
        | Op::Resize { .. }
        | Op::Reserve { .. }
        | Op::SetAttributes { owner: None, .. }
        | Op::RemoveXattr { .. }
        | Op::Barrier { .. }
        | Op::Place { .. }
        | Op::Leave { .. }
        | Op::Unstage { .. }
        | Op::Keep { .. } => {}
    }
    false
}

/// Whether the payload is an ACL.
fn renumber_item(item: &mut LaneItem, owners: &mut impl Owners) -> bool {
    match item {
        LaneItem::Root { attributes, xattrs, .. }
        | LaneItem::CloseContent { attributes, xattrs, .. }
        | LaneItem::CloseSame { attributes, xattrs, .. } => renumber_all(attributes, xattrs, owners),
        LaneItem::Listing { entries, .. } => {
            entries
                .iter_mut()
                .for_each(|entry| renumber_all(&mut entry.attributes, &mut entry.xattrs, owners));
        }
        LaneItem::Xattrs { attributes, .. } | LaneItem::Attributes { attributes, .. } => {
            renumber_attributes(attributes, owners);
        }
        LaneItem::Xattr { name, .. } => return ACLS.contains(&&*name.0),
        LaneItem::Begin
        | LaneItem::OpenContent { .. }
        | LaneItem::Content { .. }
        | LaneItem::Leave { .. }
        | LaneItem::LeftOut { .. }
        | LaneItem::End
        | LaneItem::NotListed { .. }
        | LaneItem::Afresh
        | LaneItem::CheckBegin { .. }
        | LaneItem::Hashes { .. }
        | LaneItem::CheckStop
        | LaneItem::NamesMatch
        | LaneItem::OrphanRules { .. }
        | LaneItem::ByBlocks { .. }
        | LaneItem::OpenBlocks { .. }
        | LaneItem::Rules { .. }
        | LaneItem::Within { .. }
        | LaneItem::BeginOwed { .. }
        | LaneItem::Owed { .. }
        | LaneItem::Keeping { .. }
        | LaneItem::Hole { .. } => {}
    }
    false
}

fn renumber_all(attributes: &mut Attributes, xattrs: &mut [Xattr], owners: &mut impl Owners) {
    renumber_attributes(attributes, owners);
    let acls = xattrs.iter_mut().filter(|xattr| ACLS.contains(&&*xattr.name.0));
    acls.for_each(|acl| renumber_acl(&mut acl.value.0, owners));
}

fn renumber_attributes(attributes: &mut Attributes, owners: &mut impl Owners) {
    (attributes.uid, attributes.gid) = (owners.user(attributes.uid), owners.group(attributes.gid));
}

/// What is no ACL stays as it is: the kernel refuses it.
fn renumber_acl(value: &mut Vec<u8>, owners: &mut impl Owners) {
    let Some(entries) = value.get_mut(ACL_HEADER..) else { return };
    for entry in entries.chunks_exact_mut(ACL_ENTRY) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let new = match tag {
            ACL_USER => owners.user(id),
            ACL_GROUP => owners.group(id),
            _ => continue,
        };
        entry[4..].copy_from_slice(&new.to_le_bytes());
    }
    merge_alike(value);
}

/// Two that have become one by their numbers: tools refuse an ACL with two entries for one. It grants what the kernel would
/// have granted by both: of a user the first one counts, of groups each.
fn merge_alike(value: &mut Vec<u8>) {
    let mut merged = value[..ACL_HEADER].to_vec();
    for entry in value[ACL_HEADER..].chunks(ACL_ENTRY) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let is_named = entry.len() == ACL_ENTRY && matches!(tag, ACL_USER | ACL_GROUP);
        let same = |other: &&mut [u8]| is_named && other[..2] == entry[..2] && other[4..] == entry[4..];
        match merged[ACL_HEADER..].chunks_exact_mut(ACL_ENTRY).find(same) {
            Some(first) if tag == ACL_GROUP => (2..4).for_each(|at| first[at] |= entry[at]),
            Some(_) => {}
            None => merged.extend_from_slice(entry),
        }
    }
    *value = merged;
}

#[cfg(test)]
mod tests {
    use super::super::{samples, *};
    use super::*;

    /// Adds to each number, and counts them.
    #[derive(Default)]
    struct Adds {
        users: Vec<u32>,
        groups: Vec<u32>,
    }

    impl Owners for Adds {
        fn user(&mut self, id: u32) -> u32 {
            self.users.push(id);
            id + 100
        }

        fn group(&mut self, id: u32) -> u32 {
            self.groups.push(id);
            id + 200
        }
    }

    fn acl(user: u32, group: u32) -> Vec<u8> {
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
        let none = u32::MAX;
        let entries = [entry(1, none), entry(ACL_USER, user), entry(4, none), entry(ACL_GROUP, group)];
        [&2u32.to_le_bytes()[..], &entries.concat(), &entry(0x10, none), &entry(0x20, none)].concat()
    }

    fn frame(header: FrameHeader, payload: Vec<u8>) -> Frame {
        Frame::new(samples::position(), HeaderDigest(0), header, Bytes::from(payload))
    }

    fn packet(op: Op) -> FrameHeader {
        FrameHeader::Packet(PacketHeader { path: Bounded(Vec::new()), op, to_whom: ToWhom::AllOf })
    }

    fn item(item: LaneItem) -> FrameHeader {
        FrameHeader::Item(ItemHeader { number: ItemNumber(1), item })
    }

    /// Of every kind that has any: a new one that is left out is seen by its text.
    #[test]
    fn every_number_of_every_kind_is_given() {
        let ops = samples::ops().into_iter().map(packet);
        let mut found = 0;
        for header in ops.chain(samples::items().into_iter().map(item)) {
            let text = format!("{header:?}");
            let mut adds = Adds::default();
            frame(header, Vec::new()).renumber(&mut adds);
            assert_eq!(adds.users.len(), text.matches("uid: ").count(), "{text}");
            assert_eq!(adds.groups.len(), text.matches("gid: ").count(), "{text}");
            found += adds.users.len();
        }
        assert!(found > 8, "{found}");
    }

    #[test]
    fn acls_get_other_numbers_wherever_they_stand() {
        let name = Bounded(ACLS[1].to_vec());
        let xattrs = vec![
            Xattr { name: Bounded(b"user.x".to_vec()), value: Bounded(acl(1, 2)) },
            Xattr { name: name.clone(), value: Bounded(acl(1, 2)) },
        ];
        let root = LaneItem::Root { object: samples::object(1), attributes: samples::attributes(), xattrs };
        let mut frame_of_root = frame(item(root), Vec::new());
        frame_of_root.renumber(&mut Adds::default());
        let FrameHeader::Item(ItemHeader { item: LaneItem::Root { xattrs, attributes, .. }, .. }) =
            frame_of_root.header
        else {
            panic!("another item")
        };
        assert_eq!((attributes.uid, attributes.gid), (101, 202));
        assert_eq!([&xattrs[0].value.0, &xattrs[1].value.0], [&acl(1, 2), &acl(101, 202)]);
        // As a payload, whose hash is that of what it is now.
        for header in [
            packet(Op::SetXattr { object: samples::object(1), name: name.clone(), mode: None }),
            item(LaneItem::Xattr { object: samples::object(1), name }),
        ] {
            let mut with_payload = frame(header, acl(1, 2));
            with_payload.renumber(&mut Adds::default());
            assert_eq!(*with_payload.payload, *acl(101, 202));
            let again = frame(with_payload.header, with_payload.payload.to_vec());
            assert_eq!(again.payload_hash, with_payload.payload_hash);
        }
    }

    /// Everybody becomes one.
    struct Same;

    impl Owners for Same {
        fn user(&mut self, _: u32) -> u32 {
            9
        }

        fn group(&mut self, _: u32) -> u32 {
            9
        }
    }

    #[test]
    fn who_becomes_one_has_one_entry() {
        let entry = |tag: u16, rights: u16, id: u32| {
            [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let acl = |entries: &[Vec<u8>]| [&2u32.to_le_bytes()[..], &entries.concat()].concat();
        let (own, none) = (entry(1, 7, u32::MAX), u32::MAX);
        let mut value = acl(&[
            own.clone(),
            entry(ACL_USER, 4, 1),
            entry(ACL_USER, 6, 2),
            entry(4, 5, none),
            entry(ACL_GROUP, 4, 1),
            entry(ACL_GROUP, 1, 2),
            entry(0x10, 7, none),
        ]);
        renumber_acl(&mut value, &mut Same);
        let expected = acl(&[
            own,
            entry(ACL_USER, 4, 9),
            entry(4, 5, none),
            entry(ACL_GROUP, 5, 9),
            entry(0x10, 7, none),
        ]);
        assert_eq!(value, expected);
    }

    #[test]
    fn what_is_no_acl_stays_as_it_is() {
        for value in [vec![], vec![1, 2], vec![2, 0, 0, 0, 2, 0, 7, 0, 1]] {
            let mut other = value.clone();
            renumber_acl(&mut other, &mut Adds::default());
            assert_eq!(other, value);
        }
    }
}
