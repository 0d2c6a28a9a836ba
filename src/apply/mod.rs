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
//! Plain blocking code on one thread. A fault is retried by the caller; one of a single object that
//! does not go away sets that object aside, and the replica is bad before the next packet passes.

mod applier;
mod aside;
mod begun;
mod by_handle;
mod by_results;
mod content;
mod create;
mod descriptors;
mod durable;
mod fault;
mod identity;
mod index;
pub mod inode;
mod inside;
mod nameless;
mod names;
mod page;
mod perform;
mod policy;
mod progress;
mod reconcile;
mod replica;
mod rest;
mod scope;
mod slot;
#[cfg(test)]
mod tests;
mod times;
mod writer;

pub use applier::{Acknowledged, Applier, GivenUp, OrderError, Outcome, Retry, Verdict};
pub use aside::{AsideView, Relief, SetAside};
pub use create::{NameTaken, NewObject};
pub use descriptors::Access;
pub use durable::DurablePoint;
#[cfg(test)]
pub use durable::Hold;
pub use fault::Fault;
pub use identity::IDENTITY_XATTR;
pub use index::Index;
pub use perform::Doubt;
pub use policy::{Allow, Policy, Withheld};
pub use progress::{DataStatus, OpenError};
pub use reconcile::{NameMatch, Reconcile};
pub use replica::{Places, Replica};
