//! Lines on many small files of one directory.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::super::content::{Block, stamped_offset};
use super::super::error::{Context, Error, Result};
use super::{Done, Load};

/// The directory.
const FILES: &str = "files";

/// Length of a small file.
const SMALL_FILE: usize = 4096;

/// How often the fast lines go over all files, so that they take long enough to be timed.
const STAT_PASSES: u64 = 10;
const OPEN_PASSES: u64 = 3;

impl Load<'_> {
    pub(super) fn prepare_no_files(&self) -> Result<()> {
        let path = self.path(FILES);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.at(&path)?,
        }
        fs::create_dir(&path).at(&path)
    }

    /// All files are there, and the kernel knows their names.
    pub(super) fn prepare_files(&self) -> Result<()> {
        let path = self.path(FILES);
        let count = fs::read_dir(self.place.backing.join(FILES)).map_or(0, Iterator::count);
        if count as u64 != self.settings.files {
            self.prepare_no_files()?;
            self.create()?;
        }
        let dir = open_dir(&path)?;
        for name in names(self.settings.files) {
            rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW).at(&path)?;
        }
        Ok(())
    }

    pub(super) fn create(&self) -> Result<Done> {
        let names = names(self.settings.files);
        let mut pace = self.pace();
        create_files(&self.path(FILES), self.run, &names, || pace.go_on().map(drop))?;
        Ok(pace.done(1))
    }

    pub(super) fn check_created(&self) -> Result<()> {
        self.place.arrivals(FILES).try_for_each(|path| check_files(&path, self.run, self.settings.files))
    }

    pub(super) fn stat(&self) -> Result<Done> {
        let path = self.path(FILES);
        let (dir, names) = (open_dir(&path)?, names(self.settings.files));
        let mut pace = self.pace();
        for name in (0..STAT_PASSES).flat_map(|_| &names) {
            if !pace.go_on()? {
                break;
            }
            let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).at(&path)?;
            if stat.st_size != SMALL_FILE as i64 {
                return Err(Error::Wrong(format!("{} has a file of another length", path.display())));
            }
        }
        Ok(pace.done(1))
    }

    pub(super) fn open(&self) -> Result<Done> {
        let path = self.path(FILES);
        let (dir, names) = (open_dir(&path)?, names(self.settings.files));
        let mut content = [0; SMALL_FILE];
        let mut pace = self.pace();
        for (index, name) in (0..OPEN_PASSES).flat_map(|_| (0..).zip(&names)) {
            if !pace.go_on()? {
                break;
            }
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&dir, name, flags, Mode::empty()).at(&path)?;
            let len = rustix::io::read(&file, &mut content).at(&path)?;
            drop(file);
            if len != SMALL_FILE || stamped_offset(&content) != Some(index) {
                return Err(Error::Wrong(format!("{}/{index} was read wrongly", path.display())));
            }
        }
        Ok(pace.done(1))
    }

    pub(super) fn unlink(&self) -> Result<Done> {
        let path = self.path(FILES);
        let (dir, names) = (open_dir(&path)?, names(self.settings.files));
        let mut pace = self.pace();
        for name in &names {
            pace.go_on()?;
            rustix::fs::unlinkat(&dir, name, AtFlags::empty()).at(&path)?;
        }
        Ok(pace.done(1))
    }

    pub(super) fn check_unlinked(&self) -> Result<()> {
        for path in self.place.arrivals(FILES) {
            if fs::read_dir(&path).at(&path)?.next().is_some() {
                return Err(Error::Wrong(format!("{} is not empty", path.display())));
            }
        }
        Ok(())
    }
}

/// Creates each file, writes it, closes it; asks `go_on` before each.
pub fn create_files(
    path: &Path,
    run: u64,
    names: &[CString],
    mut go_on: impl FnMut() -> Result<()>,
) -> Result<()> {
    let dir = open_dir(path)?;
    let mut block = Block::new(SMALL_FILE);
    for (index, name) in (0..).zip(names) {
        go_on()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir.as_fd(), name, flags, Mode::from_raw_mode(0o644)).at(path)?;
        io::Write::write_all(&mut File::from(file), block.stamped(run, index)).at(path)?;
    }
    Ok(())
}

/// Whether these files, and no others, are there with their content.
pub fn check_files(path: &Path, run: u64, count: u64) -> Result<()> {
    let found = fs::read_dir(path).at(path)?.count() as u64;
    if found != count {
        return Err(Error::Wrong(format!("{} has {found} files instead of {count}", path.display())));
    }
    let mut block = Block::new(SMALL_FILE);
    let mut content = vec![0; SMALL_FILE + 1];
    let dir = open_dir(path)?;
    for (index, name) in (0..).zip(names(count)) {
        let file =
            rustix::fs::openat(&dir, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(path)?;
        let len = rustix::io::read(&file, &mut content).at(path)?;
        if &content[..len] != block.stamped(run, index) {
            return Err(Error::Wrong(format!("{}/{index} has another content", path.display())));
        }
    }
    Ok(())
}

/// Names of the files in the order of their making.
pub fn names(count: u64) -> Vec<CString> {
    (0..count).map(|index| CString::new(format!("{index:06}")).expect("digits hold no NUL")).collect()
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at(path)
}
