//! Items of the resync lane: names, attributes and content that travel beside packets and make
//! not-clean objects clean. An item is stamped "after position P", numbered, and never sent again.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::bounded::{Bounded, Name};
use super::check::BlockHash;
use super::codec::PathHint;
use super::message::Text;
use super::op::{Attributes, Birth, Keeping, ObjectId, Timestamp, Xattr, XattrName};
use crate::limits::{LEFT_OUT_NAMED_MAX, SET_PATTERN_LEN_MAX};

/// Number of a lane item within one connection session, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ItemNumber(pub u64);

/// One entry of a directory as the source has it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListedObject {
    pub name: Name,
    pub object: ObjectId,
    pub birth: Birth,
    pub attributes: Attributes,
    /// All extended attributes that are replicated, sorted by name.
    pub xattrs: Vec<Xattr>,
    /// There are more of them than a listing takes: none is in it, and they come in items of their
    /// own ([`LaneItem::Xattrs`]). Until then nobody gets a right to the object.
    pub large_xattrs: bool,
    /// Size in bytes (files; 0 for everything else).
    pub size: u64,
    /// Link count on the source.
    pub links: u32,
    /// The source cannot rule out that the content changed while size and mtime did not:
    /// the target asks for the content whatever it compares.
    pub suspect: bool,
}

/// Which names of a directory could not be listed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Unlisted {
    These(Vec<Name>),
    /// All that its chunks do not name: the listing was cut off.
    TheRest,
    /// All that its chunks do not name: nothing is said of it here, and the listing answers no doubt.
    NotShown,
}

/// What a copy left out: how many objects, and the first of them, each with its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LeftOut {
    pub count: u64,
    /// At most [`LEFT_OUT_NAMED_MAX`].
    pub named: Vec<Text>,
}

impl LeftOut {
    /// Counts one more object.
    pub fn add(&mut self, line: &str) {
        self.merge(LeftOut { count: 1, named: vec![Text::from_str_cut(line)] });
    }

    /// Counts those of another one.
    pub fn merge(&mut self, other: LeftOut) {
        self.count = self.count.saturating_add(other.count);
        let room = LEFT_OUT_NAMED_MAX.saturating_sub(self.named.len());
        self.named.extend(other.named.into_iter().take(room));
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The lines, for people.
    pub fn lines(&self) -> Vec<String> {
        self.named.iter().map(Text::to_text).collect()
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let objects = if self.count == 1 { "object was" } else { "objects were" };
        let more = if self.count > self.named.len() as u64 { "; ..." } else { "" };
        format!("{} {objects} left out of the last copy: {}{more}", self.count, self.lines().join("; "))
    }
}

/// What becomes of what a replica has and its source has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OrphanRule {
    Aside,
    /// It stays, and gives way to whatever needs its name.
    Keep,
    /// Where that is no more than so many percent of all; else it is moved aside.
    Delete {
        percent_max: Option<u8>,
    },
}

/// What became of it, in names; a directory with all in it counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct OrphanCounts {
    /// Moved aside.
    pub moved: u64,
    /// Left where it was.
    pub kept: u64,
    pub deleted: u64,
    /// Of those that were moved: too many to be deleted without a person.
    pub spared: u64,
}

