//! Why a benchmark ended early.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug)]
pub enum Error {
    /// A signal asked for it.
    Interrupted,
    Io {
        path: PathBuf,
        source: io::Error,
    },
    /// What was measured is not what was meant: the numbers would lie.
    Wrong(String),
    /// It cannot run here.
    Refused(Failure),
}

impl Error {
    pub fn is_interrupt(&self) -> bool {
        matches!(self, Error::Interrupted)
    }

    pub fn into_failure(self) -> Failure {
        let cleaned = "What the benchmark made was removed, unless an error above says otherwise.";
        match self {
            Error::Interrupted => Failure::new("The benchmark was interrupted.", cleaned, ""),
            Error::Refused(failure) => failure,
            Error::Io { .. } | Error::Wrong(_) => Failure::new(
                format!("The benchmark failed: {self}."),
                cleaned,
                "Run it again with RUST_LOG=debug; if it fails again, this is a bug.",
            ),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Interrupted => f.write_str("interrupted"),
            Error::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Wrong(what) => f.write_str(what),
            Error::Refused(failure) => failure.fmt(f),
        }
    }
}

/// Says which path an error is about.
pub trait Context<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|error| Error::Io { path: path.to_owned(), source: error.into() })
    }
}
