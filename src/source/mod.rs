//! The source daemon: the owner of the mount, the queue and the connections.
//!
//! ```text
//!  checks ── copy ahead (applications still write, unprotected)
//!         ── mount (calls wait) ── copy of the quiet tree ── serve: `ready`
//!         ── signal or `standin stop` ── unmount ── drain ── clean-stop mark
//! ```

mod commands;
mod connection;
mod daemon;
mod durability;
mod embedded;
mod feed;
mod first_copy;
mod flush;
#[cfg(test)]
mod hostile;
mod identity;
mod keepers;
mod mark;
mod mount_options;
mod mount_watch;
mod options;
mod patience;
mod progress;
pub(crate) mod relief;
mod remote;
mod signals;
mod startup;
mod state;
mod status;
mod stop;
mod writeback;

#[cfg(test)]
pub(crate) use connection::{
    CopyOrder, Driver, NetworkLink, News, Settings, Surroundings, WalkOrder, Walked,
};
pub use durability::{Late, Needs, Rule};
#[cfg(test)]
pub(crate) use feed::PacketFeed;
pub use flush::{HELPER_COMMAND, serve_flushes};
pub(crate) use options::is_set_name;
pub use options::{ProtectOptions, Target, TargetError};
pub(crate) use remote::resolve;
pub(crate) use signals::{StopSignals, stop_signals};
pub use startup::run;
