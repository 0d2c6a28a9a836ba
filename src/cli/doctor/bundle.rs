//! `standin doctor --bundle FILE`: what a fault can be told from, in one file: the doctor's own lines, and of every daemon
//! of this host its status, its history, its events and its options.
//!
//! Names are no part of it unless they are asked for ([`veil`]); commands of hooks, drills and monitors never are, for
//! keys may stand in them.

mod veil;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use self::veil::Veil;
use super::Report;
use crate::cli::args::Common;
use crate::cli::output::Printed;
use crate::cli::status::Document;
use crate::cli::{Outcome, config, events, output};
use crate::control::{Answer, Client, ClientError, Daemon, daemons, unix_ms};
use crate::failure::Failure;
use crate::preflight::kernel_version;
use crate::units;

/// Only its owner reads it: what it says of a host is for whoever it is given to.
const MODE: u32 = 0o600;

/// `names`: with the names.
pub(super) fn make(common: &Common, path: &Path, names: bool, report: &Report) -> Outcome {
    if fs::symlink_metadata(path).is_ok() {
        return Err(refused(path, &io::ErrorKind::AlreadyExists.into()));
    }
    let mut bundle = collect(common, names, report);
    if !names {
        Veil::default().over(&mut bundle);
    }
    let text =
        serde_json::to_vec_pretty(&Printed::new(bundle)).map_err(|error| refused(path, &error.into()))?;
    // Not before: whoever gives up meanwhile leaves no file.
    let mut file = begin(path)?;
    if let Err(error) = file.write_all(&text).and_then(|()| file.sync_all()) {
        let _ = fs::remove_file(path);
        return Err(refused(path, &error));
    }
    let bytes = text.len() as u64;
    if common.json {
        output::json(&json!({ "bundle": path, "bytes": bytes, "names": names }));
        return Ok(0);
    }
    let what = match names {
        true => "It has names of files, directories and hosts, and the texts in which they stand.",
        false => "Names, and texts in which they may stand, are numbers in it (~1, ~2).",
    };
    output::text(&format!(
        "{} is written ({}). {what} It is JSON, for people to read, too: look through it before it is handed on.",
        path.display(),
        units::size(bytes)
    ));
    Ok(0)
}

/// Errors: it is there already, or cannot be made.
fn begin(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path)
        .map_err(|error| refused(path, &error))
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    let next = match error.kind() {
        io::ErrorKind::AlreadyExists => "Name a file that is not there yet.",
        _ => "Name a file on a disk that has room for it.",
    };
    Failure::new(
        format!("The bundle {} cannot be written: {error}.", path.display()),
        "Nothing was changed.",
        next,
    )
}

fn collect(common: &Common, names: bool, report: &Report) -> Value {
    let mut missing = Missing::default();
    let daemons: Vec<Value> = missing
        .take("daemons", daemons(&common.asked_dir()))
        .unwrap_or_default()
        .iter()
        .map(|daemon| of_daemon(daemon, &mut missing))
        .collect();
    let events = missing.take("events", events::listed(common).map_err(|failure| failure.what));
    let (configurations, problems) = config::options(common, names);
    problems.into_iter().for_each(|why| missing.add("options", why));
    json!({
        "made_unix_ms": unix_ms(SystemTime::now()),
        "version": env!("CARGO_PKG_VERSION"),
        "names": names,
        "host": host(),
        "exit_code": report.exit_code(),
        "lines": report.lines,
        "daemons": daemons,
        "events": events.unwrap_or_default(),
        "configurations": configurations,
        "missing": missing.0,
    })
}

/// Parts that nobody could be asked for.
#[derive(Default)]
struct Missing(Vec<Lacks>);

#[derive(Serialize)]
struct Lacks {
    part: &'static str,
    why: String,
}

impl Missing {
    fn add(&mut self, part: &'static str, why: impl ToString) {
        self.0.push(Lacks { part, why: why.to_string() });
    }

    fn take<T>(&mut self, part: &'static str, got: Result<T, impl ToString>) -> Option<T> {
        got.map_err(|why| self.add(part, why)).ok()
    }
}

fn of_daemon(daemon: &Daemon, missing: &mut Missing) -> Value {
    let Daemon { name, socket, answer } = daemon;
    let status = match answer {
        Answer::Status(status) => status,
        Answer::Dead => return json!({ "name": name, "answer": "dead" }),
        Answer::None(error) => {
            missing.add("status", error);
            return json!({ "name": name, "answer": "none" });
        }
    };
    let history = || -> Result<_, ClientError> { Client::connect(socket)?.history() };
    let history = missing.take("history", history());
    json!({ "name": name, "answer": "status", "status": Document::new(status), "history": history })
}

/// What the machine is, as far as that tells something.
fn host() -> Value {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    json!({
        "kernel": kernel_version().2,
        "system": system.map(|name| name.trim_matches('"')),
        "architecture": std::env::consts::ARCH,
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
        "memory_bytes": kib.map(|kib| kib * 1024),
    })
}
