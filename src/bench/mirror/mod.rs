//! Copies of whole trees to a target daemon on this machine, beside an rsync daemon.
//!
//! ```text
//! for each round:  for each step:  for each copier:   source ──> replica, timed until it is durable
//!    small files: first, nothing changed, compared    large file: first, some blocks changed, compared
//! at the end: a program that writes through the mount while its tree is copied, and afterwards
//! ```
//! All copiers copy the same trees, one after the other within a step, every other round backwards. What they
//! copied is looked at.

mod copier;
mod marks;
mod meanwhile;
mod rsync;
mod trees;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::error::{Error, Result};
use super::load::is_installed;
use super::place::Workshop;
use copier::Copier;
pub use meanwhile::Meanwhile;
use trees::Trees;

/// What is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorSizes {
    /// Files of 4 KiB; whole directories of a thousand.
    pub files: u64,
    /// Length of the large file, in bytes; whole MiB.
    pub large: u64,
}

impl MirrorSizes {
    pub const USUAL: MirrorSizes = MirrorSizes { files: 100_000, large: 4 << 30 };
    pub const QUICK: MirrorSizes = MirrorSizes { files: 1000, large: 64 << 20 };
}

/// All rounds of all copiers.
#[derive(Debug, Serialize)]
pub struct Mirror {
    pub files: u64,
    pub large_bytes: u64,
    /// Of them the large file had so many anew, in blocks of 64 KiB that lie apart.
    pub changed_blocks: u64,
    pub copiers: Vec<CopierReport>,
    pub meanwhile: Meanwhile,
}

#[derive(Debug, Serialize)]
pub struct CopierReport {
    /// `standin`, `other` (of `--against`) or `rsync`.
    pub name: &'static str,
    pub steps: Vec<StepReport>,
}

#[derive(Debug, Serialize)]
pub struct StepReport {
    pub step: Step,
    pub rounds: Vec<Copied>,
}

/// What one copy is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The small files, to an empty replica.
    SmallFirst,
    /// The same once more: nothing has changed.
    SmallUnchanged,
    /// Nothing is copied: content is compared by hashes.
    SmallCompared,
    /// The large file, to an empty replica.
    LargeFirst,
    /// Some of its blocks have changed.
    LargeChanged,
    /// Nothing is copied: content is compared by hashes.
    LargeCompared,
}

impl Step {
    pub const ALL: [Step; 6] = [
        Step::SmallFirst,
        Step::SmallUnchanged,
        Step::SmallCompared,
        Step::LargeFirst,
        Step::LargeChanged,
        Step::LargeCompared,
    ];

    fn tree(self) -> Tree {
        match self {
            Step::SmallFirst | Step::SmallUnchanged | Step::SmallCompared => Tree::Small,
            Step::LargeFirst | Step::LargeChanged | Step::LargeCompared => Tree::Large,
        }
    }

    fn work(self) -> Work {
        match self {
            Step::SmallFirst | Step::SmallUnchanged | Step::LargeFirst | Step::LargeChanged => Work::Copy,
            Step::SmallCompared | Step::LargeCompared => Work::Compare,
        }
    }
}

/// One of the two that are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tree {
    Small,
    Large,
}

/// What is done with a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Copy,
    /// With its replica, which is the tree.
    Compare,
}

/// Of a copy: from the start of the program until its replica is the tree and durable. Of a comparison: as
/// long as the command runs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Copied {
    pub seconds: f64,
    /// Processor time of both sides together.
    pub cpu_seconds: f64,
    /// The most memory that the sending and the receiving process held, in bytes; `None` where that is not
    /// known.
    pub source_memory: Option<u64>,
    pub target_memory: Option<u64>,
}

pub struct Measurement<'a> {
    pub workshop: &'a Workshop,
    pub program: &'a Path,
    pub against: Option<&'a Path>,
    pub sizes: MirrorSizes,
    pub rounds: u32,
    pub stop: &'a AtomicBool,
    /// Says what is going on.
    pub say: &'a dyn Fn(&str),
}

/// One copier, and what it has done so far.
struct Row<'a> {
    copier: Copier<'a>,
    steps: Vec<(Step, Vec<Copied>)>,
}

impl<'a> Measurement<'a> {
    pub fn run(&self) -> Result<Mirror> {
        (self.say)("trees to copy");
        let mut trees = Trees::make(self.workshop, self.sizes, self.stop)?;
        let mut rows: Vec<Row<'a>> = self.copiers().into_iter().map(Row::new).collect();
        for round in 0..self.rounds {
            self.round(&mut trees, &mut rows, round)?;
            rows.reverse();
        }
        if self.rounds % 2 == 1 {
            rows.reverse();
        }
        (self.say)("a program beside a copy");
        let meanwhile = meanwhile::measure(self.workshop, self.program, &trees, self.stop)?;
        Ok(Mirror {
            files: trees.files(),
            large_bytes: self.sizes.large,
            changed_blocks: trees.changed_blocks(),
            copiers: rows.into_iter().map(Row::report).collect(),
            meanwhile,
        })
    }

    fn copiers(&self) -> Vec<Copier<'a>> {
        let other = self.against.map(|program| Copier::Standin { name: "other", program });
        let rsync = is_installed("rsync").then_some(Copier::Rsync);
        let own = Copier::Standin { name: "standin", program: self.program };
        std::iter::once(own).chain(other).chain(rsync).collect()
    }

    fn round(&self, trees: &mut Trees, rows: &mut [Row<'a>], round: u32) -> Result<()> {
        let mut sides = Vec::new();
        for row in rows.iter() {
            let home = self.workshop.make(&format!("copier-{}", row.copier.name()))?;
            sides.push(row.copier.start(home, self.stop)?);
        }
        for step in Step::ALL {
            if step == Step::LargeChanged {
                trees.change(u64::from(round))?;
            }
            for (row, side) in rows.iter_mut().zip(&sides) {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                (self.say)(&format!("{}: {}", row.copier.name(), step.title()));
                let copied = side.perform(step.work(), trees.of(step.tree()), step.tree(), self.stop)?;
                trees.check(step.tree(), &side.replica(step.tree()))?;
                row.add(step, copied);
            }
        }
        sides.into_iter().try_for_each(copier::Side::clear)
    }
}

impl<'a> Row<'a> {
    fn new(copier: Copier<'a>) -> Row<'a> {
        Row { copier, steps: Step::ALL.map(|step| (step, Vec::new())).to_vec() }
    }

    fn add(&mut self, step: Step, copied: Copied) {
        self.steps.iter_mut().filter(|(of, _)| *of == step).for_each(|(_, rounds)| rounds.push(copied));
    }

    fn report(self) -> CopierReport {
        let steps = self.steps.into_iter().map(|(step, rounds)| StepReport { step, rounds }).collect();
        CopierReport { name: self.copier.name(), steps }
    }
}

impl Step {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Step::SmallFirst => "small files, first",
            Step::SmallUnchanged => "small files, nothing changed",
            Step::SmallCompared => "small files, compared by content",
            Step::LargeFirst => "a large file, first",
            Step::LargeChanged => "1 % of its blocks changed",
            Step::LargeCompared => "it is compared by content",
        }
    }
}
