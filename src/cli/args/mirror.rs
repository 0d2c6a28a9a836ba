//! `standin mirror` as it is typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::units::{parse_duration, parse_size};
use crate::words::{CopyMode, OrphanChoice};

#[derive(Debug, Args)]
pub struct Mirror {
    #[command(subcommand)]
    pub command: MirrorCommand,
}

#[derive(Debug, Subcommand)]
pub enum MirrorCommand {
    /// Compare and mend what differs, now; a good replica stays good until something does. Also after `mirror stop`,
    /// when no copy begins by itself
    Start {
        #[command(flatten)]
        which: MirrorOf,
        /// Only what lies there: absolute, or relative to the protected directory
        path: Option<PathBuf>,
        /// What is sent [default: differences; full after `mirror stop --from-scratch`]
        #[arg(long, value_enum)]
        mode: Option<CopyMode>,
        /// Believe nothing that the target has: as --mode full
        #[arg(long, conflicts_with = "mode")]
        from_scratch: bool,
        /// Compare blocks by hashes that nobody can find two contents for; with a mode by checksum
        #[arg(long, requires = "mode")]
        audit: bool,
        /// Bytes a second at most, as in 10M
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        rate: Option<u64>,
        /// What this copy does with what the target has and the directory has not [default: as the protection was
        /// started]
        #[arg(long, value_enum, value_name = "WHAT")]
        orphans: Option<OrphanChoice>,
        /// What of it was modified within this time stays where it is, as in 12h, 30d
        #[arg(long, value_name = "T", value_parser = parse_duration, requires = "orphans")]
        orphan_age: Option<Duration>,
    },
    /// Give up the copy under way, or the one that is due; the replica stays bad, and none begins by itself
    Stop {
        #[command(flatten)]
        which: MirrorOf,
        /// The next one believes nothing that the target has
        #[arg(long)]
        from_scratch: bool,
    },
    /// Let the copy rest where it is; changes go on
    Pause(MirrorOf),
    /// Go on where a copy rests; also to change its rate
    Resume {
        #[command(flatten)]
        which: MirrorOf,
        /// Bytes a second at most from now on; 0: as fast as it goes
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        rate: Option<u64>,
    },
    /// Show how copies are, and what is set aside or left out, each with the reason
    List {
        /// Name or directory of a replication set [default: the only one]
        set: Option<PathBuf>,
    },
}

/// Of which connection.
#[derive(Debug, Args)]
pub struct MirrorOf {
    /// Name or directory of a replication set [default: the only one]
    pub set: Option<PathBuf>,
    /// Number, UUID or target of the connection [default: the only one]
    #[arg(long, value_name = "ID|UUID|TARGET")]
    pub connection: Option<String>,
}
