//! A daemon that becomes another program leaves the mount to it, in the same process.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;

use super::protocol::{Answer, Said, receive, send};
use super::{Holder, Link, connect, place_of};
use crate::control::UpgradeStatus;
use crate::intercept::{Handover, Standing, Upgraded};
use crate::packet::Position;
use crate::sys::left_open;

/// What the daemon before has left open of its program, in this very process.
pub(super) fn program_before(standing: &Standing) -> Option<OwnedFd> {
    let left = standing.left().filter(|left| left.process == std::process::id())?;
    left_open(left.program)
}

/// What is needed to give a mount to another program.
#[derive(Clone)]
pub struct Giving {
    link: Arc<Link>,
    standing: Arc<Standing>,
    /// The program that this process was before, until this one serves.
    given_by: Arc<Mutex<Option<OwnedFd>>>,
}

impl Holder {
    /// Whether it takes the word of a daemon that becomes another program: one that was started by an older version
    /// may not.
    ///
    /// Errors: it does not say, in the time that [`connect`] gives it.
    pub fn takes_handovers(run: &Path, name: &str) -> io::Result<bool> {
        let ask = || -> io::Result<bool> {
            let Some(socket) = connect(&place_of(run, name))? else { return Ok(false) };
            send(&socket, &Said::Speaks, &[])?;
            Ok(matches!(receive::<Answer>(&socket)?, Some((Answer::Speaks, _))))
        };
        match ask() {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(error),
            // One that does not know the word hangs up.
            said => Ok(said.unwrap_or(false)),
        }
    }

    pub fn giving(&self) -> Giving {
        let (link, standing) = (self.link.clone(), self.standing.clone());
        Giving { link, standing, given_by: self.given_by.clone() }
    }

    /// Where the daemon before was, if the next one goes on from there as the same run.
    pub fn position_left(&self, terms: u64) -> Option<Position> {
        self.standing.left().filter(|left| left.terms == terms)?.position
    }

    /// It does not get the mount back.
    pub fn forget_program_before(&self) {
        drop(self.given_by.lock().take());
    }

    /// From here on nobody goes on from there any more.
    pub fn take_position(&self) {
        self.standing.take_position();
    }

    pub(super) fn upgrade_status(&self) -> Option<UpgradeStatus> {
        let Upgraded { upgrades, from, at_unix_ms, pause_ms, sent, failed } = self.standing.upgraded()?;
        Some(UpgradeStatus { upgrades, from, at_unix_ms, pause_ms, sent_packets: sent, failed })
    }
}

impl Giving {
    /// Whether the holder is there.
    pub fn is_held(&self) -> bool {
        !self.link.is_lost.load(Relaxed)
    }

    /// In the process of the daemon before, as another program.
    pub fn is_given_on(&self) -> bool {
        self.given_by.lock().is_some()
    }

    /// What the next one is told.
    pub fn leave(&self, handover: &Handover) {
        self.standing.leave(handover);
    }

    /// The holder is not to take the end of the link for a daemon that does without it.
    pub fn hands_over(&self) {
        self.link.say(&Said::HandsOver, &[]);
    }

    /// The program that this process was before, which can have the mount back: this one does not serve yet, and is
    /// not that one, which has got it back already.
    pub fn given_by(&self) -> Option<OwnedFd> {
        let program = self.given_by.lock().take()?;
        (self.standing.left().is_some() && !self.standing.has_failed()).then_some(program)
    }

    pub fn note_failed(&self, why: &str) {
        self.standing.note_failed(why);
    }
}
