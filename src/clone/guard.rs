//! What the applier calls right before it changes something, so that the sessions of its replica keep what
//! was there. Without a session each call is a look at one variable of the thread.
//!
//! Objects are reached through descriptors and known by their handles, never by a path. Nothing that goes
//! wrong here reaches the applier: it fails the session.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::planted::{self, Planted};
use super::preserved::is_linked;
use super::session::Session;
use crate::sys::FileHandle;

/// Sessions that preserve.
pub(super) type Watching = Arc<[Arc<Session>]>;

thread_local! {
    static WATCHING: RefCell<Option<Watching>> = const { RefCell::new(None) };
    /// Of a planted bug: what is preserved too late.
    static LATE: RefCell<Vec<(File, (u64, u64))>> = const { RefCell::new(Vec::new()) };
}

/// As long as it lives the changes of this thread are preserved.
pub struct Watch(Option<Watching>);

impl Watch {
    pub(super) fn of(watching: Watching) -> Watch {
        Watch(WATCHING.replace(Some(watching)))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (file, range) in LATE.take() {
            each(|session| session.content(&file, range));
        }
        WATCHING.set(self.0.take());
    }
}

/// Has each session preserve something; one that cannot has failed.
fn each(preserve: impl Fn(&Session) -> Result<(), String>) {
    let Some(sessions) = WATCHING.with_borrow(Clone::clone) else { return };
    for session in &*sessions {
        if let Err(why) = preserve(session) {
            session.fail(&why);
        }
    }
}

/// Changes of this thread are preserved.
pub fn is_watched() -> bool {
    WATCHING.with_borrow(Option::is_some)
}

/// What a name holds is about to change; the object lives on elsewhere, if there is one.
pub fn name(dir: impl AsFd, name: &[u8]) {
    if is_watched() {
        let dir = dir.as_fd();
        each(|session| session.name(dir, name));
    }
}

/// A name is about to go, or to be taken by another object: what it holds may go with it.
pub fn going(dir: impl AsFd, name: &[u8]) {
    if !is_watched() {
        return;
    }
    let dir = dir.as_fd();
    each(|session| session.name(dir, name));
    // What cannot be opened has no name to lose, as far as anybody can tell; the copy finds it missing else.
    if let Ok(Some((handle, file))) = look(dir, name) {
        keep_last(&file, handle);
    }
}

/// A name moves, onto another one where there is one.
pub fn moving(from: (impl AsFd, &[u8]), to: (impl AsFd, &[u8])) {
    if is_watched() {
        name(from.0, from.1);
        going(to.0, to.1);
    }
}

/// Two names are about to hold each other's objects.
pub fn exchanging(left: (impl AsFd, &[u8]), right: (impl AsFd, &[u8])) {
    if is_watched() {
        name(left.0, left.1);
        name(right.0, right.1);
    }
}

/// An object is about to get a further name.
pub fn linking(object: BorrowedFd<'_>, dir: BorrowedFd<'_>, to: &[u8]) {
    if is_watched() {
        attributes(object);
        name(dir, to);
    }
}

/// An object was just made, in a place of which [`name`] was said.
pub fn born(object: impl AsFd) {
    if is_watched() {
        let object = object.as_fd();
        each(|session| session.born(object));
    }
}

/// Owner, mode, time or extended attributes of an object are about to change.
pub fn attributes(object: impl AsFd) {
    if is_watched() && !planted::is(Planted::NotBeforeAttributes) {
        let object = object.as_fd();
        each(|session| session.attributes(object));
    }
}

/// So many bytes of a file are about to be written, or made a hole.
pub fn content(file: &File, offset: u64, len: u64) {
    if is_watched() {
        let range = (offset, offset.saturating_add(len));
        if planted::is(Planted::AfterTheChange)
            && let Ok(file) = file.try_clone()
        {
            attributes(&file);
            LATE.with_borrow_mut(|late| late.push((file, range)));
            return;
        }
        each(|session| session.content(file, range));
    }
}

/// A file is about to get this size.
pub fn resizing(file: &File, size: u64) {
    if !is_watched() {
        return;
    }
    if planted::is(Planted::NotBeforeTruncation) {
        return attributes(file);
    }
    each(|session| {
        let now = file.metadata().map_err(|error| format!("a size cannot be read: {error}"))?.len();
        session.content(file, (size.min(now), u64::MAX))
    });
}

/// An object that loses its last name gets one in the area of each session.
fn keep_last(file: &File, handle: FileHandle) {
    let Ok(stat) = rustix::fs::fstat(file) else { return };
    let Some(sessions) = WATCHING.with_borrow(Clone::clone) else { return };
    let links = u64::from(stat.st_nlink as u32);
    if !is_linked(stat.st_mode) {
        return;
    }
    // A killed process may have given it names in some areas, and not in others.
    let in_areas =
        if links == 1 { 0 } else { sessions.iter().filter(|one| one.keeps(&handle)).count() as u64 };
    if links > 1 + in_areas {
        return;
    }
    each(|session| session.keep(handle, file));
}

/// What a name holds.
pub(super) fn look(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<(FileHandle, File)>> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some((FileHandle::of(fd.as_fd())?, File::from(fd)))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
