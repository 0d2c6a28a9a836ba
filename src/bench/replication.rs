//! How far a replica is behind, and what a change costs on the wire.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;

use super::Settings;
use super::content::{Block, block_offset};
use super::error::{Context, Error, Result};
use super::load::{check_files, create_files, names, write_pages};
use super::place::Place;
use super::stats::quantile;
use crate::random::Random;

const PAGE: u64 = 4096;

/// Appends a second, one at a time, while the lag is measured.
const APPENDS_PER_SECOND: u32 = 50;

/// What else is written meanwhile where the lag under load is measured: bytes a second, in writes of
/// this length, into a file that gets no longer than this.
const OTHERS_PER_SECOND: u64 = 100_000_000;
const OTHERS_WRITE: usize = 64 << 10;
const OTHERS_FILE: u64 = 64 << 20;

/// Files that are created, and then renamed with their directory.
const FILES: u64 = 10_000;

/// Random writes into the big file.
const REWRITES: usize = 1000;

/// Between two looks at the replica; the precision of all times here.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// The replica shows a change within this time, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// Counters of a daemon's link are up to this old.
const COUNTERS_AGE: Duration = Duration::from_millis(1200);

/// How long the link is watched at rest.
const IDLE: Duration = Duration::from_secs(4);

#[derive(Debug, Serialize)]
pub struct Replication {
    pub lag: Lag,
    /// While something else writes 100 MB/s through the same mount.
    pub lag_busy: Lag,
    pub files: Files,
    pub rewrites: Rewrites,
    pub rename: Rename,
    /// What a link at rest carries, both directions: part of what is counted below. UDP payload; within one
    /// process there is no UDP, and it is bytes of frames.
    pub idle_udp_bytes_per_second: f64,
}

/// From the return of an append of 4 KiB until it can be read on the replica.
#[derive(Debug, Serialize)]
pub struct Lag {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub samples_ms: Vec<f64>,
}

/// 4 KiB files, created one after the other.
#[derive(Debug, Serialize)]
pub struct Files {
    pub count: u64,
    pub create_seconds: f64,
    /// From the end of the last creation until the last file is complete on the replica.
    pub identical_after_seconds: f64,
}

/// Random writes of 4 KiB into a file that has all its blocks.
#[derive(Debug, Serialize)]
pub struct Rewrites {
    pub count: usize,
    pub file_bytes: u64,
    pub write_seconds: f64,
    /// From the start until the last one can be read on the replica.
    pub readable_seconds: f64,
    pub wire: Wire,
}

/// Of the directory with all the files.
#[derive(Debug, Serialize)]
pub struct Rename {
    pub files: u64,
    /// From the call until the new name is there on the replica.
    pub seconds: f64,
    pub wire: Wire,
}

/// What went over the link.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Wire {
    pub packets: u64,
    pub udp_sent_bytes: u64,
    pub udp_received_bytes: u64,
    /// How long was counted.
    pub seconds: f64,
}

/// The place of the replicating variant, and what there is to know for all measurements.
pub struct Measurement<'a> {
    pub settings: &'a Settings,
    pub place: &'a Place,
    pub progress: &'a ProgressBar,
    pub stop: &'a AtomicBool,
}

