//! What a daemon was told by its command line and its files, and how it learns what they say now.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::compression::Compression;
use super::deletes::Deletes;
use super::limit_plan::LimitPlan;
use super::options::TypedRule;
use super::schedule_plan::SchedulePlan;
use super::verify_plan::VerifyPlan;
use crate::failure::Failure;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The file that is read; it need not be there.
    pub file: Option<PathBuf>,
    /// It was there.
    pub is_there: bool,
    /// Each option, and what it is.
    pub settings: Vec<Setting>,
    /// What the file says of that which changes while a set is protected.
    pub terms: FileTerms,
    /// Without, the daemon was not made from a command line.
    pub reread: Option<Reread>,
}

/// One option as it counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As it stands in a file.
    pub key: String,
    /// None: it is not set.
    pub values: Vec<String>,
    pub from: SettingFrom,
    /// It changes while the daemon runs; others with its next start.
    pub live: bool,
}

/// Where it was said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingFrom {
    Default,
    File { path: PathBuf, line: usize },
    CommandLine,
}

/// What the file of a set says of that which changes while it is protected. `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileTerms {
    pub rules: Vec<TypedRule>,
    pub deletes: Option<Deletes>,
    pub verify: Option<VerifyPlan>,
    pub schedule: Option<SchedulePlan>,
    pub limit: Option<LimitPlan>,
    pub compression: Option<Compression>,
}

/// Reads the files anew, and puts what was typed at the start on top.
#[derive(Clone)]
pub struct Reread(pub Arc<dyn Fn() -> Result<Configuration, Failure> + Send + Sync>);

/// A setting that is otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingChange {
    pub key: String,
    pub before: Vec<String>,
    pub after: Vec<String>,
    /// Where the new one was said.
    pub from: SettingFrom,
    pub live: bool,
}

fn is_missing(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

impl Configuration {
    /// As the files are now.
    ///
    /// Errors: what is wrong with them; a file that was there is gone. Whose disk was taken away has not said that
    /// nothing it says counts.
    pub fn read_again(&self) -> Result<Configuration, Failure> {
        let Some(Reread(read)) = &self.reread else { return Ok(self.clone()) };
        let gone = |path: &Path| {
            Failure::new(
                format!("The file {} is gone: it was there when it was read last.", path.display()),
                "Nothing was started or changed.",
                "Put it back; where nothing of it shall count any more, write an empty one.",
            )
        };
        let known = self.file.as_deref().filter(|_| self.is_there);
        match (known, read()) {
            (Some(path), Ok(new)) if !new.is_there => Err(gone(path)),
            // What it said is missed then, too: that is not what is wrong.
            (Some(path), Err(_)) if is_missing(path) => Err(gone(path)),
            (_, read) => read,
        }
    }

    /// What would be otherwise with `new`, in its order.
    pub fn changes(&self, new: &Configuration) -> Vec<SettingChange> {
        let before = |key: &str| self.settings.iter().find(|setting| setting.key == key);
        let change = |setting: &Setting| {
            let before = before(&setting.key).map(|before| before.values.clone()).unwrap_or_default();
            (before != setting.values).then(|| SettingChange {
                key: setting.key.clone(),
                before,
                after: setting.values.clone(),
                from: setting.from.clone(),
                live: setting.live,
            })
        };
        new.settings.iter().filter_map(change).collect()
    }

    /// What changes while the daemon runs is as `new` says from here on.
    pub fn take_live(&mut self, new: Configuration) {
        for setting in new.settings {
            let known = self.settings.iter_mut().find(|known| known.key == setting.key);
            if let Some(known) = known
                && (setting.live || known.values == setting.values)
            {
                *known = setting;
            }
        }
        self.terms = new.terms;
        self.is_there = new.is_there;
    }
}

impl SettingFrom {
    /// In words.
    pub fn text(&self) -> String {
        match self {
            SettingFrom::Default => "default".to_owned(),
            SettingFrom::File { path, line } => format!("{}:{line}", path.display()),
            SettingFrom::CommandLine => "command line".to_owned(),
        }
    }
}

impl fmt::Debug for Reread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reread")
    }
}

impl PartialEq for Reread {
    fn eq(&self, other: &Reread) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Reread {}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &str, value: &str, live: bool) -> Setting {
        Setting { key: key.into(), values: vec![value.into()], from: SettingFrom::CommandLine, live }
    }

    fn configuration(settings: Vec<Setting>, limit: Option<&str>) -> Configuration {
        let limit = limit.map(|limit| limit.parse().unwrap());
        Configuration { settings, terms: FileTerms { limit, ..FileTerms::default() }, ..Default::default() }
    }

    /// A disk that is not mounted took all rules away, and what they had kept out was copied.
    #[test]
    fn a_file_that_was_there_and_is_gone_is_refused() {
        let reads = |is_there: bool, new_is_there: bool| {
            let reread =
                Reread(Arc::new(move || Ok(Configuration { is_there: new_is_there, ..Default::default() })));
            Configuration {
                is_there,
                file: Some("/x/web.toml".into()),
                reread: Some(reread),
                ..Default::default()
            }
        };
        let refused = reads(true, false).read_again().unwrap_err();
        assert!(refused.what.contains("/x/web.toml is gone") && refused.next.contains("empty"), "{refused}");
        for (before, now) in [(true, true), (false, false), (false, true)] {
            assert_eq!(reads(before, now).read_again().unwrap().is_there, now);
        }
        // One that came later was there, too.
        let mut runs = reads(false, true);
        runs.take_live(runs.read_again().unwrap());
        assert!(runs.is_there && runs.reread.is_some());
    }

    #[test]
    fn what_is_live_is_taken_and_the_rest_stays() {
        let mut runs = configuration(vec![setting("limit", "1M", true), setting("dir", "/a", false)], None);
        let new = configuration(vec![setting("limit", "2M", true), setting("dir", "/b", false)], Some("2M"));
        assert!(runs.changes(&runs.clone()).is_empty());
        let changes = runs.changes(&new);
        let told: Vec<_> = changes.iter().map(|change| (change.key.as_str(), change.live)).collect();
        assert_eq!(told, [("limit", true), ("dir", false)]);
        runs.take_live(new.clone());
        assert_eq!(runs.terms, new.terms);
        let left = runs.changes(&new);
        assert_eq!((left.len(), left[0].key.as_str(), left[0].before[0].as_str()), (1, "dir", "/a"));
    }
}
