//! The file of the set, read anew: all of it counts from then on, or nothing. What can change while the set is
//! protected does; the rest is named, and counts with the next start.
//!
//! ```text
//!  SIGHUP, `standin reload`, `standin set change` ── read, check ── rules ── removals ── terms of connections
//!                                                         └── wrong: everything as it was
//! ```

use std::sync::Arc;

use parking_lot::Mutex;

use super::board::Board;
use super::connection::Connection;
use super::ground::Ground;
use super::rules;
use super::terms::Terms;
use crate::control::{ConfigurationReport, FileTrouble, OptionsFile, Phase, ReloadReport, RulesReport};
use crate::failure::Failure;
use crate::service_manager::ServiceManager;
use crate::words::{Configuration, FileTerms};

/// What holds now. Locks: `one` before `file` before `now`, and the last two for a moment only.
pub struct Followed {
    now: Mutex<Configuration>,
    /// One reading after the other.
    one: Mutex<()>,
    file: Mutex<OptionsFile>,
}

impl Followed {
    pub fn new(configuration: Configuration) -> Followed {
        Followed { now: Mutex::new(configuration), one: Mutex::new(()), file: Mutex::default() }
    }

    pub fn now(&self) -> Configuration {
        self.now.lock().clone()
    }

    /// Does something while nobody changes what holds, or not at all.
    pub fn while_it_holds(&self, act: impl FnOnce()) {
        if let Some(_one) = self.one.try_lock() {
            act();
        }
    }

    pub fn terms(&self) -> FileTerms {
        self.now.lock().terms.clone()
    }

    /// Reads the file where it is another one than at the last look. Changes nothing but what is said of it.
    pub fn look(&self) {
        let now = self.now();
        if self.file.lock().is_other(&now) {
            let read = now.read_again();
            self.file.lock().was_read(&self.now(), read.as_ref().cloned());
        }
    }

    /// What is to be said of the file, by what it said when it was read last.
    pub fn trouble(&self) -> Option<FileTrouble> {
        self.file.lock().trouble(&self.now())
    }
}

/// See the module. Blocks for as long as the disk of the file takes.
///
/// Errors: the file is wrong, or the daemon is not serving; everything is as it was then.
pub fn reload(ground: &Ground, board: &Board) -> Result<(ReloadReport, RulesReport), Failure> {
    let posted = board.read();
    if posted.phase != Phase::Serving {
        let directory = ground.options.directory.display();
        return Err(Failure::new(
            format!("The daemon of {directory} does not serve at this moment."),
            "Nothing was changed.",
            "Wait until `standin status` says that it serves.",
        ));
    }
    let manager = ServiceManager::of_process();
    manager.reloading();
    let outcome = take(ground, &posted.connections);
    manager.ready();
    outcome
}

fn take(ground: &Ground, connections: &[Arc<Connection>]) -> Result<(ReloadReport, RulesReport), Failure> {
    let _one = ground.followed.one.lock();
    let before = ground.followed.now();
    let read = before.read_again();
    if let Err(failure) = &read {
        ground.followed.file.lock().was_read(&before, Err(failure));
    }
    let new = read.map_err(as_it_was)?;
    // First: the only step that can fail.
    let followed = rules::follow(ground, &new.terms)?;
    let terms = Terms::of(&ground.options, &new.terms);
    if terms != Terms::of(&ground.options, &before.terms) {
        let connections = connections.iter().filter(|connection| !connection.is_null());
        connections.for_each(|connection| connection.follow(terms.clone()));
    }
    let (changed, restart) = before.changes(&new).into_iter().partition(|change| change.live);
    let file = new.file.clone();
    ground.followed.now.lock().take_live(new.clone());
    ground.followed.file.lock().was_read(&ground.followed.now(), Ok(new));
    Ok((ReloadReport { name: ground.options.name.clone(), file, changed, restart }, followed))
}

fn as_it_was(failure: Failure) -> Failure {
    Failure { untouched: "What held before goes on to hold; the next start is refused.".into(), ..failure }
}

/// What holds, and what would with the files as they are now.
pub fn report(ground: &Ground) -> ConfigurationReport {
    let now = ground.followed.now();
    let read = now.read_again().map_err(as_it_was);
    let (changes, failure) = match read {
        Ok(new) => (now.changes(&new), None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    ConfigurationReport {
        name: ground.options.name.clone(),
        file: now.file,
        settings: now.settings,
        changes,
        failure,
    }
}

/// From the thread of the signals: a disk that hangs must not keep it from the next one.
pub fn by_signal(ground: &Arc<Ground>, board: &Arc<Board>) {
    let (ground, board) = (ground.clone(), board.clone());
    let reading = move || match reload(&ground, &board) {
        Ok((report, _)) => report.lines().iter().for_each(|line| log::info!("{line}")),
        Err(failure) => log::error!("the file of the set is not followed: {failure}"),
    };
    if let Err(error) = std::thread::Builder::new().name("reload".into()).spawn(reading) {
        log::error!("the file of the set is not read anew: no thread: {error}");
    }
}
