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
//! are pinned ([`Fingerprint`]); a session is two connections of the same key with the same token.
//!
//! Owns sockets, keys and the only asynchronous code of the product; its public face is plain
//! calls, none of which waits for the network unless it says so. Decides nothing about packets: what
//! goes next, when to dial again and what to apply are others' business.

mod assembler;
mod control;
mod ending;
mod frames;
mod heartbeat;
mod identity;
mod listener;
mod opening;
mod socket;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod tls;

pub use frames::{Feed, FrameReceiver, Received, Waker};
pub use identity::{BadFingerprint, Fingerprint, Identity};
pub use listener::{Listener, Refusals};
pub use source::{Dial, SourceEvent, SourceLink};
pub use target::{TargetEvent, TargetLink};

use std::time::Duration;

use quinn::Connection;
use serde::Serialize;

/// What a link has moved and how it is. Bytes are UDP payload, both connections together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinkStats {
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// QUIC packets given up as lost, of those this side sent.
    pub lost_packets: u64,
    /// Round trip on the small connection, µs.
    pub rtt_us: u64,
    /// Largest UDP payload that the path of the packets carries, bytes.
    pub mtu: u16,
    /// Bytes that the network takes in one round trip, as far as is known.
    pub congestion_window: u64,
    /// Time since a heartbeat was heard, ms.
    pub heartbeat_age_ms: u64,
}

impl LinkStats {
    fn of(small: &Connection, large: Option<&Connection>, heartbeat_age: Duration) -> LinkStats {
        let mut stats = LinkStats {
            rtt_us: small.rtt().as_micros() as u64,
            heartbeat_age_ms: heartbeat_age.as_millis() as u64,
            ..LinkStats::default()
        };
        for connection in [Some(small), large].into_iter().flatten() {
            let of = connection.stats();
            stats.sent_bytes += of.udp_tx.bytes;
            stats.received_bytes += of.udp_rx.bytes;
            stats.lost_packets += of.path.lost_packets;
            stats.mtu = of.path.current_mtu;
            stats.congestion_window = of.path.cwnd;
        }
        stats
    }
}
