//! A long stream of large writes through the mount to a target daemon of its own: how fast until
//! it is durable there, how far the replica is behind meanwhile, and what each side spends on it.

use std::collections::VecDeque;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::content::Block;
use super::error::{Context, Error, Result};
use super::mount::{Mount, Protection};
use super::place::Workshop;
use super::served::{SET, Served};
use super::stats::quantile;
use crate::control::WaitFor;
use crate::sys::process_time;

/// One write, in bytes.
const WRITE: usize = 1 << 20;

/// Between two looks at how long both files are; the precision of the lag.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Blocks of the replica that are looked at.
const BLOCKS_CHECKED: u64 = 512;

/// All rounds.
#[derive(Debug, Serialize)]
pub struct Stream {
    pub bytes: u64,
    pub rounds: Vec<StreamRound>,
}

/// The same bytes written into a plain directory and synced, then through the mount.
#[derive(Debug, Serialize)]
pub struct StreamRound {
    /// Writes and fsync.
    pub native_seconds: f64,
    pub write_seconds: f64,
    /// From the first write until everything is durable on the target.
    pub durable_seconds: f64,
    /// Processor time of the daemons, seconds.
    pub source_cpu_seconds: f64,
    pub target_cpu_seconds: f64,
    /// Age of the oldest byte that the replica lacked, looked at all the time.
    pub lag_p50_ms: f64,
    pub lag_p99_ms: f64,
    pub lag_max_ms: f64,
    pub behind_max_bytes: u64,
}

/// Daemons and directories of the stream.
pub struct Measurement<'a> {
    served: Served,
    mount: Mount,
    plain: std::path::PathBuf,
    dir: std::path::PathBuf,
    backing: std::path::PathBuf,
    stop: &'a AtomicBool,
}

impl<'a> Measurement<'a> {
    pub fn start(workshop: &Workshop, program: &Path, stop: &'a AtomicBool) -> Result<Measurement<'a>> {
        let home = workshop.make("stream")?;
        let make = |name: &str| workshop.make(&format!("stream/{name}"));
        let (dir, backing, plain) = (make("mount")?, make("backing")?, make("plain")?);
        let served = Served::start(program, &home, stop)?;
        let name = format!("{SET}-stream-{}", std::process::id());
        let target = served.target.clone().into();
        let protection = Protection {
            program,
            name: &name,
            point: &dir,
            backing: &backing,
            target,
            home: &home,
            options: &[],
        };
        let mount = Mount::protect(&protection, stop)?;
        Ok(Measurement { served, mount, plain, dir, backing, stop })
    }

    /// `bytes`: whole MiB.
    pub fn run(&self, bytes: u64, rounds: u32) -> Result<Stream> {
        let rounds = (1..=u64::from(rounds)).map(|round| self.round(round, bytes)).collect::<Result<_>>()?;
        Ok(Stream { bytes, rounds })
    }

    fn round(&self, round: u64, bytes: u64) -> Result<StreamRound> {
        let native_seconds = self.native(round, bytes)?;
        let (path, backing) = (self.dir.join("stream"), self.backing.join("stream"));
        let replica = self.served.replica.join("stream");
        let cpu = || -> Result<(f64, f64)> {
            let of = |pid| Ok(process_time(pid).at(Path::new("/proc"))?.as_secs_f64());
            Ok((of(self.mount.pid())?, of(self.served.process.pid())?))
        };
        let before = cpu()?;
        let written = AtomicBool::new(false);
        let started = Instant::now();
        let (write_seconds, durable_seconds, lags) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| watch(&backing, &replica, bytes, &written));
            let outcome = self.write(&path, round, bytes).and_then(|()| {
                let write_seconds = started.elapsed().as_secs_f64();
                self.mount.wait_sync(WaitFor::Durable, self.stop)?;
                Ok((write_seconds, started.elapsed().as_secs_f64()))
            });
            written.store(true, Ordering::Relaxed);
            let lags = watch.join().map_err(|_| Error::Wrong("the watching thread panicked".into()))?;
            outcome.map(|(write, durable)| (write, durable, lags))
        })?;
        let after = cpu()?;
        check(&replica, round, bytes)?;
        fs::remove_file(&path).at(&path)?;
        self.mount.wait_sync(WaitFor::Durable, self.stop)?;
        let lag = |share| quantile(&lags.ages_ms, share).unwrap_or_default();
        Ok(StreamRound {
            native_seconds,
            write_seconds,
            durable_seconds,
            source_cpu_seconds: after.0 - before.0,
            target_cpu_seconds: after.1 - before.1,
            lag_p50_ms: lag(0.5),
            lag_p99_ms: lag(0.99),
            lag_max_ms: lag(1.0),
            behind_max_bytes: lags.behind_max,
        })
    }

    fn native(&self, round: u64, bytes: u64) -> Result<f64> {
        let path = self.plain.join("stream");
        let started = Instant::now();
        self.write(&path, round, bytes)?;
        fs::File::open(&path).and_then(|file| file.sync_all()).at(&path)?;
        let seconds = started.elapsed().as_secs_f64();
        fs::remove_file(&path).at(&path)?;
        Ok(seconds)
    }

    fn write(&self, path: &Path, round: u64, bytes: u64) -> Result<()> {
        let mut block = Block::new(WRITE);
        let mut file = OpenOptions::new().write(true).create_new(true).open(path).at(path)?;
        for offset in (0..bytes).step_by(WRITE) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted);
            }
            file.write_all(block.stamped(round, offset)).at(path)?;
        }
        Ok(())
    }
}

