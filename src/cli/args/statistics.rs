//! Where statistics are written, as it is typed.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::control::statistics_refusal;
use crate::failure::Failure;
use crate::preflight::{MountTable, resolve_own};
use crate::units::{self, parse_size};
use crate::words::{
    STATISTICS_KEEP, STATISTICS_KEEP_MAX, STATISTICS_SIZE, STATISTICS_SIZE_MIN, StatisticsTo,
};

#[derive(Clone, Debug, Args)]
pub struct StatisticsAsked {
    /// Write statistics of each connection (of a target: of each replica) into this file, as lines of JSON: one a second
    /// while something is queued, sent or copied [default: none are written]
    #[arg(long, value_name = "FILE")]
    statistics: Option<PathBuf>,
    /// With --statistics: so long the file becomes at most; then it is called FILE.1, and a new one begins
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value_t = STATISTICS_SIZE, requires = "statistics")]
    statistics_size: u64,
    /// With --statistics: so many files are kept, FILE itself among them
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(STATISTICS_KEEP_MAX)),
        default_value_t = STATISTICS_KEEP,
        requires = "statistics"
    )]
    statistics_keep: u32,
}

impl StatisticsAsked {
    /// `None`: nothing was typed. `untouched`: as a failure says it.
    ///
    /// Errors: it cannot be written there, whatever becomes of disks and directories.
    pub fn asked(&self, mounts: &MountTable, untouched: &str) -> Result<Option<StatisticsTo>, Failure> {
        let Some(typed) = &self.statistics else { return Ok(None) };
        if self.statistics_size < STATISTICS_SIZE_MIN {
            let (size, least) = (units::size(self.statistics_size), units::size(STATISTICS_SIZE_MIN));
            return Err(Failure::new(
                format!("A file of {size} is too short for statistics."),
                untouched,
                format!("Give it {least} at least."),
            ));
        }
        let refused = |why: &str| {
            let what = format!("Statistics are not written to {}: {why}.", typed.display());
            Failure::new(
                what,
                untouched,
                "Name a file in a directory of its own that only root may write to.",
            )
        };
        let path = resolve_own(typed, mounts).map_err(|error| refused(&plain(&error)))?;
        match mounts.holding(&path).filter(|mount| mount.is_standin()) {
            Some(mount) => Err(refused(&format!("standin protects {}", mount.point.display()))),
            None if is_of_nothing(&path) => Err(refused("it is to be in a directory of its own")),
            None => match statistics_refusal(&path) {
                Some(why) => Err(refused(&why)),
                None => {
                    Ok(Some(StatisticsTo { path, size: self.statistics_size, keep: self.statistics_keep }))
                }
            },
        }
    }
}

/// A directory that a target may reach is one with everything below.
fn is_of_nothing(path: &Path) -> bool {
    path.file_name().is_none() || path.parent().is_none_or(|dir| dir == Path::new("/"))
}

fn plain(error: &io::Error) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}
