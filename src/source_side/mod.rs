//! The source daemon: the owner of the mount, the queue and the connections.
//!
//! ```text
//!  checks ── copy ahead (applications still write, unprotected)
//!         ── mount (calls wait) ── copy of the quiet tree ── serve: `ready`
//!         ── signal or `standin stop` ── unmount ── drain ── clean-stop mark
//! ```
//! What changes in it has one owner, the `director`; how far it has come is its `life`. Others ask it,
//! work for it, read what it posts, or stand on what never changes:
//!
//! | when | file | what it is for |
//! |---|---|---|
//! | start | `startup`, `first_copy` | checks, state, targets; bringing them into line |
//! | | `embedded`, `remote` | a target in this process; how a target on another host is reached |
//! | | `patience`, `display` | how long programs may wait for the copy; how far it is, on the terminal |
//! | | `joining` | how a connection comes into being |
//! | | `identity`, `first_mark`, `mark` | whose directory this is, before it has a record too; since when a file may differ on a target |
//! | | `asking` | whether somebody else writes the set, of targets to which nothing is sent |
//! | | `standing_in` | a replica served in its source's place: the epoch, the ids of its objects |
//! | | `uncovering` | what was put over a directory whose set was handed over is taken away |
//! | | `roles`, `who_writes` | whether somebody else writes the set, too; what is on disk of that |
//! | protected | `director`, `life` | the owner; its states |
//! | | `desk`, `commands`, `status` | the control socket: questions, connections, `standin status` |
//! | | `adding` | another target while it runs |
//! | | `reload` | reading the file of the set anew: all of it, or nothing |
//! | | `marking` | a barrier with a name, and what targets do about it |
//! | | `presence` | whether a file is on the targets as it is now |
//! | | `foreseeing` | what a resynchronisation of each target would take |
//! | | `verifying` | comparing a replica with the directory, for whoever asks |
//! | | `schedule/` | comparing when it is time for it |
//! | | `served/` | what is kept for whoever finds that nobody serves the set |
//! | | `board`, `ground`, `hands` | what is posted; what never changes; what takes long |
//! | | `rounds` | what is looked after now and then, with `mount_watch`, `mount_options`, `notes` |
//! | | `record`, `kept`, `recorder` | what is kept on disk about the set, and of each connection; the thread that puts it there |
//! | data | `connection/`, `feed/` | one target each: states, copy, stream; what is sent next |
//! | | `delete_guard` | mass deletions are asked for before they are sent |
//! | | `looking` | the volume as a copy sees it that runs while applications write |
//! | | `relief` | what makes room on a full target |
//! | | `durability/`, `sync` | `--fsync=target`; what every target has, and waiting for it |
//! | | `holder/` | with `--holder`: a process that keeps the mount when this one is killed, and taking it over |
//! | | `flush/`, `writeback` | shared mappings reach the daemon; whether the directory's disk takes writes |
//! | | `upgrade/` | becoming another program under the mount |
//! | end | `backlog` | what is queued at a stop is sent after the next start |
//! | | `stop`, `keepers`, `words` | unmount, drain, what is left; who else holds the mount; what is said |
//! | | `covering` | what stands in the mount's place where the set is handed over |

mod activity;
mod adding;
mod asking;
mod backlog;
mod board;
mod commands;
mod connection;
mod covering;
mod delete_guard;
mod desk;
mod director;
mod durability;
mod embedded;
pub(crate) mod feed;
mod first_mark;
mod flush;
mod foreseeing;
mod ground;
mod hands;
mod haste;
mod holder;
#[cfg(test)]
mod hostile;
mod identity;
mod joining;
mod keepers;
mod kept;
mod life;
mod looking;
mod managed;
mod mark;
mod marking;
mod mount_options;
mod mount_watch;
mod notes;
mod part;
mod presence;
mod record;
mod recorder;
pub(crate) mod relief;
mod reload;
mod remote;
mod restoring;
mod roles;
mod rounds;
mod rules;
mod schedule;
mod served;
mod settling;
mod standing_in;
mod start;
mod startup;
mod status;
mod stop;
mod sync;
mod terms;
mod uncovering;
mod upgrade;
mod verifying;
mod who_writes;
mod words;
mod writeback;

pub use asking::{Asked, Asking, who_took_over};
#[cfg(test)]
pub(crate) use backlog::{Leaves, LeftBehind};
#[cfg(test)]
pub(crate) use connection::{
    Driver, FirstOwed, NetworkLink, News, OwedOrder, Settings, Surroundings, WalkOrder, Walked,
};
pub(crate) use embedded::is_missing_replica;
#[cfg(test)]
pub(crate) use feed::{PacketFeed, Planted as PlantedInLane, StampedLane};
pub use flush::{HELPER_COMMAND, serve_flushes};
pub use holder::{HOLDER_COMMAND, Waiting, give_up, hold, waits, waits_at};
#[cfg(test)]
pub(crate) use kept::Kept;
pub use life::Ended;
#[cfg(test)]
pub(crate) use mark::{Mark, Marks, Reached};
#[cfg(test)]
pub(crate) use notes::kept_bases;
pub(crate) use remote::resolve;
pub use restoring::{Believes, Orphans, RestoreOptions, Restored, Tally, restore};
pub use served::{LastEnded, LastSeen, NotServed, not_served, take_out};
pub use standing_in::{
    Following, Foreseen, KeptHistory, Seen, Taken, WouldWrite, check, foresee, keep, note_split_brain,
    note_taken_over,
};
pub use startup::{run, run_followed};
pub(crate) use terms::Terms;
pub use upgrade::{AS_BEFORE as UPGRADE_AS_BEFORE, FORMATS_COMMAND, Formats};
pub use who_writes::{HostRole, WhoWrites, replica_of, who_writes_here};
