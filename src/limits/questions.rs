//! Bounds of what people ask of files.

use std::time::Duration;

use super::CONTROL_REQUEST_LEN_MAX;

/// Files that one question is about; each is looked at while the caller waits.
pub const FILES_ASKED_MAX: usize = 256;

/// Bytes of their paths in one request, as JSON has them; the rest of it is far below a kilobyte.
pub const FILES_ASKED_LEN: usize = CONTROL_REQUEST_LEN_MAX / 2;

/// What targets have to answer where nobody wants to wait: many round trips around the world.
pub const FILES_ANSWER: Duration = Duration::from_secs(1);
