//! The mark of a directory whose restoration has begun and not ended: an attribute of it, and a document in
//! the state of its name, where file systems have no such attributes.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Believes;
use crate::failure::Failure;
use crate::packet::{Position, SetId, printable};
use crate::store;
use crate::sys::proc_path;

/// Its value says what is being restored, for people.
const XATTR: &str = "trusted.standin.restoring";

/// In the state of the name; with it go index and positions of the restoration.
const DIRECTORY: &str = "restore";
const DOCUMENT: &str = "restoring.json";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Document {
    from: String,
    #[serde(with = "crate::control::path_text")]
    to: PathBuf,
    /// As of which the replica was given.
    #[serde(default)]
    applied: Option<Position>,
    /// Size and time were believed.
    #[serde(default)]
    by_differences: bool,
}

/// What a restoration brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bring {
    /// Everything, whatever size and time say.
    Everything,
    /// What the one before it, which was cut off, has not brought: the replica has stayed as it was.
    TheRest,
}

/// A directory that carries the mark.
pub struct Marked {
    root: File,
    state: PathBuf,
}

/// As which set a directory is applied to while it is restored: what a replica of the set is never taken
/// for.
pub fn while_restoring(SetId(set): SetId) -> SetId {
    SetId(set ^ u128::from_be_bytes(*b"being restored.."))
}

/// Where index and positions of a restoration are.
pub fn working_state(set_state: &Path) -> PathBuf {
    set_state.join(DIRECTORY)
}

/// What a directory says of its unfinished restoration.
pub fn of(root: impl AsFd) -> io::Result<Option<String>> {
    let mut value = [0; 1024];
    match rustix::fs::getxattr(proc_path(root.as_fd()), XATTR, value.as_mut_slice()) {
        Ok(len) => Ok(Some(printable(&value[..len]))),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(Errno::RANGE) => Ok(Some("a replica".into())),
        Err(error) => Err(error.into()),
    }
}

impl Marked {
    /// Marks a directory durably; on a file system without such attributes the document alone says it.
    /// Answers what is to be brought from a replica as of `applied`.
    pub fn put(
        root: File,
        set_state: &Path,
        (from, applied, believes): (&str, Option<Position>, Believes),
        to: &Path,
    ) -> io::Result<(Marked, Bring)> {
        let state = working_state(set_state);
        store::own_directory(&state, 0o700, store::Symlink::Own)?;
        let document = Document {
            from: from.into(),
            to: to.into(),
            applied,
            by_differences: believes == Believes::SizeAndTime,
        };
        // A damaged one says nothing.
        let before = store::read_json::<Document>(&state.join(DOCUMENT)).ok().flatten();
        let goes_on = applied.is_some() && before.as_ref() == Some(&document) && of(&root)?.is_some();
        store::replace_json(&state.join(DOCUMENT), &document)?;
        let cut = &from.as_bytes()[..from.len().min(1000)];
        match rustix::fs::fsetxattr(&root, XATTR, cut, XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        root.sync_all()?;
        Ok((Marked { root, state }, if goes_on { Bring::TheRest } else { Bring::Everything }))
    }

    /// It is whole: mark and working state go, in this order; also that of a restoration of it under another name,
    /// which was cut off.
    pub fn take_away(self) -> io::Result<()> {
        match rustix::fs::fremovexattr(&self.root, XATTR) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        self.root.sync_all()?;
        let own = store::read_json::<Document>(&self.state.join(DOCUMENT)).ok().flatten();
        fs::remove_dir_all(&self.state)?;
        for state in own.map(|own| self.left_over(&own)).unwrap_or_default() {
            if let Err(error) = fs::remove_dir_all(&state) {
                log::warn!("{}, of an earlier restoration, cannot be removed: {error}", state.display());
            }
        }
        Ok(())
    }

    /// What other names have of a restoration to this directory.
    fn left_over(&self, own: &Document) -> Vec<PathBuf> {
        let sets = self.state.parent().and_then(Path::parent).and_then(|sets| fs::read_dir(sets).ok());
        let states = sets.into_iter().flatten().flatten().map(|set| working_state(&set.path()));
        let is_of_it = |state: &PathBuf| {
            let document = store::read_json::<Document>(&state.join(DOCUMENT)).ok().flatten();
            document.is_some_and(|document| document.to == own.to)
        };
        states.filter(is_of_it).collect()
    }
}

/// Refuses to protect a directory whose restoration has not ended: what it lacks would go from the replicas.
pub fn refuse_unfinished(tree: &Path, root: impl AsFd, set_state: &Path) -> Result<(), Failure> {
    let noted = || -> io::Result<Option<String>> {
        if let Some(from) = of(root)? {
            return Ok(Some(from));
        }
        let document = store::read_json::<Document>(&working_state(set_state).join(DOCUMENT))?;
        Ok(document.filter(|document| document.to == tree).map(|document| document.from))
    };
    let shown = tree.display();
    match noted() {
        Ok(None) => Ok(()),
        Ok(Some(from)) => Err(Failure::new(
            format!("{shown} is not whole: its restoration from {from} has begun and not ended."),
            "Nothing is mounted; the directory and the replicas are as they were.",
            format!(
                "Restore it to its end: standin restore {from} --to {shown}. To protect what is there, as it is: \
                 setfattr -x {XATTR} {shown}, and remove {}.",
                working_state(set_state).display()
            ),
        )),
        Err(error) => Err(Failure::new(
            format!("Whether {shown} is being restored cannot be read: {error}."),
            "Nothing is mounted.",
            "Mend this and start again.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Protected under the other name later, the directory was refused as unfinished.
    #[test]
    fn a_restoration_that_ends_takes_away_what_one_under_another_name_has_left() {
        let place = tempfile::tempdir().unwrap();
        let to = place.path().join("to");
        fs::create_dir(&to).unwrap();
        let begins = |name: &str, to: &Path| {
            let state = place.path().join("state").join(name);
            fs::create_dir_all(&state).unwrap();
            let root = File::open(place.path().join("to")).unwrap();
            Marked::put(root, &state, ("local:/replica", None, Believes::Nothing), to).unwrap().0
        };
        let state = |name: &str| working_state(&place.path().join("state").join(name));
        drop(begins("one", &to));
        drop(begins("elsewhere", &place.path().join("another")));
        begins("two", &to).take_away().unwrap();
        assert!(!state("one").exists() && !state("two").exists());
        assert!(state("elsewhere").exists());
        let root = File::open(&to).unwrap();
        refuse_unfinished(&to, &root, &place.path().join("state/one")).unwrap();
    }
}
