//! The file of a set, `sets/NAME.toml` in the state directory: written by people and by `standin set`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::matcher::Matcher;
use super::rules::{BadRule, Rules};
use crate::store;
use crate::words::{Compression, Deletes, KeepDeleted, LimitPlan, SchedulePlan, VerifyPlan, is_set_name};

const DIRECTORY: &str = "sets";
const SUFFIX: &str = "toml";

/// What stands in the file of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetFile {
    /// The protected directory, for who reads the file; `protect` names its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// When replicas are verified by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyPlan>,
    /// When connections send, where not always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<SchedulePlan>,
    /// How fast connections send, where not as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitPlan>,
    /// Level of compression on the network, where there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// What is removed stays on the targets.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignore_deletes: bool,
    /// Files that are removed are moved aside on the targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_deleted: Option<KeepDeleted>,
    #[serde(default, rename = "rule", skip_serializing_if = "Rules::is_empty")]
    pub rules: Rules,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Why there is nothing to work with.
#[derive(Debug)]
pub enum SetError {
    /// The name cannot be that of a set.
    Name(String),
    /// It is no file of a set, with what is wrong where.
    Text {
        path: PathBuf,
        why: String,
    },
    Rule {
        path: PathBuf,
        bad: BadRule,
    },
    Io {
        path: PathBuf,
        error: io::Error,
    },
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::Name(name) => write!(f, "{name:?} cannot be the name of a set"),
            SetError::Text { path, why } => write!(f, "{}: {why}", path.display()),
            SetError::Rule { path, bad } => write!(f, "{}: {bad}", path.display()),
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

    /// The file of a set, checked; `None` where there is none.
    pub fn read(&self, name: &str) -> Result<Option<SetFile>, SetError> {
        let path = self.path(name)?;
        match std::fs::read_to_string(&path) {
            Ok(text) => parse(&path, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SetError::Io { path, error }),
        }
    }

    /// Writes it, durably and as a whole; what is there is replaced.
    pub fn write(&self, name: &str, file: &SetFile) -> Result<PathBuf, SetError> {
        let path = self.path(name)?;
        check(&path, file)?;
        let text = toml::to_string(file)
            .map_err(|error| SetError::Text { path: path.clone(), why: error.to_string() })?;
        let written = std::fs::create_dir_all(&self.0).and_then(|()| store::replace(&path, text.as_bytes()));
        match written {
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

impl SetFile {
    /// What a text says that came from elsewhere; `from` names it in an error.
    pub fn parse(from: &Path, text: &str) -> Result<SetFile, SetError> {
        parse(from, text)
    }

    /// What a removal means for the targets. The file was checked.
    pub fn deletes(&self) -> Deletes {
        Deletes::new(self.ignore_deletes, self.keep_deleted.clone()).unwrap_or_default()
    }

    /// Has a removal mean this.
    pub fn set_deletes(&mut self, deletes: Deletes) {
        (self.ignore_deletes, self.keep_deleted) = match deletes {
            Deletes::Follow => (false, None),
            Deletes::Ignore => (true, None),
            Deletes::Keep(keep) => (false, Some(keep)),
        };
    }

    /// As it stands in the file.
    pub fn to_text(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }
}

fn parse(path: &Path, text: &str) -> Result<SetFile, SetError> {
    let file: SetFile = toml::from_str(text).map_err(|error| SetError::Text {
        path: path.to_owned(),
        why: error.to_string().trim_end().to_owned(),
    })?;
    check(path, &file)?;
    Ok(file)
}

fn check(path: &Path, file: &SetFile) -> Result<(), SetError> {
    if let Err(why) = Deletes::new(file.ignore_deletes, file.keep_deleted.clone()) {
        return Err(SetError::Text { path: path.to_owned(), why: why.to_owned() });
    }
    match Matcher::new(&file.rules) {
        Ok(_) => Ok(()),
        Err(bad) => Err(SetError::Rule { path: path.to_owned(), bad }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rule;
    use super::*;

    #[test]
    fn a_file_says_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let sets = Sets::of(dir.path());
        assert_eq!(sets.read("web").unwrap(), None);
        assert!(sets.names().unwrap().is_empty());
        let kept = Rule { is_recursive: false, ..Rule::include("cache/keep") };
        let rules = Rules(vec![Rule::exclude("*.tmp"), Rule::exclude("cache"), kept]);
        let text = "verify = { every = \"24h\", at = \"03:00\", mode = \"checksum\" }";
        let verify = SetFile::parse(Path::new("web.toml"), text).unwrap().verify;
        let schedule = SetFile::parse(Path::new("web.toml"), "schedule = \"at=22:00\"").unwrap().schedule;
        let limit =
            SetFile::parse(Path::new("web.toml"), "limit = \"weekdays 08:00-18:00 1M\"").unwrap().limit;
        assert_eq!(verify.unwrap().to_string(), "every 1d at 03:00 (checksum)");
        let directory = Some("/srv/web".into());
        let mut file = SetFile { directory, verify, schedule, limit, rules, ..SetFile::default() };
        for deletes in [Deletes::Ignore, Deletes::Keep(KeepDeleted::new("trash".into(), 7).unwrap())] {
            file.set_deletes(deletes.clone());
            assert_eq!(SetFile::parse(Path::new("web.toml"), &file.to_text()).unwrap().deletes(), deletes);
        }
        sets.write("web", &file).unwrap();
        assert_eq!(sets.read("web").unwrap(), Some(file));
        assert_eq!(sets.names().unwrap(), ["web"]);
        assert!(sets.remove("web").unwrap() && !sets.remove("web").unwrap());
    }

    /// With the line where it stands.
    #[test]
    fn what_is_no_file_of_a_set_is_said() {
        let table = [
            ("[[rule]]\nexclud = \"a\"\n", "exclud"),
            ("[[rule]]\nexclude = \"a\"\ninclude = \"b\"\n", "either"),
            ("[[rule]]\nexclude = \"a//b\"\n", "a//b"),
            ("directori = \"/srv\"\n", "directori"),
            ("rule = 3\n", "rule"),
            ("[verify]\nevery = \"7h\"\nat = \"03:00\"\n", "goes into a day"),
            ("keep_deleted = { dir = \"a/b\", days = 1 }\n", "a/b"),
            ("keep_deleted = { dir = \"a\", days = 0 }\n", "days"),
            ("ignore_deletes = true\nkeep_deleted = { dir = \"a\", days = 1 }\n", "either"),
            ("[verify]\nevery = \"1d\"\nfrom = \"03:00\"\n", "from"),
            ("schedule = \"at=22\"\n", "time of day"),
            ("limit = \"fast\"\n", "no rate"),
        ];
        for (text, part) in table {
            let error = SetFile::parse(Path::new("web.toml"), text).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("web.toml"), "{error}");
        }
        let dir = tempfile::tempdir().unwrap();
        Sets::of(dir.path()).read("../x").unwrap_err();
    }
}
