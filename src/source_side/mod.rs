//! The source daemon: the owner of the mount, the queue and the connections.
//!
//! ```text
//!  checks ── copy ahead (applications still write, unprotected)
//!         ── mount (calls wait) ── copy of the quiet tree ── serve: `ready`
//!         ── signal or `standin stop` ── unmount ── drain ── clean-stop mark
//! ```
//! What changes in it has one owner, the `director`; how far it has come is its `life`. Others ask it
//! (`desk`, for the control socket), work for it (`hands`), read what it posts (`board`), or stand on
//! what never changes (`ground`).

mod board;
mod commands;
mod connection;
mod desk;
mod director;
mod display;
mod durability;
mod embedded;
mod feed;
mod first_copy;
mod flush;
mod ground;
mod hands;
#[cfg(test)]
mod hostile;
mod identity;
mod keepers;
mod life;
mod mark;
mod mount_options;
mod mount_watch;
mod notes;
mod patience;
mod record;
mod recorder;
pub(crate) mod relief;
mod remote;
mod rounds;
mod startup;
mod status;
mod stop;
mod sync;
mod words;
mod writeback;

#[cfg(test)]
pub(crate) use connection::{
    CopyOrder, Driver, NetworkLink, News, Settings, Surroundings, WalkOrder, Walked,
};
#[cfg(test)]
pub(crate) use feed::PacketFeed;
pub use flush::{HELPER_COMMAND, serve_flushes};
pub use life::Ended;
pub(crate) use remote::resolve;
pub use startup::run;
