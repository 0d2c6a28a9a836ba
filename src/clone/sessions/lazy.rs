//! A session that is not copied before somebody asks: what changes is preserved all the while.

use std::path::{Path, PathBuf};

use super::{Refusal, Sessions, because};
use crate::clone::machine::State;
use crate::clone::session::Shown;

impl Sessions {
    /// Has one become a directory; it is an ordinary clone from now on.
    ///
    /// Errors: nothing has changed.
    pub fn copy(&self, name: &str, dir: &Path, keeps_off: &[PathBuf]) -> Result<Shown, Refusal> {
        let _turn = self.starting.lock();
        let session = self.all.lock().get(name).cloned().ok_or(Refusal::Unknown)?;
        let shown = session.shown();
        if let (State::Failed, Some(why)) = (shown.state, &shown.reason) {
            return Err(Refusal::Because(format!("it has failed ({why})")));
        }
        if let Some(dir) = shown.dir {
            return Err(Refusal::Because(format!("it has a directory already, {}", dir.display())));
        }
        self.check_place(dir, keeps_off)?;
        // What an older process has left has its threads: nobody gives this one another.
        self.resume();
        session.be_copied_to(dir).map_err(because("that it is to be copied cannot be noted"))?.map_err(
            |state| {
                Refusal::Because(format!(
                    "it is {state} and preserves nothing any more: the replica is good again, or somebody ends it"
                ))
            },
        )?;
        self.work(&session);
        Ok(session.shown())
    }
}
