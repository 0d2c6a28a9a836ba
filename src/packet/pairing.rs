//! The two messages of a pairing: a request and its answer, each the whole of one stream.

use bincode::{Decode, Encode};

use super::message::Text;

/// Version of the pairing exchange.
pub const PAIRING_VERSION: u16 = 1;

/// A stranger asks to become a source of a replication set.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PairingRequest {
    pub version: u16,
    /// Which token it has; says nothing about what is secret in it.
    pub token: u64,
    pub set_name: Text,
    /// That it has the whole token, good in this TLS session only.
    pub proof: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PairingAnswer {
    /// Its key may send this replication set from now on.
    Paired,
    Refused {
        reason: Text,
    },
}
