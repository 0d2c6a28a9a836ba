//! What this product writes on a directory about itself: several of it copy the same tree in turns, and each
//! has to find the tree as it left it, or takes it for one that was put back from elsewhere.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::XattrFlags;

use super::super::error::{Context, Result};
use crate::packet::XattrName;
use crate::sys::proc_path;
use crate::xattr::{self, OWN_PREFIX};

/// The marks of a directory, by name.
pub struct Marks(Vec<(XattrName, Vec<u8>)>);

impl Marks {
    pub fn of(dir: &Path) -> Result<Marks> {
        let file = File::open(dir).at(dir)?;
        let mut marks = Vec::new();
        for name in own(&file).at(dir)? {
            if let Some(value) = xattr::get(&file, &name.0).at(dir)? {
                marks.push((name, value));
            }
        }
        Ok(Marks(marks))
    }

    /// Gives a directory these marks and no other ones.
    pub fn put_on(&self, dir: &Path) -> Result<()> {
        let file = File::open(dir).at(dir)?;
        let path = proc_path(file.as_fd());
        for name in own(&file).at(dir)? {
            rustix::fs::removexattr(&path, name.0.as_slice()).at(dir)?;
        }
        for (name, value) in &self.0 {
            rustix::fs::setxattr(&path, name.0.as_slice(), value, XattrFlags::empty()).at(dir)?;
        }
        Ok(())
    }
}

fn own(file: &File) -> std::io::Result<Vec<XattrName>> {
    let mut names = xattr::list(file)?;
    names.retain(|name| name.0.starts_with(OWN_PREFIX));
    Ok(names)
}
