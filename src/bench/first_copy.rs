//! A first copy of many small files, and a start at which nothing has changed, beside rsync.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::Serialize;

use super::error::{Context, Result};
use super::load::{check_files, create_files, is_installed, names, run};
use super::mount::{Mount, Protection};
use super::place::{Workshop, local};
use crate::sys::{process_time, usage_of_children};

/// Files in one directory.
const FILES_PER_DIRECTORY: u64 = 1000;

/// Of 4 KiB files, to a replica on the same file system.
#[derive(Debug, Serialize)]
pub struct FirstCopy {
    pub files: u64,
    pub copiers: Vec<Copier>,
}

/// One program, all rounds.
#[derive(Debug, Serialize)]
pub struct Copier {
    pub name: &'static str,
    pub rounds: Vec<CopyRound>,
}

/// From the start of the program until its replica is the directory, and the same once more.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct CopyRound {
    pub first_seconds: f64,
    /// Processor time, of source and target together.
    pub first_cpu_seconds: f64,
    pub unchanged_seconds: f64,
    pub unchanged_cpu_seconds: f64,
}

pub struct Measurement<'a> {
    pub workshop: &'a Workshop,
    pub program: &'a Path,
    pub against: Option<&'a Path>,
    /// Rounded to whole directories; one at least.
    pub files: u64,
    pub rounds: u32,
    pub stop: &'a AtomicBool,
}

/// Who copies.
#[derive(Clone, Copy)]
enum Who<'a> {
    Standin(&'static str, &'a Path),
    Rsync,
}

impl Measurement<'_> {
    pub fn run(&self) -> Result<FirstCopy> {
        let source = self.workshop.make("copied")?;
        self.make(&source)?;
        let other = self.against.map(|program| Who::Standin("other", program));
        let rsync = is_installed("rsync").then_some(Who::Rsync);
        let all = [Some(Who::Standin("standin", self.program)), other, rsync];
        let mut all: Vec<(Who<'_>, Vec<CopyRound>)> =
            all.into_iter().flatten().map(|who| (who, Vec::new())).collect();
        for _ in 0..self.rounds {
            for (who, rounds) in &mut all {
                rounds.push(self.round(*who, &source)?);
            }
            // Who was first is last in the next round.
            all.reverse();
        }
        if self.rounds % 2 == 1 {
            all.reverse();
        }
        let copier = |(who, rounds): (Who<'_>, _)| Copier { name: who.name(), rounds };
        Ok(FirstCopy {
            files: self.directories() * FILES_PER_DIRECTORY,
            copiers: all.into_iter().map(copier).collect(),
        })
    }

    fn directories(&self) -> u64 {
        (self.files / FILES_PER_DIRECTORY).max(1)
    }

    fn make(&self, source: &Path) -> Result<()> {
        let names = names(FILES_PER_DIRECTORY);
        (0..self.directories()).try_for_each(|directory| {
            let path = source.join(directory.to_string());
            fs::create_dir(&path).at(&path)?;
            create_files(&path, directory, &names, || Ok(()))
        })
    }

    fn round(&self, who: Who<'_>, source: &Path) -> Result<CopyRound> {
        let home = self.workshop.make("copier")?;
        let root = fs::File::open(&home).at(&home)?;
        rustix::fs::syncfs(&root).at(&home)?;
        let replica = home.join("replica");
        let (first_seconds, first_cpu_seconds) = self.copy(who, source, &home, &replica)?;
        for directory in 0..self.directories() {
            check_files(&replica.join(directory.to_string()), directory, FILES_PER_DIRECTORY)?;
        }
        rustix::fs::syncfs(&root).at(&home)?;
        let (unchanged_seconds, unchanged_cpu_seconds) = self.copy(who, source, &home, &replica)?;
        fs::remove_dir_all(&home).at(&home)?;
        Ok(CopyRound { first_seconds, first_cpu_seconds, unchanged_seconds, unchanged_cpu_seconds })
    }

    fn copy(&self, who: Who<'_>, source: &Path, home: &Path, replica: &Path) -> Result<(f64, f64)> {
        let started = Instant::now();
        match who {
            Who::Standin(_, program) => {
                let point: PathBuf = home.join("mount");
                fs::create_dir_all(&point).at(&point)?;
                let (name, target, options) = ("bench-copy", local(replica), &[][..]);
                let protection =
                    Protection { program, name, point: &point, backing: source, target, home, options };
                let mount = Mount::protect(&protection, self.stop)?;
                let seconds = started.elapsed().as_secs_f64();
                Ok((seconds, process_time(mount.pid()).at(&point)?.as_secs_f64()))
            }
            Who::Rsync => {
                let before = usage_of_children().processor;
                let mut from = source.as_os_str().to_owned();
                from.push("/");
                run(Command::new("rsync").args(["-a", "--delete"]).arg(from).arg(replica))?;
                let seconds = started.elapsed().as_secs_f64();
                Ok((seconds, (usage_of_children().processor - before).as_secs_f64()))
            }
        }
    }
}

impl Who<'_> {
    fn name(self) -> &'static str {
        match self {
            Who::Standin(name, _) => name,
            Who::Rsync => "rsync",
        }
    }
}
