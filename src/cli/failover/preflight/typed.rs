//! What `standin protect --stand-in` looks at before it raises anything, as a failover does.

use super::super::super::args::Common;
use super::super::super::find;
use super::others;
use crate::control::{Answer, Role};
use crate::failure::Failure;
use crate::source_side::{self, Asking, Foreseen};
use crate::words::ProtectOptions;

/// Of a stand-in that `standin protect` is about to begin: the same look at other targets. Answers what is worth knowing.
///
/// Errors: one is further, or would not take this host; the source lives.
pub(in crate::cli) fn look_at_others(
    common: &Common,
    options: &ProtectOptions,
) -> Result<Vec<String>, Failure> {
    // What keeps it from being looked at keeps the start from going on, which says it better.
    let Ok(Foreseen { seen, would, .. }) = source_side::foresee(options) else { return Ok(Vec::new()) };
    if seen.goes_on {
        return Ok(Vec::new());
    }
    let asking = Asking::begin(options);
    let said = find::all(&common.run_dir())?.into_iter().find_map(|daemon| match daemon.answer {
        Answer::Status(status) => match status.role {
            Role::Target { target } => {
                target.replicas.into_iter().find(|replica| replica.directory == options.tree())
            }
            Role::Source(_) => None,
        },
        Answer::Dead | Answer::None(_) => None,
    });
    let mut notes = Vec::new();
    for (target, asked) in asking.answers() {
        notes.extend(others::stands(options, &target, &asked, &would, said.as_ref())?);
    }
    Ok(notes)
}
