//! Where files are kept that were removed on the source: `LIMBO/deleted/INTO/until-DATE/PATH`, with the path
//! that each had in the replica. What lies there is no object of the replica any more, and has no name in it; the name
//! of its directory says until when it stays.

mod begun;
mod own;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use self::begun::Begun;
use self::own::{Found, take_away};
use super::trees::{self, Amount};
use super::{Replica, path_of};
use crate::apply::fault::Fault;
use crate::apply::reconcile::planted::{self, Planted};
use crate::clone::guard;
use crate::failpoint;
use crate::limits::NAME_LEN_MAX;
use crate::packet::{Name, Timestamp};
use crate::store::random_u64;
use crate::sys::FileHandle;
use crate::words::Date;

/// Nothing below it is an object of the replica.
pub(super) const DELETED: &str = "deleted";
const UNTIL: &str = "until-";

const KEPT: &str = "what is kept";
const KEEP: &str = "keep what was removed";

/// Files of one path that are told apart by a small number, in one directory.
const ALIKE_MAX: u32 = 20;

/// One directory of files that go on the same day.
pub(in crate::apply) struct Deleted(File);

impl Deleted {
    /// What is kept from now on, for so many days. `told`: when it was removed on the source, where that is known.
    pub(in crate::apply) fn open(
        limbo: &File,
        into: &Name,
        days: u16,
        told: Option<Timestamp>,
    ) -> Result<Deleted, Fault> {
        let all = make_directory(limbo, DELETED.as_bytes()).map_err(Fault::own(KEPT))?;
        let until = format!("{UNTIL}{}", Date::since_1970(first_day(today(), told) + i64::from(days)));
        let batch = make_directory(&all, into.as_bytes())
            .and_then(|of_set| make_directory(&of_set, until.as_bytes()))
            .map_err(Fault::own(KEPT))?;
        Ok(Deleted(batch))
    }

    /// Moves what a name holds there. `path`: what it had in the replica, where that is known.
    pub(in crate::apply) fn take(&self, dir: &File, name: &Name, path: Option<&Path>) -> Result<(), Fault> {
        let place = self.place(path)?;
        put((dir, name), name, &place, |_| Ok(())).map(drop).map_err(Fault::system(KEEP))
    }

    /// Keeps a copy of what a name holds, and takes the name away by `take`: where that fails nothing is kept. What a
    /// process that was killed in between has kept is found again.
    fn take_copy(
        &self,
        limbo: &File,
        (dir, name): (&File, &Name),
        path: Option<&Path>,
        go_on: &dyn Fn() -> bool,
        take: impl FnOnce() -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let found = Found::at(dir, name)?;
        let put = match found.put_before(limbo).map_err(Fault::own(KEPT))? {
            Some(put) => put,
            None => self.put_copy((&found, name), limbo, path, go_on)?,
        };
        let done = failpoint::at("kept").map_err(Fault::own(KEPT)).and_then(|()| take());
        if done.is_err() {
            take_away(&put.0, &put.1)?;
        }
        begun::forget(limbo).map_err(Fault::own(KEPT))?;
        done
    }

    fn put_copy(
        &self,
        (found, name): (&Found, &Name),
        limbo: &File,
        path: Option<&Path>,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(File, Name), Fault> {
        let (copy, place) = (found.copy(limbo, go_on)?, self.place(path)?);
        let of = found.handle()?;
        let note = |new: &[u8]| Begun::new(of, &place, new)?.note(limbo);
        let new = put((limbo, &copy), name, &place, note).map_err(Fault::system(KEEP))?;
        failpoint::at("put").map_err(Fault::own(KEPT))?;
        Ok((place, new))
    }

    /// The directory for what had this path.
    fn place(&self, path: Option<&Path>) -> Result<File, Fault> {
        match path.and_then(Path::parent).and_then(|path| self.directory(path).ok()) {
            Some(place) => Ok(place),
            None => self.0.try_clone().map_err(Fault::own(KEPT)),
        }
    }

    fn directory(&self, path: &Path) -> io::Result<File> {
        let mut dir = self.0.try_clone()?;
        for component in path.components() {
            let Component::Normal(name) = component else { return Err(Errno::INVAL.into()) };
            dir = enter(&dir, name.as_encoded_bytes())?;
        }
        Ok(dir)
    }
}

/// What is kept of what a name held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::apply) enum KeptAs {
    Itself,
    /// It lives on by other names.
    Copy,
}

/// Whether what takes long goes on; else it comes again, from its beginning.
pub(in crate::apply) type GoesOn = Arc<dyn Fn() -> bool + Send + Sync>;

