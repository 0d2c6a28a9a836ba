//! A directory that was handed over, and is served again: its cover is lifted, unless it is known that somebody else
//! writes the set now. A start that comes to nothing puts it back.

use std::io;
use std::path::PathBuf;

use super::asking::who_writes;
use super::record::{FencedRecord, SetRecord};
use super::standing_in::{self, fenced_off, note_taken_over};
use super::startup::{io_failure, paired_identity};
use crate::control::unix_ms;
use crate::cover::{Cover, Standing};
use crate::failure::Failure;
use crate::packet::Meeting;
use crate::store;
use crate::words::ProtectOptions;

/// A cover that is not there any more.
pub struct Lifted {
    cover: Cover,
    set_state: PathBuf,
}

/// Before anything is looked at: what is below a cover is not what is seen. `None`: there is none.
///
/// Errors: somebody else writes the set, and the cover stays; it cannot be lifted.
pub fn uncover(options: &ProtectOptions) -> Result<Option<Lifted>, Failure> {
    let is_over = |cover: &Cover| {
        [&cover.at, &cover.tree].iter().any(|place| **place == options.directory || *place == options.tree())
    };
    let Some((name, cover)) = Cover::all(&options.state).into_iter().find(|(_, cover)| is_over(cover)) else {
        return Ok(None);
    };
    let set_state = options.state.join(name);
    let failed = |error: &io::Error| io_failure(&format!("the cover of {}", cover.at.display()), error);
    if cover.stands().map_err(|error| failed(&error))? == Standing::OnTop {
        let is_same_source = set_state == options.set_state() && options.stand_in.is_none();
        if is_same_source && !options.start_unconfirmed {
            refuse_taken_over(options)?;
        }
        // What else is in the way is found while nobody can write.
        standing_in::check(options)?;
        paired_identity(options)?;
    }
    match cover.lift(&set_state).map_err(|error| failed(&error))? {
        Standing::OnTop => Ok(Some(Lifted { cover, set_state })),
        Standing::Beneath | Standing::Gone | Standing::GoneByStart => Ok(None),
    }
}

/// Programs would write what nobody gets, until a target says so: they are asked before.
fn refuse_taken_over(options: &ProtectOptions) -> Result<(), Failure> {
    let path = options.set_state().join("set.json");
    let record: Option<SetRecord> = store::read_json(&path)
        .map_err(|error| io_failure(&format!("{} cannot be read", path.display()), &error))?;
    let Some(record) = record else { return Ok(()) };
    if let Some(fenced) = &record.fenced {
        return Err(fenced_off(options, fenced, record.epoch));
    }
    let asked = who_writes(&options.state, (record.set, &record.history()), options.targets.iter());
    let Some((Meeting::StoodInFor, other)) = asked else { return Ok(()) };
    let Some(epoch) = other.history.last() else { return Ok(()) };
    note_taken_over(&options.set_state(), epoch, &other.met)?;
    let since_unix_ms = unix_ms(std::time::SystemTime::now());
    Err(fenced_off(options, &FencedRecord { epoch, told_by: other.met, since_unix_ms }, record.epoch))
}

impl Lifted {
    /// The directory is not served after all.
    pub fn put_back(self) {
        if let Err(error) = self.cover.put_back(&self.set_state) {
            let at = self.cover.at.display();
            aside!("warning: {at} was covered before this start, and cannot be covered again: {error}.");
        }
    }
}
