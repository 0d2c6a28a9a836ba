//! Threads for jobs that wait for the kernel, which may wait for the threads that serve requests.

use crossbeam_channel::{Sender, TrySendError, bounded};

/// Where a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a helper: it may wait for other requests.
    Helper,
    /// On the caller's thread, because every helper is busy: it must not wait.
    Caller,
}

type Job = Box<dyn FnOnce(Place) + Send>;

/// The threads. Clones share them; they end with the last clone.
#[derive(Clone)]
pub struct Helpers(Sender<Job>);

impl Helpers {
    pub fn start(threads: usize) -> Helpers {
        // No queue: a job waits for no other one.
        let (sender, jobs) = bounded::<Job>(0);
        for number in 0..threads {
            let jobs = jobs.clone();
            let work = move || jobs.into_iter().for_each(|job| job(Place::Helper));
            if let Err(error) = std::thread::Builder::new().name(format!("helper-{number}")).spawn(work) {
                log::warn!("a helper thread did not start: {error}");
            }
        }
        Helpers(sender)
    }

    /// Runs a job on a helper that is free; here, if there is none.
    pub fn run(&self, job: impl FnOnce(Place) + Send + 'static) {
        match self.0.try_send(Box::new(job)) {
            Ok(()) => {}
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job(Place::Caller),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_job_runs_here_when_every_helper_is_busy() {
        let helpers = Helpers::start(1);
        let (ran, places) = channel();
        let (release, held) = channel::<()>();
        // Until the helper has come to its queue, jobs run here.
        let first = std::sync::Arc::new(std::sync::Mutex::new(Some(held)));
        loop {
            let (ran, first) = (ran.clone(), first.clone());
            helpers.run(move |place| {
                ran.send(place).unwrap();
                if place == Place::Helper {
                    let held = first.lock().unwrap().take().unwrap();
                    held.recv().unwrap();
                }
            });
            if places.recv().unwrap() == Place::Helper {
                break;
            }
        }
        let second = ran.clone();
        helpers.run(move |place| second.send(place).unwrap());
        assert_eq!(places.recv().unwrap(), Place::Caller);
        release.send(()).unwrap();
    }
}
