//! The first bytes of a stream: what it is for, and to which session it belongs.
//!
//! ```text
//! offset size  opening, from the source, 32 bytes, little-endian
//!      0    4  magic "sdlk"
//!      4    1  version of this layout
//!      5    1  role: 1 control, 2 packets
//!      6    2  zero
//!      8    4  heartbeat interval of the source, ms
//!     12    4  zero
//!     16   16  session: random, ties the two connections of one source together
//! ```
//! The target answers the opening of the control stream with four bytes, `sdok`: only then is
//! its TLS through with the source's key.

use std::time::Duration;

use quinn::{ReadExactError, RecvStream};

use super::ending::End;
use crate::limits::{HEARTBEAT_INTERVAL_MAX, HEARTBEAT_INTERVAL_MIN};

pub(super) const OPENING_LEN: usize = 32;
const MAGIC: [u8; 4] = *b"sdlk";
const VERSION: u8 = 1;

/// The target's answer to the opening of the control stream.
pub(super) const GREETING: [u8; 4] = *b"sdok";

/// Ties the two connections of one source together.
pub(super) type SessionToken = u128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Control,
    Packets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) role: Role,
    pub(super) heartbeat_interval: Duration,
    pub(super) session: SessionToken,
}

impl Opening {
    pub(super) fn encode(&self) -> [u8; OPENING_LEN] {
        let mut bytes = [0; OPENING_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = match self.role {
            Role::Control => 1,
            Role::Packets => 2,
        };
        bytes[8..12].copy_from_slice(&(self.heartbeat_interval.as_millis() as u32).to_le_bytes());
        bytes[16..].copy_from_slice(&self.session.to_le_bytes());
        bytes
    }

    /// `None`: not an opening of a version that this build knows. The interval comes back
    /// within its bounds.
    pub(super) fn decode(bytes: &[u8; OPENING_LEN]) -> Option<Opening> {
        let role = match bytes[5] {
            1 => Role::Control,
            2 => Role::Packets,
            _ => return None,
        };
        let interval = u32::from_le_bytes(bytes[8..12].try_into().ok()?);
        let zeroes = bytes[6..8].iter().chain(&bytes[12..16]).all(|&byte| byte == 0);
        if bytes[..4] != MAGIC || bytes[4] != VERSION || !zeroes {
            return None;
        }
        Some(Opening {
            role,
            heartbeat_interval: bounded(Duration::from_millis(interval.into())),
            session: SessionToken::from_le_bytes(bytes[16..].try_into().ok()?),
        })
    }

    /// Reads the opening of a stream that must have this role.
    pub(super) async fn read(stream: &mut RecvStream, role: Role) -> Result<Opening, End> {
        let mut bytes = [0; OPENING_LEN];
        match stream.read_exact(&mut bytes).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(_)) => {
                return Err(End::Fault("a stream ended within its opening".into()));
            }
            Err(ReadExactError::ReadError(error)) => return Err(error.into()),
        }
        match Opening::decode(&bytes) {
            Some(opening) if opening.role == role => Ok(opening),
            _ => Err(End::Fault("a stream does not open as one of this protocol".into())),
        }
    }
}

/// The interval within its bounds.
pub(super) fn bounded(heartbeat_interval: Duration) -> Duration {
    heartbeat_interval.clamp(HEARTBEAT_INTERVAL_MIN, HEARTBEAT_INTERVAL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_comes_back_and_junk_does_not() {
        let opening = Opening {
            role: Role::Packets,
            heartbeat_interval: Duration::from_millis(1234),
            session: 7 << 99,
        };
        let bytes = opening.encode();
        assert_eq!(Opening::decode(&bytes), Some(opening));
        for at in [0, 3, 4, 5, 6, 13] {
            let mut bad = bytes;
            bad[at] ^= 0x40;
            assert_eq!(Opening::decode(&bad), None, "byte {at}");
        }
    }
}
