//! Whether the checks of a drill can fail: they are run on the same clone once more, which shows what they read and that
//! they may be repeated, and then on damaged blocks of that.
//!
//! ```text
//!  passed ─> again, watched ─> damage of what was read ─> again ─> each check has to fail
//! ```
//! Each time in namespaces of their own, with the start commands before them and the stop commands after them.

use std::collections::BTreeSet;
use std::path::Path;

use super::damage::{Target, together};
use super::driver::{Drill, Under};
use super::inside::{Bad, Inside};
use super::isolation::{Harm, Seen, Wanted};
use super::limits::DAMAGE_MAX;
use super::plan::Step;
use super::proof::{CheckProof, Finding, Proof};
use crate::commands::Ended;

/// What the clone's services have said before the checks.
enum Begun {
    Well,
    Failed(Step, String),
}

/// What the second run has shown of one check.
struct Repeated {
    ended: Ended,
    seen: Seen,
}

/// What the run on damaged data has shown.
#[derive(Default)]
struct Shown {
    harm: Harm,
    noticed_by: Option<Step>,
    /// Of each check, where they were reached.
    ended: Vec<Ended>,
}

impl Drill<'_> {
    /// Says in the report what it has found. The clone is damaged afterwards.
    pub(super) fn prove(&mut self, under: &mut Under) -> Result<(), Bad> {
        let proof = match self.try_to_prove(under) {
            Ok(proof) => proof,
            Err(Bad::Interrupted) => return Err(Bad::Interrupted),
            Err(Bad::Failed(reason)) => {
                self.record.report.proof = Some(Proof::not_made(reason.clone()));
                return Err(Bad::Failed(reason));
            }
        };
        self.record.report.proof = Some(proof);
        Ok(())
    }

    fn try_to_prove(&mut self, under: &mut Under) -> Result<Proof, Bad> {
        let repeated = self.repeat(under)?;
        let targets =
            |one: &Repeated| if one.ended.is_success() { one.seen.targets.clone() } else { Vec::new() };
        let targets = together(repeated.iter().flat_map(targets));
        let shown = match targets.is_empty() {
            true => Shown::default(),
            false => self.run_on_damaged(under, targets)?,
        };
        let mut ended = shown.ended.into_iter();
        let left_out: BTreeSet<&Path> = shown.harm.left_out.iter().map(|one| one.path.as_path()).collect();
        let check = |(check, one): (u32, Repeated)| {
            let on_damaged = ended.next();
            let is_spared = one.seen.targets.iter().all(|target| left_out.contains(&*target.path));
            let (finding, ended) = match on_damaged {
                _ if !one.ended.is_success() => (Finding::NotRepeatable, Some(one.ended)),
                _ if one.seen.targets.is_empty() => (Finding::ReadNothing, None),
                Some(ended) if !ended.is_success() => (Finding::Noticed, Some(ended)),
                ended if is_spared => (Finding::NotDamaged, ended),
                None => (Finding::NotReached, None),
                Some(ended) => (Finding::Passed, Some(ended)),
            };
            CheckProof { check, finding, read_files: one.seen.files, ended }
        };
        let checks = (1..).zip(repeated).map(check).collect();
        Ok(Proof::made(checks, shown.noticed_by, shown.harm))
    }

    /// Runs the checks without damage, and says what they read.
    fn repeat(&mut self, under: &mut Under) -> Result<Vec<Repeated>, Bad> {
        let wanted = Wanted { watches: true, ..self.wanted() };
        let mut inside = self.anew(under, &wanted)?;
        if let Begun::Failed(step, why) = self.begin(&mut inside)? {
            return Err(Bad::Failed(format!("{step} failed when it was run once more, without damage{why}")));
        }
        let mut repeated = Vec::new();
        for check in self.request.checks.clone() {
            let (ended, seen) = inside.watch(&check.command, check.timeout, DAMAGE_MAX)?;
            repeated.push(Repeated { ended, seen });
        }
        self.end(&mut inside)?;
        Ok(repeated)
    }

    fn run_on_damaged(&mut self, under: &mut Under, targets: Vec<Target>) -> Result<Shown, Bad> {
        let wanted = Wanted { damage: targets, ..self.wanted() };
        let mut inside = self.anew(under, &wanted)?;
        let harm = inside.harm()?;
        if harm.damaged.is_empty() {
            return Ok(Shown { harm, ..Shown::default() });
        }
        let (mut noticed_by, mut all) = (None, Vec::new());
        match self.begin(&mut inside)? {
            Begun::Failed(step, _) => noticed_by = Some(step),
            Begun::Well => {
                for check in self.request.checks.clone() {
                    let ended = inside.run(&check.command, check.timeout)?;
                    // Nothing of the data.
                    if let Some(problem) = ended.problem {
                        return Err(Bad::Failed(problem));
                    }
                    all.push(ended);
                }
            }
        }
        self.end(&mut inside)?;
        Ok(Shown { harm, noticed_by, ended: all })
    }

    /// The clone in new namespaces; the old ones are gone before, with everything that ran in them.
    fn anew(&mut self, under: &mut Under, wanted: &Wanted) -> Result<Inside, Bad> {
        if let Some(inside) = &under.inside {
            // Those of the proof are not the drill's.
            self.record.report.clone.bytes_written = self.written(inside.pid());
        }
        under.inside = None;
        let mut inside = self.noted(under)?;
        // All of the clone's files are gone through where it is watched, and some are written where it is damaged.
        inside.arrange(wanted, DAMAGE_MAX)?;
        Ok(inside)
    }

    fn begin(&self, inside: &mut Inside) -> Result<Begun, Bad> {
        let timeout = self.request.timeout;
        for start in &self.request.start {
            let ended = inside.run(start, timeout)?;
            if !ended.is_success() {
                return Ok(Begun::Failed(Step::Start, ended.words()));
            }
        }
        if let Some(ready) = &self.request.ready
            && !inside.probe(ready, timeout, (&mut None, &mut 0))?
        {
            return Ok(Begun::Failed(Step::Ready, ": it was not ready in time".into()));
        }
        Ok(Begun::Well)
    }

    /// Whatever it says: on damaged data it may fail.
    fn end(&self, inside: &mut Inside) -> Result<(), Bad> {
        self.request.stop.iter().try_for_each(|stop| inside.run(stop, self.request.timeout).map(|_| ()))
    }
}
