//! The clock of a load: how long each op took, and on which processors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::error::{Error, Result};
use super::super::stats::quantile;

/// A sample takes no longer than this: a slow disk gives fewer ops, not a longer run.
const SAMPLE_TIME_MAX: Duration = Duration::from_secs(20);

/// Ops between two looks at the signal, and at the processor.
const OPS_BETWEEN_LOOKS: u64 = 16;

/// Ops whose times are kept without asking for memory.
const OPS_EXPECTED: usize = 1 << 16;

/// What was done, and in which time.
#[derive(Clone, Debug)]
pub struct Done {
    /// Bytes or ops, as the line counts.
    pub work: u64,
    pub elapsed: Duration,
    /// Seconds of each op; empty where the ops are another program's.
    pub latencies: Vec<f32>,
    /// Processors on which the program was seen; empty where that is not known.
    pub cpus: Cpus,
}

/// A set of processors; those above 127 are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpus(u128);

/// One clock for each thread that works.
pub struct Pace<'a> {
    stop: &'a AtomicBool,
    started: Instant,
    /// When the op under way began.
    began: Instant,
    ops: u64,
    latencies: Vec<f32>,
    cpus: Cpus,
}

impl<'a> Pace<'a> {
    pub fn start(stop: &'a AtomicBool) -> Pace<'a> {
        let latencies = Vec::with_capacity(OPS_EXPECTED);
        let now = Instant::now();
        Pace { stop, started: now, began: now, ops: 0, latencies, cpus: Cpus::default() }
    }

    /// Counts an op that is about to be made; `false` when the time is over.
    pub fn go_on(&mut self) -> Result<bool> {
        self.end_op();
        if self.ops.is_multiple_of(OPS_BETWEEN_LOOKS) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            if self.ops > 0 && self.began - self.started >= SAMPLE_TIME_MAX {
                return Ok(false);
            }
            self.cpus.insert(rustix::thread::sched_getcpu());
        }
        self.ops += 1;
        Ok(true)
    }

    pub fn done(mut self, work_per_op: u64) -> Done {
        self.end_op();
        let elapsed = self.began - self.started;
        Done { work: self.ops * work_per_op, elapsed, latencies: self.latencies, cpus: self.cpus }
    }

    /// The next one begins where this one ends.
    fn end_op(&mut self) {
        let now = Instant::now();
        if self.ops > self.latencies.len() as u64 {
            self.latencies.push((now - self.began).as_secs_f32());
        }
        self.began = now;
    }
}

impl Done {
    /// By another program, of whose ops nothing is known but their number.
    pub fn elsewhere(work: u64, elapsed: Duration) -> Done {
        Done { work, elapsed, latencies: Vec::new(), cpus: Cpus::default() }
    }

    /// What several threads did at the same time.
    pub fn together(parts: Vec<Done>) -> Done {
        let mut all = Done::elsewhere(0, Duration::ZERO);
        for part in parts {
            all.work += part.work;
            all.elapsed = all.elapsed.max(part.elapsed);
            all.latencies.extend(part.latencies);
            all.cpus.0 |= part.cpus.0;
        }
        all
    }

    /// Microseconds below which this share of the ops stayed.
    pub fn latency_us(&self, share: f64) -> Option<f64> {
        let latencies: Vec<f64> = self.latencies.iter().map(|seconds| f64::from(*seconds) * 1e6).collect();
        quantile(&latencies, share)
    }
}

impl Cpus {
    pub fn insert(&mut self, cpu: usize) {
        self.0 |= 1u128.checked_shl(cpu as u32).unwrap_or(0);
    }

    pub fn list(self) -> Vec<usize> {
        (0..128).filter(|cpu| self.0 >> cpu & 1 == 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_op_has_a_time() {
        let stop = AtomicBool::new(false);
        let mut pace = Pace::start(&stop);
        for _ in 0..40 {
            assert!(pace.go_on().unwrap());
        }
        let done = pace.done(10);
        assert_eq!((done.work, done.latencies.len()), (400, 40));
        assert!(!done.cpus.list().is_empty());
        let sum: f64 = done.latencies.iter().map(|seconds| f64::from(*seconds)).sum();
        assert!(sum <= done.elapsed.as_secs_f64() * 1.01, "{sum} {done:?}");
        assert!(done.latency_us(0.5).unwrap() <= done.latency_us(0.99).unwrap());
        assert_eq!(Pace::start(&stop).done(1).work, 0);
    }

    #[test]
    fn threads_work_at_the_same_time() {
        let part = |work, millis, cpu| {
            let mut done = Done::elsewhere(work, Duration::from_millis(millis));
            done.cpus.insert(cpu);
            done
        };
        let all = Done::together(vec![part(1, 10, 0), part(2, 30, 127), part(3, 20, 128)]);
        assert_eq!((all.work, all.elapsed), (6, Duration::from_millis(30)));
        assert_eq!(all.cpus.list(), [0, 127]);
    }
}
