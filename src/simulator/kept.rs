//! What becomes of what is removed on the source: a person says so now and then, also while a copy runs. What
//! targets keep aside is nobody else's file, and stays as it was when it was removed.

use std::collections::HashMap;
use std::path::Path;

use super::disk::{self, Described, Paths};
use super::model::Tree;
use crate::apply::{Index, Places};
use crate::packet::*;
use crate::random::Random;

/// Whether a replica may have more names than its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    Never,
    /// What was removed may have stayed in its place.
    Stayed,
}

/// What a person says of removals, and what was removed so.
pub struct Removals {
    random: Random,
    /// In some runs nobody says anything.
    are_told: bool,
    pub keeping: Option<Keeping>,
    /// Targets were told to leave what is removed in its place, once at least.
    some_stays: bool,
    /// Files that targets keep aside, by the packet.
    aside: HashMap<(Incarnation, Sequence), Removed>,
}

/// A file as it was when its last name went.
struct Removed {
    name: Name,
    file: Described,
}

impl Removals {
    pub fn new(mut random: Random) -> Removals {
        let are_told = random.one_in(2);
        Removals { random, are_told, keeping: None, some_stays: false, aside: HashMap::new() }
    }

    /// `true`: something else counts from now on.
    pub fn turn(&mut self) -> bool {
        if !self.are_told || !self.random.one_in(40) {
            return false;
        }
        let before = self.keeping.take();
        self.keeping = match self.random.below(5) {
            0 => None,
            1 | 2 => Some(Keeping::InPlace),
            _ => Some(Keeping::Aside { into: Name::new(b"trash").unwrap(), days: 30 }),
        };
        self.some_stays |= self.keeping == Some(Keeping::InPlace);
        self.keeping != before
    }

    /// Whether targets may have names that the source has not: a copy, too, has left what it has found.
    pub fn more(&self) -> More {
        if self.some_stays { More::Stayed } else { More::Never }
    }

    /// What is told of a change, as the volume tells it.
    pub fn told(&mut self, op: &Op) -> Op {
        let (Some(keeping), Some((at, dir_mtime, object, links))) = (&self.keeping, removal(op)) else {
            return op.clone();
        };
        let is_directory = matches!(op, Op::RemoveDirectory { .. });
        if is_directory && *keeping != Keeping::InPlace {
            return op.clone();
        }
        Op::Keep { at: at.clone(), dir_mtime, object, links, keeping: keeping.clone() }
    }

    /// It was told with this position. `before`: the tree before it.
    pub fn note(&mut self, position: &Position, op: &Op, before: &Tree) {
        if let Op::Keep { at, object, links: 0, keeping: Keeping::Aside { .. }, .. } = op {
            let file = disk::described(&before.nodes[&object.inode]).without_names();
            let removed = Removed { name: at.name.clone(), file };
            self.aside.insert((position.incarnation, position.sequence), removed);
        }
    }

    /// What was removed behind a position and up to another one of the same history.
    fn removed(&self, after: &Position, upto: &Position) -> impl Iterator<Item = &Removed> {
        let (run, after, upto) = (upto.incarnation, after.sequence.0 + 1, upto.sequence.0);
        (after..=upto).filter_map(move |number| self.aside.get(&(run, Sequence(number))))
    }
}

fn removal(op: &Op) -> Option<(&Entry, Timestamp, ObjectId, u32)> {
    match op {
        Op::Unlink { at, dir_mtime, object, links } => Some((at, *dir_mtime, *object, *links)),
        Op::RemoveDirectory { at, dir_mtime, object } => Some((at, *dir_mtime, *object, 0)),
        _ => None,
    }
}

/// What a target was seen to keep.
#[derive(Default)]
pub struct Kept(Paths);

impl Kept {
    /// A power loss may have taken some of it.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// `since`: from where on a good replica has come to `now` by packets alone. Gives how many files are kept.
    ///
    /// Errors: what is wrong with them.
    pub fn check(
        &mut self,
        places: &Places,
        removals: &Removals,
        (since, now): (Option<&Position>, &Position),
    ) -> Result<u64, String> {
        let place = places.limbo.join("deleted");
        let (found, handles) = if place.exists() { disk::describe(&place) } else { Default::default() };
        let files: Paths = found.into_iter().filter(|(_, file)| !file.is_directory()).collect();
        for (path, file) in &files {
            let names = files.values().filter(|other| other.same_as == file.same_as).count();
            if file.links as usize != names {
                return Err(format!(
                    "{path:?}, which is kept, has {} names elsewhere",
                    file.links as usize - names
                ));
            }
        }
        let index = Index::open(&places.state.join("index")).unwrap();
        let mut bound = None;
        let each = |id, handle| {
            let path = handles.get(&handle).filter(|path| files.contains_key(*path));
            bound = path.map(|path| (path.clone(), id)).or(bound.take());
            Ok(())
        };
        index.for_each(each).unwrap();
        if let Some((path, id)) = bound {
            return Err(format!("{path:?}, which is kept, is object {id}"));
        }
        for (path, before) in &self.0 {
            match files.get(path) {
                Some(now) if now.clone().without_names() == *before => {}
                Some(now) => return Err(format!("{path:?} was kept as {before:?}, and is {now:?}")),
                None => return Err(format!("{path:?} was kept, and is gone")),
            }
        }
        let count = files.len() as u64;
        self.0 = files.into_iter().map(|(path, file)| (path, file.without_names())).collect();
        for removed in since.into_iter().flat_map(|since| removals.removed(since, now)) {
            if !self.0.iter().any(|(path, file)| is_called(path, &removed.name) && *file == removed.file) {
                return Err(format!(
                    "{} was removed, and is not kept as {:?}",
                    disk::shown(&removed.name),
                    removed.file
                ));
            }
        }
        Ok(count)
    }
}

/// With a number behind it where another one has the name.
fn is_called(path: &Path, name: &Name) -> bool {
    let found = path.file_name().unwrap_or_default().as_encoded_bytes();
    found.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"~"))
}
