//! How fast a link may send: what goes over the wire in any second, all headers counted, never passes the rate.
//!
//! Datagrams wait in front of the socket, one batch of each connection: nothing piles up behind it, in the kernel or
//! in the network, and round trips stay what they are. Control and heartbeats go first: for them some of each second is
//! left free, and while they wait packets do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::{FEED_BATCH, LIMITED_BATCH_MIN, LIMITED_WINDOW_MIN};

/// A second is looked at in so many parts.
const PARTS: usize = 64;

/// Left free of each second for control and heartbeats, bytes: a dozen of them.
const FIRST_ROOM: u64 = 1500;

/// More than what a batch of one datagram takes on any path but jumbo ones.
const BURST_MIN: u64 = 3000;

/// Whoever waits looks again after this at the latest: the rate may be another one.
const LOOK_AGAIN: Duration = Duration::from_millis(16);

/// Which connection of a link sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// Control and heartbeats.
    First,
    /// Packets and copies.
    Then,
}

/// A rate for all sessions of one connection; changed from any thread, at once.
#[derive(Clone, Debug, Default)]
pub struct Limiter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Bytes a second; 0: no limit.
    rate: AtomicU64,
    bucket: Mutex<Option<Bucket>>,
}

impl Limiter {
    /// Bytes a second; `None`: as fast as it goes.
    pub fn set(&self, rate: Option<u64>) {
        let rate = rate.unwrap_or(0);
        let mut bucket = self.0.bucket.lock();
        if self.0.rate.swap(rate, Relaxed) != rate {
            *bucket = (rate > 0).then(|| Bucket::new(rate, Instant::now()));
        }
    }

    fn rate(&self) -> Option<u64> {
        Some(self.0.rate.load(Relaxed)).filter(|rate| *rate > 0)
    }

    /// So many bytes go now, or how long that has to wait.
    pub(super) fn take(&self, rank: Rank, bytes: u64) -> Result<(), Duration> {
        if self.rate().is_none() {
            return Ok(());
        }
        let mut bucket = self.0.bucket.lock();
        bucket.as_mut().map_or(Ok(()), |bucket| bucket.take(rank, bytes, Instant::now()))
    }

    /// How long what could not go last has to wait; `None`: it may go.
    pub(super) fn wait(&self, rank: Rank) -> Option<Duration> {
        self.rate()?;
        self.0.bucket.lock().as_mut()?.wait(rank, Instant::now())
    }

    /// Datagrams of this length that go together.
    pub(super) fn datagrams(&self, len: usize) -> usize {
        self.rate().map_or(usize::MAX, |rate| (burst(rate) as usize / 2 / len.max(1)).max(1))
    }

    /// Bytes of frames that are taken from the feed at once: what comes next goes behind them.
    pub(super) fn batch(&self) -> usize {
        self.rate().map_or(FEED_BATCH, |rate| (rate as usize / 8).clamp(LIMITED_BATCH_MIN, FEED_BATCH))
    }

    /// Bytes under way or handed over, where there is a limit: half a second of it.
    pub(super) fn window(&self) -> Option<u64> {
        self.rate().map(|rate| (rate / 2).max(LIMITED_WINDOW_MIN))
    }
}

/// May go at once after a rest.
fn burst(rate: u64) -> u64 {
    (rate / 16).max(BURST_MIN)
}

/// The last second, part by part, and what may go at once.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    tokens: f64,
    looked: Instant,
    began: Instant,
    /// The part that is now, counted from `began`, and the bytes of each: the last second and this part.
    part: u64,
    parts: [[u64; 2]; PARTS + 1],
    /// First rank first.
    sums: [u64; 2],
    /// What could not go last, first rank first.
    refused: [Option<u64>; 2],
}

impl Bucket {
    fn new(rate: u64, now: Instant) -> Bucket {
        Bucket {
            rate,
            tokens: burst(rate) as f64,
            looked: now,
            began: now,
            part: 0,
            parts: [[0; 2]; PARTS + 1],
            sums: [0; 2],
            refused: [None; 2],
        }
    }

    fn take(&mut self, rank: Rank, bytes: u64, now: Instant) -> Result<(), Duration> {
        self.pass(now);
        self.refused[rank as usize] = Some(bytes);
        match self.missing(rank, bytes) {
            Some(wait) => Err(wait),
            None => {
                self.refused[rank as usize] = None;
                self.tokens -= bytes as f64;
                self.parts[self.part as usize % (PARTS + 1)][rank as usize] += bytes;
                self.sums[rank as usize] += bytes;
                Ok(())
            }
        }
    }

    fn wait(&mut self, rank: Rank, now: Instant) -> Option<Duration> {
        self.pass(now);
        self.refused[rank as usize].and_then(|bytes| self.missing(rank, bytes))
    }

