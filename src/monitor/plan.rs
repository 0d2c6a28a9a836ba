//! What is watched and how patiently, and what follows from that for the time until red.

use serde::{Deserialize, Serialize};

/// How many probes have to be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// All of them: one that answers shows that the source lives.
    All,
    /// One is enough.
    One,
}

/// A probe, as far as a decision goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asks {
    /// The longest that one attempt takes.
    pub longest_ms: u64,
    /// So long its silence says nothing when this host has seen nothing for a while: the source may take that to come
    /// back by itself.
    pub settles_ms: u64,
}

/// What is watched, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub interval_ms: u64,
    /// At least 2: one answer that is lost is no outage.
    pub misses: u32,
    pub need: Need,
    /// Of the source; at least one.
    pub probes: Vec<Asks>,
    /// Of the own network; one that answers is enough.
    pub own: Vec<Asks>,
}

impl Plan {
    pub fn timeout_ms(&self) -> u64 {
        self.interval_ms * u64::from(self.misses)
    }

    /// A quarter of the time-out, and never less than an answer that comes in time takes.
    pub(super) fn yellow_ms(&self) -> u64 {
        (self.timeout_ms() / 4).max(self.interval_ms + self.interval_ms / 4)
    }

    /// Attempts that have to fail: those that fit into the time-out.
    pub(super) fn needed(&self) -> u32 {
        self.misses.saturating_sub(1).max(1)
    }

    /// From the last answer to red, at most, where the own network is there and this process runs.
    pub fn worst_case_ms(&self) -> u64 {
        let of = |asks: &Asks| {
            let period = self.interval_ms.max(asks.longest_ms);
            self.interval_ms + u64::from(self.needed() - 1) * period + asks.longest_ms
        };
        let silent = self.probes.iter().map(of).fold(self.timeout_ms(), u64::max);
        // An attempt that is under way, and the one that begins behind the time-out.
        let own = self.own.iter().map(|asks| 2 * asks.longest_ms).max().unwrap_or(0);
        // Each attempt may begin a tick late.
        silent + own + u64::from(self.needed() + 2) * self.tick_ms()
    }

    /// How often the machine wants to be told the time, at least.
    pub fn tick_ms(&self) -> u64 {
        (self.interval_ms / 10).clamp(10, 100)
    }

    /// So long nobody told the time: this process did not run.
    pub(super) fn slept_ms(&self) -> u64 {
        self.interval_ms.max(1000)
    }
}
