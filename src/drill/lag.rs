//! How far the replica was behind its source before, while and after a drill ran beside it: as exact as the source's heartbeats.

use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use serde::{Deserialize, Serialize};

use super::driver::Cloning;
use crate::control::unix_ms;
use crate::units;

/// Each is `null` where nobody knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    pub before_ms: Option<u64>,
    pub longest_ms: Option<u64>,
    pub mean_ms: Option<u64>,
    /// When everything was thrown away.
    pub after_ms: Option<u64>,
    /// How often it was looked.
    pub samples: u64,
}

pub(super) fn now(cloning: &dyn Cloning) -> Option<u64> {
    Some(unix_ms(SystemTime::now()).saturating_sub(cloning.as_of_unix_ms()?))
}

/// Looks again and again until `over` is given up.
pub(super) fn watch(cloning: &dyn Cloning, every: Duration, over: &Receiver<()>) -> Lag {
    let mut lag = Lag { before_ms: now(cloning), ..Lag::default() };
    let mut sum = 0u64;
    while over.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        if let Some(ms) = now(cloning) {
            lag.samples += 1;
            sum = sum.saturating_add(ms);
            lag.longest_ms = lag.longest_ms.max(Some(ms));
            lag.mean_ms = Some(sum / lag.samples);
        }
    }
    lag
}

impl Lag {
    /// On one line.
    pub fn words(&self) -> String {
        let ms = |ms: Option<u64>| {
            ms.map_or_else(|| "not known".into(), |ms| units::duration(Duration::from_millis(ms)))
        };
        if (self.before_ms, self.longest_ms, self.after_ms) == (None, None, None) {
            return "lag is not known".into();
        }
        format!(
            "lag {} before, {} at most and {} in the mean meanwhile, {} after",
            ms(self.before_ms),
            ms(self.longest_ms),
            ms(self.mean_ms),
            ms(self.after_ms)
        )
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

    use super::*;
    use crate::control::CloneStatus;
    use crate::failure::Failure;

    /// Behind by one second, then by two, and so on.
    struct Behind(AtomicU64);

    impl Cloning for Behind {
        fn start(&self, _: &str, _: &Path) -> Result<(), Failure> {
            unreachable!()
        }
        fn find(&self, _: &str) -> Result<Option<CloneStatus>, Failure> {
            unreachable!()
        }
        fn remove(&self, _: &str) -> Result<(), Failure> {
            unreachable!()
        }
        fn as_of_unix_ms(&self) -> Option<u64> {
            let second = self.0.fetch_add(1, SeqCst) + 1;
            (second != 3).then(|| unix_ms(SystemTime::now()) - 1000 * second)
        }
    }

    #[test]
    fn lag_is_of_before_and_meanwhile() {
        let behind = Behind(AtomicU64::new(0));
        let (over, is_over) = crossbeam_channel::bounded::<()>(0);
        let lag = std::thread::scope(|scope| {
            let watched = scope.spawn(|| watch(&behind, Duration::from_millis(1), &is_over));
            while behind.0.load(SeqCst) < 4 {
                std::thread::sleep(Duration::from_millis(1));
            }
            drop(over);
            watched.join().unwrap()
        });
        let near = |found: Option<u64>, second: u64| found.is_some_and(|ms| ms.abs_diff(second * 1000) < 500);
        assert!(near(lag.before_ms, 1), "{lag:?}");
        let (last, samples) = (behind.0.load(SeqCst), lag.samples);
        // The third one is not known.
        assert!(near(lag.longest_ms, last) && samples == last - 2, "{lag:?} {last}");
        assert!(lag.words().contains("before") && Lag::default().words() == "lag is not known");
    }
}
