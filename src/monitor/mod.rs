//! A monitor: a process of its own on the host of a replica, which watches the source of one set and says green,
//! yellow, red, or that it sees nothing. At red it calls for a person, or has the failover done, once.
//!
//! ```text
//!  link, tcp, command ── Asker (a thread each) ──> Machine ──> a line, a state file (events, status), sd_notify
//!  own network ─────────┘                              └─ red ──> Acting: note, look, fence, `standin failover`
//! ```
//! - [`machine`]: what follows from answers and silence, by the [`plan`]; both pure
//! - [`probe`]: one look
//! - [`driver`]: threads, the clock, and what is said
//! - [`shown`]: how it is, for whoever asks on this host, and whether the monitor itself is there
//! - [`outage`]: the durable note of an outage that was acted on
//! - [`acting`]: the steps at red
//!
//! It changes nothing of a replica itself: that does the command of a person's hand, `standin failover`, as a process
//! that outlives the monitor.

pub mod acting;
pub mod driver;
mod link;
pub mod machine;
pub mod outage;
pub mod plan;
pub mod probe;
pub mod shown;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use plan::{Need, Plan};
use probe::Probe;

/// What is watched, from where, and what is done at red.
#[derive(Clone, Debug)]
pub struct Options {
    pub set: String,
    /// Where it shows how it is, and where its failover has its socket.
    pub run: PathBuf,
    /// Where the sockets are that are asked.
    pub asked: PathBuf,
    pub state: PathBuf,
    pub probes: Vec<Probe>,
    /// Of the own network.
    pub own: Vec<Probe>,
    pub need: Need,
    pub interval: Duration,
    pub misses: u32,
    pub auto: Option<Auto>,
}

/// What is done at red without a person.
#[derive(Clone, Debug)]
pub struct Auto {
    /// Cuts the source off for good; 0: it is.
    pub fence: String,
    pub timeout: Duration,
    /// This program's words from `failover` on, with what says where its state is.
    pub failover: Vec<OsString>,
}

impl Options {
    pub fn plan(&self) -> Plan {
        Plan {
            interval_ms: self.interval.as_millis() as u64,
            misses: self.misses,
            need: self.need,
            probes: self.probes.iter().map(|probe| probe.asks(self.interval)).collect(),
            own: self.own.iter().map(|probe| probe.asks(self.own_timeout())).collect(),
        }
    }

    /// The own network is near: who doubts waits for it twice at most.
    fn own_timeout(&self) -> Duration {
        self.interval / 2
    }
}
