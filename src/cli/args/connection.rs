//! `standin connection`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::words::{Compression, LimitPlan, Order, SchedulePlan, Target};

#[derive(Debug, Args)]
pub struct Connection {
    #[command(subcommand)]
    pub command: ConnectionCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConnectionCommand {
    /// Show the connections: number, UUID, target, state and reason
    List {
        /// Name or directory of a replication set [default: the only one]
        set: Option<PathBuf>,
    },
    /// Send what is protected to another target, too, from now on and after every restart
    Add(AddConnection),
    /// Connect again and go on where the target stands; one that waits to try again tries at once
    Start(OneConnection),
    /// End the network connection; changes are queued until it is started
    Stop(OneConnection),
    /// Keep the network connection and send nothing; changes are queued until it is resumed
    Pause(OneConnection),
    /// Send what was queued during a pause, and go on
    Resume(Resume),
    /// End the connection for good; the replica stays as it is
    Disconnect(OneConnection),
    /// Show, set, clear, or switch when a connection sends
    Schedule {
        #[command(subcommand)]
        command: ScheduleCommand,
    },
    /// Show, set, clear, or switch how fast a connection sends over a network
    Limit {
        /// show; a rate (1M, 8Mbit), none, or rules ("weekdays 08:00-18:00 1M"); clear (as protect was told, or the
        /// file of the set); on, off
        #[arg(default_value = "show", value_name = "show|RATE|RULES|none|clear|on|off")]
        what: Asked<LimitPlan>,
        #[command(flatten)]
        one: OneConnection,
    },
    /// Show, set, clear, or switch how short a connection makes what it sends over a network
    Compression {
        /// show; a level: 0 (off), 1 (lz4), 2 (zstd 1), 3 (zstd 3); clear (as protect was told, or the file of the
        /// set); on, off
        #[arg(default_value = "show", value_name = "show|LEVEL|clear|on|off")]
        what: Asked<Compression>,
        #[command(flatten)]
        one: OneConnection,
    },
}

#[derive(Debug, Args)]
pub struct Replication {
    #[command(subcommand)]
    pub command: ReplicationCommand,
}

#[derive(Debug, Subcommand)]
pub enum ReplicationCommand {
    /// Queue and send again; first a copy brings what was changed meanwhile
    Start(OneConnection),
    /// Send nothing and queue nothing: what changes is marked alone
    Stop(OneConnection),
}

/// What is asked of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<T> {
    Show,
    Change(Order<T>),
}

impl<T: FromStr> FromStr for Asked<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Asked<T>, T::Err> {
        Ok(match text {
            "show" => Asked::Show,
            "clear" => Asked::Change(Order::Clear),
            "on" => Asked::Change(Order::On),
            "off" => Asked::Change(Order::Off),
            value => Asked::Change(Order::Set(value.parse()?)),
        })
    }
}

#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Say what holds now, why, and what comes next and when
    Show(OneConnection),
    /// Send by this schedule from now on, also after a restart
    Set {
        /// As in at=22:00,every=1d,queue=50%,stop-after=2h,stop-bytes=10G,stop-empty=no,window=22:00-06:00
        plan: SchedulePlan,
        #[command(flatten)]
        one: OneConnection,
    },
    /// Send as protect was told, or the file of the set, or always
    Clear(OneConnection),
    /// Let the schedule count again
    On(OneConnection),
    /// Send as changes come; the schedule is kept
    Off(OneConnection),
}

#[derive(Debug, Args)]
pub struct AddConnection {
    /// standin://HOST:PORT/REPSET, as paired, or local:PATH
    pub target: Target,
    /// Name or directory of a replication set [default: the only one]
    pub set: Option<PathBuf>,
    /// For local: what is in the directory becomes the replica, and is compared
    #[arg(long)]
    pub adopt: bool,
}

#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    pub one: OneConnection,
    /// Let the deletions go that the connection paused for, and nothing that comes later
    #[arg(long)]
    pub accept_deletes: bool,
}

/// Which connection.
#[derive(Debug, Args)]
pub struct OneConnection {
    /// Name or directory of a replication set [default: the only one], then the number, UUID or target of
    /// the connection [default: the only one]
    #[arg(value_name = "SET] [ID|UUID|TARGET", num_args = 0..=2)]
    pub words: Vec<String>,
}
