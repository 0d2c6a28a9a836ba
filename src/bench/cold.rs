//! Making caches forget a file, and proof that they did.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::Advice;
use serde::Serialize;

use super::error::{Context, Result};
use super::place::Place;
use crate::sys::in_memory;

/// How the caches were emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cooling {
    /// `posix_fadvise(DONTNEED)` on the backing file and through the mount.
    Advice,
    /// `/proc/sys/vm/drop_caches`, because the advice was not followed.
    DropCaches,
    /// Nothing helped: the file system lives in memory.
    Impossible,
}

/// Makes the file of a place cold on all levels, as far as it can be.
pub fn cool(place: &Place, name: &str) -> Result<Cooling> {
    let backing = place.backing.join(name);
    // Dirty pages would stay.
    File::open(&backing).at(&backing)?.sync_all().at(&backing)?;
    for path in [place.dir.join(name), backing.clone()] {
        let file = File::open(&path).at(&path)?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).at(&path)?;
    }
    if !is_cached(&backing)? {
        return Ok(Cooling::Advice);
    }
    let knob = Path::new("/proc/sys/vm/drop_caches");
    fs::write(knob, "1").at(knob)?;
    Ok(if is_cached(&backing)? { Cooling::Impossible } else { Cooling::DropCaches })
}

/// Whether any page of a file is in the page cache.
fn is_cached(path: &Path) -> Result<bool> {
    let file = File::open(path).at(path)?;
    let len = file.metadata().at(path)?.len();
    // A read that may not wait (RWF_NOWAIT) would not tell: it begins to read, and finds what a fast disk has brought.
    Ok(len != 0 && in_memory(file.as_fd(), 0, len as usize).at(path)?.contains(&true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::variant::Variant;

    #[test]
    fn a_file_just_written_is_cached_and_then_cold() {
        let dir = tempfile::tempdir_in(".").unwrap();
        fs::write(dir.path().join("file"), vec![1; 4 << 20]).unwrap();
        assert!(is_cached(&dir.path().join("file")).unwrap());
        let place = Place {
            variant: Variant::Native,
            _watched: None,
            mount: None,
            served: None,
            dir: dir.path().to_owned(),
            backing: dir.path().to_owned(),
            replica: None,
        };
        // It looks itself whether it worked.
        assert_ne!(cool(&place, "file").unwrap(), Cooling::Impossible);
    }
}
