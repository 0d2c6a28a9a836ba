//! The files of sets, `sets/NAME.toml` in the state directory: where they are, read and written as a whole. Those of
//! drills are named alike. What stands in them is the command line's to say.

use std::fmt;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::limits::REPLACED_WITHIN;
use crate::locked::Locked;
use crate::store;
use crate::words::is_set_name;

const DIRECTORY: &str = "sets";
const OF_DRILLS: &str = "drills";
const SUFFIX: &str = "toml";
/// Not the name of a set.
const LOCK: &str = ".lock";

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

/// See [`Sets::lock`].
pub struct Changing {
    _lock: Locked,
}

/// The files of all sets.
pub struct Sets(PathBuf);

impl Sets {
    /// `state`: the state directory of a source.
    pub fn of(state: &Path) -> Sets {
        Sets(state.join(DIRECTORY))
    }

    /// Those of drills, which are named as sets are. `state`: the state directory of a target.
    pub fn of_drills(state: &Path) -> Sets {
        Sets(state.join(OF_DRILLS))
    }

    /// Where the file of a set is.
    pub fn path(&self, name: &str) -> Result<PathBuf, SetError> {
        match is_set_name(name) {
            true => Ok(self.0.join(format!("{name}.{SUFFIX}"))),
            false => Err(SetError::Name(name.to_owned())),
        }
    }

    /// Until the answer is dropped nobody else changes a file of a set by a command: what is written is what was read,
    /// changed.
    ///
    /// Errors: the system's; somebody else has had it for long.
    pub fn lock(&self) -> Result<Changing, SetError> {
        let path = self.0.join(LOCK);
        let failed = |error| SetError::Io { path: path.clone(), error };
        self.make().map_err(failed)?;
        let mut options = OpenOptions::new();
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        options.create(true).append(true).mode(0o600).custom_flags(flags);
        let file = options.open(&path).map_err(failed)?;
        match Locked::within(file, REPLACED_WITHIN).map_err(failed)? {
            Some(lock) => Ok(Changing { _lock: lock }),
            None => {
                let text = "another command has been changing a set for long";
                Err(failed(io::Error::new(io::ErrorKind::TimedOut, text)))
            }
        }
    }

    /// One that others may write to would be refused.
    fn make(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o755).create(&self.0)
    }

    /// Writes it, durably and as a whole; what is there is replaced, and its owner and mode stay.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf, SetError> {
        let path = self.path(name)?;
        // A link stays one: the file that it leads to is written.
        let real = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        match self.make().and_then(|()| store::replace_in_kind(&real, text.as_bytes())) {
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
        let of_set = |path: PathBuf| {
            let stem = path.file_stem()?.to_str()?;
            (path.extension()? == SUFFIX && is_set_name(stem)).then(|| stem.to_owned())
        };
        self.each(of_set)
    }

    /// Files that look like those of sets, and are none by their names. What is hidden is some program's own.
    pub fn strays(&self) -> Result<Vec<PathBuf>, SetError> {
        let stray = |path: PathBuf| {
            let stem = path.file_stem()?;
            let is_set = path.extension()? == SUFFIX && stem.to_str().is_some_and(is_set_name);
            let looks_so = path.extension()?.eq_ignore_ascii_case(SUFFIX);
            let is_hidden = stem.as_encoded_bytes().starts_with(b".");
            (looks_so && !is_set && !is_hidden).then_some(path)
        };
        self.each(stray)
    }

    fn each<T: Ord>(&self, wanted: impl Fn(PathBuf) -> Option<T>) -> Result<Vec<T>, SetError> {
        let failed = |error| SetError::Io { path: self.0.clone(), error };
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            found.extend(wanted(entry.map_err(failed)?.path()));
        }
        found.sort();
        Ok(found)
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
        assert!(sets.strays().unwrap().is_empty());
        for name in ["with space.toml", "UP.TOML"] {
            std::fs::write(dir.path().join("sets").join(name), "").unwrap();
        }
        assert_eq!(sets.names().unwrap(), ["a", "web"]);
        let strays = ["UP.TOML", "with space.toml"].map(|name| dir.path().join("sets").join(name));
        assert_eq!(sets.strays().unwrap(), strays);
        assert!(sets.remove("web").unwrap() && !sets.remove("web").unwrap());
        assert!(matches!(sets.path("../x"), Err(SetError::Name(_))));
        assert!(matches!(sets.write("a/b", ""), Err(SetError::Name(_))));
    }
}
