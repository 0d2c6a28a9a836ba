//! The link: QUIC between one connection of a source and a target.
//!
//! ```text
//!  source, a thread for each connection           target, a thread for each listener
//!  Feed ── frames ──> large connection: packets ──> checked, decoded ── RECEIVE_WINDOW ──> FrameReceiver
//!  SourceMessage ───> small connection: control ──> TargetEvent
//!  SourceEvent <───────────────────────────────── TargetMessage
//!                     small connection: heartbeats, both ways
//! ```
//! Control and heartbeats never stand behind packets: a target that applies slowly still hears
//! and answers. Either connection's end is the end of both. Both sides show a key, both keys
//! are pinned ([`crate::words::Fingerprint`]); a session is two connections of the same key with the same token.
//!
//! A target in the source's own process has a link without a network (`direct`).
//!
//! Owns sockets, keys and the only asynchronous code of the product; its public face is plain
//! calls, none of which waits for the network unless it says so. Decides nothing about packets: what
//! goes next, when to dial again and what to apply are others' business.

mod accounts;
mod assembler;
mod control;
mod dial;
mod direct;
mod ending;
mod frames;
mod heartbeat;
mod identity;
mod limited;
mod limiter;
mod listener;
mod lookup;
mod opening;
mod outgoing;
mod owners;
mod packing;
mod pairing;
mod probe;
mod socket;
mod source;
mod stats;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod traffic;

#[cfg(test)]
pub(crate) use assembler::Assembler;
pub use control::was_unreadable;
pub use dial::Dial;
pub use direct::direct;
pub use frames::{Feed, FrameReceiver, Received, Waker};
pub use identity::Identity;
pub use limiter::Limiter;
pub use listener::{Bound, Listener, Refusals};
pub use lookup::Lookup;
pub use outgoing::Outgoing;
pub use packing::{Compressor, Saved, Trial, try_compression};
pub use pairing::{PairingDesk, visit_desk};
pub(crate) use socket::payload_max;
pub use source::{LostBy, SourceEvent, SourceLink};
pub use stats::LinkStats;
pub use target::{Peer, TargetEvent, TargetLink, TargetLinkHandle};
