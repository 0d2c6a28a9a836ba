//! The two messages of a pairing: a request and its answer, each the whole of one stream.

use bincode::{Decode, Encode};

use std::net::SocketAddr;

use super::message::Text;
use crate::words::Fingerprint;

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

/// Bytes that both ends of one TLS session know, and nobody else (RFC 8446, 7.5).
pub const SESSION_BINDING_LEN: usize = 32;

/// A stranger with its request.
pub struct PairingVisit {
    /// The key that it has proved to hold.
    pub peer: Fingerprint,
    pub address: SocketAddr,
    pub binding: [u8; SESSION_BINDING_LEN],
    pub request: Vec<u8>,
}