/// What was seen while the stream ran.
struct Lags {
    ages_ms: Vec<f64>,
    behind_max: u64,
}

/// Looks at the lengths of a file and of its copy until the copy has `bytes`, or the end.
fn watch(backing: &Path, replica: &Path, bytes: u64, ended: &AtomicBool) -> Lags {
    let len = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    let mut lags = Lags { ages_ms: Vec::new(), behind_max: 0 };
    let mut grown: VecDeque<(Instant, u64)> = VecDeque::new();
    loop {
        // The copy first: what it has then, the other one had before.
        let (copied, written, now) = (len(replica), len(backing), Instant::now());
        if grown.back().map_or(0, |&(_, len)| len) < written {
            grown.push_back((now, written));
        }
        while grown.front().is_some_and(|&(_, len)| len <= copied) {
            grown.pop_front();
        }
        if written > 0 {
            let age = grown.front().map_or(Duration::ZERO, |&(since, _)| now - since);
            lags.ages_ms.push(age.as_secs_f64() * 1e3);
            lags.behind_max = lags.behind_max.max(written.saturating_sub(copied));
        }
        if copied >= bytes || ended.load(Ordering::Relaxed) {
            return lags;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn check(replica: &Path, round: u64, bytes: u64) -> Result<()> {
    let block = WRITE as u64;
    let step = (bytes / block).div_ceil(BLOCKS_CHECKED).max(1) * block;
    Block::new(WRITE).check(replica, round, (0..bytes).step_by(step as usize).chain([bytes - block]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_the_age_of_the_oldest_missing_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (backing, replica) = (dir.path().join("a"), dir.path().join("b"));
        let ended = AtomicBool::new(false);
        fs::write(&backing, [0; 10]).unwrap();
        let lags = std::thread::scope(|scope| {
            let watching = scope.spawn(|| watch(&backing, &replica, 10, &ended));
            std::thread::sleep(Duration::from_millis(60));
            fs::write(&replica, [0; 10]).unwrap();
            watching.join().unwrap()
        });
        assert_eq!(lags.behind_max, 10);
        let most = lags.ages_ms.iter().copied().fold(0.0, f64::max);
        assert!(most >= 50.0 && *lags.ages_ms.last().unwrap() == 0.0, "{:?}", lags.ages_ms);
    }
}
