//! Sets of this host that nobody serves, as it is on disk: no daemon is asked, no directory is looked at.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{End, How, LastSeen, note_path};
use crate::control::{Severity, unix_ms};
use crate::cover::Cover;
use crate::events::{About, Code, Seen};
use crate::locked::is_locked;
use crate::source_side::who_writes::{HostRole, WhoWrites, who_writes_here};
use crate::store;
use crate::words::is_set_name;

/// The document `served.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Where its socket was.
    #[serde(with = "crate::control::path_text")]
    pub run: PathBuf,
    #[serde(with = "crate::control::path_text")]
    pub directory: PathBuf,
    pub since_unix_ms: u64,
    /// Of the service manager, where that had started it.
    pub unit: Option<String>,
    pub connections: Vec<LastSeen>,
    pub ended: Option<End>,
    /// A person has said that nobody is to serve it.
    pub taken_out: bool,
}

/// A set that was served, and is not. Field names are a promise to scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotServed {
    pub name: String,
    #[serde(with = "crate::control::path_text")]
    pub directory: PathBuf,
    pub ended: Ended,
    /// When it ended; of one that was killed, when it was there last.
    pub since_unix_ms: u64,
    /// What targets lacked, in words.
    pub left: Vec<String>,
    pub connections: Vec<LastSeen>,
    /// What to do.
    pub next: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// In order, as it was told to.
    Stopped,
    Unmounted,
    /// No end was noted: it was killed, it crashed, or the host did.
    Killed,
}

impl NotServed {
    pub fn severity(&self) -> Severity {
        match self.ended {
            Ended::Stopped => Severity::Warning,
            Ended::Unmounted | Ended::Killed => Severity::Critical,
        }
    }

    /// As one of the findings.
    pub fn seen(&self) -> Seen {
        let (name, directory) = (&self.name, self.directory.display());
        let how = match self.ended {
            Ended::Stopped => "it was stopped in order",
            Ended::Unmounted => "somebody else took its mount away",
            Ended::Killed => "its daemon was killed, or crashed",
        };
        Seen {
            code: Code::SetNotServed,
            severity: self.severity(),
            about: About { set: Some(name.clone()), ..About::default() },
            text: format!("{directory} is not protected: nobody serves the set '{name}'; {how}."),
        }
    }
}

/// Sets of this state directory whose last daemon had its socket in this run directory, and that nobody serves; without
/// those that were handed over, have become replicas, or were taken out.
///
/// Errors: the system's; a note that cannot be read.
pub fn not_served(state: &Path, run: &Path) -> io::Result<Vec<NotServed>> {
    let run = real(run);
    let mut found = Vec::new();
    for name in names(state)? {
        let set_state = state.join(&name);
        let path = note_path(&set_state);
        let Some(note) = store::read_json::<Note>(&path)? else { continue };
        if note.taken_out || real(&note.run) != run || is_served(&set_state)? {
            continue;
        }
        // It may have ended in between.
        let note = store::read_json::<Note>(&path)?.unwrap_or(note);
        let modified = fs::metadata(&path)?.modified()?;
        found.extend(of_note(state, &name, note, unix_ms(modified))?);
    }
    Ok(found)
}

/// Nobody is to serve this set until it is served again: answers whether it is known, and was not taken out before.
///
/// Errors: the system's.
pub fn take_out(state: &Path, name: &str) -> io::Result<bool> {
    let path = note_path(&state.join(name));
    match store::read_json::<Note>(&path)? {
        Some(note) if !note.taken_out && !is_served(&state.join(name))? => {
            store::replace_json(&path, &Note { taken_out: true, ..note })?;
            Ok(true)
        }
        Some(_) | None => Ok(false),
    }
}

fn names(state: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(state) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names: io::Result<Vec<_>> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let names = names?.into_iter().filter_map(|name| name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| is_set_name(name)).collect();
    names.sort();
    Ok(names)
}