impl Measurement<'_> {
    pub fn run(&self) -> Result<Replication> {
        self.progress.set_length(6);
        let step = |text: &str| {
            self.progress.inc(1);
            self.progress.set_message(text.to_owned());
        };
        self.place.settle(self.stop)?;
        step("lag of appends");
        let lag = self.lag("lag")?;
        step("lag of appends under load");
        let lag_busy = self.lag_busy()?;
        step("many files");
        let files = self.files()?;
        step("rename of a directory");
        let rename = self.rename()?;
        step("link at rest");
        let (idle, ()) = self.counted(|| self.rest(IDLE))?;
        step("random rewrites");
        let rewrites = self.rewrites()?;
        let idle_bytes = (idle.udp_sent_bytes + idle.udp_received_bytes) as f64;
        let idle_udp_bytes_per_second = idle_bytes / idle.seconds;
        Ok(Replication { lag, lag_busy, files, rewrites, rename, idle_udp_bytes_per_second })
    }

    fn lag_busy(&self) -> Result<Lag> {
        let path = self.place.dir.join("others");
        let ended = AtomicBool::new(false);
        let lag = std::thread::scope(|scope| {
            let others = scope.spawn(|| write_at_a_pace(&path, &ended));
            let lag = self.lag("lag-busy");
            ended.store(true, Ordering::Relaxed);
            others.join().map_err(|_| Error::Wrong("the writing thread panicked".into()))??;
            lag
        })?;
        fs::remove_file(&path).at(&path)?;
        self.place.settle(self.stop)?;
        Ok(lag)
    }

    fn lag(&self, name: &str) -> Result<Lag> {
        let (path, replica) = (self.place.dir.join(name), self.replica(name)?);
        let mut file = OpenOptions::new().append(true).create_new(true).open(&path).at(&path)?;
        let mut block = Block::new(PAGE as usize);
        let interval = Duration::from_secs(1) / APPENDS_PER_SECOND;
        let count = (self.settings.lag_time.as_secs_f64() * f64::from(APPENDS_PER_SECOND)).ceil() as u32;
        let start = Instant::now();
        let mut samples_ms = Vec::new();
        for append in 0..count.max(1) {
            self.rest((interval * append).saturating_sub(start.elapsed()))?;
            let offset = u64::from(append) * PAGE;
            let bytes = block.stamped(1, offset);
            file.write_all(bytes).at(&path)?;
            let written = Instant::now();
            self.wait_for(&replica, |replica| holds(replica, bytes, offset))?;
            samples_ms.push(written.elapsed().as_secs_f64() * 1e3);
        }
        let quantile = |share| quantile(&samples_ms, share).unwrap_or_default();
        Ok(Lag { p50_ms: quantile(0.5), p99_ms: quantile(0.99), max_ms: quantile(1.0), samples_ms })
    }

    fn files(&self) -> Result<Files> {
        let (path, replica) = (self.place.dir.join("many"), self.replica("many")?);
        fs::create_dir(&path).at(&path)?;
        let names = names(FILES);
        let mut block = Block::new(PAGE as usize);
        let last = replica.join(names.last().map_or("", |name| name.to_str().unwrap_or_default()));
        let started = Instant::now();
        create_files(&path, 1, &names, || self.go_on())?;
        let create_seconds = started.elapsed().as_secs_f64();
        let created = Instant::now();
        // Changes arrive in their order: the last one is there after all others.
        self.wait_for(&last, |last| holds(last, block.stamped(1, FILES - 1), 0))?;
        let identical_after_seconds = created.elapsed().as_secs_f64();
        check_files(&replica, 1, FILES)?;
        Ok(Files { count: FILES, create_seconds, identical_after_seconds })
    }

    fn rename(&self) -> Result<Rename> {
        let (from, to) = (self.place.dir.join("many"), self.place.dir.join("renamed"));
        let replica = self.replica("renamed")?;
        let (wire, seconds) = self.counted(|| {
            let started = Instant::now();
            fs::rename(&from, &to).at(&from)?;
            self.wait_for(&replica, |replica| replica.try_exists())?;
            Ok(started.elapsed().as_secs_f64())
        })?;
        check_files(&replica, 1, FILES)?;
        Ok(Rename { files: FILES, seconds, wire })
    }

    fn rewrites(&self) -> Result<Rewrites> {
        let size = self.settings.rewrite_size;
        let (path, replica) = (self.place.dir.join("rewritten"), self.replica("rewritten")?);
        write_pages(&path, 1, size, || self.go_on())?;
        self.place.settle(self.stop)?;
        let mut random = Random::new(1);
        let offsets: Vec<u64> = (0..REWRITES).map(|_| block_offset(&mut random, size, PAGE)).collect();
        let mut block = Block::new(PAGE as usize);
        let (wire, (write_seconds, readable_seconds)) = self.counted(|| {
            let started = Instant::now();
            let file = OpenOptions::new().read(true).write(true).open(&path).at(&path)?;
            for &offset in &offsets {
                file.write_all_at(block.stamped(2, offset), offset).at(&path)?;
            }
            drop(file);
            let written = started.elapsed().as_secs_f64();
            let last = offsets[REWRITES - 1];
            self.wait_for(&replica, |replica| holds(replica, block.stamped(2, last), last))?;
            Ok((written, started.elapsed().as_secs_f64()))
        })?;
        block.check(&replica, 2, offsets.into_iter())?;
        Ok(Rewrites { count: REWRITES, file_bytes: size, write_seconds, readable_seconds, wire })
    }

    /// What goes over the link while something is done, until its counters have been renewed.
    fn counted<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(Wire, T)> {
        self.place.settle(self.stop)?;
        self.rest(COUNTERS_AGE)?;
        let (before, started) = (self.counters()?, Instant::now());
        let result = work()?;
        self.rest(COUNTERS_AGE)?;
        let after = self.counters()?;
        let wire = Wire {
            packets: after.packets - before.packets,
            udp_sent_bytes: after.udp_sent_bytes.saturating_sub(before.udp_sent_bytes),
            udp_received_bytes: after.udp_received_bytes.saturating_sub(before.udp_received_bytes),
            seconds: started.elapsed().as_secs_f64(),
        };
        Ok((wire, result))
    }

    /// Since the start of the daemon.
    fn counters(&self) -> Result<Wire> {
        let status = self.place.mounted()?.status()?;
        let connection = status.connections().first();
        let link = connection.and_then(|connection| connection.link);
        let link = link.ok_or_else(|| Error::Wrong("the connection has no link".into()))?;
        Ok(Wire {
            packets: status.source().map_or(0, |source| source.last.0),
            udp_sent_bytes: link.udp_sent_bytes,
            udp_received_bytes: link.udp_received_bytes,
            seconds: 0.0,
        })
    }

    fn replica(&self, name: &str) -> Result<std::path::PathBuf> {
        let missing = || Error::Wrong("there is no replica".into());
        Ok(self.place.replica.as_ref().ok_or_else(missing)?.join(name))
    }

    fn wait_for(&self, path: &Path, mut there: impl FnMut(&Path) -> io::Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !there(path).at(path)? {
            self.go_on()?;
            if Instant::now() >= deadline {
                return Err(Error::Wrong(format!("{} did not follow", path.display())));
            }
            sleep(LOOK_EVERY);
        }
        Ok(())
    }

    fn rest(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        loop {
            self.go_on()?;
            match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                left => sleep(left.min(Duration::from_millis(200))),
            }
        }
    }

    fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Over and over into the same file, until the end.
fn write_at_a_pace(path: &Path, ended: &AtomicBool) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path).at(path)?;
    let mut block = Block::new(OTHERS_WRITE);
    let started = Instant::now();
    for written in (0..).map(|write| write * OTHERS_WRITE as u64) {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let due = Duration::from_secs_f64(written as f64 / OTHERS_PER_SECOND as f64);
        sleep(due.saturating_sub(started.elapsed()));
        file.write_all_at(block.stamped(1, written), written % OTHERS_FILE).at(path)?;
    }
    Ok(())
}

/// Whether a file is there and holds these bytes at this offset.
fn holds(path: &Path, bytes: &[u8], offset: u64) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let mut found = vec![0; bytes.len()];
    match file.read_exact_at(&mut found, offset) {
        Ok(()) => Ok(found == bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_bytes_only_when_all_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(!holds(&path, b"abc", 2).unwrap(), "no file");
        for (content, expected) in [("xx", false), ("xxab", false), ("xxabd", false), ("xxabc", true)] {
            fs::write(&path, content).unwrap();
            assert_eq!(holds(&path, b"abc", 2).unwrap(), expected, "{content}");
        }
    }
}
