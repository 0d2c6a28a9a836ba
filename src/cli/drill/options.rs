//! What a drill is to do: typed, or said by its file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{UNTOUCHED, places};
use crate::drill::limits::CHECKS_MAX;
use crate::drill::request;
use crate::failure::Failure;
use crate::units::{parse_duration, parse_size};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Net {
    /// Loopback alone
    Own,
    /// Everything that the host reaches: not isolated
    Host,
}

/// What one drill is, as it is typed and as it stands in a file.
#[derive(Debug, Args)]
pub struct Run {
    /// Name of a drill (drills/NAME.toml in the state directory) or of a replication set, or the directory of a replica
    /// [default: the only replica]
    #[arg(value_name = "NAME|SET")]
    pub set: Option<PathBuf>,
    /// The data's own path, where applications have it; this host need not have it
    #[arg(long, value_name = "PATH")]
    pub at: Option<PathBuf>,
    /// Run by a shell in PATH: exit code 0 is passed; may be repeated. Without it the drill says `opened`
    #[arg(long, value_name = "COMMAND")]
    pub check: Vec<String>,
    /// Before the checks: starts what they need, and returns; may be repeated
    #[arg(long, value_name = "COMMAND")]
    pub start: Vec<String>,
    /// After that: tried until it succeeds
    #[arg(long, value_name = "COMMAND")]
    pub ready: Option<String>,
    /// After the checks, also when they have failed; may be repeated
    #[arg(long, value_name = "COMMAND")]
    pub stop: Vec<String>,
    /// Run on this host, in no isolation, before the clean-up, whatever the verdict: it is told that
    #[arg(long, value_name = "COMMAND")]
    pub before: Option<String>,
    /// The same after the clean-up
    #[arg(long, value_name = "COMMAND")]
    pub after: Option<String>,
    /// Each command is killed after this time, as in 30s, 5m
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "10m")]
    pub timeout: Duration,
    /// The clone has to be complete within this time
    #[arg(long, value_name = "T", value_parser = parse_duration, default_value = "1h")]
    pub clone_timeout: Duration,
    /// The clone lies in this directory, for a target that `standin serve` holds below its --root [default: beside
    /// the replica]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The clone stays, as an ordinary directory with what the checks have changed in it
    #[arg(long)]
    pub keep: bool,
    /// Show what lies at PATH of this host also where a file system is mounted there; may be repeated. Without it a drill
    /// has the root file system and mounts that programs are in
    #[arg(long, value_name = "PATH")]
    pub show: Vec<PathBuf>,
    /// What the commands reach
    #[arg(long, value_enum, value_name = "NET", default_value_t = Net::Own)]
    pub net: Net,
    /// Share of the processors beside the rest of the host, which has 100; needs control groups of version 2, as the next three
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub cpu_weight: u32,
    /// Percent of one processor that the commands may use [default: no limit]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub cpu_max: Option<u32>,
    /// Share of the disks, as --cpu-weight
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub io_weight: u32,
    /// Memory that the commands may use, as in 2G; what wants more is killed [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory_max: Option<u64>,
    /// Run the checks once more, and then on damaged data, where they have to fail; else the exit code is 3
    #[arg(long, conflicts_with = "keep")]
    pub prove: bool,
    /// In a file: `standin status` of the replica's daemon says when it is longer ago that it passed
    #[arg(long, hide = true, value_name = "T", value_parser = parse_duration)]
    pub expect_every: Option<Duration>,
    /// Checks of a file, which have names and time-outs.
    #[arg(skip)]
    pub named: Vec<Check>,
    #[arg(long, hide = true)]
    pub marker: Option<String>,
}

/// A check of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: Option<String>,
    pub command: String,
    /// Without, that of every command.
    pub timeout: Option<Duration>,
}

impl Run {
    /// All checks, in order.
    pub(super) fn checks(&self) -> Vec<request::Check> {
        let typed = self.check.iter().map(|command| request::Check {
            name: None,
            command: command.clone(),
            timeout: self.timeout,
        });
        let named = self.named.iter().map(|check| request::Check {
            name: check.name.clone(),
            command: check.command.clone(),
            timeout: check.timeout.unwrap_or(self.timeout),
        });
        typed.chain(named).collect()
    }
}

/// Errors: what nobody can mean, whatever this host has.
pub fn checked(run: &Run) -> Result<(), Failure> {
    let refuse = |what: &str, next: &str| Err(Failure::new(what, UNTOUCHED, next));
    let checks = run.checks();
    let commands = checks.iter().map(|check| &check.command);
    let mut commands =
        commands.chain(&run.start).chain(&run.ready).chain(&run.stop).chain(&run.before).chain(&run.after);
    if commands.any(|command| command.trim().is_empty()) {
        return refuse(
            "A command of the drill is empty: it would end with 0, whatever the data are.",
            "Say what is to be run, or leave the option out.",
        );
    }
    if checks.len() > CHECKS_MAX {
        return refuse(&format!("A drill has {CHECKS_MAX} checks at most."), "Put some into a script.");
    }
    if run.prove && checks.is_empty() {
        return refuse("--prove needs a check, whose worth it shows.", "Say --check COMMAND, too.");
    }
    match &run.at {
        Some(at) => places::check(Some(at)).map(|_| ()),
        None => Ok(()),
    }
}
