//! What a full queue means for a target that is away.

use clap::ValueEnum;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WhenFull {
    /// Programs go on; the queue lets go of the target, and a copy brings it into line when it is back.
    #[default]
    Resync,
    /// Programs that write wait until the target is back.
    Block,
}
