//! SIGTERM and SIGINT, looked at by whoever waits.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Signals that ask the daemon to stop.
pub struct StopSignals(Signals);

/// Catches them from now on.
pub fn stop_signals() -> io::Result<StopSignals> {
    Signals::new([SIGTERM, SIGINT, SIGHUP]).map(StopSignals)
}

impl StopSignals {
    /// Whether one came since the last call.
    pub fn pending(&mut self) -> bool {
        self.0.pending().next().is_some()
    }
}
