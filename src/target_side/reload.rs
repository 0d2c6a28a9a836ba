//! The file of a target daemon, read anew. Nothing of it changes while the daemon runs: it has given up the rights
//! for that. What is otherwise is named, and counts with the next start.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;

use super::options::ServeOptions;
use crate::control::{Alert, ConfigurationReport, FileTrouble, OptionsFile, ReloadReport, Severity};
use crate::events::Code;
use crate::failure::Failure;
use crate::service_manager::ServiceManager;

/// How often it is looked whether the file is another one.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is to be said of the file: one that is wrong is found at the next start, which may be years later.
#[derive(Clone, Default)]
pub struct Watched(Arc<Mutex<OptionsFile>>);

impl Watched {
    /// Looks at it until the answer is dropped, on a thread of its own: a disk that hangs keeps nobody else.
    pub fn start(&self, options: &ServeOptions) -> io::Result<Sender<()>> {
        let (end, ended) = bounded::<()>(0);
        let (file, now) = (self.0.clone(), options.configuration.clone());
        let look = move || {
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if file.lock().is_other(&now) {
                    let read = now.read_again();
                    file.lock().was_read(&now, read.as_ref().cloned());
                }
            }
        };
        std::thread::Builder::new().name("options".into()).spawn(look)?;
        Ok(end)
    }

    pub fn alert(&self, options: &ServeOptions) -> Option<Alert> {
        let path = options.configuration.file.as_deref().unwrap_or(std::path::Path::new("")).display();
        let (severity, code, text) = match self.0.lock().trouble(&options.configuration)? {
            FileTrouble::Wrong(why) => {
                let then = if why.contains(DENIED) { NOT_KNOWN } else { "the next start is refused." };
                let text = format!("{path} cannot be followed ({why}). The daemon goes on as before; {then}");
                (Severity::Warning, Code::SetFile, text)
            }
            FileTrouble::Waits(keys) => {
                let text = format!(
                    "{path} says otherwise of {keys}: `standin config diff` shows how; it counts with the next start."
                );
                (Severity::Ok, Code::SetFileWaits, text)
            }
        };
        Some(Alert { severity, code, text })
    }
}

/// A daemon that has given up its privileges may not reach what its start can (EACCES, in the system's words).
const DENIED: &str = "Permission denied";
const NOT_KNOWN: &str = "a daemon that runs reaches nothing outside of its directories, so only `standin config check \
                         serve`, or the next start, says whether the file is right.";

/// See the module.
///
/// Errors: the file is wrong.
pub fn reload(options: &ServeOptions) -> Result<ReloadReport, Failure> {
    let manager = ServiceManager::of_process();
    manager.reloading();
    let report = report(options);
    manager.ready();
    match report {
        ConfigurationReport { failure: Some(failure), .. } => Err(failure),
        ConfigurationReport { name, file, changes, .. } => {
            Ok(ReloadReport { name, file, changed: Vec::new(), restart: changes })
        }
    }
}

/// What holds, and what would with the file as it is now.
pub fn report(options: &ServeOptions) -> ConfigurationReport {
    let now = &options.configuration;
    let (changes, failure) = match now.read_again() {
        Ok(new) => (now.changes(&new), None),
        Err(failure) => {
            let then = if failure.what.contains(DENIED) { NOT_KNOWN } else { "the next start is refused." };
            let untouched = format!("The daemon goes on as before; {then}");
            (Vec::new(), Some(Failure { untouched, ..failure }))
        }
    };
    ConfigurationReport {
        name: options.name.clone(),
        file: now.file.clone(),
        settings: now.settings.clone(),
        changes,
        failure,
    }
}

/// From the thread of the signals: a disk that hangs must not keep it from the next one.
pub fn by_signal(options: &ServeOptions) {
    let options = options.clone();
    let reading = move || match reload(&options) {
        Ok(report) => report.lines().iter().for_each(|line| log::info!("{line}")),
        Err(failure) => log::error!("the file of the daemon cannot be followed: {failure}"),
    };
    if let Err(error) = std::thread::Builder::new().name("reload".into()).spawn(reading) {
        log::error!("the file of the daemon is not read anew: no thread: {error}");
    }
}
