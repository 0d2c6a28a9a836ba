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
    /// As `Replicating`, with everything that watches a daemon.
    Watched,
    /// The same by the other program of `--against`.
    WatchedAgainst,
    /// A protected directory whose replica is a target daemon's, on the loopback interface.
    Served,
    /// The same by the other program of `--against`.
    ServedAgainst,
    /// As `Null`, with `--profile batch`.
    Batch,
    /// The same by the other program of `--against`.
    BatchAgainst,
    /// A mount of another program that passes everything through, to compare with.
    Bindfs,
    /// The same of libfuse's example program.
    PassthroughHp,
}

/// What can be chosen to be measured beside the plain directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Choice {
    /// Changes are captured and thrown away (--to null:)
    Null,
    /// With a replica on the same file system (--to local:)
    Replicating,
    /// As replicating, and watched: statistics in a file, metrics asked for each second, a page open, events followed
    Watched,
    /// With a replica at a target daemon of its own, over the loopback interface
    Served,
    /// As null, with --profile batch
    Batch,
    /// bindfs, where it is installed
    Bindfs,
    /// libfuse's passthrough_hp, where it is installed or named with --passthrough-hp
    PassthroughHp,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Variant::Native => "native",
            Variant::Null => "null",
            Variant::NullAgainst => "null, other",
            Variant::Replicating => "replicating",
            Variant::ReplicatingAgainst => "replicating, other",
            Variant::Watched => "watched",
            Variant::WatchedAgainst => "watched, other",
            Variant::Served => "served",
            Variant::ServedAgainst => "served, other",
            Variant::Batch => "batch",
            Variant::BatchAgainst => "batch, other",
            Variant::Bindfs => "bindfs",
            Variant::PassthroughHp => "passthrough_hp",
        }
    }

    /// Name of its directory: short, because a socket's path is.
    pub fn directory(self) -> &'static str {
        match self {
            Variant::Native => "native",
            Variant::Null => "null",
            Variant::NullAgainst => "null-o",
            Variant::Replicating => "repl",
            Variant::ReplicatingAgainst => "repl-o",
            Variant::Watched => "watched",
            Variant::WatchedAgainst => "watch-o",
            Variant::Served => "served",
            Variant::ServedAgainst => "served-o",
            Variant::Batch => "batch",
            Variant::BatchAgainst => "batch-o",
            Variant::Bindfs => "bindfs",
            Variant::PassthroughHp => "hp",
        }
    }

    /// The same work by the other program.
    pub fn other(self) -> Option<Variant> {
        match self {
            Variant::Null => Some(Variant::NullAgainst),
            Variant::Replicating => Some(Variant::ReplicatingAgainst),
            Variant::Watched => Some(Variant::WatchedAgainst),
            Variant::Served => Some(Variant::ServedAgainst),
            Variant::Batch => Some(Variant::BatchAgainst),
            _ => None,
        }
    }

    /// Whether the program of `--against` does it.
    pub fn is_others(self) -> bool {
        matches!(
            self,
            Variant::NullAgainst
                | Variant::ReplicatingAgainst
                | Variant::WatchedAgainst
                | Variant::ServedAgainst
                | Variant::BatchAgainst
        )
    }

    /// Whether it is no product of ours: what it cannot do is no failure.
    pub fn is_foreign(self) -> bool {
        matches!(self, Variant::Bindfs | Variant::PassthroughHp)
    }

    /// Whether the kernel may keep written data back from the process behind the mount.
    pub fn keeps_back(self) -> bool {
        matches!(self, Variant::Batch | Variant::BatchAgainst | Variant::PassthroughHp)
    }

    /// Whether there is a second copy of all bytes.
    pub fn replicates(self) -> bool {
        matches!(
            self,
            Variant::Replicating
                | Variant::ReplicatingAgainst
                | Variant::Watched
                | Variant::WatchedAgainst
                | Variant::Served
                | Variant::ServedAgainst
        )
    }
}

impl Choice {
    fn all() -> &'static [Choice] {
        Choice::value_variants()
    }

    /// Where nothing is chosen.
    pub fn usual() -> Vec<Choice> {
        vec![Choice::Null, Choice::Replicating, Choice::Bindfs, Choice::PassthroughHp]
    }

    fn variant(self) -> Variant {
        match self {
            Choice::Null => Variant::Null,
            Choice::Replicating => Variant::Replicating,
            Choice::Watched => Variant::Watched,
            Choice::Served => Variant::Served,
            Choice::Batch => Variant::Batch,
            Choice::Bindfs => Variant::Bindfs,
            Choice::PassthroughHp => Variant::PassthroughHp,
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
        assert_eq!(columns(&Choice::usual(), false), [Native, Null, Replicating, Bindfs, PassthroughHp]);
        assert_eq!(
            columns(&[Choice::Replicating, Choice::Null], true),
            [Native, Null, NullAgainst, Replicating, ReplicatingAgainst]
        );
        assert_eq!(columns(&[], true), [Native]);
    }
}
