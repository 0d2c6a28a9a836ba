//! What `serve` was asked to do, parsed once at the border.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::words::{Allow, Configuration, StatisticsTo};

/// Everything a target daemon needs to know at its start. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Name of its control socket in `run`.
    pub name: String,
    /// Parent directory of the replicas: each is `root/REPSET`.
    pub root: PathBuf,
    /// Where it listens: the first address that can be had.
    pub listen: Vec<SocketAddr>,
    pub state: PathBuf,
    pub run: PathBuf,
    pub allow: Allow,
    /// The last good state of a replica is kept while it is bad.
    pub keep_good: bool,
    /// Take over replica directories that are not empty and have no identity.
    pub adopt: bool,
    /// Bytes that what such a directory had may take before it is overwritten; `None`: all of it is to fit.
    pub lost_writes: Option<u64>,
    /// Where statistics of each replica are written; without, nowhere.
    pub statistics: Option<StatisticsTo>,
    /// Where all this was said.
    pub configuration: Configuration,
}

impl ServeOptions {
    /// What the target keeps on disk. No replication set can have this name.
    pub fn own_state(&self) -> PathBuf {
        serve_state(&self.state)
    }

    pub fn socket(&self) -> PathBuf {
        crate::words::socket_path(&self.run, &self.name)
    }
}

/// What a target daemon keeps on disk below a state directory: of each set in a directory of its name.
pub fn serve_state(state: &Path) -> PathBuf {
    state.join(".serve")
}
