//! The first process in there: it arranges what is seen, gives up what the commands must not have, and runs them,
//! one after the other, as they are asked for. When it ends, the kernel ends all the others.
//!
//! Nobody in there can reach it: its descriptors, through which it hears and answers, are hidden from
//! processes without CAP_SYS_PTRACE, which nobody there has.

use std::io::{self, BufReader};

use rustix::process::DumpableBehavior;

use super::reads::Reads;
use super::{Answer, Harm, Isolation, Request, Wanted, calls, damaging, mounts, seen};
use crate::commands::{answer, next, perform};
use crate::privileges;

/// Serves requests from standard input until it ends; answers on standard output.
///
/// Errors: the process that asks is gone, or does not speak these words.
pub fn serve() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let mut requests = BufReader::new(io::stdin());
    let Some(wanted) = next::<Wanted>(&mut requests)? else { return Ok(()) };
    let reads = match isolate(&wanted) {
        Ok(Isolated { isolation, reads, harm }) => {
            answer(&Answer::Isolated(isolation))?;
            harm.map_or(Ok(()), |harm| answer(&Answer::Damaged(harm)))?;
            reads
        }
        Err(why) => return answer(&Answer::Refused(why)),
    };
    while let Some(request) = next::<Request>(&mut requests)? {
        answer(&performed(request, &wanted, reads.as_ref())?)?;
    }
    Ok(())
}

fn performed(request: Request, wanted: &Wanted, reads: Option<&Reads>) -> io::Result<Answer> {
    Ok(match (request, reads) {
        (Request::Run(run), _) => Answer::Ended(perform(&run, &wanted.at, &wanted.environment)?),
        (Request::Watch(run), Some(reads)) => {
            reads.check_begins();
            let ended = perform(&run, &wanted.at, &wanted.environment)?;
            Answer::Watched(ended, reads.check_ended())
        }
        (Request::Watch(_), None) => {
            Answer::Refused("nobody has asked for what is read to be watched".into())
        }
    })
}

/// What was made ready for the commands.
struct Isolated {
    isolation: Isolation,
    reads: Option<Reads>,
    harm: Option<Harm>,
}

fn isolate(wanted: &Wanted) -> Result<Isolated, String> {
    if std::process::id() != 1 {
        return Err("this process has no process namespace of its own".into());
    }
    if wanted.has_own_network {
        crate::sys::raise_loopback().map_err(|error| format!("no loopback: {error}"))?;
    }
    let arranged = mounts::arrange(wanted)?;
    let unseen = |error: io::Error| format!("what is read cannot be watched: {error}");
    let reads = wanted.watches.then(|| Reads::begin(&wanted.at)).transpose().map_err(unseen)?;
    // While it may still change what nobody may.
    let harm = (!wanted.damage.is_empty()).then(|| damaging::damage(&wanted.at, &wanted.damage));
    let harm = harm.transpose().map_err(|error| format!("the clone cannot be damaged: {error}"))?;
    calls::forbid()?;
    privileges::narrow(privileges::DRILL)
        .map_err(|error| format!("capabilities cannot be given up: {error}"))?;
    if let Some(reads) = &reads {
        reads.follow().map_err(unseen)?;
    }
    Ok(Isolated { isolation: seen::measure(wanted, arranged)?, reads, harm })
}
