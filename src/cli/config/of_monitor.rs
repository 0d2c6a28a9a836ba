//! The options of a monitor, of what was typed and of the table of its set's file.

use clap::FromArgMatches;

use super::super::args::Common;
use super::super::monitor::{self, Monitor};
use super::definition::{Definition, plain};
use super::file::{MONITOR, Section};
use super::settle::{Typed, UNTOUCHED, merged, read, refused, settle};
use crate::failure::Failure;
use crate::monitor::Options;
use crate::sets::Sets;

/// See the module.
pub fn monitor(common: &Common, typed: &Typed, set: &str) -> Result<Options, Failure> {
    let definition = Definition::monitor();
    let path = Sets::of(&common.state_dir()).path(set);
    let path = path.map_err(|error| refused(&format!("{error}."), "Choose another name."))?;
    let parsed = read(&path, &definition, Section::Inside(MONITOR))?.checked(UNTOUCHED)?;
    settle(&parsed, |entries| {
        let of_clap = |error: clap::Error| refused(&format!("{}.", plain(&error)), "");
        let arguments = merged(&definition, typed, entries, None);
        let arguments = arguments.into_iter().chain(["--".into(), set.into()]);
        let matches = definition.command.clone().try_get_matches_from(arguments).map_err(of_clap)?;
        let args = Monitor::from_arg_matches(&matches).map_err(of_clap)?;
        monitor::options(common, args)
    })
}
