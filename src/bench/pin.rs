//! Binding everything to one processor, where that is asked for.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::error::{Context, Result};

/// This thread, and all that is started from it, runs on one processor until this goes.
pub struct Pinned {
    before: CpuSet,
    pub cpu: usize,
}

impl Pinned {
    /// To the first processor that is allowed.
    pub fn new() -> Result<Pinned> {
        let here = std::path::Path::new("sched_setaffinity");
        let before = sched_getaffinity(None).at(here)?;
        let cpu = (0..CpuSet::MAX_CPU).find(|cpu| before.is_set(*cpu)).unwrap_or(0);
        let mut one = CpuSet::new();
        one.set(cpu);
        sched_setaffinity(None, &one).at(here)?;
        Ok(Pinned { before, cpu })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(None, &self.before) {
            log::warn!("the processors of before are not allowed any more: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_until_it_is_let_go() {
        std::thread::spawn(|| {
            let before = sched_getaffinity(None).unwrap();
            let pinned = Pinned::new().unwrap();
            let bound = sched_getaffinity(None).unwrap();
            assert!(bound.count() == 1 && bound.is_set(pinned.cpu));
            drop(pinned);
            assert!(sched_getaffinity(None).unwrap() == before);
        })
        .join()
        .unwrap();
    }
}
