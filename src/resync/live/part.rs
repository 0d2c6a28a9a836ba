//! A part of the tree: on the way down to it directories are listed by one name each, and what lies below it as in
//! a walk of everything. It may be anything that has a name.
//!
//! ```text
//!  of the root the first name ──> answered ──> of that directory the next one ──> ... ──> the walk from there on
//!                                    │ the target has no such directory: it asks for all of it, or a comparison
//!                                    v has found that it is missing
//!                                  the end
//! ```

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::super::place::TreePath;
use super::super::seeing::Root;
use super::super::{CopyError, StampedSink};
use super::listing::Chunk;
use super::plan::{Descend, Directory, Plan};
use super::{Answer, LiveCopy};
use crate::packet::{ItemNumber, LaneItem, Name, ObjectId};
use crate::sys::FileHandle;

/// How far the way down has come.
pub(super) struct Part {
    path: std::path::PathBuf,
    stage: Stage,
    /// Names behind the one that is looked for.
    rest: VecDeque<Name>,
}

enum Stage {
    /// This directory is to be listed by this name.
    Looks {
        dir: ObjectId,
        name: Name,
        /// The target doubts all of the directory.
        in_full: bool,
    },
    /// A chunk has shown a directory of that name.
    Found { listing: ItemNumber, dir: ObjectId, place: (FileHandle, Arc<TreePath>) },
    /// The walk goes on by itself.
    Over,
    /// There is nothing of this name.
    Nothing,
}

impl Part {
    /// The name by which a directory is listed that is opened now; `None`: by all.
    pub fn enters(&mut self, id: ObjectId) -> Option<Name> {
        match &self.stage {
            Stage::Looks { dir, name, in_full: false } if *dir == id => Some(name.clone()),
            _ => None,
        }
    }

    /// A chunk of a listing was sent.
    pub fn listed(&mut self, id: ObjectId, path: &Arc<TreePath>, chunk: &Chunk) {
        let Stage::Looks { dir, name, .. } = &self.stage else { return };
        if *dir != id {
            return;
        }
        let found = chunk.seen.iter().find(|seen| seen.listed.name.as_ref() == Some(name));
        let is_unread =
            chunk.unread.iter().any(|(unread, _)| unread.as_ref().is_none_or(|unread| unread == name));
        self.stage = match found {
            Some(seen) if seen.listed.file_type == libc::S_IFDIR => Stage::Found {
                listing: chunk.number,
                dir: seen.listed.object,
                place: (seen.listed.handle, TreePath::below(path, name.clone())),
            },
            Some(_) if self.rest.is_empty() => Stage::Over,
            Some(_) => Stage::Nothing,
            // That was said.
            None if is_unread => Stage::Over,
            None if chunk.is_last => Stage::Nothing,
            None => return,
        };
    }

    /// A directory is not there.
    pub fn closed(&mut self, id: ObjectId) {
        if matches!(&self.stage, Stage::Looks { dir, .. } if *dir == id) {
            self.stage = Stage::Nothing;
        }
    }

    fn doubted(&mut self, directories: &[ObjectId]) {
        if let Stage::Looks { dir, in_full, .. } = &mut self.stage {
            *in_full |= directories.contains(dir);
        }
    }

    /// What is listed next, behind the answer to a listing; `is_asked`: the target has asked for the directory that
    /// it has shown.
    #[allow(clippy::type_complexity)]
    fn goes_on(
        &mut self,
        answered: ItemNumber,
        goes: impl FnOnce(ObjectId) -> Goes,
    ) -> Option<Directory<(FileHandle, Arc<TreePath>)>> {
        let Stage::Found { listing, dir, place } = &self.stage else { return None };
        if *listing != answered {
            return None;
        }
        let (id, place) = (*dir, place.clone());
        let goes = goes(id);
        let next = if goes == Goes::NoFurther { None } else { self.rest.pop_front() };
        let descend = if next.is_some() { Descend::WhereAsked } else { Descend::Everywhere };
        self.stage = next.map_or(Stage::Over, |name| Stage::Looks { dir: id, name, in_full: false });
        (goes == Goes::On).then_some(Directory { id, place, descend })
    }
}

/// How the way down goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    On,
    /// The plan has taken it up already.
    OnByItself,
    NoFurther,
}

impl<S: StampedSink> LiveCopy<S> {
    /// Only what lies at this path is shown, to a target that is as the source but for what somebody has changed
    /// there by hand: content is sent where size, time or a suspicion say so.
    ///
    /// Errors: [`CopyError::Read`].
    pub fn of_part(mut self, path: &Path) -> Result<LiveCopy<S>, CopyError> {
        self.begin_part(Some(path))?;
        self.preamble.owed = Some(LaneItem::BeginOwed { percent_max: Some(0), compares: true });
        Ok(self)
    }

    /// Of the whole tree, where there is no path.
    pub(super) fn begin_part(&mut self, path: Option<&Path>) -> Result<(), CopyError> {
        let Root { id, handle, .. } = self.eyes.root()?;
        let mut rest = names(path.unwrap_or(Path::new("")))?;
        let first = rest.pop_front();
        let descend = if first.is_some() { Descend::WhereAsked } else { Descend::Everywhere };
        let root = Directory { id, place: (handle, TreePath::root()), descend };
        let plan = Plan::new(root);
        self.plan = if self.checking.is_some() { plan.comparing() } else { plan };
        self.part = first.map(|name| Part {
            path: path.unwrap_or(Path::new("")).to_owned(),
            stage: Stage::Looks { dir: id, name, in_full: false },
            rest,
        });
        Ok(())
    }

    /// As [`LiveCopy::hear_of_walk`]; the way down to a part goes on.
    pub(super) fn hear_in_part(&mut self, answer: Answer) -> Result<(), CopyError> {
        let mut part = self.part.take();
        let (is_check, mut next) = (self.checking.is_some(), None);
        match (&mut part, &answer) {
            (Some(part), Answer::Doubt(directories)) => part.doubted(directories),
            (Some(part), Answer::Wanted(wanted)) => {
                next = part.goes_on(wanted.listing, |dir| match (is_check, wanted.objects.contains(&dir)) {
                    // It has no such directory, and that was found.
                    (true, false) => Goes::NoFurther,
                    (true, true) => Goes::OnByItself,
                    // It has made it, and all that is below it comes.
                    (false, true) => Goes::NoFurther,
                    (false, false) => Goes::On,
                });
            }
            _ => {}
        }
        self.part = part;
        let heard = self.hear_of_walk(answer);
        next.into_iter().for_each(|dir| self.plan.also(dir));
        heard
    }

    /// Errors: there is nothing at the path that was to be compared.
    pub(super) fn end_of_part(&self) -> Result<(), CopyError> {
        let Some(Part { path, stage: Stage::Nothing, .. }) = &self.part else { return Ok(()) };
        let path = path.display().to_string();
        if self.checking.is_none() {
            log::warn!(
                "{path}: it is not there any more: what the replica has of it is as packets have left it"
            );
            return Ok(());
        }
        Err(CopyError::Read { doing: "find", path, error: io::ErrorKind::NotFound.into() })
    }
}

fn names(path: &Path) -> Result<VecDeque<Name>, CopyError> {
    let failed = |_| CopyError::Read {
        doing: "find",
        path: path.display().to_string(),
        error: io::ErrorKind::InvalidInput.into(),
    };
    path.iter().map(|part: &OsStr| Name::new(part.as_bytes()).map_err(failed)).collect()
}
