//! Whom a source dials.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::identity::Identity;
use crate::limits::{HANDSHAKE_TIME_MAX, HEARTBEAT_INTERVAL};
use crate::words::Fingerprint;

/// Whom to dial, and as whom.
#[derive(Clone, Debug)]
pub struct Dial {
    pub address: SocketAddr,
    /// The key that the target must show.
    pub target: Fingerprint,
    pub identity: Arc<Identity>,
    /// Both sides go by it; it is brought within the bounds of `limits`.
    pub heartbeat_interval: Duration,
    /// An attempt that takes longer has failed.
    pub patience: Duration,
}

impl Dial {
    pub fn new(address: SocketAddr, target: Fingerprint, identity: Arc<Identity>) -> Dial {
        let (heartbeat_interval, patience) = (HEARTBEAT_INTERVAL, HANDSHAKE_TIME_MAX);
        Dial { address, target, identity, heartbeat_interval, patience }
    }
}
