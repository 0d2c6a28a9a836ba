//! SIGTERM, SIGINT and SIGHUP, told as they come.

use std::fs;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// Signals that ask the daemon to stop.
pub struct StopSignals {
    signals: Signals,
    /// Who started this has said that the end of a terminal is none of its business (`nohup`).
    outlives_terminal: bool,
}

/// Catches them from now on.
pub fn stop_signals() -> io::Result<StopSignals> {
    let outlives_terminal = is_ignored(SIGHUP);
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    Ok(StopSignals { signals, outlives_terminal })
}

/// From here on none of the signals that end a session, a service or a terminal's program ends this process: it ends
/// when its work does.
pub fn outlast_stops() -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

/// Whether this process ignores a signal (`SigIgn` of `/proc/PID/status`, proc(5): one bit each, from 1 on).
fn is_ignored(signal: i32) -> bool {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

impl StopSignals {
    /// Tells of each, from a thread of its own; of those that have come already, too. Ends when
    /// `tell` says that nobody listens any more.
    pub fn forward(mut self, tell: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
        let each = move || {
            for signal in self.signals.forever() {
                if signal == SIGHUP && self.outlives_terminal {
                    continue;
                }
                if !tell() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(each)?;
        Ok(())
    }

    /// As [`StopSignals::forward`], of a daemon that has files: SIGHUP has it read them anew. Of one that was started
    /// in a terminal it says as ever that the terminal is gone: that is a stop, unless it ignores that (`nohup`).
    pub fn forward_and_reload(
        mut self,
        stop: impl Fn() -> bool + Send + 'static,
        reload: impl Fn() + Send + 'static,
    ) -> io::Result<()> {
        let has_terminal =
            io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
        let each = move || {
            for signal in self.signals.forever() {
                match signal {
                    SIGHUP if !has_terminal => reload(),
                    SIGHUP if self.outlives_terminal => {}
                    _ if stop() => {}
                    _ => return,
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(each)?;
        Ok(())
    }
}
