//! `standin events test`: an event that a person sends through the hook of the process that runs, by a file in its
//! directory; what came of it comes back the same way.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::hooks::{lock, own_dir};
use crate::cli::args::Common;
use crate::cli::{Outcome, output};
use crate::commands::Ended;
use crate::events::{About, Code, Now, Seen, Severity, Told, once};
use crate::failure::Failure;
use crate::store::{self, random_u64};

#[derive(Serialize, Deserialize)]
struct Asked {
    id: String,
}

#[derive(Serialize, Deserialize)]
struct Came {
    id: String,
    ended: Ended,
}

/// The side of the process that runs.
pub(super) struct Trials {
    dir: PathBuf,
}

impl Trials {
    pub fn new(dir: &Path) -> Trials {
        Trials { dir: dir.to_owned() }
    }

    /// One that somebody has asked for.
    pub fn asked(&self, now: Now) -> Option<Told> {
        // Taken before it is read: what somebody asks meanwhile stays.
        let path = self.dir.join("testing.json");
        fs::rename(asked_path(&self.dir), &path).ok()?;
        let asked = store::read_json::<Asked>(&path).ok().flatten();
        let _ = fs::remove_file(&path);
        let text = "A person tries the hooks: nothing has happened.".to_owned();
        let seen = Seen { code: Code::Test, severity: Severity::Critical, about: About::default(), text };
        asked.map(|asked| once(asked.id, now, seen))
    }

    pub fn ended(&self, id: &str, ended: &Ended) {
        let came = Came { id: id.to_owned(), ended: ended.clone() };
        if let Err(error) = store::replace_json(&came_path(&self.dir), &came) {
            log::error!("who tries the hooks was not told what came of it: {error}");
        }
    }
}

fn asked_path(dir: &Path) -> PathBuf {
    dir.join("test.json")
}

fn came_path(dir: &Path) -> PathBuf {
    dir.join("tested.json")
}

pub(super) fn test(common: &Common, timeout: Duration) -> Outcome {
    let dir = own_dir(common);
    let unusable = |error: std::io::Error| {
        Failure::new(
            format!("{} cannot be used: {error}.", dir.display()),
            "No hook was called.",
            "Run it as root, or name the state directory of `standin events run` with --state.",
        )
    };
    if lock(&dir).map_err(unusable)?.is_some() {
        return Err(Failure::new(
            "No `standin events run` is there that could call a hook.",
            "No hook was called.",
            "Start one: `standin events run --hook COMMAND`, or its unit standin-events.service.",
        ));
    }
    let id = format!("test/{:016x}", random_u64());
    store::replace_json(&asked_path(&dir), &Asked { id: id.clone() }).map_err(unusable)?;
    let until = Instant::now() + timeout;
    loop {
        let came = store::read_json::<Came>(&came_path(&dir)).ok().flatten();
        if let Some(came) = came.filter(|came| came.id == id) {
            return Ok(said(common, &came.ended));
        }
        if Instant::now() >= until {
            return Err(Failure::new(
                format!("Nothing came of it within {} s.", timeout.as_secs()),
                "The hook may still be called.",
                "Read the log of `standin events run`: other calls may wait, or fail.",
            )
            .passing());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn said(common: &Common, ended: &Ended) -> u8 {
    if common.json {
        output::json(&json!({ "success": ended.is_success(), "ended": ended }));
    } else {
        let how = if ended.is_success() { "The hook was called" } else { "The hook has failed" };
        output::text(&format!("{how}{}.\n{}", ended.words(), ended.output.trim_end()));
    }
    if ended.is_success() { 0 } else { crate::cli::CANNOT }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever asks at the same moment as it is looked for is heard, once.
    #[test]
    fn none_that_was_asked_for_is_lost() {
        const TRIALS: u32 = 300;
        let dir = tempfile::tempdir().unwrap();
        let trials = Trials::new(dir.path());
        let now = || Now { since_start: Duration::ZERO, unix_ms: 1 };
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| {
                for number in 0..TRIALS {
                    store::replace_json(&asked_path(dir.path()), &Asked { id: number.to_string() }).unwrap();
                    while asked_path(dir.path()).exists() {
                        std::thread::yield_now();
                    }
                }
            });
            let mut heard = Vec::new();
            while !asks.is_finished() {
                heard.extend(trials.asked(now()).map(|told| told.id));
            }
            let all: Vec<_> = (0..TRIALS).map(|number| number.to_string()).collect();
            assert_eq!(heard, all);
        });
    }
}