/// By the lock that a daemon has, and whoever restores its directory.
fn is_served(set_state: &Path) -> io::Result<bool> {
    match File::open(set_state.join("lock")) {
        Ok(lock) => Ok(is_locked(&lock)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn of_note(state: &Path, name: &str, note: Note, last_unix_ms: u64) -> io::Result<Option<NotServed>> {
    if Cover::noted(&state.join(name))?.is_some() {
        return Ok(None);
    }
    // What is known of others is no reason to say nothing of this one.
    let all = who_writes_here(state).unwrap_or_default();
    let role = all.iter().find(|one| one.name == name);
    if role.is_some_and(|one| one.role == HostRole::Target) {
        return Ok(None);
    }
    let next = next(name, &note, role);
    let (ended, since_unix_ms, left) = match note.ended {
        Some(End { at_unix_ms, how: How::Stopped, left }) => (Ended::Stopped, at_unix_ms, left),
        Some(End { at_unix_ms, how: How::Unmounted, left }) => (Ended::Unmounted, at_unix_ms, left),
        None => (Ended::Killed, last_unix_ms.max(note.since_unix_ms), Vec::new()),
    };
    let (name, directory, connections) = (name.to_owned(), note.directory, note.connections);
    Ok(Some(NotServed { name, directory, ended, since_unix_ms, left, connections, next }))
}

fn next(name: &str, note: &Note, role: Option<&WhoWrites>) -> String {
    if let Some((epoch, told_by)) = role.and_then(|one| one.stood_in_for.as_ref()) {
        return format!(
            "It is written elsewhere in epoch {}, says {told_by}: standin roles {name}",
            epoch.number
        );
    }
    let start = match &note.unit {
        Some(unit) => format!("systemctl start {unit}"),
        None => {
            let targets: String =
                note.connections.iter().map(|one| format!(" --to {}", one.target)).collect();
            format!(
                "standin protect {} --name {name}{targets}, with its other options of before",
                note.directory.display()
            )
        }
    };
    format!("{start}; if nobody is to serve it any more: standin set delete {name}")
}

/// However it was typed.
fn real(run: &Path) -> PathBuf {
    fs::canonicalize(run).or_else(|_| std::path::absolute(run)).unwrap_or_else(|_| run.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ConnectionState;
    use crate::locked::Locked;
    use crate::packet::DataState;

    struct Host(tempfile::TempDir);

    impl Host {
        /// Where this set was served, and ended so.
        fn with(name: &str, ended: Option<How>) -> Host {
            let host = Host(tempfile::tempdir().unwrap());
            let end = |how| End { at_unix_ms: 5000, how, left: vec!["local:/r: x".into()] };
            let note = Note {
                run: host.run(),
                directory: "/srv/web".into(),
                since_unix_ms: 1000,
                unit: None,
                connections: vec![LastSeen {
                    target: "local:/r".into(),
                    state: ConnectionState::Started,
                    data: DataState::Good,
                    reason: String::new(),
                }],
                ended: ended.map(end),
                taken_out: false,
            };
            fs::create_dir_all(host.set(name)).unwrap();
            fs::create_dir_all(host.run()).unwrap();
            File::create(host.set(name).join("lock")).unwrap();
            store::replace_json(&note_path(&host.set(name)), &note).unwrap();
            host
        }

        fn state(&self) -> PathBuf {
            self.0.path().join("state")
        }

        fn set(&self, name: &str) -> PathBuf {
            self.state().join(name)
        }

        fn run(&self) -> PathBuf {
            self.0.path().join("run")
        }

        fn found(&self) -> Vec<NotServed> {
            not_served(&self.state(), &self.run()).unwrap()
        }

        fn change(&self, name: &str, change: impl FnOnce(&mut Note)) {
            let path = note_path(&self.set(name));
            let mut note = store::read_json::<Note>(&path).unwrap().unwrap();
            change(&mut note);
            store::replace_json(&path, &note).unwrap();
        }
    }

    #[test]
    fn the_end_is_told_apart() {
        let check = |how, ended, severity| {
            let host = Host::with("web", how);
            let found = host.found();
            let [one] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((one.name.as_str(), one.ended, one.severity()), ("web", ended, severity));
            assert_eq!(one.seen().code, Code::SetNotServed);
            one.clone()
        };
        let stopped = check(Some(How::Stopped), Ended::Stopped, Severity::Warning);
        assert_eq!((stopped.since_unix_ms, stopped.left.len()), (5000, 1));
        assert!(
            stopped.next.starts_with("standin protect /srv/web --name web --to local:/r,"),
            "{stopped:?}"
        );
        check(Some(How::Unmounted), Ended::Unmounted, Severity::Critical);
        let killed = check(None, Ended::Killed, Severity::Critical);
        assert!(
            killed.since_unix_ms > 5000 && killed.left.is_empty(),
            "when the note was moved on: {killed:?}"
        );
        assert_eq!(killed.connections.len(), 1);
    }

    #[test]
    fn who_is_served_or_elsewhere_is_not_shown() {
        let host = Host::with("web", None);
        let lock = Locked::now(File::open(host.set("web").join("lock")).unwrap()).unwrap();
        assert_eq!(host.found(), [], "a daemon has it");
        drop(lock);
        assert_eq!(host.found().len(), 1);
        let elsewhere = host.0.path().join("other");
        assert_eq!(not_served(&host.state(), &elsewhere).unwrap(), [], "of another run directory");
        // A link to it is the same.
        std::os::unix::fs::symlink(host.run(), &elsewhere).unwrap();
        assert_eq!(not_served(&host.state(), &elsewhere).unwrap().len(), 1);
        assert_eq!(not_served(Path::new("/nowhere/at/all"), &host.run()).unwrap(), []);
    }

    #[test]
    fn what_was_taken_out_is_not_shown_until_it_is_served_again() {
        let host = Host::with("web", Some(How::Stopped));
        assert!(take_out(&host.state(), "web").unwrap());
        assert!(!take_out(&host.state(), "web").unwrap(), "twice");
        assert!(!take_out(&host.state(), "other").unwrap(), "nobody knows it");
        assert_eq!(host.found(), []);
        // As a start writes it.
        host.change("web", |note| (note.ended, note.taken_out) = (None, false));
        assert_eq!(host.found().len(), 1);
    }

    #[test]
    fn a_unit_is_named_where_one_had_started_it() {
        let host = Host::with("web", None);
        host.change("web", |note| note.unit = Some("standin@srv-web.service".into()));
        let next = host.found().remove(0).next;
        assert!(next.starts_with("systemctl start standin@srv-web.service; "), "{next}");
    }

    /// A note that nobody understands is no set that is served.
    #[test]
    fn a_broken_note_is_an_error() {
        let host = Host::with("web", None);
        fs::write(note_path(&host.set("web")), "{").unwrap();
        assert!(not_served(&host.state(), &host.run()).is_err());
    }
}
