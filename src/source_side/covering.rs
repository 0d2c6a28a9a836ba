//! What stands in the mount's place when it goes, where the set is handed over; see [`crate::cover`].

use std::io;
use std::time::Instant;

use super::ground::Ground;
use super::stop::patiently;
use crate::control::StopMode;
use crate::cover::{Cover, Ready};
use crate::intercept::Serving;

/// Of a mount that is being taken away.
pub struct Covering<'a> {
    pub ground: &'a Ground,
    pub serving: &'a Serving,
    pub mode: StopMode,
}

impl Covering<'_> {
    /// A busy mount is found before, as far as it goes: what is beneath a mount cannot be taken away.
    ///
    /// Errors: the mount is busy.
    pub fn slip_beneath(&self) -> io::Result<Option<Ready>> {
        if self.mode != StopMode::Covered {
            return Ok(None);
        }
        let options = &self.ground.options;
        let ready = Ready::new(&options.set_state(), &options.directory, options.tree(), &self.ground.under);
        let mut ready = match ready {
            Ok(ready) => ready,
            Err(error) => {
                log::error!("{} cannot be covered: {error}", options.directory.display());
                return Ok(None);
            }
        };
        if let Err(error) = patiently(|| self.serving.check_idle()) {
            ready.give_up();
            return Err(error);
        }
        ready.slip_beneath();
        Ok(Some(ready))
    }

    /// The mount is gone.
    pub fn mount_is_gone(&self, cover: Option<Ready>, before: Instant) {
        let options = &self.ground.options;
        let outcome = match cover {
            Some(cover) => cover.put_over(before),
            // What a hand-over has left that came to nothing.
            None => match Cover::noted(&options.set_state()) {
                Ok(Some(left)) => left.lift(&options.set_state()).map(drop),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            },
        };
        if let Err(error) = outcome {
            log::error!("the cover of {}: {error}", options.directory.display());
        }
    }
}
