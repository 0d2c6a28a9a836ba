//! Clones of a replica: the whole of it as of one barrier, copied into a directory of its own while packets
//! go on changing the replica.
//!
//! ```text
//!  applier ── between two packets ── barrier: a session begins
//!     │
//!     ├─ before each change ── guard ──> preserved: what a name held, attributes, blocks, objects that go
//!     │                                    │ state/clones/NAME/records, limbo/clones/NAME/{blocks,kept}
//!     v                                    v
//!  the replica ───────────────────────> copy: what is there now, overlaid with what was preserved
//!                                          │
//!                                          v  complete and synced: DIR, an ordinary directory
//! ```
//! A record is written before the change that it is about, so whoever reads an object first and looks for
//! its record afterwards knows whether what was read is as of the barrier: no lock is held over a read, and
//! what a packet waits for is what its own change has to keep, and the kernel's locks of one file. Each
//! session preserves for itself.
//!
//! - `machine`: which command is legal in which state; pure
//! - `sessions`: the sessions of one replica; `session`: one of them, and what it keeps on disk
//! - [`guard`]: what the applier calls before it changes anything
//! - `preserved`, `records`, `looks`: what was kept, its log, attributes of one object
//! - [`Past`]: what was preserved, read by another process
//! - `copy`: the copy in the background; `removal`: trees of a session's own, and nothing mounted in them
//!
//! Nothing here fails a packet: what cannot be preserved fails its session.

mod areas;
mod copy;
pub mod guard;
mod limits;
mod looks;
mod machine;
mod past;
mod planted;
mod preserved;
mod records;
mod removal;
mod room;
mod session;
mod sessions;
#[cfg(test)]
mod tests;

pub use areas::{each_kept, names_kept};
#[cfg(test)]
pub(crate) use copy::Turn;
pub use guard::Watch;
pub use limits::SESSIONS_MAX;
pub use machine::{Force, Kind, State};
pub use past::{Content, Differing, Past, Taken, Where};
#[cfg(test)]
pub(crate) use planted::set as plant;
pub(crate) use planted::{Planted, is as is_planted};
pub use room::lacks_room;
pub use session::{AREAS, Barrier, End, Shown};
#[cfg(test)]
pub(crate) use sessions::TestCopy;
pub use sessions::{
    LOST_WRITES, Moment, Places, Refusal, Sessions, Start, Stop, Wanted, is_taken_out, lost_writes_of,
    note_taken_out,
};
