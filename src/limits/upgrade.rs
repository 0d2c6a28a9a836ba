//! Bounds of a daemon that becomes another program.

use std::time::Duration;

/// How long a program may take to say what it understands: it is loaded from disk, and reads the files of the set.
pub const PROGRAM_ANSWER_MAX: Duration = Duration::from_secs(10);

/// What it may say, bytes.
pub const PROGRAM_ANSWER_LEN_MAX: u64 = 64 << 10;

/// How long changes of programs may wait until the targets have the rest, unless the command says otherwise: programs
/// take a file system that stands still for longer for one that hangs.
pub const UPGRADE_PAUSE: Duration = Duration::from_secs(10);

/// How long targets are told that this program goes: it is lost time for programs, and they find out by themselves.
pub const UPGRADE_GOODBYE_MAX: Duration = Duration::from_millis(500);

/// How often something that was put into the stream meanwhile is sent, too, before it is given up.
pub const UPGRADE_ROUNDS_MAX: u32 = 20;
