//! How a monitor is: `RUN/SET.monitor`, replaced once a second and at each change; and `RUN/SET.monitor.lock`, held for as
//! long as it lives. Who reads both knows a monitor that has died, and one that stands still.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::machine::Health;
use super::outage::Outage;
use super::plan::Need;
use crate::clock::steady_ms;
use crate::events::{About, Code, Seen, Severity};
use crate::locked::{LOOKED_FOR, Locked, is_locked};
use crate::store::{self, Symlink};
use crate::sys::boot_id;
use crate::units;

const SUFFIX: &str = ".monitor";
/// One that says nothing for so long stands still: it speaks each second.
const FROZEN_AFTER_MS: u64 = 10_000;

/// Field names are a promise to scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub set: String,
    pub pid: u32,
    pub version: String,
    pub health: Health,
    pub since_unix_ms: u64,
    /// How long there is silence; null where no probe can tell.
    pub silent_ms: Option<u64>,
    /// Until it could be red; null where nothing is concluded.
    pub time_to_fail_ms: Option<u64>,
    pub timeout_ms: u64,
    pub worst_case_ms: u64,
    pub need: Need,
    pub probes: Vec<Probed>,
    /// A failover is done at red.
    pub auto: bool,
    /// That was acted on, and is not over.
    pub outage: Option<Outage>,
    /// When this was written.
    pub at_unix_ms: u64,
    /// The same by a clock that nobody sets, of this boot.
    pub beat_ms: u64,
    pub boot: String,
}

/// A probe and what came of its last attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    pub probe: String,
    /// Of the own network.
    pub own: bool,
    /// `there`, `silent` or `unknown`; null before the first attempt has ended.
    pub answer: Option<String>,
    pub why: String,
}

/// Whether the monitor itself is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    Alive,
    /// It runs, and stands still.
    Frozen,
    /// It was killed, or has crashed.
    Dead,
}

/// One monitor of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Monitored {
    pub life: Life,
    #[serde(flatten)]
    pub shown: Shown,
}

/// Held by the monitor of a set. Dropped, what it has shown is gone, too.
pub struct Place {
    path: PathBuf,
    _lock: Locked,
}

fn path(run: &Path, set: &str) -> PathBuf {
    run.join(format!("{set}{SUFFIX}"))
}

fn lock_path(shown: &Path) -> PathBuf {
    shown.with_extension("monitor.lock")
}

impl Place {
    /// `None`: another monitor of the set runs.
    pub fn take(run: &Path, set: &str) -> io::Result<Option<Place>> {
        store::own_directory(run, 0o755, Symlink::Own)?;
        let path = path(run, set);
        // For its owner alone: whoever may open it can hold it, and keep a monitor from being started.
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(lock_path(&path))?;
        lock.set_permissions(Permissions::from_mode(0o600))?;
        Ok(Locked::within(lock, LOOKED_FOR)?.map(|lock| Place { path, _lock: lock }))
    }

    /// Errors: the system's; what was shown before stays.
    pub fn show(&self, shown: &Shown) -> io::Result<()> {
        // Nobody needs it after a power loss: no sync.
        let text = serde_json::to_vec(shown)?;
        let temporary = self.path.with_extension("monitor.new");
        fs::write(&temporary, text)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o644))?;
        fs::rename(&temporary, &self.path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Of one set; `None`: no monitor runs, or was killed since the host was started.
///
/// Errors: the system's, or what is there is no such document.
pub fn of(run: &Path, set: &str) -> io::Result<Option<Monitored>> {
    let path = path(run, set);
    let Some(shown) = store::read_json::<Shown>(&path)? else { return Ok(None) };
    let is_held = match File::open(lock_path(&path)) {
        Ok(lock) => is_locked(&lock),
        // Of another user: one that has died is known by its process, or says nothing any more.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Path::new(&format!("/proc/{}", shown.pid)).exists()
        }
        Err(_) => false,
    };
    let is_this_boot = boot_id().is_ok_and(|boot| format!("{boot:032x}") == shown.boot);
    let life = match () {
        () if !is_held || !is_this_boot => Life::Dead,
        () if steady_ms().saturating_sub(shown.beat_ms) > FROZEN_AFTER_MS => Life::Frozen,
        () => Life::Alive,
    };
    Ok(Some(Monitored { life, shown }))
}

