//! What the target says of a listing, and what a copy did.

use crate::packet::{ItemNumber, ObjectId};

/// The target's answer to one listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub listing: ItemNumber,
    /// Files of the listing whose content, and directories whose listing, the target lacks.
    pub objects: Vec<ObjectId>,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Number of the [`LaneItem::End`](crate::packet::LaneItem::End) that the target has.
    pub end: Option<ItemNumber>,
    /// Files whose content was sent.
    pub copied: u64,
    /// Objects that went away between their listing and their reading.
    pub vanished: u64,
    /// Nested mounts and subvolumes, which are not part of the copy.
    pub nested: u64,
    /// Objects that could not be read: the target was told, and stays bad.
    pub left_out: u64,
}
