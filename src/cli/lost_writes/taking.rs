//! `standin lost-writes extract`.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Of, UNTOUCHED, below, meant};
use crate::apply::Places;
use crate::cli::args::Common;
use crate::cli::clone::absolute;
use crate::cli::{Outcome, output};
use crate::clone::note_taken_out;
use crate::failure::Failure;
use crate::units;

/// Its parent without symlinks: one could lead into the replica.
fn real(to: &Path) -> Result<PathBuf, Failure> {
    let parent = to.parent().unwrap_or(to).canonicalize().map_err(|error| {
        Failure::new(format!("{}: {error}.", to.display()), UNTOUCHED, "Name a directory that can be made.")
    })?;
    Ok(to.file_name().map_or_else(|| parent.clone(), |name| parent.join(name)))
}

pub(super) struct Extract<'a> {
    pub paths: &'a [PathBuf],
    pub to: &'a Path,
    pub so_far: bool,
}

pub(super) fn extract(common: &Common, what: Extract<'_>, of: &Of) -> Outcome {
    let one = meant(common, of)?;
    if !one.is_good && !what.so_far {
        return Err(Failure::new(
            format!("{} is still copied to: more of it may differ later.", one.directory.display()),
            UNTOUCHED,
            "Give the command again when `standin status` says that the replica is good; --so-far takes out what differs by \
             now.",
        )
        .passing());
    }
    let to = real(&absolute(what.to)?)?;
    if [&one.directory, &Places::limbo_of(&one.directory)].iter().any(|place| to.starts_with(place)) {
        return Err(Failure::new(
            format!("{} is in the replica.", to.display()),
            UNTOUCHED,
            "Name a directory outside of it.",
        ));
    }
    let paths: Vec<PathBuf> = what.paths.iter().map(|path| below(&one, path)).collect();
    let taken = one.past()?.take_out(&to, &paths).map_err(|error| {
        Failure::new(
            format!("Not all could be taken out to {}: {error}.", to.display()),
            "It is kept as it is; what was taken out so far is there.",
            "Remove that, and name a directory with more room, or single paths.",
        )
    })?;
    if paths.is_empty() && one.is_good {
        note_taken_out(&one.state, &one.clone.name, &to).map_err(|error| {
            Failure::new(
                format!("That it was taken out cannot be noted: {error}."),
                format!("It is kept as it is, and in {}.", to.display()),
                "Give it up before the directory is served again: standin clone stop.",
            )
        })?;
    }
    match common.json {
        true => output::json(&json!({
            "to": to.display().to_string(), "objects": taken.objects, "bytes": taken.bytes
        })),
        false => output::text(&format!(
            "{} objects of {} are in {} as they were ({}).",
            units::count(taken.objects),
            one.directory.display(),
            to.display(),
            units::size(taken.bytes)
        )),
    }
    Ok(0)
}
