//! Becoming another program, and becoming the one of before again.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use crossbeam_channel::bounded;
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitOptions, wait};

use super::Successor;
use crate::failure::Failure;
use crate::limits::UPGRADE_GOODBYE_MAX;
use crate::source_side::connection::Connection;
use crate::source_side::holder::Giving;
use crate::sys::{pass_alone, proc_path};

/// This program, also when its file is replaced or removed.
pub fn own_program() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Becomes the program; where that cannot be, this one anew. What is left is with the holder.
///
/// Returns why neither was possible: the holder keeps the mount for the next start.
pub fn succeed(successor: &Successor, connections: Vec<Arc<Connection>>) -> Failure {
    say_goodbye(connections);
    successor.giving.hands_over();
    let error = execute(successor.program.path.as_os_str(), &successor.own);
    let why = format!("{} cannot be executed: {error}", successor.program.path.display());
    take_back(&successor.giving, &successor.own, &why)
}

/// The program of before goes on, because this one has failed before it served. Returns why not.
pub fn give_back(giving: &Giving, program: &OwnedFd, failure: &Failure) -> Failure {
    giving.hands_over();
    take_back(giving, program, &failure.what)
}

fn take_back(giving: &Giving, program: &OwnedFd, why: &str) -> Failure {
    log::error!("the program that was to go on does not ({why}): the one of before does");
    giving.note_failed(why);
    let error = execute(proc_path(program.as_fd()).as_os_str(), program);
    Failure::new(
        format!("The daemon could become no other program, and not the one of before: {why}; {error}."),
        "Calls of programs wait for the next start.",
        "Start the protection again with the same command.",
    )
    .passing()
}

/// With the arguments, the environment and the standard descriptors of this one. Returns why not.
fn execute(path: &OsStr, own: &OwnedFd) -> io::Error {
    if let Err(error) = pass_alone(own.as_fd()) {
        return error;
    }
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| "standin".into());
    Command::new(path).arg0(name).args(arguments).exec()
}

/// Targets that hear it take the next program at once; one that does not answer is not waited for.
fn say_goodbye(connections: Vec<Arc<Connection>>) {
    let (done, ended) = bounded(0);
    let end = move || {
        connections.iter().for_each(|connection| connection.end());
        let _ = done.send(());
    };
    if std::thread::Builder::new().name("goodbye".into()).spawn(end).is_ok()
        && ended.recv_timeout(UPGRADE_GOODBYE_MAX).is_err()
    {
        log::info!("not every target has heard that this program goes");
    }
}

/// Children that the program of before had, and that have ended with it.
pub fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
