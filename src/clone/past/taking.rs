//! Objects as of the barrier are taken out: made anew in a directory of their own.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;

use super::{Content, Differing, Past};
use crate::clone::copy::object;
use crate::clone::looks::Looks;
use crate::sys::FileHandle;

/// What was taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub objects: u64,
    pub bytes: u64,
}

/// Takes objects out into a directory that it makes, for root alone.
struct Taking {
    into: PathBuf,
    taken: Taken,
    /// Looks of directories, by their paths: also of those that did not differ, and have others in them.
    directories: HashMap<PathBuf, Arc<Looks>>,
    /// Directories that were made, each before what is in it.
    made: Vec<PathBuf>,
    is_made: HashSet<PathBuf>,
    /// Files of several names, and where they are.
    linked: HashMap<FileHandle, PathBuf>,
}

impl Past {
    /// Takes out all that differs at these paths and below them; everything, where there are none.
    ///
    /// Errors: the system's; what was taken out so far stays.
    pub fn take_out(&mut self, into: &Path, paths: &[PathBuf]) -> io::Result<Taken> {
        let mut taking = Taking::new(into)?;
        self.walk(&mut |past, object| {
            if object.kind() == FileType::Directory {
                taking.directories.insert(object.path.clone(), object.looks.clone());
            }
            let is_meant = paths.is_empty() || paths.iter().any(|path| object.path.starts_with(path));
            match is_meant && !object.how.is_empty() {
                true => taking.take(past, object).map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", object.path.display()))
                }),
                false => Ok(()),
            }
        })?;
        taking.finish()
    }
}

impl Taking {
    fn new(into: &Path) -> io::Result<Taking> {
        fs::create_dir(into)?;
        fs::set_permissions(into, Permissions::from_mode(0o700))?;
        Ok(Taking {
            into: into.to_owned(),
            taken: Taken::default(),
            directories: HashMap::new(),
            made: Vec::new(),
            is_made: HashSet::new(),
            linked: HashMap::new(),
        })
    }

    fn take(&mut self, past: &mut Past, object: &Differing) -> io::Result<()> {
        let parent = object.path.parent().unwrap_or(Path::new(""));
        self.make_directory(parent)?;
        self.taken.objects += 1;
        if object.kind() == FileType::Directory {
            return self.make_directory(&object.path);
        }
        let at = self.into.join(&object.path);
        if let Some(made) = self.linked.get(&object.handle).filter(|_| object.looks.links > 1) {
            return fs::hard_link(made, at);
        }
        match object.kind() {
            FileType::RegularFile => {
                let file =
                    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&at)?;
                self.taken.bytes += fill(past, object, &file)?;
                object::give_looks(file.as_fd(), &object.looks)?;
            }
            _ => self.take_special(object)?,
        }
        self.linked.insert(object.handle, at);
        Ok(())
    }

    fn take_special(&self, object: &Differing) -> io::Result<()> {
        let from = object.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let parent = self.into.join(object.path.parent().unwrap_or(Path::new("")));
        let name = object.path.file_name().ok_or(io::ErrorKind::InvalidInput)?.as_encoded_bytes();
        let made = object::make_special(from, &File::open(parent)?, name, &object.looks)
            .map_err(|why| io::Error::other(why.to_string()))?;
        match made {
            Some(made) => object::give_looks(made.as_fd(), &object.looks),
            None => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    /// With those that it is in. Looks are given last: one may be closed to everybody.
    fn make_directory(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty())
            .take_while(|path| !self.is_made.contains(*path))
            .collect();
        for path in missing.into_iter().rev() {
            fs::create_dir(self.into.join(path))?;
            self.made.push(path.to_owned());
            self.is_made.insert(path.to_owned());
        }
        Ok(())
    }

    fn finish(self) -> io::Result<Taken> {
        for path in self.made.iter().rev() {
            if let Some(looks) = self.directories.get(path) {
                object::give_looks(File::open(self.into.join(path))?.as_fd(), looks)?;
            }
        }
        rustix::fs::syncfs(File::open(&self.into)?)?;
        Ok(self.taken)
    }
}

/// Gives the bytes that were written; zeros stay holes.
fn fill(past: &mut Past, object: &Differing, into: &File) -> io::Result<u64> {
    let (mut content, mut written) = (Content::of(object)?, 0);
    while let Some((at, bytes)) = content.next(past)? {
        if bytes.iter().any(|byte| *byte != 0) {
            into.write_all_at(&bytes, at)?;
            written += bytes.len() as u64;
        }
    }
    into.set_len(object.size())?;
    Ok(written)
}
