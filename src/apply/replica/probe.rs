//! Whom a fault of this replica concerns; where its number does not tell, at whether the disk takes a
//! file. And a file to try things on.

use std::fs::File;
use std::io::{self, Write};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::Replica;
use crate::apply::fault::{Concern, Fault};
use crate::failpoint;

const PROBE: &str = "probe";

impl Replica {
    pub(in crate::apply) fn concern(&self, fault: &Fault) -> Concern {
        fault.concern(|len| self.takes_a_file(len).is_ok())
    }

    /// Makes a file, writes it through to the disk, and takes it away again.
    fn takes_a_file(&self, len: usize) -> io::Result<()> {
        failpoint::at("probe")?;
        let mut file = self.probe()?;
        let written = file.write_all(&vec![0xa5; len]).and_then(|()| file.sync_data());
        rustix::fs::unlinkat(self.limbo(), PROBE, AtFlags::empty())?;
        written
    }

    /// A file of the replica's file system that goes with its descriptor.
    pub(in crate::apply) fn file_without_name(&self) -> io::Result<File> {
        let file = self.probe()?;
        rustix::fs::unlinkat(self.limbo(), PROBE, AtFlags::empty())?;
        Ok(file)
    }

    fn probe(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(self.limbo(), PROBE, flags, Mode::RUSR | Mode::WUSR)?))
    }
}
