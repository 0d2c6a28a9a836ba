//! SIGTERM, SIGINT and SIGHUP, told as they come.

use std::io::{self, IsTerminal};

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

    /// As [`StopSignals::forward`], of a daemon that has files: SIGHUP has it read them anew. Of one that was started
    /// in a terminal it says as ever that the terminal is gone: that is a stop.
    pub fn forward_and_reload(
        mut self,
        stop: impl Fn() -> bool + Send + 'static,
        reload: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let has_terminal =
            io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
        let each = move || {
            for signal in self.0.forever() {
                match signal {
                    SIGHUP if !has_terminal => reload(),
                    _ if stop() => {}
                    _ => return,
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(each)?;
        Ok(())
    }
}
