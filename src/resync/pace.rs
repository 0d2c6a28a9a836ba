//! How fast a copy goes: a person holds it, or sets how many bytes it may send in a second. What was told last
//! counts at once.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;
use crate::limits::COPY_PACE_LOOK;

/// See the module. Shared by the copies of a connection, one after the other.
#[derive(Debug)]
pub struct Pace(Mutex<State>);

#[derive(Debug)]
struct State {
    is_paused: bool,
    /// Bytes a second; `None`: as fast as it goes.
    rate: Option<u64>,
    /// Bytes that were sent before their time.
    ahead: f64,
    as_of: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace(Mutex::new(State { is_paused: false, rate: None, ahead: 0.0, as_of: clock::now() }))
    }
}

impl Pace {
    pub fn pause(&self, is_paused: bool) {
        self.0.lock().is_paused = is_paused;
    }

    pub fn is_paused(&self) -> bool {
        self.0.lock().is_paused
    }

    /// Bytes a second, at least 1; `None`: as fast as it goes.
    pub fn set_rate(&self, rate: Option<u64>) {
        let mut state = self.0.lock();
        state.catch_up(clock::now());
        state.rate = rate.map(|rate| rate.max(1));
    }

    pub fn rate(&self) -> Option<u64> {
        self.0.lock().rate
    }

    /// So many bytes were sent.
    pub fn sent(&self, bytes: u64) {
        let mut state = self.0.lock();
        if state.rate.is_some() {
            state.catch_up(clock::now());
            state.ahead += bytes as f64;
        }
    }

    /// How long nothing may be sent, as far as is known now: it is asked again after a while. `None`: it goes
    /// on.
    pub fn rest(&self) -> Option<Duration> {
        let mut state = self.0.lock();
        state.catch_up(clock::now());
        if state.is_paused {
            return Some(COPY_PACE_LOOK);
        }
        let rate = state.rate.filter(|_| state.ahead > 0.0)?;
        Some(Duration::from_secs_f64(state.ahead / rate as f64).min(COPY_PACE_LOOK))
    }
}

impl State {
    fn catch_up(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.as_of).as_secs_f64();
        self.as_of = now;
        self.ahead = match self.rate {
            Some(rate) => (self.ahead - passed * rate as f64).max(0.0),
            None => 0.0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_keeps_to_the_rate_that_was_told_last() {
        let began = clock::now();
        clock::set(Some(began));
        let pace = Pace::default();
        let at = |ms: u64| clock::set(Some(began + Duration::from_millis(ms)));
        pace.sent(1 << 30);
        assert_eq!(pace.rest(), None, "nobody has set one");
        pace.set_rate(Some(1000));
        let (mut now, mut sent) = (0, 0);
        while now < 10_000 {
            match pace.rest() {
                None => (sent, _) = (sent + 100, pace.sent(100)),
                Some(rest) => now += rest.as_millis() as u64 + 1,
            }
            at(now);
        }
        assert!((9_000..=10_200).contains(&sent), "{sent} bytes in 10 s");
        pace.sent(1 << 20);
        assert!(pace.rest().is_some());
        pace.set_rate(None);
        assert_eq!(pace.rest(), None, "what was ahead is forgotten");
        pace.pause(true);
        assert_eq!((pace.rest(), pace.is_paused()), (Some(COPY_PACE_LOOK), true));
        pace.pause(false);
        assert_eq!(pace.rest(), None);
        clock::set(None);
    }
}
