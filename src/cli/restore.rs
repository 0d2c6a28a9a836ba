//! `standin restore`: from what was typed to a restoration, and what it came to.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::args::Common;
use super::protect::set_name;
use super::{Outcome, output};
use crate::apply::Existing;
use crate::control::Severity;
use crate::failure::Failure;
use crate::preflight::{MountTable, resolve};
use crate::source_side::{Believes, Orphans, RestoreOptions, Restored, Tally, restore};
use crate::units::{self, parse_size};
use crate::words::{CopyMode, OwnedBy, Target};

#[derive(Debug, Args)]
pub struct Restore {
    /// standin://host:port/repset (paired before) or local:PATH: where the replica is
    #[arg(value_name = "TARGET")]
    pub from: Target,
    /// The directory that gets the content: empty, or not there yet
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Name of the replication set, as `standin protect` will be given it [default: the last part of DIR]
    #[arg(long)]
    pub name: Option<String>,
    /// Also into a directory that is not empty: it becomes what the replica is
    #[arg(long, conflicts_with_all = ["missing_only", "newer_only"])]
    pub overwrite: bool,
    /// Bring back only what DIR lacks: whatever is there stays as it is
    #[arg(long, conflicts_with = "newer_only")]
    pub missing_only: bool,
    /// Bring back what DIR lacks, and files that are newer in the replica
    #[arg(long)]
    pub newer_only: bool,
    /// What is brought of a file that is there and has the replica's name: full, its content in any case; differences,
    /// where its size or modification time differ [default: full]
    #[arg(long, value_enum, conflicts_with_all = ["missing_only", "newer_only"])]
    pub mode: Option<CopyMode>,
    /// Bytes of content a second at most, as in 10M
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub rate: Option<u64>,
    /// What becomes of names in DIR that the replica lacks [default: aside; with --missing-only and --newer-only
    /// they stay]
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with_all = ["missing_only", "newer_only"])]
    pub orphans: Option<Strays>,
    /// By what files get their owners, from a target on another host: as with `standin protect`
    #[arg(long, value_enum, value_name = "BY", default_value_t = OwnedBy::Number)]
    pub owner: OwnedBy,
    /// Take what is there, although it is no consistent copy
    #[arg(long)]
    pub accept_bad_data: bool,
    /// Go on although files in DIR are open for writing
    #[arg(long)]
    pub force: bool,
}

/// Seconds to go, of which nobody could tell more: a year.
const TO_GO_MAX: f64 = 365.0 * 86400.0;

/// What becomes of names that a replica lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Strays {
    /// They are moved aside, beside DIR
    Aside,
    /// They stay
    Keep,
    /// They are deleted
    Delete,
}

pub(super) fn run(common: &Common, args: Restore) -> Outcome {
    let options = options(common, args)?;
    let is_watched = std::io::stderr().is_terminal();
    let restored = restore(&options, |tally, took| match common.json {
        true => output::json(&json!({ "progress": tally, "took_ms": took.as_millis() as u64 })),
        false if is_watched => output::line_again(&progress(tally, took)),
        false => {}
    });
    if is_watched && !common.json {
        output::line_again("");
    }
    let restored = restored?;
    match common.json {
        true => output::json(&json!({ "restored": restored })),
        false => output::text(&text(&restored)),
    }
    let verdict = if restored.left_out == 0 { Severity::Ok } else { Severity::Warning };
    Ok(verdict.exit_code())
}

fn options(common: &Common, args: Restore) -> Result<RestoreOptions, Failure> {
    let believes = believes(args.mode)?;
    let mounts = MountTable::read().map_err(|error| lost(Path::new("/proc/self/mountinfo"), &error))?;
    let place = |path: &Path| resolve(path, &mounts).map_err(|error| lost(path, &error));
    let to = place(&args.to)?;
    let existing = match (args.missing_only, args.newer_only) {
        (true, _) => Existing::Keep,
        (false, true) => Existing::KeepNewer,
        (false, false) => Existing::Replace,
    };
    let orphans = match (args.orphans, existing) {
        (Some(Strays::Keep), _) | (None, Existing::Keep | Existing::KeepNewer) => Orphans::Keep,
        (Some(Strays::Delete), _) => Orphans::Delete,
        (Some(Strays::Aside) | None, _) => Orphans::Aside,
    };
    Ok(RestoreOptions {
        name: set_name(args.name, &to)?,
        from: match args.from {
            Target::Local(path) => Target::Local(place(&path)?),
            from => from,
        },
        to,
        state: place(&common.state_dir())?,
        run: place(&common.run_dir())?,
        existing,
        believes,
        rate: args.rate,
        orphans,
        owners: args.owner,
        overwrite: args.overwrite,
        accept_bad_data: args.accept_bad_data,
        force: args.force,
    })
}

