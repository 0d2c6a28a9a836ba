//! The pace of attempts: grows with each failed one, up to a bound.

use std::time::Duration;

use super::FaultKind;
use crate::limits::{RECONNECT_DELAY_MAX, RECONNECT_DELAY_MIN, RECONNECT_REFUSED_MIN};

/// A random number from outside, in parts of 65,536: many sources must not come all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jitter(pub u16);

/// How long to wait after `attempts` failed ones in a row (at least 1), the last of this kind:
/// between half and all of a time that doubles up to [`RECONNECT_DELAY_MAX`]. A refusal needs a
/// person, so it is asked about less often.
pub fn delay(kind: FaultKind, attempts: u32, jitter: Jitter) -> Duration {
    let first = match kind {
        FaultKind::Lost | FaultKind::Undecided => RECONNECT_DELAY_MIN * 2,
        FaultKind::Refused | FaultKind::KeptOut => RECONNECT_REFUSED_MIN,
    };
    let doubled = 1u32 << attempts.saturating_sub(1).min(16);
    let full = first.saturating_mul(doubled).min(RECONNECT_DELAY_MAX);
    full / 2 + full / 2 * u32::from(jitter.0) / (1 << 16)
}
