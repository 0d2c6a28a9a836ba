//! Lines on a source tree: made here, the same in each run, no network.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::super::error::{Context, Error, Result};
use super::programs::run;
use super::{Done, Load};
use crate::random::Random;

/// As it is unpacked, and its copy.
pub(super) const TREE: &str = "tree";
pub(super) const COPY: &str = "tree-copy";

/// The tree with a git repository in it; stays.
const REPOSITORY: &str = "repository";

/// The tree at the side of all places, and its archive.
const SOURCE: &str = "source-tree";
const ARCHIVE: &str = "source-tree.tar";

const FILES_PER_DIRECTORY: u64 = 25;

/// Lengths of the files: as most sources, a few KiB.
const LINES_MAX: u64 = 300;

/// How often git looks, so that it takes long enough to be timed.
const STATUS_PASSES: u64 = 5;

impl Load<'_> {
    pub(super) fn prepare_no_tree(&self) -> Result<()> {
        self.archive()?;
        self.remove(TREE)?;
        let path = self.path(TREE);
        fs::create_dir(&path).at(&path)
    }

    pub(super) fn prepare_tree(&self) -> Result<()> {
        self.remove(COPY)?;
        if self.check_tree(TREE).is_ok() {
            return Ok(());
        }
        self.prepare_no_tree()?;
        self.unpack().map(drop)
    }

    pub(super) fn unpack(&self) -> Result<Done> {
        let started = Instant::now();
        run(Command::new("tar").arg("-xf").arg(self.archive()?).arg("-C").arg(self.path(TREE)))?;
        Ok(Done::elsewhere(self.settings.files, started.elapsed()))
    }

    pub(super) fn remove_tree(&self) -> Result<Done> {
        let started = Instant::now();
        run(Command::new("rm").arg("-r").arg(self.path(TREE)))?;
        Ok(Done::elsewhere(self.settings.files, started.elapsed()))
    }

    pub(super) fn copy_tree(&self) -> Result<Done> {
        let started = Instant::now();
        run(Command::new("cp").arg("-a").arg(self.path(TREE)).arg(self.path(COPY)))?;
        Ok(Done::elsewhere(self.settings.files, started.elapsed()))
    }

    pub(super) fn check_tree(&self, name: &str) -> Result<()> {
        self.place.arrivals(name).try_for_each(|tree| check(&tree, self.settings.files))
    }

    pub(super) fn check_no_tree(&self) -> Result<()> {
        for tree in self.place.arrivals(TREE) {
            if tree.exists() {
                return Err(Error::Wrong(format!("{} is still there", tree.display())));
            }
        }
        Ok(())
    }

    /// git has looked at all files once: it knows them.
    pub(super) fn prepare_repository(&self) -> Result<()> {
        let path = self.path(REPOSITORY);
        if !path.join(".git").exists() {
            self.archive()?;
            run(Command::new("cp").arg("-r").arg(self.root.join(SOURCE)).arg(&path))?;
            self.git(&["init", "--quiet"])?;
            self.git(&["add", "--all"])?;
            self.git(&["-c", "user.name=bench", "-c", "user.email=", "commit", "--quiet", "-m", "tree"])?;
        }
        self.git(&["status", "--porcelain"])
    }

    pub(super) fn git_status(&self) -> Result<Done> {
        let started = Instant::now();
        for _ in 0..STATUS_PASSES {
            self.git(&["status", "--porcelain"])?;
        }
        Ok(Done::elsewhere(STATUS_PASSES, started.elapsed()))
    }

    /// As nobody's: without the settings of who measures.
    fn git(&self, words: &[&str]) -> Result<()> {
        let mut git = Command::new("git");
        git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        git.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").stdout(std::process::Stdio::null());
        run(git.arg("-C").arg(self.path(REPOSITORY)).args(words))
    }

    /// Made when it is first asked for.
    fn archive(&self) -> Result<PathBuf> {
        let (tree, archive) = (self.root.join(SOURCE), self.root.join(ARCHIVE));
        if !archive.exists() {
            make(&tree, self.settings.files)?;
            run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&tree).arg("."))?;
        }
        Ok(archive)
    }

    pub(super) fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.at(&path),
        }
    }
}

/// Makes the tree of so many files.
pub fn make(tree: &Path, files: u64) -> Result<()> {
    for index in 0..files {
        let path = tree.join(name(index));
        let dir = path.parent().unwrap_or(tree);
        fs::create_dir_all(dir).at(dir)?;
        fs::write(&path, text(index)).at(&path)?;
    }
    Ok(())
}

fn check(tree: &Path, files: u64) -> Result<()> {
    for index in 0..files {
        let path = tree.join(name(index));
        if fs::read(&path).at(&path)? != text(index).as_bytes() {
            return Err(Error::Wrong(format!("{} has another content", path.display())));
        }
    }
    Ok(())
}

/// Below the tree.
pub(super) fn name(index: u64) -> String {
    format!("part-{:03}/module_{index:05}.c", index / FILES_PER_DIRECTORY)
}

fn text(index: u64) -> String {
    let mut random = Random::new(index);
    let lines = random.number() % LINES_MAX + 1;
    let line = |number| format!("static int value_{number:03} = {:#x};\n", random.number() as u32);
    (0..lines).map(line).collect()
}