/// All of a run directory, in order of their sets. What cannot be read is left out.
pub fn all(run: &Path) -> Vec<Monitored> {
    let entries = fs::read_dir(run).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut sets: Vec<String> =
        names.filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned)).collect();
    sets.sort();
    sets.iter().filter_map(|set| of(run, set).ok().flatten()).collect()
}

impl Monitored {
    /// What a person should know, worst first; empty where all is well.
    pub fn seen(&self) -> Vec<Seen> {
        let set = &self.shown.set;
        let mut seen = Vec::new();
        let mut say = |code, severity, text| {
            let about = About { set: Some(set.clone()), ..About::default() };
            seen.push(Seen { code, severity, about, text });
        };
        let health = self.shown.health;
        let said = self.shown.silence();
        if self.life != Life::Alive {
            let text = format!("The monitor of {set} {}: nobody watches its source.", self.life.words());
            say(Code::MonitorGone, Severity::Critical, text);
        } else if self.stands_in() {
            // It is not the source that is watched from here any more.
        } else if health == Health::Red {
            let text = format!("The source of {set} gives no sign of life {said}.");
            say(Code::SourceRed, Severity::Critical, text);
        } else if health == Health::Yellow {
            let text = format!("The source of {set} does not answer as it should, {said}.");
            say(Code::SourceYellow, Severity::Warning, text);
        } else if health == Health::Blind {
            let text = format!("The monitor of {set} can conclude nothing: {}.", self.shown.reasons());
            say(Code::MonitorBlind, Severity::Warning, text);
        }
        if let Some(outage) = &self.shown.outage {
            if let Some(why) = outage.failed() {
                let text = format!("The monitor of {set} does not stand in: {why}.");
                say(Code::AutoFailed, Severity::Critical, text);
            } else if self.stands_in() {
                let text = format!("This host stands in for the source of {set}: {}.", outage.words());
                say(Code::AutoStoodIn, Severity::Warning, text);
            }
        }
        seen
    }

    fn stands_in(&self) -> bool {
        self.shown.outage.as_ref().is_some_and(Outage::stands_in)
    }

    pub fn severity(&self) -> Severity {
        self.seen().iter().map(|seen| seen.severity).max().unwrap_or(Severity::Ok)
    }

    /// On one line.
    pub fn words(&self) -> String {
        let shown = &self.shown;
        let auto = if shown.auto { ", fails over by itself" } else { "" };
        let outage = shown.outage.as_ref().map(|outage| format!("; {}", outage.words())).unwrap_or_default();
        match self.life {
            Life::Alive => format!("{} {}{auto}{outage}", shown.health, shown.details()),
            life => format!("{}: {} was the last that it said{outage}", life.words(), shown.health),
        }
    }
}

impl Life {
    fn words(self) -> &'static str {
        match self {
            Life::Alive => "runs",
            Life::Frozen => "stands still",
            Life::Dead => "was killed, or has crashed",
        }
    }
}

impl Shown {
    /// For how long, and what probes have said.
    pub fn silence(&self) -> String {
        let ms = |ms: u64| units::duration(Duration::from_millis(ms));
        let since = self.silent_ms.map_or_else(String::new, |silent| format!("for {}: ", ms(silent)));
        format!("{since}{}", self.reasons())
    }

    /// What probes have said that did not find it.
    pub fn reasons(&self) -> String {
        let of = |probed: &Probed| {
            let own = if probed.own { "own network, " } else { "" };
            let why = if probed.why.is_empty() { "no answer yet" } else { &probed.why };
            format!("{own}{}: {why}", probed.probe)
        };
        let silent = |probed: &&Probed| probed.answer.as_deref() != Some("there");
        let all: Vec<String> = self.probes.iter().filter(silent).map(of).collect();
        if all.is_empty() { "it was not listened to for a while".into() } else { all.join("; ") }
    }

    fn details(&self) -> String {
        match (self.health, self.time_to_fail_ms) {
            (Health::Green, _) => String::from("(its source answers)"),
            (Health::Yellow, Some(left)) => {
                format!("({}; red in {:.1} s)", self.reasons(), left as f64 / 1000.0)
            }
            _ => format!("({})", self.silence()),
        }
    }
}
