//! Names that the rules of the set leave out: no listing shows them, and they are no orphans.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::path::Path;

use rustix::fs::{AtFlags, FileType};

use crate::apply::fault::Fault;
use crate::apply::replica::{RULES, Replica};
use crate::limits::{MOVED_DIRECTORIES_MAX, MOVED_PATHS_MAX};
use crate::packet::{LaneItem, Name, ObjectId, SetRule};
use crate::sets::{DirRules, Matcher, Rules};
use crate::store;

/// By which rules the last copy has brought a replica into line; `None`: everything was copied.
///
/// Errors: what was noted cannot be read: nobody knows what is missing on purpose.
pub fn rules_kept(state: &Path) -> std::io::Result<Option<Matcher>> {
    let Some(rules) = store::read_json::<Rules>(&state.join(RULES))? else { return Ok(None) };
    let matcher = Matcher::new(&rules);
    matcher.map(Some).map_err(|bad| std::io::Error::new(std::io::ErrorKind::InvalidData, bad.to_string()))
}

#[derive(Default)]
pub(super) struct Ruled {
    matcher: Option<Matcher>,
    /// What the rules say of the directory whose last chunk comes.
    within: Option<(ObjectId, DirRules)>,
    /// Directories that came from elsewhere in this copy, and those in them.
    moved: Moved,
}

/// What the rules leave out where a directory is now has come with it, and goes; what they left out where it was, too,
/// stays.
#[derive(Default)]
struct Moved {
    /// With the path from the root on at which it was before; `None` where that is not known, or is out of the set.
    from: HashMap<ObjectId, Option<Box<[u8]>>>,
    /// Of all paths, in bytes.
    paths_len: usize,
}

impl Ruled {
    /// Takes what an item says of them.
    ///
    /// Errors: rules that no source has.
    pub(super) fn take(&mut self, item: &LaneItem) -> Result<(), Fault> {
        match item {
            LaneItem::Rules { rules } => self.set(rules),
            LaneItem::Within { dir, path } => {
                self.enter(*dir, &path.0);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn set(&mut self, rules: &[SetRule]) -> Result<(), Fault> {
        let matcher = Rules::from_wire(rules).and_then(|rules| Matcher::new(&rules));
        self.matcher = Some(matcher.map_err(|_| Fault::Refused("rules that mean nothing"))?);
        self.within = None;
        Ok(())
    }

    /// The last chunk of this directory comes next.
    fn enter(&mut self, dir: ObjectId, path: &[u8]) {
        let rules = self.matcher.as_ref().and_then(|matcher| matcher.directory(path));
        self.within = rules.map(|rules| (dir, rules));
    }

    /// Notes them for who reads the replica back: what they leave out is neither in it nor missing.
    ///
    /// Errors: they cannot be noted.
    pub(super) fn keep(&self, replica: &mut Replica) -> Result<(), Fault> {
        let path = replica.state().join(RULES);
        let kept = match &self.matcher {
            Some(matcher) => store::replace_json(&path, matcher.rules()),
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
        };
        kept.map_err(Fault::own("rules of the set"))?;
        replica.note_rules(self.matcher.is_some());
        Ok(())
    }

    pub(super) fn is_there(&self) -> bool {
        self.matcher.is_some()
    }

    /// A directory that was at this path when the copy began.
    pub(super) fn has_moved(&mut self, dir: ObjectId, from: Option<Vec<u8>>) {
        if self.is_there() {
            self.moved.add(dir, from);
        }
    }

    /// A directory of a listing.
    pub(super) fn is_in(&mut self, parent: ObjectId, (dir, name): (ObjectId, &Name)) {
        if let Some(from) = self.was_at(parent) {
            self.moved.add(dir, from.map(|from| [from, b"/", name.as_bytes()].concat()));
        }
    }

    /// Where a directory was that has come from elsewhere in this copy, as far as that is known; else `None`.
    pub(super) fn was_at(&self, dir: ObjectId) -> Option<Option<&[u8]>> {
        self.moved.from.get(&dir).map(Option::as_deref)
    }

    /// Whether a name in this directory is none of the set's.
    pub(super) fn leaves_out(&self, dir: ObjectId, file: &File, name: &Name) -> bool {
        let (Some(matcher), Some((within, rules))) = (&self.matcher, &self.within) else { return false };
        if *within != dir || self.moved.is_full() {
            return false;
        }
        let Ok(found) = rustix::fs::statat(file, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) else {
            return false;
        };
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let is_out = |rules: &DirRules| !matcher.has(rules, name.as_bytes(), is_directory);
        let was_out = |from: &[u8]| matcher.directory(from).is_some_and(|rules| is_out(&rules));
        is_out(rules) && self.was_at(dir).is_none_or(|from| from.is_some_and(was_out))
    }
}

impl Moved {
    fn is_full(&self) -> bool {
        self.from.len() >= MOVED_DIRECTORIES_MAX
    }

    /// One that moves again was where it was first.
    fn add(&mut self, dir: ObjectId, from: Option<Vec<u8>>) {
        if self.is_full() {
            return;
        }
        if let Entry::Vacant(entry) = self.from.entry(dir) {
            let from = from.filter(|from| self.paths_len + from.len() <= MOVED_PATHS_MAX);
            self.paths_len += from.as_ref().map_or(0, Vec::len);
            entry.insert(from.map(Vec::into_boxed_slice));
        }
    }
}