/// Errors: whoever reads a replica back is sent whole files, and compares no blocks.
fn believes(mode: Option<CopyMode>) -> Result<Believes, Failure> {
    match mode {
        None | Some(CopyMode::Full) => Ok(Believes::Nothing),
        Some(CopyMode::Differences) => Ok(Believes::SizeAndTime),
        Some(mode @ (CopyMode::DifferencesChecksum | CopyMode::Checksum)) => Err(Failure::new(
            format!("A restoration compares no blocks: --mode {mode} is not for it."),
            "Nothing was restored.",
            "--mode full brings the content of every file, whatever is there; --mode differences that of files whose size \
             or modification time differ.",
        )),
    }
}

fn lost(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        format!("{} cannot be reached: {error}.", path.display()),
        "Nothing was restored.",
        "Check the path.",
    )
}

fn progress(tally: &Tally, took: Duration) -> String {
    let rate = (tally.bytes_copied as f64 / took.as_secs_f64().max(0.001)) as u64;
    let mut text = format!(
        "{} files ({}) seen, content of {} ({}) brought, {}/s",
        tally.files,
        units::size(tally.bytes),
        tally.files_copied,
        units::size(tally.bytes_copied),
        units::size(rate)
    );
    if let Some(share) = tally.share_done() {
        let _ = write!(text, ", {:.0} %", (share * 100.0).floor());
        if share > 0.0 {
            let to_go = (took.as_secs_f64() * (1.0 - share) / share).min(TO_GO_MAX);
            let _ = write!(text, ", {} to go", units::duration(Duration::from_secs(to_go.ceil() as u64)));
        }
    }
    text
}

/// What it came to, for people.
fn text(restored: &Restored) -> String {
    let Restored { to, tally, took_ms, from, .. } = restored;
    let (shown, took) = (to.display(), Duration::from_millis(*took_ms));
    let mut text = format!(
        "Restored {shown} from {from}: {} files ({}), content of {} ({}) brought, in {}.",
        tally.files,
        units::size(tally.bytes),
        tally.files_copied,
        units::size(tally.bytes_copied),
        units::duration(took)
    );
    if restored.kept > 0 {
        let _ = write!(text, "\n  stayed as they were: {}", restored.kept);
    }
    if restored.orphans > 0 {
        let _ = match restored.orphans_deleted {
            true => write!(text, "\n  not in the replica, and deleted: {}", restored.orphans),
            false => {
                let place = restored.orphans_in.display();
                write!(text, "\n  not in the replica: {} ({place})", restored.orphans)
            }
        };
    }
    if restored.left_out > 0 {
        let _ = write!(text, "\n  NOT restored: {}", restored.left_out);
        restored.left_out_named.iter().for_each(|line| _ = write!(text, "\n    {line}"));
    }
    if !matches!(restored.allowed.as_str(), "" | "device,setuid,security") {
        let _ = write!(
            text,
            "\n  note: beside plain data the target takes {}: what is of the other kinds (device nodes, setuid bits, \
             security.* attributes) is not in the replica",
            restored.allowed
        );
    }
    let name = &restored.name;
    let _ = match restored.known_as_the_set {
        _ if restored.left_out > 0 => write!(
            text,
            "\n{shown} is not whole, and marked so: mend the causes and give the same command again"
        ),
        true if restored.kept > 0 => write!(
            text,
            "\nTo protect it again: standin protect {shown} --name {name} --to {from}; what stayed is compared, and its \
             content sent"
        ),
        true => write!(
            text,
            "\nTo protect it again, without sending its content: standin protect {shown} --name {name} --to {from}"
        ),
        false => write!(
            text,
            "\nThis host protects another directory as this set: {shown} is a plain copy, and a set of its own if it \
             is protected."
        ),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_a_restoration_has_not_is_refused_by_name() {
        assert_eq!(believes(None).unwrap(), Believes::Nothing);
        assert_eq!(believes(Some(CopyMode::Full)).unwrap(), Believes::Nothing);
        assert_eq!(believes(Some(CopyMode::Differences)).unwrap(), Believes::SizeAndTime);
        for mode in [CopyMode::Checksum, CopyMode::DifferencesChecksum] {
            let failure = believes(Some(mode)).unwrap_err();
            assert!(failure.what.contains(&format!("--mode {mode} ")), "{failure}");
        }
    }
}