    /// Time passes: parts older than a second are forgotten.
    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.looked).as_secs_f64();
        self.looked = self.looked.max(now);
        self.tokens = (self.tokens + passed * self.rate as f64).min(burst(self.rate) as f64);
        let since = self.looked.saturating_duration_since(self.began);
        let part = (since.as_nanos() * PARTS as u128 / 1_000_000_000) as u64;
        for next in (self.part + 1..=part).take(PARTS + 1) {
            let [first, then] = std::mem::take(&mut self.parts[next as usize % (PARTS + 1)]);
            self.sums[0] -= first;
            self.sums[1] -= then;
        }
        self.part = part;
    }

    fn missing(&self, rank: Rank, bytes: u64) -> Option<Duration> {
        let is_late = rank == Rank::Then && self.refused[Rank::First as usize].is_some();
        if is_late || !self.fits(rank, bytes) {
            return Some(LOOK_AGAIN);
        }
        let lacks = bytes.min(burst(self.rate)) as f64 - self.tokens;
        if rank == Rank::First || lacks <= 0.0 {
            return None;
        }
        Some(Duration::from_secs_f64(lacks / self.rate as f64).clamp(Duration::from_millis(1), LOOK_AGAIN))
    }

    /// Whether the last second has room for it. What is longer than a whole second's (it was made before the
    /// rate was set) goes where no other packets do: control and heartbeats always do.
    fn fits(&self, rank: Rank, bytes: u64) -> bool {
        let [first, then] = self.sums;
        let most = self.rate - self.rate / 200;
        let room = FIRST_ROOM.min(self.rate / 8);
        let (most, beside) = match rank {
            Rank::First => (most, first),
            // What is left free for the others is not counted again when they have used it.
            Rank::Then => (most - room, first.saturating_sub(room)),
        };
        let is_too_long = bytes > most.saturating_sub(beside);
        then + beside + bytes <= most || is_too_long && then == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends datagrams as fast as it may, and heartbeats; gives when and how much.
    fn run(rate: u64, len: u64, seconds: u64, mut late_ms: impl FnMut() -> u64) -> Vec<(Duration, u64)> {
        let began = Instant::now();
        let mut bucket = Bucket::new(rate, began);
        let (mut at, mut sent, mut beat) = (Duration::ZERO, Vec::new(), Duration::ZERO);
        while at < Duration::from_secs(seconds) {
            if beat <= at {
                bucket.take(Rank::First, 120, began + at).expect("heartbeats go first");
                sent.push((at, 120));
                beat = at + Duration::from_millis(300);
            }
            match bucket.take(Rank::Then, len, began + at) {
                Ok(()) => sent.push((at, len)),
                Err(wait) => at += wait + Duration::from_millis(late_ms()),
            }
        }
        sent
    }

    /// The most of any second, and the mean.
    fn most_and_mean(sent: &[(Duration, u64)]) -> (u64, u64) {
        let within = |from: usize| {
            let end = sent[from].0 + Duration::from_secs(1);
            sent[from..].iter().take_while(|(at, _)| *at < end).map(|(_, bytes)| bytes).sum::<u64>()
        };
        let most = (0..sent.len()).map(within).max().unwrap_or(0);
        let total: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
        (most, total / sent.last().map_or(1, |(at, _)| at.as_secs().max(1)))
    }

    #[test]
    fn no_second_passes_the_rate_and_almost_all_of_it_is_used() {
        for (rate, len) in [(125_000, 1494), (1_000_000, 15_000), (12_500_000, 65_000)] {
            let mut turn = 0;
            for most_late in [1, 10, 60] {
                let sent = run(rate, len, 20, || {
                    turn += 1;
                    turn * 7 % most_late
                });
                let (most, mean) = most_and_mean(&sent);
                assert!(most <= rate, "{most} of {rate}, {most_late} ms late");
                assert!(mean * 100 >= rate * 95, "{mean} of {rate}, {most_late} ms late");
            }
        }
    }

    #[test]
    fn what_is_too_long_for_the_rate_goes_in_the_end() {
        let began = Instant::now();
        let mut bucket = Bucket::new(16 << 10, began);
        assert_eq!(bucket.take(Rank::Then, 65_000, began), Ok(()));
        assert!(bucket.take(Rank::Then, 1500, began + Duration::from_millis(900)).is_err());
        assert_eq!(bucket.take(Rank::Then, 65_000, began + Duration::from_secs(6)), Ok(()));
    }

    /// It waited for a second without anything, and control is never silent for so long.
    #[test]
    fn what_is_too_long_goes_beside_control() {
        for (rate, len) in [(16 << 10, 65_000), (64 << 10, 65_000), (32 << 10, 31_000)] {
            let began = Instant::now();
            let mut bucket = Bucket::new(rate, began);
            let (mut at, mut beat, mut went) = (Duration::ZERO, Duration::ZERO, Vec::new());
            while at < Duration::from_secs(30) {
                if beat <= at && bucket.take(Rank::First, 300, began + at).is_ok() {
                    beat = at + Duration::from_millis(500);
                }
                if bucket.take(Rank::Then, len, began + at).is_ok() {
                    went.push(at);
                }
                at += Duration::from_millis(10);
            }
            assert!(went.len() as u64 * len >= rate * 20, "{rate}: {went:?}");
        }
    }

    #[test]
    fn a_limit_comes_and_goes_at_once() {
        let limiter = Limiter::default();
        assert_eq!(limiter.take(Rank::Then, u64::MAX / 2), Ok(()));
        assert_eq!(
            (limiter.window(), limiter.batch(), limiter.datagrams(1452)),
            (None, FEED_BATCH, usize::MAX)
        );
        limiter.set(Some(125_000));
        assert!((0..200).any(|_| limiter.take(Rank::Then, 1494).is_err()));
        assert!(limiter.wait(Rank::Then).is_some());
        assert_eq!(limiter.datagrams(1452), 2);
        limiter.set(None);
        assert_eq!((limiter.take(Rank::Then, 1 << 30), limiter.wait(Rank::Then)), (Ok(()), None));
    }
}
