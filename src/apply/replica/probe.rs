//! Whom a fault of this replica concerns; where its number does not tell, at whether the disk takes a
//! file.

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
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.limbo(), PROBE, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = std::fs::File::from(fd);
        let written = file.write_all(&vec![0xa5; len]).and_then(|()| file.sync_data());
        rustix::fs::unlinkat(self.limbo(), PROBE, AtFlags::empty())?;
        written
    }
}
