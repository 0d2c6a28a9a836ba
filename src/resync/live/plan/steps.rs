//! What is to be done next, and what was.

use crate::packet::{ItemNumber, ObjectId};

/// Which directories of a listing are listed next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// All of them: the walk.
    Everywhere,
    /// Those that the target asks for: it has been told of the others. Of a listing that answers a doubt.
    WhereAsked,
}

/// A directory that is to be listed, and how it is found.
#[derive(Clone, Debug)]
pub struct Directory<D> {
    pub id: ObjectId,
    pub place: D,
    pub descend: Descend,
}

/// What is sent of an object beside its listing.
#[derive(Debug)]
pub enum Job<F> {
    /// Content, and all attributes behind it.
    Content(F),
    /// As content; the target has other content, whose blocks are compared.
    Blocks(F),
    Xattrs(F),
}

/// What comes next.
#[derive(Debug)]
pub enum Step<D, F> {
    Copy(Job<F>),
    /// The next chunk of the open listing.
    List,
    /// This directory's listing is opened.
    Enter(Directory<D>),
    /// The target doubts this directory: whether it is in the set.
    Find(ObjectId),
    End,
    /// Nothing, before the target answers.
    Wait,
    /// The target has said that the copy is complete.
    Over(ItemNumber),
}

/// One chunk that was sent.
pub struct Sent<D, F> {
    pub number: ItemNumber,
    /// With its share of the size of a file.
    pub files: Vec<(ObjectId, u64, F)>,
    /// What has attributes that are sent in items of their own.
    pub large: Vec<(ObjectId, F)>,
    pub directories: Vec<(ObjectId, D)>,
    pub is_last: bool,
}

/// What an answer to a listing says of its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub compared: u64,
    pub identical: u64,
    pub bytes_identical: u64,
}
