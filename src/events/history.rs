//! The last day of each connection: each second of the last quarter of an hour, each minute of the last day. Pure.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// Seconds that are kept.
pub const SECONDS: usize = 15 * 60;
/// Minutes that are kept.
pub const MINUTES: usize = 24 * 60;
/// Connections at most: 40 bytes a sample are 94 KB each, and what JSON makes of all of them (220 bytes a sample at
/// most) still fits into one answer of a daemon.
pub const CONNECTIONS_MAX: usize = 8;

const _: () = assert!(size_of::<Sample>() == 40);
const _: () = assert!(CONNECTIONS_MAX * (SECONDS + MINUTES) * 220 < crate::limits::CONTROL_RESPONSE_LEN_MAX);

/// How a connection is at one moment. Counters count since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// `None`: not known.
    pub lag_seconds: Option<f32>,
    pub queued_packets: u64,
    pub queued_bytes: u64,
    pub sent_bytes: u64,
    pub captured_bytes: u64,
}

/// What was so within a second, or a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When it ended.
    pub at_unix_ms: u64,
    /// The most; `None` where it was not known at any moment of it.
    pub lag_seconds: Option<f32>,
    /// The most.
    pub queued_packets: u64,
    pub queued_bytes: u64,
    /// On the mean, bytes a second.
    pub sent_rate: f32,
    pub captured_rate: f32,
}

/// Of one connection, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    pub connection: String,
    pub target: String,
    pub seconds: Vec<Sample>,
    pub minutes: Vec<Sample>,
}

/// See the module.
#[derive(Default)]
pub struct History {
    connections: BTreeMap<String, Ring>,
}

#[derive(Default)]
struct Ring {
    target: String,
    before: Option<(u64, Measured)>,
    seconds: VecDeque<Sample>,
    minutes: VecDeque<Sample>,
    /// Of the minute that runs.
    minute: Vec<Sample>,
}

impl History {
    /// A connection is looked at, once a second or so. Gives what that makes of the time since the look before.
    pub fn add(
        &mut self,
        at_unix_ms: u64,
        connection: &str,
        target: &str,
        measured: Measured,
    ) -> Option<Sample> {
        if !self.connections.contains_key(connection) && self.connections.len() >= CONNECTIONS_MAX {
            return None;
        }
        let ring = self.connections.entry(connection.to_owned()).or_default();
        target.clone_into(&mut ring.target);
        ring.add(at_unix_ms, measured)
    }

    /// Those that are not there any more go.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.connections.retain(|connection, _| is_there(connection));
    }

    pub fn series(&self) -> Vec<Series> {
        let of = |(connection, ring): (&String, &Ring)| Series {
            connection: connection.clone(),
            target: ring.target.clone(),
            seconds: ring.seconds.iter().copied().collect(),
            minutes: ring.minutes.iter().copied().collect(),
        };
        self.connections.iter().map(of).collect()
    }
}

impl Ring {
    fn add(&mut self, at: u64, measured: Measured) -> Option<Sample> {
        let (before_at, before) = self.before.replace((at, measured))?;
        // A clock that was set, or a look right behind another one.
        let ms = at.checked_sub(before_at).filter(|ms| *ms > 0)?;
        // A counter that begins anew is no rate.
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f32 * 1000.0 / ms as f32;
        let sample = Sample {
            at_unix_ms: at,
            lag_seconds: measured.lag_seconds,
            queued_packets: measured.queued_packets,
            queued_bytes: measured.queued_bytes,
            sent_rate: rate(measured.sent_bytes, before.sent_bytes),
            captured_rate: rate(measured.captured_bytes, before.captured_bytes),
        };
        push(&mut self.seconds, sample, SECONDS);
        if self.minute.first().is_some_and(|first| first.at_unix_ms / 60_000 != at / 60_000) {
            self.end_minute();
        }
        self.minute.push(sample);
        if self.minute.len() > 2 * 60 {
            self.end_minute();
        }
        Some(sample)
    }

    fn end_minute(&mut self) {
        let Some(minute) = whole(&std::mem::take(&mut self.minute)) else { return };
        push(&mut self.minutes, minute, MINUTES);
    }
}

fn push(ring: &mut VecDeque<Sample>, sample: Sample, max: usize) {
    if ring.len() >= max {
        ring.pop_front();
    }
    ring.push_back(sample);
}

fn whole(samples: &[Sample]) -> Option<Sample> {
    let last = samples.last()?;
    let mean = |of: fn(&Sample) -> f32| samples.iter().map(of).sum::<f32>() / samples.len() as f32;
    Some(Sample {
        at_unix_ms: last.at_unix_ms,
        lag_seconds: samples.iter().filter_map(|sample| sample.lag_seconds).max_by(f32::total_cmp),
        queued_packets: samples.iter().map(|sample| sample.queued_packets).max()?,
        queued_bytes: samples.iter().map(|sample| sample.queued_bytes).max()?,
        sent_rate: mean(|sample| sample.sent_rate),
        captured_rate: mean(|sample| sample.captured_rate),
    })
}
