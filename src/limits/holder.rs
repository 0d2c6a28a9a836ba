//! Bounds of a mount that outlives its daemon.

use std::time::Duration;

/// How long calls of programs wait for a daemon that is started after theirs has ended, unless the options say
/// otherwise: a service manager needs a moment, and a program that waits longer is taken for hung.
pub const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long they wait for one that was started and prepares: it has a queue and a target to open, and reads no tree.
pub const TAKEOVER_START_MAX: Duration = Duration::from_secs(60);

/// How long a daemon that takes a mount over waits for its targets before it serves: they were there a moment ago,
/// or are away and come back by themselves.
pub const TAKEOVER_CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// How long a call of a program waits for a holder that takes nothing: it has room for some hundred words, so that
/// one that was stopped, or hangs, is done without.
pub const HOLDER_SAY_PATIENCE: Duration = Duration::from_secs(1);

/// How long a daemon that has hung up may take to be gone before its holder believes that it lives: the kernel closes
/// its sockets right before that. One that lives has done without this holder.
pub const DAEMON_GONE_MAX: Duration = Duration::from_secs(5);

/// How long a holder and a daemon wait for each other's word, on one machine.
pub const HOLDER_MESSAGE_PATIENCE: Duration = Duration::from_secs(10);
