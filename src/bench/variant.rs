//! Where an application works: what is compared, by name.

use clap::ValueEnum;
use serde::Serialize;

/// One column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// A plain directory.
    Native,
    /// A protected directory whose changes are captured and thrown away.
    Null,
    /// The same by the other program of `--against`.
    NullAgainst,
    /// A protected directory with a replica on the same file system.
    Replicating,
    /// The same by the other program of `--against`.
    ReplicatingAgainst,
    /// A mount of another program that passes everything through, to compare with.
    Bindfs,
}

/// What can be chosen to be measured beside the plain directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Choice {
    /// Changes are captured and thrown away (--to null:)
    Null,
    /// With a replica on the same file system (--to local:)
    Replicating,
    /// bindfs, where it is installed
    Bindfs,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Variant::Native => "native",
            Variant::Null => "null",
            Variant::NullAgainst => "null, other",
            Variant::Replicating => "replicating",
            Variant::ReplicatingAgainst => "replicating, other",
            Variant::Bindfs => "bindfs",
        }
    }

    /// Name of its directory: short, because a socket's path is.
    pub fn directory(self) -> &'static str {
        match self {
            Variant::Native => "native",
            Variant::Null => "null",
            Variant::NullAgainst => "null-other",
            Variant::Replicating => "repl",
            Variant::ReplicatingAgainst => "repl-other",
            Variant::Bindfs => "bindfs",
        }
    }

    /// The same work by the other program.
    pub fn other(self) -> Option<Variant> {
        match self {
            Variant::Null => Some(Variant::NullAgainst),
            Variant::Replicating => Some(Variant::ReplicatingAgainst),
            Variant::Native | Variant::NullAgainst | Variant::ReplicatingAgainst | Variant::Bindfs => None,
        }
    }

    /// Whether there is a second copy of all bytes.
    pub fn replicates(self) -> bool {
        match self {
            Variant::Replicating | Variant::ReplicatingAgainst => true,
            Variant::Native | Variant::Null | Variant::NullAgainst | Variant::Bindfs => false,
        }
    }
}

impl Choice {
    pub fn all() -> &'static [Choice] {
        Choice::value_variants()
    }

    fn variant(self) -> Variant {
        match self {
            Choice::Null => Variant::Null,
            Choice::Replicating => Variant::Replicating,
            Choice::Bindfs => Variant::Bindfs,
        }
    }
}

/// The columns: the plain directory, and what was chosen, each beside the same by the other
/// program, where there is one.
pub fn columns(chosen: &[Choice], against: bool) -> Vec<Variant> {
    let chosen = Choice::all().iter().filter(|choice| chosen.contains(choice)).map(|choice| choice.variant());
    let both = chosen.flat_map(|variant| [Some(variant), variant.other().filter(|_| against)]);
    std::iter::once(Variant::Native).chain(both.flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_programs_stand_side_by_side() {
        use Variant::*;
        assert_eq!(columns(Choice::all(), false), [Native, Null, Replicating, Bindfs]);
        assert_eq!(
            columns(&[Choice::Replicating, Choice::Null], true),
            [Native, Null, NullAgainst, Replicating, ReplicatingAgainst]
        );
        assert_eq!(columns(&[], true), [Native]);
    }
}
