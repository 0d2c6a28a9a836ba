//! Silence is an alarm: a command that is run again and again, only while all is well on this host. Whoever waits
//! for it elsewhere notices when it stops: because a daemon is gone, stands still or has something critical to say,
//! because hooks fail, or because this process or this host is not there any more.
//!
//! Every daemon is asked right before each run: what has failed since then stops the next one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use parking_lot::Mutex;

use super::caller::Runs;
use crate::cli::args::Common;
use crate::control::{Answer, Daemon, Phase, Severity, daemons};
use crate::monitor::shown::{self, Monitored};

/// The loop that hears of events has to have been there within this time.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// See the module. Dropped, it ends.
pub(super) struct Pulse {
    known: Arc<Mutex<Known>>,
    _end: Option<Sender<()>>,
}

#[derive(Default)]
struct Known {
    names: Vec<String>,
    is_failing: bool,
    heard: Option<Instant>,
}

impl Pulse {
    /// Without a command it does nothing.
    pub fn start(
        common: &Common,
        command: Option<String>,
        every: Option<Duration>,
        timeout: Duration,
        expected: Vec<String>,
    ) -> io::Result<Pulse> {
        let known = Arc::new(Mutex::new(Known::default()));
        let (Some(command), Some(every)) = (command, every) else { return Ok(Pulse { known, _end: None }) };
        let (end, ends) = bounded::<()>(0);
        let (run, shared) = (common.asked_dir(), known.clone());
        let beat = move || {
            let (mut runs, mut last, mut next) = (Runs::default(), None, Instant::now() + FIRST);
            // Nobody sends: its other end goes.
            while ends.recv_deadline(next) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                next = Instant::now() + every;
                let why = why_not(&run, &expected, &shared);
                if let Some(why) = why.as_ref().filter(|why| last.as_ref() != Some(*why)) {
                    log::warn!("the command of --alive is not run: {why}");
                }
                if why.is_none() {
                    let ended = runs.run(&command, timeout.min(every.max(SHORTEST)), &[], String::new());
                    if !ended.is_success() {
                        log::error!(
                            "the command of --alive has failed{}: {}",
                            ended.words(),
                            ended.output.trim()
                        );
                    }
                }
                last = why;
            }
        };
        std::thread::Builder::new().name("alive".into()).spawn(beat)?;
        Ok(Pulse { known, _end: Some(end) })
    }

    /// The daemons that were ever seen, and whether hooks do what they are for.
    pub fn heard<'a>(&self, names: impl Iterator<Item = &'a str>, is_failing: bool) {
        let names = names.map(str::to_owned).collect();
        *self.known.lock() = Known { names, is_failing, heard: Some(Instant::now()) };
    }
}

/// Until the daemons of this host were heard for the first time.
const FIRST: Duration = Duration::from_millis(500);
/// A command has so long at least.
const SHORTEST: Duration = Duration::from_secs(5);

/// Why not all is well.
fn why_not(run: &PathBuf, expected: &[String], known: &Mutex<Known>) -> Option<String> {
    let expected = {
        let known = known.lock();
        if known.is_failing {
            return Some("the hook fails".into());
        }
        if known.heard.is_none_or(|heard| heard.elapsed() > HEARD_WITHIN) {
            return Some("events were not heard for long".into());
        }
        if expected.is_empty() { known.names.clone() } else { expected.to_vec() }
    };
    match daemons(Path::new(run)) {
        Ok(daemons) => not_well(&daemons, &expected).or_else(|| not_watched_well(run)),
        Err(error) => Some(format!("{} cannot be read: {error}", run.display())),
    }
}

/// What monitors say.
fn not_watched_well(run: &Path) -> Option<String> {
    let seen = shown::all(run).iter().flat_map(Monitored::seen).collect::<Vec<_>>();
    seen.into_iter().find(|seen| seen.severity == Severity::Critical).map(|seen| seen.text)
}

fn not_well(daemons: &[Daemon], expected: &[String]) -> Option<String> {
    if expected.is_empty() {
        return Some("no daemon was ever seen here".into());
    }
    let missing = expected.iter().find(|name| daemons.iter().all(|daemon| daemon.name != **name));
    if let Some(name) = missing {
        return Some(format!("{name} is not there"));
    }
    daemons.iter().find_map(|daemon| {
        let name = &daemon.name;
        match &daemon.answer {
            // What is left of one that is not expected any more.
            Answer::Dead if !expected.contains(name) => None,
            Answer::Dead => Some(format!("{name} has ended without a word")),
            Answer::None(error) => Some(format!("{name}: {error}")),
            Answer::Status(status) if status.phase != Phase::Serving => {
                Some(format!("{name} does not serve"))
            }
            Answer::Status(status) => {
                let findings = status.findings();
                let worst = findings.iter().find(|finding| finding.severity == Severity::Critical)?;
                Some(format!("{name}: {}", worst.text))
            }
        }
    })
}
