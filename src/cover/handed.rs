//! Whether a directory has what only this host has: programs have written there, and it was not handed over whole since.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Cover, Standing};
use crate::store;
use crate::words::is_set_name;

const FILE: &str = "written.json";

/// What has become of what programs have written in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Written {
    /// Nobody else may have it.
    Here,
    /// All of it was at who took over, and nothing could be written since.
    HandedOver,
}

#[derive(Serialize, Deserialize)]
struct Note {
    #[serde(with = "crate::control::path_text")]
    tree: PathBuf,
    written: Written,
    /// Number of the epoch in which this host has written there last.
    epoch: u32,
}

/// Programs of this host write there in this epoch. Durable when it returns.
pub fn note_written(set_state: &Path, tree: &Path, epoch: u32) -> io::Result<()> {
    note(set_state, Note { tree: tree.to_owned(), written: Written::Here, epoch })
}

/// All that programs of this host have written is at who takes over, and its cover stands. Durable when it returns.
pub fn note_handed_over(set_state: &Path) -> io::Result<()> {
    match store::read_json::<Note>(&set_state.join(FILE))? {
        Some(known) => note(set_state, Note { written: Written::HandedOver, ..known }),
        // Written under an older version: nothing is claimed.
        None => Ok(()),
    }
}

fn note(set_state: &Path, note: Note) -> io::Result<()> {
    store::replace_json(&set_state.join(FILE), &note)
}

/// What the sets of this state directory know of this directory, and in which epoch it was written here last; of several
/// that had it one counts that has written there.
///
/// Errors: a note cannot be read.
pub fn written(state: &Path, tree: &Path) -> io::Result<Option<(Written, u32)>> {
    let all = all(state)?.into_iter().map(|(_, note)| note).filter(|note| note.tree == tree);
    Ok(all
        .map(|note| (note.written, note.epoch))
        .max_by_key(|(written, epoch)| (*written == Written::Here, *epoch)))
}

/// Whether the set was handed over whole, and its cover has stood since.
pub fn is_handed_over(set_state: &Path) -> bool {
    let note = store::read_json::<Note>(&set_state.join(FILE));
    let is_noted = note.is_ok_and(|note| note.is_some_and(|note| note.written == Written::HandedOver));
    let stands = || Some(Cover::noted(set_state).ok()??.stands().ok()? == Standing::OnTop);
    is_noted && stands() == Some(true)
}

/// In directories that were handed over and whose cover has not stood programs may have written.
///
/// To be called before covers are lifted.
pub fn doubt_uncovered(state: &Path) {
    for (set_state, known) in all(state).unwrap_or_default() {
        if known.written == Written::HandedOver && !is_handed_over(&set_state) {
            let tree = known.tree.display().to_string();
            if let Err(error) = note(&set_state, Note { written: Written::Here, ..known }) {
                log::warn!("that {tree} was handed over whole is still noted: {error}");
            }
        }
    }
}

fn all(state: &Path) -> io::Result<Vec<(PathBuf, Note)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(state)? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let set_state = state.join(&name);
        if is_set_name(&name)
            && set_state.is_dir()
            && let Some(note) = store::read_json::<Note>(&set_state.join(FILE))?
        {
            all.push((set_state, note));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_counts_until_somebody_may_have_written_there() {
        let state = tempfile::tempdir().unwrap();
        let set = |name: &str| state.path().join(name);
        ["web", "again"].iter().for_each(|name| fs::create_dir(set(name)).unwrap());
        let tree = Path::new("/d/web");
        let known = || written(state.path(), tree).unwrap();
        assert_eq!(known(), None);
        note_handed_over(&set("web")).unwrap();
        assert_eq!(known(), None, "of an older version");
        note_written(&set("web"), tree, 3).unwrap();
        assert_eq!(known(), Some((Written::Here, 3)));
        assert_eq!(written(state.path(), Path::new("/d/other")).unwrap(), None);
        note_handed_over(&set("web")).unwrap();
        assert_eq!(known(), Some((Written::HandedOver, 3)));
        // Another set had the directory, too.
        note_written(&set("again"), tree, 2).unwrap();
        assert_eq!(known(), Some((Written::Here, 2)));
        note_written(&set("again"), Path::new("/d/other"), 2).unwrap();
        // Nothing has kept programs out.
        assert!(!is_handed_over(&set("web")));
        doubt_uncovered(state.path());
        assert_eq!(known(), Some((Written::Here, 3)));
        // What cannot be read may say that something is kept.
        fs::write(set("key"), "no set").unwrap();
        assert_eq!(known(), Some((Written::Here, 3)));
        fs::write(set("again").join(FILE), "{").unwrap();
        assert!(written(state.path(), tree).is_err());
    }
}
