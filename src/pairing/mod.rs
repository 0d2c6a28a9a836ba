//! Pairing: how two hosts come to know each other's key, and who may send what to whom.
//!
//! ```text
//!  target                                             source
//!  invite ── token: own fingerprint, secret ── by a person ──> pair
//!  Book (hash of the secret) <── proof, in a TLS session that shows both keys ──┘
//!    └─ grant (key, set, direction), on disk before the answer     Known (target, its key)
//! ```
//! Default deny: what is not granted is refused. Owns the two documents and the token; never
//! touches a connection (see [`crate::link`]) or a replica.

mod book;
#[cfg(test)]
mod fuzz;
mod known;
mod proof;
#[cfg(test)]
mod tests;
mod token;

pub use book::{Book, Direction, Grant, Invitation, InviteError, Offer};
pub use known::{Known, KnownTarget};
pub use proof::{Proof, StoredSecret};
pub use token::{BadToken, Secret, TOKEN_TEXT_MAX, Token};
