//! The rules of the set that is protected, and what becomes of what is removed: read at the start and when a
//! person asks for it. What was typed comes behind the rules of the file, and goes before what it says of
//! removals.

use std::io;

use xxhash_rust::xxh3::xxh3_64;

use super::ground::Ground;
use super::record::SetRecord;
use super::recorder::Recorder;
use super::startup::io_failure;
use crate::control::RulesReport;
use crate::failure::Failure;
use crate::intercept::Volume;
use crate::packet::{Keeping, Name};
use crate::sets::{Rule, Rules};
use crate::store;
use crate::words::{Deletes, FileTerms, OwnedBy, ProtectOptions};

/// There from before other rules come into force until every target was brought into line by them: what was noted
/// of a target before counts for nothing, whatever rules the next start has.
const IN_DOUBT: &str = "rules-in-doubt";

const NO_STATE: &str = "the set's state cannot be written";

/// The volume follows the file of the set from its first change on.
pub fn begin(options: &ProtectOptions, record: &mut SetRecord, volume: &Volume) -> Result<(), Failure> {
    let (rules, deletes) = read(options, &options.configuration.terms);
    volume.keep_removed(keeping(&deletes));
    volume.set_rules(&rules).map_err(|bad| Failure::new(format!("{bad}."), "Nothing was started.", ""))?;
    // Without a mark nobody counts on what a target has: what becomes one is of a target that was copied to by these.
    if record.marks.is_empty() {
        (record.rules, record.owners) = (in_force(volume), options.owners);
    }
    let are_in_doubt = are_in_doubt(options);
    let (other_rules, other_owners) = (record.rules != rules, record.owners != options.owners);
    if !are_in_doubt && (other_rules || other_owners) {
        doubt(options).map_err(|error| io_failure(NO_STATE, &error))?;
    }
    if are_in_doubt {
        volume.divergence().compare("rules or owners were changed, and not all targets were seen to follow");
    }
    if other_rules {
        volume.divergence().compare("the rules of the set were changed while it was not protected");
    }
    if other_owners {
        volume.divergence().compare("owners are told by other means than before");
    }
    if !rules.is_empty() {
        aside!("note: not everything is replicated: {} has {} rule(s).", file_of(options), rules.0.len());
    }
    if deletes != Deletes::Follow {
        aside!("note: what is deleted here stays with the targets: deletions are {deletes}.");
    }
    Ok(())
}

/// A person has changed the file; this is what it says now.
pub fn follow(ground: &Ground, terms: &FileTerms) -> Result<RulesReport, Failure> {
    let (rules, deletes) = read(&ground.options, terms);
    let has_changed = in_force(&ground.volume) != rules;
    if has_changed {
        let volume = &ground.volume;
        let untouched = "What held before goes on to hold.";
        let unwritten = |error| Failure { untouched: untouched.into(), ..io_failure(NO_STATE, &error) };
        doubt(&ground.options).map_err(unwritten)?;
        volume.set_rules(&rules).map_err(|bad| Failure::new(format!("{bad}."), untouched, ""))?;
        volume.divergence().compare("the rules of the set were changed");
    }
    // Targets keep what they have kept until then, until a copy comes.
    ground.volume.keep_removed(keeping(&deletes));
    Ok(RulesReport { rules, has_changed, deletions: deletes.to_string() })
}

/// Every target was brought into line by what is in force now.
pub fn settle(ground: &Ground, recorder: &mut Recorder) {
    let rules = in_force(&ground.volume);
    recorder.note_rules(&rules, ground.options.owners);
    if are_in_doubt(&ground.options)
        && recorder.has_on_disk(&rules, ground.options.owners)
        && let Err(error) = std::fs::remove_file(ground.options.set_state().join(IN_DOUBT))
    {
        log::warn!("the set's state cannot be written, and the next start compares everything: {error}");
    }
}

/// Whether other rules, or owners, came into force, and targets were not yet seen to follow.
pub fn are_in_doubt(options: &ProtectOptions) -> bool {
    // Where that cannot be seen everything is compared.
    !std::fs::exists(options.set_state().join(IN_DOUBT)).is_ok_and(|is_there| !is_there)
}

fn doubt(options: &ProtectOptions) -> io::Result<()> {
    store::replace(&options.set_state().join(IN_DOUBT), &[])
}

/// What the set is by the options of a start: rules, what becomes of removals, by what owners are told.
pub fn terms(options: &ProtectOptions) -> u64 {
    let (rules, deletes) = read(options, &options.configuration.terms);
    terms_of(&rules, keeping(&deletes).as_ref(), options.owners)
}

/// As [`terms`], of what is served.
pub fn terms_in_force(ground: &Ground) -> u64 {
    terms_of(&in_force(&ground.volume), ground.volume.keeping().as_ref(), ground.options.owners)
}

fn terms_of(rules: &Rules, keeping: Option<&Keeping>, owners: OwnedBy) -> u64 {
    let owners = match owners {
        // As before there was another one.
        OwnedBy::Number => "",
        OwnedBy::Name => " by name",
    };
    xxh3_64(format!("{rules:?} {keeping:?}{owners}").as_bytes())
}

/// What the volume follows.
pub fn in_force(volume: &Volume) -> Rules {
    volume.matcher().map(|matcher| matcher.rules().clone()).unwrap_or_default()
}

fn keeping(deletes: &Deletes) -> Option<Keeping> {
    match deletes {
        Deletes::Follow => None,
        Deletes::Ignore => Some(Keeping::InPlace),
        Deletes::Keep(keep) => {
            let into = Name::new(keep.dir().as_bytes()).expect("the name of a set is a name");
            Some(Keeping::Aside { into, days: keep.days() })
        }
    }
}

/// The rules of the file with what was typed behind them, and what a removal means.
fn read(options: &ProtectOptions, terms: &FileTerms) -> (Rules, Deletes) {
    let deletes = options.deletes.clone().or_else(|| terms.deletes.clone()).unwrap_or_default();
    let rules = terms.rules.iter().chain(&options.rules).map(Rule::from).collect();
    (Rules(rules), deletes)
}

fn file_of(options: &ProtectOptions) -> String {
    let file = options.configuration.file.as_ref();
    file.map_or_else(String::new, |path| path.display().to_string())
}
