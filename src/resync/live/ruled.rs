//! What the rules of a set leave of a listing.

use std::os::fd::BorrowedFd;

use super::super::place::TreePath;
use super::super::seeing::Eyes;
use crate::packet::{Birth, Bounded, LaneItem, ListedObject, Name, ObjectId};
use crate::sets::{DirRules, Matcher};

/// What the rules say of a directory.
pub(super) enum Ruled<'a> {
    /// There are none.
    No,
    /// It is not in the set.
    Out,
    In {
        matcher: &'a Matcher,
        rules: DirRules,
        path: Vec<u8>,
    },
}

impl<'a> Ruled<'a> {
    /// Of a directory where it is now. `walked`: where the walk came to it, for one that is too deep to be
    /// asked.
    pub(super) fn of(
        matcher: Option<&'a Matcher>,
        eyes: &Eyes,
        dir: BorrowedFd<'_>,
        walked: &TreePath,
    ) -> Ruled<'a> {
        let Some(matcher) = matcher else { return Ruled::No };
        let path = eyes.path_of(dir).unwrap_or_else(|| walked.to_bytes());
        match matcher.directory(&path) {
            Some(rules) => Ruled::In { matcher, rules, path },
            None => Ruled::Out,
        }
    }

    pub(super) fn has(&self, name: &Name, is_directory: bool) -> bool {
        match self {
            Ruled::No => true,
            Ruled::Out => false,
            Ruled::In { matcher, rules, .. } => matcher.has(rules, name.as_bytes(), is_directory),
        }
    }

    pub(super) fn has_listed(&self, listed: &ListedObject) -> bool {
        self.has(&listed.name, listed.birth == Birth::Directory)
    }

    /// Whatever it is.
    pub(super) fn may_have(&self, name: &Name) -> bool {
        self.has(name, false) || self.has(name, true)
    }

    /// What the target has to know of a directory whose last chunk comes.
    pub(super) fn within(self, dir: ObjectId) -> Option<LaneItem> {
        match self {
            Ruled::In { path, .. } => Some(LaneItem::Within { dir, path: Bounded(path) }),
            Ruled::No | Ruled::Out => None,
        }
    }
}