/// One step of a resynchronisation. A new kind goes at the end, and raises the version of the wire or goes only to who
/// offers it ([`super::Features`]).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LaneItem {
    /// A resynchronisation begins. The target marks its replica bad, durably, before anything else.
    Begin,
    /// The root directory itself: its id, attributes and xattrs.
    Root { object: ObjectId, attributes: Attributes, xattrs: Vec<Xattr> },
    /// Entries of one directory. The target binds ids, creates what is missing, corrects
    /// attributes, and answers [`super::TargetMessage::Wanted`] with the files whose content, and the
    /// directories whose listing, it lacks. After the `last` chunk of a directory, names that were
    /// neither listed nor set by packets since the `first` one are orphans. A first chunk begins the
    /// listing anew, also in the middle of another of the same directory.
    Listing {
        dir: ObjectId,
        dir_mtime: Timestamp,
        entries: Vec<ListedObject>,
        /// Names whose objects cannot be read on the source: what they hold on the target stays as it is.
        unlisted: Option<Unlisted>,
        first: bool,
        last: bool,
    },
    /// Content of a wanted file comes next, from its beginning: its old content goes.
    OpenContent { object: ObjectId },
    /// Bytes of a file at an offset, behind a hole of so many bytes. Bytes and holes follow each
    /// other without a gap. Payload: the bytes, at least one.
    Content { object: ObjectId, hole: u64, offset: u64 },
    /// All content of the file was sent; a hole of so many bytes ends it. Bytes and holes add up to
    /// the size, or to more where the file was cut while it was read; else it is refused. Attributes
    /// and xattrs make it clean.
    CloseContent { object: ObjectId, hole: u64, size: u64, attributes: Attributes, xattrs: Vec<Xattr> },
    /// An object has exactly the attributes of these names, sorted; their values follow. It is its
    /// owner's alone until its [`LaneItem::Attributes`] come.
    Xattrs { object: ObjectId, attributes: Attributes, names: Vec<XattrName> },
    /// Payload: the value.
    Xattr { object: ObjectId, name: XattrName },
    /// All extended attributes have come: the object gets its mode and mtime.
    Attributes { object: ObjectId, attributes: Attributes },
    /// A file that was asked for cannot be read on the source: what the target has stays as it is,
    /// as far as nothing of it was sent.
    Leave { object: ObjectId },
    /// What the source has left out of this copy.
    LeftOut { left_out: LeftOut },
    /// Everything was sent. The target resolves what is left aside, sets pending times, makes it
    /// durable, adopts the item's position and takes the mark `bad` away. Where it has doubts, it has
    /// said so ([`super::TargetMessage::Doubt`]), and another end comes behind what answers them.
    End,
    /// The answer to a doubt, or the end of a listing, of a directory that is not in the set any more:
    /// the packets before it have told where it went.
    NotListed { dir: ObjectId },
    /// Right after [`LaneItem::Begin`], at most once: nothing that the replica has counts as copied.
    Afresh,
    /// The replica, which is good and stays so, is compared with what comes, up to [`LaneItem::End`], and
    /// not changed: the root, listings, extended attributes, and where `content` is given, hashes. A
    /// listing is answered with the files whose hashes, and the directories whose listing, the target
    /// needs; an end with [`super::TargetMessage::Checked`].
    CheckBegin { content: Option<BlockHash> },
    /// Hashes of a file's blocks of [`crate::limits::HASH_BLOCK`] bytes from an offset on, a multiple of
    /// that; the last block of a file ends with it. At most [`crate::limits::HASHES_MAX`]. The file has
    /// this size: in a copy the target's gets it with the first ones. Answered with [`super::TargetMessage::Hashed`].
    Hashes { object: ObjectId, offset: u64, size: u64, hashes: Vec<u128> },
    /// The comparison ends here, without a result. Answered with [`super::TargetMessage::CheckStopped`],
    /// also where none has begun.
    CheckStop,
    /// The directory was restored from this replica, and nobody has sent to it since: what has the same
    /// name, size and mtime is the same, unless it is suspect. Right behind the root directory.
    NamesMatch,
    /// What becomes of names that the source does not list, where it is not that all are moved aside. What
    /// was modified within `age_ms` stays. Right behind the root directory; the end is then answered with
    /// [`super::TargetMessage::Orphans`], too.
    OrphanRules { rule: OrphanRule, age_ms: u64 },
    /// Of wanted files that are at least so many bytes long on both sides, and of those that have the same
    /// size and mtime, blocks are compared first: the target names them
    /// ([`super::TargetMessage::HasOld`]), and gets [`LaneItem::Hashes`], and of blocks that differ the
    /// bytes. Right behind the root directory.
    ByBlocks { hash: BlockHash, least: u64 },
    /// Content of blocks that differ comes next, at any offsets, and perhaps the end of it: what else the
    /// file holds was compared. Holes may come without bytes behind them.
    OpenBlocks { object: ObjectId },
    /// Right behind the last hashes of a file, as [`LaneItem::CloseContent`]: the content is complete if
    /// no hash of it differed. Else what differs comes, and another end.
    CloseSame { object: ObjectId, size: u64, attributes: Attributes, xattrs: Vec<Xattr> },
    /// The set has rules. Right behind the root directory, of a copy or of a comparison: names that they leave
    /// out are neither listed nor orphans.
    Rules { rules: Vec<SetRule> },
    /// Right before the last chunk of a listing, where the set has rules: the path of the directory on the
    /// source, from the root on.
    Within { dir: ObjectId, path: PathHint },
    /// As [`LaneItem::Begin`], of a copy of what is owed: all else that the replica has counts as shown, and
    /// its directories as listed. Only to a replica that is good, or bad by what such a copy owes
    /// ([`super::BadBy::Owed`]). What the index knows and a listing does not name any more was deleted
    /// meanwhile, and is deleted, where that is no more than so many percent of all; else, and where these are 0, it
    /// is moved aside.
    ///
    /// `compares`: somebody may have changed the replica, which is good until then. What listings show is looked
    /// at as in a copy of everything, and what they do not name is an orphan; the replica is bad by more than the
    /// source would know to owe.
    BeginOwed { percent_max: Option<u8>, compares: bool },
    /// Content of these files is owed. At most [`crate::limits::OWED_CALLED_MAX`]; answered as a listing with
    /// those that the target has: of these comes, in whatever order, what differs ([`LaneItem::OpenBlocks`]).
    /// Where they are called right behind the root directory, no packet comes to them before.
    Owed { objects: Vec<ObjectId> },
    /// Right behind the root directory: what was removed on the source is kept by its targets. In a comparison
    /// what is kept in its place is no extra name.
    Keeping { keeping: Keeping },
    /// In the place of [`LaneItem::Hashes`]: so many bytes of a file of this size are a hole, from a multiple of
    /// [`crate::limits::HASH_BLOCK`] to another one or to its end. Only to a target that offers
    /// [`super::Features::HOLES`]. In a copy it is made one. In a comparison the target looks at what it has there,
    /// as far as that goes at once, and [`super::TargetMessage::Hashed`] says up to where instead of what differs:
    /// hashes follow of the rest.
    Hole { object: ObjectId, offset: u64, end: u64, size: u64 },
}

