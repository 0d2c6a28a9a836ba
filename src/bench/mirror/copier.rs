//! Who copies: this product, another version of it, rsync.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::super::error::{Context, Error, Result};
use super::super::load::run;
use super::super::mount::{Mount, Protection};
use super::super::process::peak_memory;
use super::super::served::Served;
use super::marks::Marks;
use super::rsync::Daemon;
use super::{Copied, Tree, Work};
use crate::sys::{process_time, usage_of_children};

/// A program that copies.
#[derive(Clone, Copy)]
pub enum Copier<'a> {
    Standin { name: &'static str, program: &'a Path },
    Rsync,
}

impl<'a> Copier<'a> {
    pub fn name(self) -> &'static str {
        match self {
            Copier::Standin { name, .. } => name,
            Copier::Rsync => "rsync",
        }
    }

    /// Starts its receiving side, with everything below a directory of its own.
    pub fn start(self, home: PathBuf, stop: &AtomicBool) -> Result<Side<'a>> {
        let targets = match self {
            Copier::Standin { program, .. } => {
                let serve = |tree: Tree| {
                    let home = home.join(directory(tree));
                    fs::create_dir(&home).at(&home)?;
                    Served::start(program, &home, stop)
                };
                let (small, large) = (serve(Tree::Small)?, serve(Tree::Large)?);
                Targets::Standin { program, small, large }
            }
            Copier::Rsync => Targets::Rsync(Daemon::start(&home, stop)?),
        };
        Ok(Side { home, targets, left: Left::default() })
    }
}

/// The receiving side of a copier, and its replicas.
pub struct Side<'a> {
    home: PathBuf,
    targets: Targets<'a>,
    left: Left,
}

enum Targets<'a> {
    Standin { program: &'a Path, small: Served, large: Served },
    Rsync(Daemon),
}

/// The marks of each tree as a copier of this product left it; nothing before its first copy.
type Left = RefCell<[Option<Marks>; 2]>;

impl Side<'_> {
    pub fn replica(&self, tree: Tree) -> PathBuf {
        match &self.targets {
            Targets::Standin { small, .. } if tree == Tree::Small => small.replica.clone(),
            Targets::Standin { large, .. } => large.replica.clone(),
            Targets::Rsync(daemon) => daemon.replicas.join(directory(tree)),
        }
    }

    /// Copies a tree that nobody changes, or compares it with its replica.
    pub fn perform(&self, work: Work, source: &Path, tree: Tree, stop: &AtomicBool) -> Result<Copied> {
        match &self.targets {
            Targets::Standin { program, small, large } => {
                let served = if tree == Tree::Small { small } else { large };
                let home = self.home.join(directory(tree));
                let left = &mut self.left.borrow_mut()[tree as usize];
                if let Some(marks) = left {
                    marks.put_on(source)?;
                }
                let copied = protected(work, program, (&home, served), source, stop)?;
                *left = Some(Marks::of(source)?);
                Ok(copied)
            }
            Targets::Rsync(daemon) => daemon.perform(work, source, directory(tree)),
        }
    }

    /// Removes everything.
    pub fn clear(self) -> Result<()> {
        let Side { home, targets, .. } = self;
        drop(targets);
        fs::remove_dir_all(&home).at(&home)
    }
}

/// A protection that ends when its replica is the tree, or has been compared with it then.
fn protected(
    work: Work,
    program: &Path,
    (home, served): (&Path, &Served),
    backing: &Path,
    stop: &AtomicBool,
) -> Result<Copied> {
    let point = home.join("mount");
    fs::create_dir_all(&point).at(&point)?;
    let target_time = || process_time(served.process.pid()).at(home);
    let (before, started) = (target_time()?, Instant::now());
    let target = served.target.clone().into();
    let protection =
        Protection { program, name: "bench-copy", point: &point, backing, target, home, options: &[] };
    let mount = Mount::protect(&protection, stop)?;
    let (mut seconds, mut used) =
        (started.elapsed(), process_time(mount.pid()).at(&point)? + target_time()? - before);
    if work == Work::Compare {
        let time = || -> Result<Duration> { Ok(process_time(mount.pid()).at(&point)? + target_time()?) };
        let (before, asked, started) = (time()?, usage_of_children().processor, Instant::now());
        run(&mut verification(&protection))?;
        seconds = started.elapsed();
        used = time()? - before + (usage_of_children().processor - asked);
    }
    Ok(Copied {
        seconds: seconds.as_secs_f64(),
        cpu_seconds: used.as_secs_f64(),
        source_memory: peak_memory(mount.pid()),
        target_memory: peak_memory(served.process.pid()),
    })
}

/// Fails where anything differs.
fn verification(protection: &Protection<'_>) -> Command {
    let mut command = Command::new(protection.program);
    command.args(["verify", "--checksum", protection.name]);
    command.arg("--run").arg(protection.home.join("run")).stdout(Stdio::null());
    command
}

pub(super) fn directory(tree: Tree) -> &'static str {
    match tree {
        Tree::Small => "small",
        Tree::Large => "large",
    }
}

/// A home for one more copy of a tree, outside the rounds.
pub(super) fn home(parent: &Path, name: &str) -> Result<PathBuf> {
    let home = parent.join(name);
    match fs::create_dir(&home) {
        Ok(()) => Ok(home),
        Err(error) => Err(Error::Io { path: home, source: error }),
    }
}
