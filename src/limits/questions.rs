//! Bounds of what people ask of files, and of markers.

use std::time::Duration;

use super::{CONTROL_CALLERS_MAX, CONTROL_REQUEST_LEN_MAX};

/// Files that one question is about; each is looked at while the caller waits.
pub const FILES_ASKED_MAX: usize = 256;

/// Bytes of their paths in one request, as JSON has them; the rest of it is far below a kilobyte.
pub const FILES_ASKED_LEN: usize = CONTROL_REQUEST_LEN_MAX / 2;

/// What targets have to answer where nobody wants to wait: many round trips around the world.
pub const FILES_ANSWER: Duration = Duration::from_secs(1);

/// Bytes of the name of a marker: as those of sets.
pub const MARKER_NAME_LEN_MAX: usize = 64;

/// How long the stream of a set is held at most while the command of a marker runs, whatever was asked for: programs
/// are not held, the queue of the source is what grows.
pub const MARKER_HOLD_MAX: Duration = Duration::from_secs(3600);

/// Whoever runs commands for markers has asked again within this time; else a marker waits for nobody.
pub const MARKER_ATTENDED: Duration = Duration::from_secs(5);

/// What a target has said of markers, kept with each connection for whoever waits.
pub const MARKERS_HEARD_MAX: usize = 32;

/// Bytes of the output of a marker's command that the target shows.
pub const MARKER_OUTPUT_MAX: usize = 4096;

/// Places of the control socket that callers take at most who may look and no more: the others are for whoever
/// may change something, however many ask.
pub const CONTROL_LOOKING_MAX: usize = CONTROL_CALLERS_MAX / 2;
