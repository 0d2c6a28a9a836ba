//! `standin connection`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
