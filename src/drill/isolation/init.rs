//! The first process in there: it arranges what is seen, gives up what the commands must not have, and runs them,
//! one after the other, as they are asked for. When it ends, the kernel ends all the others.
//!
//! Nobody in there can reach it: its descriptors, through which it hears and answers, are hidden from
//! processes without CAP_SYS_PTRACE, which nobody there has.

use std::io::{self, BufReader};

use rustix::process::DumpableBehavior;

use super::{Answer, Isolation, Wanted, calls, mounts, seen};
use crate::commands::{Run, answer, next, perform};
use crate::privileges;

/// Serves requests from standard input until it ends; answers on standard output.
///
/// Errors: the process that asks is gone, or does not speak these words.
pub fn serve() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut requests = BufReader::new(io::stdin());
    let Some(wanted) = next::<Wanted>(&mut requests)? else { return Ok(()) };
    let arranged = isolate(&wanted);
    let has_failed = arranged.is_err();
    answer(&arranged.map_or_else(Answer::Refused, Answer::Isolated))?;
    if has_failed {
        return Ok(());
    }
    while let Some(run) = next::<Run>(&mut requests)? {
        answer(&Answer::Ended(perform(&run, &wanted.at, &wanted.environment)?))?;
    }
    Ok(())
}

fn isolate(wanted: &Wanted) -> Result<Isolation, String> {
    if std::process::id() != 1 {
        return Err("this process has no process namespace of its own".into());
    }
    if wanted.has_own_network {
        crate::sys::raise_loopback().map_err(|error| format!("no loopback: {error}"))?;
    }
    let arranged = mounts::arrange(wanted)?;
    calls::forbid()?;
    privileges::narrow(privileges::DRILL)
        .map_err(|error| format!("capabilities cannot be given up: {error}"))?;
    seen::measure(wanted, arranged)
}
