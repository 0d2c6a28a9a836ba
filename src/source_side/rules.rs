//! The rules of the set that is protected: read at the start and when a person asks for it.

use super::ground::Ground;
use super::record::SetRecord;
use crate::control::RulesReport;
use crate::failure::Failure;
use crate::intercept::Volume;
use crate::sets::{Rules, SetError, Sets};
use crate::words::ProtectOptions;

/// The volume follows the file of the set from its first change on.
pub fn begin(options: &ProtectOptions, record: &SetRecord, volume: &Volume) -> Result<(), Failure> {
    let rules = read(options, "Nothing was started.")?;
    volume.set_rules(&rules).map_err(|bad| Failure::new(format!("{bad}."), "Nothing was started.", ""))?;
    // Without a mark nobody counts on what a target has.
    if !record.marks.is_empty() && record.rules != rules {
        volume.divergence().compare("the rules of the set were changed while it was not protected");
    }
    if !rules.is_empty() {
        eprintln!("note: not everything is replicated: {} has {} rule(s).", file_of(options), rules.0.len());
    }
    Ok(())
}

/// A person has changed the file.
pub fn follow(ground: &Ground) -> Result<RulesReport, Failure> {
    const UNTOUCHED: &str = "The rules of before go on.";
    let rules = read(&ground.options, UNTOUCHED)?;
    let has_changed = in_force(&ground.volume) != rules;
    if has_changed {
        let volume = &ground.volume;
        volume.set_rules(&rules).map_err(|bad| Failure::new(format!("{bad}."), UNTOUCHED, ""))?;
        volume.divergence().compare("the rules of the set were changed");
    }
    Ok(RulesReport { rules, has_changed })
}

/// What the volume follows.
pub fn in_force(volume: &Volume) -> Rules {
    volume.matcher().map(|matcher| matcher.rules().clone()).unwrap_or_default()
}

fn read(options: &ProtectOptions, untouched: &str) -> Result<Rules, Failure> {
    let file = Sets::of(&options.state).read(&options.name);
    let file = file.map_err(|error: SetError| {
        Failure::new(
            format!("{error}."),
            untouched,
            format!("Mend the file, or take it away: standin set delete {}", options.name),
        )
    })?;
    Ok(file.map(|file| file.rules).unwrap_or_default())
}

fn file_of(options: &ProtectOptions) -> String {
    Sets::of(&options.state)
        .path(&options.name)
        .map_or_else(|_| String::new(), |path| path.display().to_string())
}
