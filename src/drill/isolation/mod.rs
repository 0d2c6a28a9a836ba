//! Where the commands of a drill run: namespaces of their own, the clone at the data's own path, nothing of
//! the host writable, and an end that takes everything with it.
//!
//! - [`init`]: the first process in there; it arranges, gives up capabilities, and runs commands
//! - `mounts`: what is seen in there; `root`: which mounts of the host, and the end of all others
//! - [`enter`]: another process in there, of a drill that stays open
//! - `calls`: what of the kernel nobody in there may ask for
//! - `reads`: what the commands read, for a proof that a check looks at the data; `damaging`: the damage of that
//! - `seen`: what it has become, measured and not claimed; what is not as it should be is refused
//! - [`keeper`]: this side of it; its end is the end of all of them

mod calls;
mod damaging;
pub mod enter;
pub mod init;
pub mod keeper;
mod mounts;
mod reads;
mod root;
mod seen;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::damaging::{Damaged, Harm, LeftOut};
pub use self::reads::Seen;
use super::damage::Target;
use crate::commands::{Ended, Run};

/// What is to be seen in there. All paths are absolute.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wanted {
    pub clone: PathBuf,
    /// Where the clone is to be found: the data's own path.
    pub at: PathBuf,
    /// Not to be seen: replicas, state, sockets.
    pub hidden: Vec<PathBuf>,
    /// To be seen though it is mounted elsewhere than programs are.
    pub shown: Vec<PathBuf>,
    pub has_own_network: bool,
    /// What the commands read of the clone is wanted.
    pub watches: bool,
    /// What of the clone is damaged before any command is run.
    pub damage: Vec<Target>,
    /// Namespaces of the process that asks.
    pub outside: BTreeMap<String, PathBuf>,
    /// Of every command.
    pub environment: BTreeMap<String, String>,
}

/// What is asked of the first process, after [`Wanted`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    Run(Run),
    /// Says what the command has read.
    Watch(Run),
}

/// What the first process says, in this order: once how it has arranged things, where damage is wanted once what was
/// damaged, then once for each request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    Isolated(Isolation),
    /// What could not be arranged, or done. Nothing was run.
    Refused(String),
    Ended(Ended),
    Watched(Ended, Seen),
    Damaged(Harm),
}

/// How it was, as the kernel said it from inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Namespaces that are not the host's.
    pub namespaces: Vec<String>,
    /// Network interfaces.
    pub interfaces: Vec<String>,
    /// Mounts that can be written to.
    pub writable: Vec<String>,
    /// Places of the product that were covered.
    pub hidden: Vec<String>,
    /// Capabilities that a command can have at most, as in `/proc/PID/status`.
    pub capabilities: String,
    /// Directory in which what is missing of the data's own path was made, in there alone.
    pub made_in: Option<String>,
    /// Where mounts of the host were that are not there.
    pub left_out: Vec<String>,
    /// Whose mounts are there because somebody asked for them.
    pub shown: Vec<String>,
}

/// Namespaces of this process, by what `/proc/self/ns` calls them.
pub fn namespaces() -> BTreeMap<String, PathBuf> {
    let of =
        |kind: &&str| Some(((*kind).to_owned(), std::fs::read_link(format!("/proc/self/ns/{kind}")).ok()?));
    ["ipc", "mnt", "net", "pid", "uts"].iter().filter_map(of).collect()
}
