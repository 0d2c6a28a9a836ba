//! Performing packets on a replica: one after the other, inside its root, exactly once.
//!
//! ```text
//!  frame ── applier ──────── order: exactly the packet after *applied*
//!             │
//!             ├─ begun       the op itself                │
//!             ├─ progress    begun (in doubt) ── before ──┐ kill -9 here: finished by the next
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
//! Plain blocking code on one thread. A fault is retried by the caller; one of a single object that
//! does not go away sets that object aside, and the replica is bad before the next packet passes.

mod applier;
mod by_results;
mod content;
mod create;
mod fault;
pub mod inode;
mod names;
mod perform;
mod policy;
mod reconcile;
mod replica;
mod rest;
#[cfg(test)]
mod tests;

pub use applier::{Acknowledged, Applier, GivenUp, OrderError, Outcome, Retry, Verdict};
pub use create::{NameTaken, NewObject};
pub use fault::Fault;
pub use perform::Doubt;
pub use policy::{Allow, Policy, Withheld};
pub use reconcile::{NameMatch, Reconcile};
#[cfg(test)]
pub use replica::Hold;
pub use replica::{
    Access, AsideView, DataStatus, DurablePoint, IDENTITY_XATTR, Index, OpenError, Places, Relief, Replica,
    SetAside,
};
