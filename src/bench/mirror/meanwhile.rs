//! A program that writes through the mount while its tree is copied, and afterwards.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::content::Block;
use super::super::error::{Context, Error, Result};
use super::super::mount::{Mount, Protection};
use super::super::place::Workshop;
use super::super::served::Served;
use super::Tree;
use super::copier::home;
use super::trees::Trees;
use crate::control::WaitFor;

const PAGE: u64 = 4096;

/// What is written gets no longer than this, in bytes.
const FILE: u64 = 64 << 20;

/// How long is written when nothing is copied any more.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// Rates of 4 KiB writes, one after the other.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Meanwhile {
    /// While the large file is copied for the first time.
    pub copying_per_second: f64,
    /// Replicating, nothing is copied.
    pub afterwards_per_second: f64,
    /// How long the copy took beside the writes.
    pub copy_seconds: f64,
}

pub fn measure(workshop: &Workshop, program: &Path, trees: &Trees, stop: &AtomicBool) -> Result<Meanwhile> {
    let home = home(&workshop.root, "meanwhile")?;
    let served = Served::start(program, &home, stop)?;
    let point = home.join("mount");
    fs::create_dir(&point).at(&point)?;
    let protection = Protection {
        program,
        name: "bench-meanwhile",
        point: &point,
        backing: trees.of(Tree::Large),
        target: served.target.clone().into(),
        home: &home,
        options: &[],
    };
    let started = Instant::now();
    let mount = Mount::serving(&protection, stop)?;
    let path = point.join("written");
    let ended = AtomicBool::new(false);
    let (writes, copied) = std::thread::scope(|scope| {
        let copied = scope.spawn({
            let (mount, ended) = (&mount, &ended);
            move || {
                let waited = mount.wait_until_in_line(stop).map(|()| started.elapsed());
                ended.store(true, Ordering::Relaxed);
                waited
            }
        });
        let writes = write(&path, || !ended.load(Ordering::Relaxed));
        let copied = copied.join().map_err(|_| Error::Wrong("the waiting thread panicked".into()));
        Ok((writes?, copied??))
    })?;
    mount.wait_sync(WaitFor::Applied, stop)?;
    let end = Instant::now() + AFTERWARDS;
    let afterwards = write(&path, || Instant::now() < end)?;
    mount.wait_sync(WaitFor::Applied, stop)?;
    same(&path, &served.replica.join("written"))?;
    fs::remove_file(&path).at(&path)?;
    Ok(Meanwhile {
        copying_per_second: writes,
        afterwards_per_second: afterwards,
        copy_seconds: copied.as_secs_f64(),
    })
}

/// Writes a second, as long as it goes on.
fn write(path: &Path, go_on: impl Fn() -> bool) -> Result<f64> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).at(path)?;
    let mut block = Block::new(PAGE as usize);
    let started = Instant::now();
    let mut writes = 0u64;
    while go_on() || writes == 0 {
        let offset = writes * PAGE % FILE;
        file.write_all_at(block.stamped(1, offset), offset).at(path)?;
        writes += 1;
    }
    Ok(writes as f64 / started.elapsed().as_secs_f64())
}

fn same(written: &Path, replica: &Path) -> Result<()> {
    if fs::read(written).at(written)? == fs::read(replica).at(replica)? {
        return Ok(());
    }
    Err(Error::Wrong(format!("{} is not what was written", replica.display())))
}
