//! Files of options: `sets/NAME.toml` for each set, `drills/NAME.toml` for each drill, and `standin.toml` for a target
//! daemon, in the state directory.
//!
//! ```text
//!  command line ── definition ──┬─ which keys there are, and what their values may be
//!  files ── file ── entries ────┴─ settle (what was typed goes on top) ──> options of a daemon
//!                                                └── again, by the daemon, at a reload
//! ```
//! `standin config check|show|diff` and `standin reload` are in `commands`; `edit` changes a file and leaves what
//! people wrote in it.

mod bundled;
mod checks;
mod commands;
mod definition;
pub mod edit;
mod fault;
mod file;
mod of_drill;
mod of_monitor;
mod reading;
mod settle;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(super) use self::bundled::options;
pub(super) use self::commands::{faults, reload, run, unknown};
pub(super) use self::of_drill::{drill, drill_of_file};
pub(super) use self::of_monitor::monitor;
pub(super) use self::settle::{Typed, protect, serve, serve_path};

/// `standin config`, as it is typed.
#[derive(Debug, Args)]
pub struct Config {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the files are right, and everything that is wrong with lines and columns
    Check {
        /// Name of a set or of a drill, or `serve` for standin.toml [default: all]
        name: Option<String>,
    },
    /// Each option, what it is, and where that was said; of a daemon that runs as it holds there
    Show {
        /// Name of a set or of a drill, or `serve` for standin.toml [default: all]
        name: Option<String>,
    },
    /// What a daemon that runs has otherwise than its files: what a reload would change, and what a restart
    Diff {
        /// Name or directory of a set, or `serve` [default: the only daemon]
        name: Option<PathBuf>,
    },
}

/// `standin reload`, as it is typed.
#[derive(Debug, Args)]
pub struct Reload {
    /// Name or directory of a set, or `serve` [default: the only daemon]
    pub name: Option<PathBuf>,
}