impl Replica {
    /// Whether a copy of a large file goes on. `None`: always.
    pub(in crate::apply) fn goes_on_while(&mut self, goes_on: Option<GoesOn>) {
        self.goes_on = goes_on;
    }

    pub(super) fn goes_on(&self) -> GoesOn {
        self.goes_on.clone().unwrap_or_else(|| Arc::new(|| true))
    }

    /// Takes away a name, and keeps what it held out of the replica, for so many days: the object itself where this
    /// was its last name anywhere, else a copy. Whoever counts links on the source knows nothing of names that
    /// are here alone.
    pub(in crate::apply) fn move_to_deleted(
        &mut self,
        dir: &File,
        name: &Name,
        kept: (&Name, u16),
        told: Timestamp,
    ) -> Result<KeptAs, Fault> {
        let is_trusted = planted::is(Planted::KeepsALink)
            || planted::is(Planted::KeepsALinkOfAPerson) && !self.keeps_orphans();
        if Found::at(dir, name)?.is_shared() && !is_trusted {
            let unlink = |_: &mut Replica| {
                guard::going(dir, name.as_bytes());
                rustix::fs::unlinkat(dir, name.as_bytes(), AtFlags::empty()).map_err(Fault::system("unlink"))
            };
            return self.copy_to_deleted((dir, name), kept, told, unlink).map(|()| KeptAs::Copy);
        }
        let path = self.path_below_root(dir).map(|path| path.join(name.as_os_str()));
        let (into, days) = kept;
        Deleted::open(self.limbo(), into, days, Some(told))?.take(dir, name, path.as_deref())?;
        Ok(KeptAs::Itself)
    }

    /// [`Deleted::take_copy`], for so many days.
    pub(in crate::apply) fn copy_to_deleted(
        &mut self,
        (dir, name): (&File, &Name),
        (into, days): (&Name, u16),
        told: Timestamp,
        take: impl FnOnce(&mut Replica) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if planted::is(Planted::KeepsNothingShared) {
            return take(self);
        }
        let path = self.path_below_root(dir).map(|path| path.join(name.as_os_str()));
        let limbo = self.limbo().try_clone().map_err(Fault::own(KEPT))?;
        let deleted = Deleted::open(&limbo, into, days, Some(told))?;
        let go_on = self.goes_on();
        deleted.take_copy(&limbo, (dir, name), path.as_deref(), &*go_on, || take(self))
    }

    fn path_below_root(&self, dir: &File) -> Option<PathBuf> {
        let (dir, root) = (path_of(dir.as_fd()).ok()?, path_of(self.root().as_fd()).ok()?);
        dir.strip_prefix(root).ok().map(Path::to_owned)
    }

    /// Removes what was kept for as long as was asked, as far as `go_on` lets it, and a copy that was begun.
    /// `source_ahead_ms`: how far the source's clock is ahead of this host's.
    ///
    /// Errors: of the disk.
    pub(in crate::apply) fn remove_overdue(
        &self,
        source_ahead_ms: i64,
        go_on: &dyn Fn() -> bool,
    ) -> io::Result<Amount> {
        own::forget_begun(self.limbo())?;
        let today = last_day(now_ms(), source_ahead_ms);
        remove_until(self.limbo(), &Date::since_1970(today).to_string(), go_on)
    }
}

/// A name below limbo holds a copy of what it held, which lives on elsewhere; gives the copy's handle. The process may
/// die at any moment: one of both is there.
pub(super) fn replace_by_copy(
    limbo: &File,
    dir: &File,
    name: &Name,
    go_on: &dyn Fn() -> bool,
) -> Result<FileHandle, Fault> {
    let copy = Found::at(dir, name)?.copy(limbo, go_on)?;
    let handle = Found::at(limbo, &copy)?.handle()?;
    guard::going(dir, name.as_bytes());
    let moved = || rustix::fs::renameat(limbo, copy.as_bytes(), dir, name.as_bytes());
    match moved() {
        Err(Errno::PERM) if trees::clear_in_the_way(dir, name) => moved(),
        done => done,
    }
    .map_err(Fault::system(KEEP))?;
    Ok(handle)
}

