//! The file of a target daemon, read anew. Nothing of it changes while the daemon runs: it has given up the rights
//! for that. What is otherwise is named, and counts with the next start.

use super::options::ServeOptions;
use crate::control::{ConfigurationReport, ReloadReport};
use crate::failure::Failure;
use crate::service_manager::ServiceManager;

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
            let untouched = "The daemon goes on as before; the next start is refused.";
            (Vec::new(), Some(Failure { untouched: untouched.into(), ..failure }))
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
