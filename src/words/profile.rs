//! What a program's write is: on its way when its call returns, or later.

use std::fmt;

use clap::ValueEnum;

/// How writes reach the daemon. Every rule that differs is a question here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Each write is captured before its call returns, in the order of the calls
    #[default]
    Default,
    /// The kernel gathers writes in memory: order is kept at fsync, close, rename and barriers, as by a local
    /// file system at a power cut
    Batch,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Default => "default",
            Profile::Batch => "batch",
        })
    }
}

impl Profile {
    /// The kernel gathers writes, and says itself what size and times of a file are: it tells the
    /// times later, and takes none of the daemon's.
    pub fn gathers(self) -> bool {
        match self {
            Profile::Default => false,
            Profile::Batch => true,
        }
    }

    /// The access mode (`O_ACCMODE`) that a descriptor needs whose program asked for `access`. A page
    /// that is written in part is read first, through a descriptor of whoever writes.
    pub fn access(self, access: i32) -> i32 {
        match access == libc::O_RDONLY || !self.gathers() {
            true => access,
            false => libc::O_RDWR,
        }
    }
}
