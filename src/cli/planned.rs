//! Commands that are designed and not built yet.

use super::args::Planned;
use crate::failure::Failure;

pub(super) fn refusal(command: &Planned) -> Failure {
    let (name, instead) = match command {
        Planned::Merge(_) => ("merge", ""),
        Planned::Resync(_) => ("resync", ""),
    };
    Failure::new(format!("`standin {name}` is not in this version."), "Nothing was changed.", instead)
}
