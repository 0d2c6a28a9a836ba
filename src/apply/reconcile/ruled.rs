//! Names that the rules of the set leave out: no listing shows them, and they are no orphans.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;

use rustix::fs::{AtFlags, FileType};

use crate::apply::fault::Fault;
use crate::apply::replica::{RULES, Replica};
use crate::limits::MOVED_DIRECTORIES_MAX;
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
    /// Directories that came from elsewhere in this copy, and those in them: what the rules leave out there has
    /// come with them, and goes.
    moved: HashSet<ObjectId>,
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

    pub(super) fn has_moved(&mut self, dir: ObjectId) {
        if self.is_there() && self.moved.len() < MOVED_DIRECTORIES_MAX {
            self.moved.insert(dir);
        }
    }

    /// A directory of a listing.
    pub(super) fn is_in(&mut self, parent: ObjectId, dir: ObjectId) {
        if self.moved.contains(&parent) {
            self.has_moved(dir);
        }
    }

    /// Whether a name in this directory is none of the set's.
    pub(super) fn leaves_out(&self, dir: ObjectId, file: &File, name: &Name) -> bool {
        let (Some(matcher), Some((within, rules))) = (&self.matcher, &self.within) else { return false };
        let is_full = self.moved.len() >= MOVED_DIRECTORIES_MAX;
        if *within != dir || is_full || self.moved.contains(&dir) {
            return false;
        }
        let found = rustix::fs::statat(file, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
        let is_directory = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
        found.is_ok_and(|found| !matcher.has(rules, name.as_bytes(), is_directory(found.st_mode)))
    }
}
