//! What a target had before a copy.

/// What of it may be compared, and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetHad {
    /// What it says of itself counts.
    #[default]
    Something,
    /// It held nothing before copies to it began: no old content of a file can be lost.
    Nothing,
    /// It was set back, as if it had never said what it has: nothing counts as copied.
    NothingThatCounts,
}
