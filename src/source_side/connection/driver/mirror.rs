//! What a person wants of copies.

use super::super::MirrorCommand;
use super::super::checking::Checking;
use super::super::surroundings::Surroundings;
use super::Driver;
use crate::clock;
use crate::connection::{Command, NotNow, State};
use crate::control::MirrorStatus;
use crate::words::CopyMode;

impl<S: Surroundings> Driver<S> {
    /// Errors: why not; nothing has changed.
    pub(super) fn mirror(&mut self, command: MirrorCommand) -> Result<(), NotNow> {
        self.unpublished = true;
        self.has_asked(&command)?;
        match command {
            command @ MirrorCommand::Start { .. } => self.start_mirror(command)?,
            MirrorCommand::Merge => self.merge()?,
            MirrorCommand::Stop { .. } if self.wished.take().is_some() => {
                self.pace.pause(false);
                self.end_check(Err("its mirror was given up".into()));
                self.shows_mirror(MirrorStatus::Stopped);
            }
            MirrorCommand::Stop { from_scratch } => {
                self.machine.handle_command(clock::now(), Command::StopMirror)?;
                if from_scratch {
                    self.copy_mode = CopyMode::Full;
                    self.copy.attempt().into_iter().for_each(|attempt| attempt.is_full = false);
                }
                self.pace.pause(false);
                self.set_rate(None);
            }
            MirrorCommand::Pause => self.hold_copy(true)?,
            MirrorCommand::Resume { rate } => {
                self.hold_copy(false)?;
                if let Some(rate) = rate {
                    let rate = Some(rate).filter(|rate| *rate > 0);
                    // What it finds is mended at the same rate.
                    self.wished.iter_mut().for_each(|wish| wish.rate = rate);
                    self.set_rate(rate);
                }
            }
        }
        Ok(())
    }

    /// Before a copy that a person is asked about no word on copies is theirs on that.
    fn has_asked(&self, command: &MirrorCommand) -> Result<(), NotNow> {
        let is_paused = matches!(self.machine.state(), State::Paused(_));
        let is_on_it = match command {
            MirrorCommand::Start { .. } | MirrorCommand::Merge | MirrorCommand::Pause => true,
            MirrorCommand::Stop { .. } | MirrorCommand::Resume { .. } => false,
        };
        match self.guard_asks() {
            Some(asked) if is_paused && is_on_it && asked.by_copy => Err(NotNow::Missing),
            Some(_) | None => Ok(()),
        }
    }

    /// As after a place that was lost, also of a replica that is good: by what decides it then.
    fn merge(&mut self) -> Result<(), NotNow> {
        match self.machine.why_no_copy() {
            Some(why) => return Err(why),
            None if self.wished.is_some() => return Err(NotNow::MirrorRuns),
            None if self.checking.is_some() => return Err(NotNow::Verifies),
            None => self.in_doubt()?,
        }
        self.machine.handle_command(clock::now(), Command::Merge)?;
        self.pace.pause(false);
        Ok(())
    }

    /// The walk rests between two items, and packets go on.
    fn hold_copy(&mut self, is_paused: bool) -> Result<(), NotNow> {
        if self.copy.is_resting() && self.wished.is_none() {
            return Err(NotNow::NoMirror);
        }
        self.pace.pause(is_paused);
        if self.copy.attempt().is_some() || self.checks_for_mirror() {
            let mirror = self.mirror_begun();
            self.update(|report| report.mirror = mirror);
        }
        Ok(())
    }

    pub(super) fn set_rate(&self, rate: Option<u64>) {
        self.pace.set_rate(rate);
        self.update(|report| report.rate = rate);
    }

    pub(super) fn checks_for_mirror(&self) -> bool {
        matches!(&self.checking, Some(Checking::Runs(running)) if running.is_mirror)
    }

    /// How a copy that is under way is shown.
    pub(super) fn mirror_begun(&self) -> MirrorStatus {
        match self.pace.is_paused() {
            true => MirrorStatus::Paused,
            false if self.checks_for_mirror() => MirrorStatus::Verifying,
            false => MirrorStatus::Mirroring { percent: 0.0 },
        }
    }
}
