//! What is to be said of the file of options of a daemon that runs: looked at whenever it is another one than before,
//! and taken up only when a person says so.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::failure::Failure;
use crate::words::{Configuration, SettingChange};

/// See the module.
#[derive(Default)]
pub struct OptionsFile {
    /// As the file was when it was last looked at.
    seen: Option<Seen>,
    /// What it says then, or what is wrong with it.
    read: Option<Result<Configuration, String>>,
    /// What was said of it last.
    said: Option<FileTrouble>,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileTrouble {
    /// It cannot be followed, and why.
    Wrong(String),
    /// It says otherwise of these, and nobody has had it read anew, or only the next start can follow it.
    Waits(String),
}

/// By what a file is known to be another one: file system, inode, size, mode, time of its last change.
#[derive(PartialEq, Eq)]
struct Seen(Option<(u64, u64, u64, u32, i64, i64)>);

impl OptionsFile {
    /// Whether it has to be read: it is another one than at the last look.
    pub fn is_other(&mut self, now: &Configuration) -> bool {
        let seen = now.file.as_deref().map(Seen::of);
        let is_other = self.seen != seen;
        self.seen = seen;
        is_other
    }

    /// What came of reading it. Into the log goes what is otherwise than before.
    pub fn was_read(&mut self, now: &Configuration, read: Result<Configuration, &Failure>) {
        self.read = Some(read.map_err(|failure| one_line(&failure.what)));
        let trouble = self.trouble(now);
        if self.said != trouble {
            let file = now.file.as_deref().unwrap_or(Path::new("")).display();
            match &trouble {
                Some(FileTrouble::Wrong(why)) => log::warn!("{file} cannot be followed: {why}"),
                Some(FileTrouble::Waits(keys)) => log::info!("{file} says otherwise of {keys}"),
                None => log::info!("{file} says what holds"),
            }
            self.said = trouble;
        }
    }

    /// What is to be said, with what holds now.
    pub fn trouble(&self, now: &Configuration) -> Option<FileTrouble> {
        match self.read.as_ref()? {
            Err(why) => Some(FileTrouble::Wrong(why.clone())),
            Ok(file) => waits(&now.changes(file)),
        }
    }
}

impl Seen {
    /// What is not there, or says nothing, is none.
    fn of(path: &Path) -> Seen {
        let found = std::fs::metadata(path).ok();
        Seen(found.map(|of| (of.dev(), of.ino(), of.size(), of.mode(), of.ctime(), of.ctime_nsec())))
    }
}

fn waits(changes: &[SettingChange]) -> Option<FileTrouble> {
    let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
    (!keys.is_empty()).then(|| FileTrouble::Waits(keys.join(", ")))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