/// A rule of a replication set; the room `sets` says what it means.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetRule {
    pub includes: bool,
    pub is_recursive: bool,
    pub pattern: Bounded<SET_PATTERN_LEN_MAX>,
}

impl LaneItem {
    /// A copy begins with it.
    pub fn begins_a_copy(&self) -> bool {
        matches!(self, LaneItem::Begin | LaneItem::BeginOwed { .. })
    }

    /// Short name for status and logs.
    pub fn name(&self) -> &'static str {
        match self {
            LaneItem::Begin => "begin",
            LaneItem::Root { .. } => "root",
            LaneItem::Listing { .. } => "listing",
            LaneItem::OpenContent { .. } => "open content",
            LaneItem::Content { .. } => "content",
            LaneItem::CloseContent { .. } => "close content",
            LaneItem::Xattrs { .. } => "extended attributes",
            LaneItem::Xattr { .. } => "an extended attribute",
            LaneItem::Attributes { .. } => "attributes",
            LaneItem::Leave { .. } => "leave content",
            LaneItem::LeftOut { .. } => "left out",
            LaneItem::End => "end",
            LaneItem::NotListed { .. } => "no listing",
            LaneItem::Afresh => "afresh",
            LaneItem::CheckBegin { .. } => "begin of a comparison",
            LaneItem::Hashes { .. } => "hashes",
            LaneItem::CheckStop => "stop of a comparison",
            LaneItem::NamesMatch => "names match",
            LaneItem::OrphanRules { .. } => "rules for orphans",
            LaneItem::ByBlocks { .. } => "by blocks",
            LaneItem::OpenBlocks { .. } => "open blocks",
            LaneItem::CloseSame { .. } => "close what is the same",
            LaneItem::Rules { .. } => "rules",
            LaneItem::Within { .. } => "path of a directory",
            LaneItem::BeginOwed { .. } => "begin of what is owed",
            LaneItem::Owed { .. } => "files that are owed",
            LaneItem::Keeping { .. } => "what is kept",
            LaneItem::Hole { .. } => "a hole",
        }
    }
}