/// Removes all that is to be kept until a day before this one. Each time it begins with another one: what
/// cannot be removed keeps none from going.
fn remove_until(limbo: &File, today: &str, go_on: &dyn Fn() -> bool) -> io::Result<Amount> {
    let mut gone = Amount::default();
    let mut over = over(limbo, today)?;
    if !over.is_empty() {
        let first = random_u64() % over.len() as u64;
        over.rotate_left(first as usize);
    }
    for (dir, batch) in over {
        if !go_on() {
            break;
        }
        let failed = trees::take_away(limbo, &dir, &batch, &mut gone, go_on)?;
        if let Some(first) = failed.first {
            log::debug!("not all of {batch:?} is removed: {first}");
        }
    }
    Ok(gone)
}

/// Each batch that is over, with the directory that it is in.
fn over(limbo: &File, today: &str) -> io::Result<Vec<(Arc<File>, Name)>> {
    let mut over = Vec::new();
    let deleted = Name::new(DELETED.as_bytes()).expect("a constant is a name");
    let Some(all) = trees::open(limbo, &deleted)? else { return Ok(over) };
    for into in trees::directories(&all)? {
        let Some(dir) = trees::open(&all, &into)?.map(Arc::new) else { continue };
        let batches = trees::directories(&dir)?.into_iter().filter(|batch| is_over(batch, today));
        over.extend(batches.map(|batch| (dir.clone(), batch)));
    }
    Ok(over)
}

/// Dates of the same length are in order as texts.
fn is_over(batch: &Name, today: &str) -> bool {
    let until = batch.as_bytes().strip_prefix(UNTIL.as_bytes());
    until.is_some_and(|until| until.len() == today.len() && until < today.as_bytes())
}

/// Under its own name, or with a number behind it where one of that name is there; gives that. `before`: it may get
/// this one.
fn put(
    (dir, held): (&File, &Name),
    name: &Name,
    place: &File,
    before: impl Fn(&[u8]) -> io::Result<()>,
) -> io::Result<Name> {
    guard::name(dir, held.as_bytes());
    let mut tried = 1;
    loop {
        let new = match tried {
            1..=ALIKE_MAX => numbered(name.as_bytes(), tried),
            _ => with_behind(name.as_bytes(), &format!("~{:016x}", random_u64())),
        };
        let new = Name::new(&new).map_err(|_| Errno::INVAL)?;
        before(new.as_bytes())?;
        match rustix::fs::renameat_with(dir, held.as_bytes(), place, new.as_bytes(), RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(new),
            Err(Errno::EXIST) => tried += 1,
            // Its file system does not know the flag.
            Err(Errno::INVAL) if is_there(place, new.as_bytes())? => tried += 1,
            Err(Errno::INVAL) => {
                rustix::fs::renameat(dir, held.as_bytes(), place, new.as_bytes())?;
                return Ok(new);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// A directory of that name, or with a number behind it where something else is kept under that name.
fn enter(parent: &File, name: &[u8]) -> io::Result<File> {
    let mut tried = 1;
    loop {
        match make_directory(parent, &numbered(name, tried)) {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) && tried < ALIKE_MAX =>
            {
                tried += 1;
            }
            done => return done,
        }
    }
}

fn numbered(name: &[u8], number: u32) -> Vec<u8> {
    if number == 1 { name.to_vec() } else { with_behind(name, &format!("~{number}")) }
}

fn with_behind(name: &[u8], behind: &str) -> Vec<u8> {
    let kept = name.len().min(NAME_LEN_MAX - behind.len());
    [&name[..kept], behind.as_bytes()].concat()
}

fn is_there(dir: &File, name: &[u8]) -> io::Result<bool> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn make_directory(parent: &File, name: &[u8]) -> io::Result<File> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?))
}

/// The day from which the days are counted: the later one of both sides, for the clock of this one may stand in
/// 1970 after a boot without a network. That of the source counts for little more: it may be wrong as well.
fn first_day(own: i64, told: Option<Timestamp>) -> i64 {
    const YEAR_2020: i64 = 18_262;
    const YEAR_2100: i64 = 47_482;
    let told = told.map_or(own, |told| told.seconds.div_euclid(86_400));
    let most = if own < YEAR_2020 { YEAR_2100 } else { own + 365 };
    if told > most { own } else { own.max(told) }
}

/// The day before which days are over, by the earlier one of both clocks: that of this host may be far ahead after a boot,
/// and what is removed does not come back.
fn last_day(own_ms: i64, source_ahead_ms: i64) -> i64 {
    own_ms.saturating_add(source_ahead_ms.min(0)).div_euclid(DAY_MS)
}

const DAY_MS: i64 = 86_400_000;

/// Days since 1970, in UTC.
fn today() -> i64 {
    now_ms().div_euclid(DAY_MS)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

#[cfg(test)]
mod tests;
