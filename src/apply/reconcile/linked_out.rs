//! What has names outside of a directory that is restored into: a copy of it by hard links, made before.

use std::path::Path;

use super::claims::key;
use super::entry::{Found, find_handle};
use super::places::is_directory;
use super::rules::LinkedOut;
use super::table::{Kept, Table};
use super::{LINKS, Session};
use crate::apply::fault::Fault;
use crate::apply::replica::Replica;
use crate::limits::LINK_COUNTS_IN_MEMORY;
use crate::sys::FileHandle;

/// How many names each object has in the directory that has more than one anywhere, as of the first question.
#[derive(Default)]
pub(super) struct LinkCounts(Option<Table<Names>>);

/// A number of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Names(u64);

/// What is counted has one at least.
const REPLACED: Names = Names(0);

impl LinkCounts {
    /// Whether a copy has brought it, and its names go all the same.
    pub(super) fn replaces(&self, handle: &FileHandle) -> Result<bool, Fault> {
        let Some(counts) = &self.0 else { return Ok(false) };
        let names = counts.get(key(handle)).map_err(Fault::own("names of what has several"))?;
        Ok(names == Some(REPLACED))
    }

    fn replace(&mut self, handle: &FileHandle) -> Result<(), Fault> {
        let Some(counts) = &mut self.0 else { return Ok(()) };
        counts.insert(key(handle), REPLACED).map_err(Fault::own("names of what has several"))
    }

    fn inside(&mut self, replica: &Replica, handle: &FileHandle) -> Result<u64, Fault> {
        let counts = match &mut self.0 {
            Some(counts) => counts,
            none => none.insert(count(replica, &replica.state().join(LINKS))?),
        };
        let names = counts.get(key(handle)).map_err(Fault::own("names of what has several"))?;
        Ok(names.map_or(0, |Names(count)| count))
    }
}

fn count(replica: &Replica, path: &Path) -> Result<Table<Names>, Fault> {
    let mut counts = Table::start(path, LINK_COUNTS_IN_MEMORY);
    replica.names_of_the_linked(|handle| {
        let one_more = |before: Option<Names>| Names(1 + before.map_or(0, |Names(count)| count));
        let before = counts.get(key(handle));
        let counted = before.and_then(|before| counts.insert(key(handle), one_more(before)));
        counted.map_err(Fault::own("names of what has several"))
    })?;
    Ok(counts)
}

impl Kept for Names {
    fn to_handle(self) -> FileHandle {
        FileHandle::from_parts(0, &self.0.to_le_bytes()).expect("8 bytes fit into a handle")
    }

    fn from_handle(handle: &FileHandle) -> Option<Names> {
        Some(Names(u64::from_le_bytes(handle.as_bytes().try_into().ok()?)))
    }
}

impl Session {
    /// Whether an object that this copy has not shown yet must not be changed, because it has names elsewhere. Those
    /// that this copy gives or takes do not count: it gives names to what it has shown, and what it takes is elsewhere.
    // The count has other widths on other processors.
    #[allow(clippy::useless_conversion)]
    pub(super) fn is_linked_out(&mut self, replica: &Replica, found: &Found) -> Result<bool, Fault> {
        let links: u64 = found.status.st_nlink.into();
        if self.rules.linked_out == LinkedOut::Written || links <= 1 || is_directory(found) {
            return Ok(false);
        }
        Ok(links > self.links.inside(replica, &found.handle)?)
    }

    /// What a copy has brought before and may be changed: somebody may have made links to it since.
    pub(super) fn unless_linked_out(
        &mut self,
        replica: &Replica,
        bound: Option<FileHandle>,
    ) -> Result<Option<FileHandle>, Fault> {
        let Some(handle) = bound.filter(|_| self.rules.linked_out == LinkedOut::Replaced) else {
            return Ok(bound);
        };
        let Some(found) = find_handle(replica, &handle)? else { return Ok(bound) };
        if !self.is_linked_out(replica, &found)? {
            return Ok(bound);
        }
        self.links.replace(&handle)?;
        Ok(None)
    }
}
