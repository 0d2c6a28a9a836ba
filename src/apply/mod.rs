//! Performing packets on a replica: one after the other, inside its root, exactly once.
//!
//! ```text
//!  frame ── applier ──────── next_frame: the packet after *applied*, no other; items go to `reconcile`
//!             │
//!             ├─ begun       the op itself                │
//!             ├─ progress    begun (in doubt) ── before ──┐ kill -9 here: `finish`, in the next
//!             ├─ perform     the system calls of the op   │ process; what is done already is
//!             └─ progress    applied ──── after ──────────┘ decided by identity
//!                   │
//!             durable point  pending times, syncfs, index, slot
//! ```
//! Two floors: what performs (here, and `reconcile/` for the items of a copy), and below it
//! `replica/`: what a replica is, how far it is, and how an object of it is reached. The fields of
//! [`Replica`] are closed; nothing in `replica/` knows of what performs. Words of both: `fault`,
//! `policy`, `inode`.
//!
//! Plain blocking code on one thread. What could not be performed the caller hands in again after a
//! while; a fault of a single object that does not go away sets that object aside, and the replica is
//! bad before the next packet passes.

mod applier;
mod barrier;
mod by_results;
mod content;
mod create;
mod fault;
mod finish;
mod gives_way;
mod giving_up;
pub mod inode;
mod keep;
mod names;
mod next_frame;
mod orphans;
mod perform;
mod policy;
mod reconcile;
mod replica;
#[cfg(test)]
pub mod tests;

pub use applier::{Acknowledged, Applier, Outcome, Refusal, Retry};
pub use create::{NameTaken, NewObject};
pub use fault::Fault;
pub use next_frame::OrderError;
pub use orphans::{
    Amount, Listing as OrphanListing, Orphan, Orphans, Removed, Which as WhichOrphans, Why, remove_whole,
};
pub use perform::Doubt;
pub use policy::{Policy, Withheld};
#[cfg(test)]
pub(crate) use reconcile::planted::{Planted as PlantedInReconcile, set as plant_in_reconcile};
pub use reconcile::{Existing, LinkedOut, NameMatch, Rules, Strays};
#[cfg(test)]
pub use replica::Hold;
pub use replica::{
    Access, AsideView, DataStatus, DurablePoint, FORMATS, IDENTITY_XATTR, Index, OpenError, Places, Relief,
    Replica, Resting, Run, SetAside, are_passing, fence_of, known_of, resting, set_of, stood_in_of,
    was_marked,
};
