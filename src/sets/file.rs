//! The files of sets, `sets/NAME.toml` in the state directory: where they are, read and written as a whole. What
//! stands in them is the command line's to say.

use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::store;
use crate::words::is_set_name;

const DIRECTORY: &str = "sets";
const SUFFIX: &str = "toml";

/// Why there is nothing to work with.
#[derive(Debug)]
pub enum SetError {
    /// The name cannot be that of a set.
    Name(String),
    Io {
        path: PathBuf,
        error: io::Error,
    },
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::Name(name) => write!(f, "{name:?} cannot be the name of a set"),
            SetError::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

/// The files of all sets.
pub struct Sets(PathBuf);

impl Sets {
    /// `state`: the state directory of a source.
    pub fn of(state: &Path) -> Sets {
        Sets(state.join(DIRECTORY))
    }

    /// Where the file of a set is.
    pub fn path(&self, name: &str) -> Result<PathBuf, SetError> {
        match is_set_name(name) {
            true => Ok(self.0.join(format!("{name}.{SUFFIX}"))),
            false => Err(SetError::Name(name.to_owned())),
        }
    }

    /// Writes it, durably and as a whole; what is there is replaced.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, SetError> {
        let path = self.path(name)?;
        // One that others may write to would be refused.
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&self.0);
        match made.and_then(|()| store::replace(&path, text.as_bytes())) {
            Ok(()) => Ok(path),
            Err(error) => Err(SetError::Io { path, error }),
        }
    }

    /// `false` where there is none.
    pub fn remove(&self, name: &str) -> Result<bool, SetError> {
        let path = self.path(name)?;
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(SetError::Io { path, error }),
        }
    }

    /// Names of the sets that have a file, sorted.
    pub fn names(&self) -> Result<Vec<String>, SetError> {
        let failed = |error| SetError::Io { path: self.0.clone(), error };
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if path.extension().is_some_and(|suffix| suffix == SUFFIX)
                && let Some(name) = stem.filter(|name| is_set_name(name))
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_their_sets() {
        let dir = tempfile::tempdir().unwrap();
        let sets = Sets::of(dir.path());
        assert!(sets.names().unwrap().is_empty());
        for name in ["web", "a"] {
            let path = sets.write(name, "limit = \"1M\"\n").unwrap();
            assert_eq!(path, sets.path(name).unwrap());
            assert_eq!(std::fs::read_to_string(path).unwrap(), "limit = \"1M\"\n");
        }
        std::fs::write(dir.path().join("sets/.hidden.toml"), "").unwrap();
        std::fs::write(dir.path().join("sets/web.toml~"), "").unwrap();
        assert_eq!(sets.names().unwrap(), ["a", "web"]);
        assert!(sets.remove("web").unwrap() && !sets.remove("web").unwrap());
        assert!(matches!(sets.path("../x"), Err(SetError::Name(_))));
        assert!(matches!(sets.write("a/b", ""), Err(SetError::Name(_))));
    }
}
