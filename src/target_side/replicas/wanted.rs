//! A replica that somebody wants to serve in its source's place: who wants it locks a file of its state, and
//! this daemon lets it go while no source works on it. The lock goes with whoever has it, killed too.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::locked::{Locked, is_locked};

/// In the state directory of a replica.
const FILE: &str = "wanted";

/// Wants the replica with this state, as long as the answer lives; `None`: somebody else does already.
pub fn want(state: &Path) -> io::Result<Option<Locked>> {
    Locked::now(File::create(state.join(FILE))?)
}

/// Whether somebody wants, or has, the replica with this state.
pub fn is_wanted(state: &Path) -> bool {
    File::open(state.join(FILE)).is_ok_and(|file| is_locked(&file))
}

pub(super) const STANDS_IN: &str = "this source was stood in for: the target's host serves the replica in its place, and nothing is written to it \
     meanwhile";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_wanted_as_long_as_somebody_lives_who_wants_it() {
        let state = tempfile::tempdir().unwrap();
        assert!(!is_wanted(state.path()));
        let wanted = want(state.path()).unwrap().unwrap();
        assert!(is_wanted(state.path()) && is_wanted(state.path()));
        assert!(want(state.path()).unwrap().is_none());
        drop(wanted);
        assert!(!is_wanted(state.path()));
    }
}
