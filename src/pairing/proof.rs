//! The proof that a stranger has a token, without the token.
//!
//! ```text
//! key    = SHA-256(secret)          the stranger's, from the token
//! stored = SHA-256(key)             all that the target keeps
//! mask   = HMAC(stored, session binding ‖ both fingerprints ‖ set's name)
//! proof  = key XOR mask             travels; target: SHA-256(proof XOR mask) == stored?
//! ```
//! As in SCRAM (RFC 5802): who steals the target's record cannot make a proof, and a proof that
//! was seen is useless in any other session, with any other key, for any other set.

use serde::{Deserialize, Serialize};

use super::token::Secret;
use crate::packet::SESSION_BINDING_LEN;
use crate::words::{Fingerprint, hmac_sha256, sha256};

/// What a target keeps of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSecret([u8; 32]);

impl StoredSecret {
    pub fn of(secret: &Secret) -> StoredSecret {
        StoredSecret(sha256(&secret.key()))
    }
}

/// Everything that a proof is bound to.
pub struct Proof<'a> {
    pub binding: &'a [u8; SESSION_BINDING_LEN],
    pub source: Fingerprint,
    pub target: Fingerprint,
    pub set_name: &'a str,
}

impl Proof<'_> {
    pub fn make(&self, secret: &Secret) -> [u8; 32] {
        xor(&secret.key(), &self.mask(&StoredSecret::of(secret)))
    }

    pub fn holds(&self, stored: &StoredSecret, proof: &[u8; 32]) -> bool {
        let found = sha256(&xor(proof, &self.mask(stored)));
        // All bytes, whatever the first ones are.
        found.iter().zip(&stored.0).fold(0, |differs, (left, right)| differs | (left ^ right)) == 0
    }

    fn mask(&self, stored: &StoredSecret) -> [u8; 32] {
        let mut message = b"standin pairing proof\0".to_vec();
        message.extend_from_slice(self.binding);
        message.extend_from_slice(&self.source.bytes());
        message.extend_from_slice(&self.target.bytes());
        message.extend_from_slice(self.set_name.as_bytes());
        hmac_sha256(&stored.0, &message)
    }
}

fn xor(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    std::array::from_fn(|at| left[at] ^ right[at])
}
