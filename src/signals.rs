//! SIGTERM, SIGINT and SIGHUP, told as they come.

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
    /// Tells of each, from a thread of its own; of those that have come already, too. Ends when
    /// `tell` says that nobody listens any more.
    pub fn forward(mut self, tell: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
        let each = move || while self.0.forever().next().is_some() && tell() {};
        std::thread::Builder::new().name("signals".into()).spawn(each)?;
        Ok(())
    }
}
