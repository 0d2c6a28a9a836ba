//! What of a directory belongs to a set, counted.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::sets::{DirRules, Matcher};

#[derive(Default)]
pub(super) struct Sizes {
    pub(super) inside: Count,
    pub(super) outside: Count,
}

#[derive(Default)]
pub(super) struct Count {
    pub(super) objects: u64,
    pub(super) bytes: u64,
}

impl Sizes {
    /// Each name counts, also of one file.
    pub(super) fn walk(&mut self, top: &Path, matcher: &Matcher) -> Result<(), (PathBuf, std::io::Error)> {
        let mut waiting: Vec<(PathBuf, Option<DirRules>)> = vec![(top.to_owned(), Some(matcher.root()))];
        while let Some((path, rules)) = waiting.pop() {
            let failed = |error| (path.clone(), error);
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let Ok(status) = entry.metadata() else { continue };
                let name = entry.file_name();
                let (name, is_directory) = (name.as_bytes(), status.is_dir());
                let below = match is_directory {
                    true => rules.as_ref().and_then(|rules| matcher.enter(rules, name)),
                    false => None,
                };
                let is_in = match is_directory {
                    true => below.is_some(),
                    false => rules.as_ref().is_some_and(|rules| matcher.has_file(rules, name)),
                };
                let count = if is_in { &mut self.inside } else { &mut self.outside };
                count.objects += 1;
                count.bytes = count.bytes.saturating_add(if is_directory { 0 } else { status.len() });
                if is_directory {
                    waiting.push((entry.path(), below));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sets::{Rule, Rules};

    #[test]
    fn what_belongs_to_a_set_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("cache/deep")).unwrap();
        for (path, bytes) in [("a", 10), ("b.tmp", 20), ("cache/c", 40), ("cache/deep/d", 80)] {
            std::fs::write(dir.path().join(path), vec![0; bytes]).unwrap();
        }
        let rules = Rules(vec![Rule::exclude("*.tmp"), Rule::exclude("cache/")]);
        let mut sizes = Sizes::default();
        sizes.walk(dir.path(), &Matcher::new(&rules).unwrap()).unwrap();
        assert_eq!((sizes.inside.objects, sizes.inside.bytes), (1, 10));
        assert_eq!((sizes.outside.objects, sizes.outside.bytes), (5, 140));
    }
}
