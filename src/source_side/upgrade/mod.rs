//! `standin upgrade`: a daemon becomes another program under its mount, in its own process, and programs see a pause.
//!
//! ```text
//!  program checked ── everything sent while programs work ── changes held ── the rest sent ── position left
//!        │ another format, nothing changed    │ not in time, as before            │            with the holder
//!        v                                    v                                   v                │
//!     refused                              refused                             refused        execve(2)
//!                                                             does not come to serve │             │
//!                                        the program of before <─────────────────────┴── takes the mount over,
//!                                        (execve(2) again)                               goes on from the position
//! ```
//! Changes are held by the tree lock: each one that was begun is in the queue, none begins, and reads go on. What
//! programs ask for and is not answered the kernel asks the next program, as after a kill: nothing here is needed for
//! that, only for the targets to owe nothing. Why `execve(2)`: the process keeps its number, its place with the
//! service manager, and the privileges that it has left; a successor beside it could get none that this one gave up.
//!
//! - `formats`: what a program understands, and its answer to that question
//! - `program`: a file that is asked, and executed
//! - `look`: what the targets would lack
//! - `hold`: holding changes, and sending the rest
//! - `exec`: becoming the program, and giving the mount back

mod exec;
mod formats;
mod hanging;
mod hold;
mod look;
mod program;

use std::os::fd::OwnedFd;

pub use exec::{give_back, reap, succeed};
pub use formats::{FORMATS_COMMAND, Formats};
pub use hold::{Gates, Held, Hold};
pub use look::goes_on;

use self::look::{await_notes, lacks};
use self::program::Program;
use super::desk::Desk;
use super::director::{Event, Question};
use super::holder::{Giving, Holder};
use super::sync::CALLER_POLL;
use crate::control::{Caller, NoAnswer, Phase, UpgradeLook, UpgradeRequest, ask};
use crate::failure::Failure;
use crate::limits::CONTROL_ANSWER;
use crate::preflight::check_places_again;

pub const AS_BEFORE: &str = "Nothing was changed: the directory is served and replicated as before.";

/// What a daemon is about to become.
pub struct Successor {
    pub program: Program,
    /// This very program, to have the mount back.
    pub own: OwnedFd,
    pub giving: Giving,
}

/// As a command asks for it. Comes back only with a look, or a failure: else this process is another program then.
pub fn upgrade(desk: &Desk, request: &UpgradeRequest, caller: &Caller<'_>) -> Result<UpgradeLook, Failure> {
    let ground = &desk.ground;
    // Who names the program has all the rights of the daemon.
    if caller.uid != rustix::process::geteuid().as_raw() && caller.uid != 0 {
        return Err(Failure::new(
            "Only root, or the daemon's own user, may say which program it becomes.",
            AS_BEFORE,
            "Ask as one of them.",
        ));
    }
    if desk.board.read().phase != Phase::Serving {
        return Err(Failure::new(
            "The daemon is not serving at this moment.",
            "Nothing was changed.",
            "Wait until it does (standin status).",
        )
        .passing());
    }
    let giving = held_by(desk)?;
    // The program looks for it again, and programs would wait for what it lacks.
    let checked = check_places_again(&ground.options);
    checked.map_err(|failure| Failure { untouched: AS_BEFORE.into(), ..failure })?;
    let program = Program::ask(&request.program)?;
    await_notes(ground, &desk.board);
    hanging::none_hangs()?;
    let look = UpgradeLook {
        from: env!("CARGO_PKG_VERSION").into(),
        to: program.formats.version.clone(),
        lacking: lacks(ground, &desk.board.read()),
    };
    if request.dry_run {
        return Ok(look);
    }
    if !look.lacking.is_empty() && !request.anyway {
        return Err(Failure::new(
            format!("Not all targets have everything: {}.", look.lacking.join("; ")),
            AS_BEFORE,
            "Wait until they do; or go on with --anyway: what they lack is found by a copy afterwards.",
        )
        .passing());
    }
    let own = exec::own_program().map_err(|error| {
        Failure::new(format!("The daemon's own program cannot be kept: {error}."), AS_BEFORE, "Try again.")
    })?;
    let successor = Box::new(Successor { program, own, giving });
    let patience = std::time::Duration::from_millis(request.patience_ms);
    let question = |answer| Event::Asked(Question::HandOver { successor, patience, answer });
    let asked = ask(&desk.director, CONTROL_ANSWER, question)?;
    match asked.unless(CALLER_POLL, || false) {
        Ok(failure) => Err(failure),
        // This very process is about to be another program, and says nothing more.
        Err(NoAnswer::Over) => {
            std::thread::sleep(CONTROL_ANSWER);
            Err(NoAnswer::Over.into())
        }
        Err(why) => Err(why.into()),
    }
}

/// Errors: the mount would end with this program.
fn held_by(desk: &Desk) -> Result<Giving, Failure> {
    let options = &desk.ground.options;
    let none = || {
        Failure::new(
            format!("The mount of '{}' has no holder: it would end with this program.", options.name),
            AS_BEFORE,
            format!(
                "Stop and start it in a moment when no program works in {}: standin stop, then the same command with \
                 --holder; from then on it can be upgraded under programs.",
                options.directory.display()
            ),
        )
    };
    let giving = desk.ground.holder.as_ref().map(Holder::giving).ok_or_else(none)?;
    if !giving.is_held() {
        return Err(none());
    }
    let takes = Holder::takes_handovers(&options.run, &options.name).map_err(|error| {
        Failure::new(
            format!("The holder of '{}' does not say whether it takes the mount: {error}.", options.name),
            AS_BEFORE,
            "Try again when the machine has less to do.",
        )
    })?;
    if !takes {
        return Err(Failure::new(
            format!(
                "The holder of '{}' was started by an older version, and would let go of the mount.",
                options.name
            ),
            AS_BEFORE,
            format!(
                "Kill this daemon and start it again: kill -9 {}; the next one goes on.",
                std::process::id()
            ),
        ));
    }
    Ok(giving)
}
