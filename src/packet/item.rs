//! Items of the resync lane: names, attributes and content that travel beside packets and make
//! not-clean objects clean. An item is stamped "after position P", numbered, and never sent again.

use bincode::{Decode, Encode};

use super::op::{Attributes, Birth, Name, ObjectId, Timestamp, Xattr};

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
    /// Size in bytes (files; 0 for everything else).
    pub size: u64,
    /// Link count on the source.
    pub links: u32,
    /// The source cannot rule out that the content changed while size and mtime did not:
    /// the target asks for the content whatever it compares.
    pub suspect: bool,
}

/// One step of a resynchronisation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LaneItem {
    /// A resynchronisation begins. The target marks its replica bad, durably, before anything else.
    Begin,
    /// The root directory itself: its id, attributes and xattrs.
    Root { object: ObjectId, attributes: Attributes, xattrs: Vec<Xattr> },
    /// Entries of one directory. The target binds ids, creates what is missing, corrects
    /// attributes, and answers [`super::TargetMessage::Wanted`] with the files whose content it
    /// lacks. After the `last` chunk of a directory, names that were not listed are orphans.
    Listing { dir: ObjectId, dir_mtime: Timestamp, entries: Vec<ListedObject>, last: bool },
    /// Content of a wanted file comes next, from its beginning: its old content goes.
    OpenContent { object: ObjectId },
    /// Bytes of a file at an offset; what is not sent is a hole. Payload: the bytes.
    Content { object: ObjectId, offset: u64 },
    /// All content of the file was sent: size, attributes and xattrs make it clean.
    CloseContent { object: ObjectId, size: u64, attributes: Attributes, xattrs: Vec<Xattr> },
    /// Everything was sent. The target resolves what is left aside, sets pending times, makes it
    /// durable, adopts the item's position and takes the mark `bad` away.
    End,
}

impl LaneItem {
    /// Short name for status and logs.
    pub fn name(&self) -> &'static str {
        match self {
            LaneItem::Begin => "begin",
            LaneItem::Root { .. } => "root",
            LaneItem::Listing { .. } => "listing",
            LaneItem::OpenContent { .. } => "open content",
            LaneItem::Content { .. } => "content",
            LaneItem::CloseContent { .. } => "close content",
            LaneItem::End => "end",
        }
    }
}
