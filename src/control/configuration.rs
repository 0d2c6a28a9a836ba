//! What a daemon says of its options: what holds, what its files say now, and what came of reading them anew.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::words::{Setting, SettingChange};

/// What came of reading the files anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Of the daemon.
    pub name: String,
    pub file: Option<PathBuf>,
    /// These hold from now on.
    pub changed: Vec<SettingChange>,
    /// These count with the next start, and were not changed.
    pub restart: Vec<SettingChange>,
}

/// What holds in a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationReport {
    pub name: String,
    pub file: Option<PathBuf>,
    pub settings: Vec<Setting>,
    /// What its files say otherwise.
    pub changes: Vec<SettingChange>,
    /// Why they are not followed.
    pub failure: Option<Failure>,
}

impl ReloadReport {
    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let name = &self.name;
        if self.changed.is_empty() && self.restart.is_empty() {
            return vec![format!("{name}: nothing is otherwise than before.")];
        }
        let live = self.changed.iter().map(|change| format!("{name}: {} from now on.", change_text(change)));
        let restart = |change| format!("{name}: {} only with the next start.", change_text(change));
        live.chain(self.restart.iter().map(restart)).collect()
    }
}

/// One change in words: what it is, and what it was.
pub fn change_text(SettingChange { key, before, after, from, .. }: &SettingChange) -> String {
    let before = match before.as_slice() {
        [] => "and was not set before".to_owned(),
        before => format!("not {}", values_text(before)),
    };
    format!("{key} is {} ({}), {before},", values_text(after), from.text())
}

/// The values of an option in words.
pub fn values_text(values: &[String]) -> String {
    match values {
        [] => "not set".to_owned(),
        values => values.join(", "),
    }
}
