//! Where files are kept that were removed on the source: `LIMBO/deleted/INTO/until-DATE/PATH`, with the path
//! that each had in the replica. What lies there is no object of the replica any more; the name of its
//! directory says until when it stays.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::trees::{self, Amount};
use super::{Replica, path_of};
use crate::apply::fault::Fault;
use crate::clone::guard;
use crate::limits::NAME_LEN_MAX;
use crate::packet::{Name, Timestamp};
use crate::store::random_u64;
use crate::words::Date;

/// Nothing below it is an object of the replica.
pub(super) const DELETED: &str = "deleted";
const UNTIL: &str = "until-";

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
        let all = make_directory(limbo, DELETED.as_bytes()).map_err(Fault::own("what is kept"))?;
        let until = format!("{UNTIL}{}", Date::since_1970(first_day(today(), told) + i64::from(days)));
        let batch = make_directory(&all, into.as_bytes())
            .and_then(|of_set| make_directory(&of_set, until.as_bytes()))
            .map_err(Fault::own("what is kept"))?;
        Ok(Deleted(batch))
    }

    /// Moves what a name holds there. `path`: what it had in the replica, where that is known.
    pub(in crate::apply) fn take(&self, dir: &File, name: &Name, path: Option<&Path>) -> Result<(), Fault> {
        let place = path.and_then(Path::parent).and_then(|path| self.directory(path).ok());
        put(dir, name, place.as_ref().unwrap_or(&self.0)).map_err(Fault::system("keep what was removed"))
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

impl Replica {
    /// Moves what a name holds out of the replica, to be kept for so many days.
    pub(in crate::apply) fn move_to_deleted(
        &self,
        dir: &File,
        name: &Name,
        (into, days): (&Name, u16),
        told: Timestamp,
    ) -> Result<(), Fault> {
        let path = self.path_below_root(dir).map(|path| path.join(name.as_os_str()));
        Deleted::open(self.limbo(), into, days, Some(told))?.take(dir, name, path.as_deref())
    }

    fn path_below_root(&self, dir: &File) -> Option<PathBuf> {
        let (dir, root) = (path_of(dir.as_fd()).ok()?, path_of(self.root().as_fd()).ok()?);
        dir.strip_prefix(root).ok().map(Path::to_owned)
    }

    /// Removes what was kept for as long as was asked, as far as `go_on` lets it.
    ///
    /// Errors: of the disk.
    pub(in crate::apply) fn remove_overdue(&self, go_on: &dyn Fn() -> bool) -> io::Result<Amount> {
        remove_until(self.limbo(), &Date::since_1970(today()).to_string(), go_on)
    }
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

/// Under its own name, or with a number behind it where one of that name is there.
fn put(dir: &File, name: &Name, place: &File) -> io::Result<()> {
    guard::name(dir, name.as_bytes());
    let mut tried = 1;
    loop {
        let new = match tried {
            1..=ALIKE_MAX => numbered(name.as_bytes(), tried),
            _ => with_behind(name.as_bytes(), &format!("~{:016x}", random_u64())),
        };
        match rustix::fs::renameat_with(dir, name.as_bytes(), place, &*new, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => tried += 1,
            // Its file system does not know the flag.
            Err(Errno::INVAL) if is_there(place, &new)? => tried += 1,
            Err(Errno::INVAL) => return Ok(rustix::fs::renameat(dir, name.as_bytes(), place, &*new)?),
            done => return done.map_err(io::Error::from),
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

/// Days since 1970, in UTC.
fn today() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs() / 86_400) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::EMPTIED_AT_ONCE_MAX;
    use std::fs;

    #[test]
    fn the_later_day_counts_unless_it_is_of_no_use() {
        let at = |day: i64| Some(Timestamp { seconds: day * 86_400 + 5, nanoseconds: 0 });
        let table = [
            (20_000, None, 20_000),
            (20_000, at(19_000), 20_000),
            (20_000, at(20_003), 20_003),
            (20_000, at(20_366), 20_000),
            (3, at(20_000), 20_000),
            (3, at(50_000), 3),
            (3, Some(Timestamp { seconds: i64::MAX, nanoseconds: 0 }), 3),
            (3, Some(Timestamp { seconds: i64::MIN, nanoseconds: 0 }), 3),
        ];
        for (own, told, expected) in table {
            assert_eq!(first_day(own, told), expected, "{own} {told:?}");
        }
    }

    /// One unlink went on until its directory was empty; what is left goes the next time.
    #[test]
    fn a_burst_ends_within_a_directory() {
        let place = tempfile::tempdir().unwrap();
        let batch = place.path().join("deleted/trash/until-2026-11-26");
        for dir in 0..EMPTIED_AT_ONCE_MAX + 5 {
            fs::create_dir_all(batch.join(format!("d{dir}"))).unwrap();
        }
        (0..40).for_each(|file| fs::write(batch.join(format!("f{file}")), "x").unwrap());
        let limbo = File::open(place.path()).unwrap();
        let steps = std::cell::Cell::new(0);
        let burst = |most: u64| {
            steps.set(0);
            let go_on = || {
                steps.set(steps.get() + 1);
                steps.get() <= most
            };
            remove_until(&limbo, "2026-11-27", &go_on).unwrap().objects
        };
        // The first question is whether it may begin.
        assert_eq!((burst(0), burst(1)), (0, 1));
        for _ in 0..9 {
            let gone = burst(20);
            assert!((1..=21).contains(&gone), "{gone}");
        }
        while burst(u64::MAX) > 0 {}
        assert!(!batch.exists());
    }

    #[test]
    fn what_cannot_be_removed_keeps_no_other_from_going() {
        let place = tempfile::tempdir().unwrap();
        let batch = |day: &str| place.path().join(format!("deleted/trash/until-2026-11-{day}"));
        for day in ["25", "26"] {
            fs::create_dir_all(batch(day)).unwrap();
            fs::write(batch(day).join("file"), "x").unwrap();
        }
        crate::xattr::immutable(&batch("25").join("file"), true);
        let limbo = File::open(place.path()).unwrap();
        for _ in 0..100 {
            let steps = std::cell::Cell::new(0);
            let go_on = || steps.replace(steps.get() + 1) < 2;
            remove_until(&limbo, "2026-11-27", &go_on).unwrap();
        }
        crate::xattr::immutable(&batch("25").join("file"), false);
        assert!(batch("25").exists() && !batch("26").exists());
    }

    /// Also one that is a file where another one needs a directory, and one whose name has no room for a number.
    #[test]
    fn what_has_the_same_path_is_kept_side_by_side() {
        let place = tempfile::tempdir().unwrap();
        let limbo = File::open(place.path()).unwrap();
        let (from, into) = (place.path().join("from"), Name::new(b"trash").unwrap());
        fs::create_dir(&from).unwrap();
        let long = "n".repeat(NAME_LEN_MAX);
        let keep = |name: &str, path: &str| {
            fs::write(from.join(name), name).unwrap();
            let deleted = Deleted::open(&limbo, &into, 3, None).unwrap();
            let (from, name) = (File::open(&from).unwrap(), Name::new(name.as_bytes()).unwrap());
            deleted.take(&from, &name, Some(Path::new(path))).unwrap();
        };
        (0..3).for_each(|_| keep("a", "d/a"));
        (0..2).for_each(|_| keep("b", "d/a/b"));
        keep("c", "d/a/below/c");
        (0..2).for_each(|_| keep(&long, &long));
        std::os::unix::fs::symlink("a", from.join("e")).unwrap();
        let deleted = Deleted::open(&limbo, &into, 3, None).unwrap();
        let name = Name::new(b"e").unwrap();
        deleted.take(&File::open(&from).unwrap(), &name, Some(Path::new("e"))).unwrap();
        keep("f", "e/f");
        let until = place.path().join(format!("deleted/trash/until-{}", Date::since_1970(today() + 3)));
        let number = format!("{}~2", "n".repeat(NAME_LEN_MAX - 2));
        let kept = ["d/a~4/b", "d/a~4/b~2", "d/a~4/below/c", "e~2/f", &long, &number];
        for path in ["d/a", "d/a~2", "d/a~3"].into_iter().chain(kept) {
            assert!(until.join(path).is_file(), "{path}");
        }
    }

    #[test]
    fn what_is_over_goes() {
        let place = tempfile::tempdir().unwrap();
        for batch in ["until-2026-11-26", "until-2026-11-27", "until-2026-12-01", "until-x", "mine"] {
            fs::create_dir_all(place.path().join("deleted/trash").join(batch).join("d")).unwrap();
            fs::write(place.path().join("deleted/trash").join(batch).join("d/file"), "x").unwrap();
        }
        let limbo = File::open(place.path()).unwrap();
        let gone = |go_on: &dyn Fn() -> bool| remove_until(&limbo, "2026-11-27", go_on).unwrap().objects;
        assert_eq!(gone(&|| false), 0);
        assert_eq!(gone(&|| true), 3);
        let left = fs::read_dir(place.path().join("deleted/trash")).unwrap().count();
        assert_eq!((left, gone(&|| true)), (4, 0));
        fs::remove_dir_all(place.path().join("deleted")).unwrap();
        assert_eq!(gone(&|| true), 0);
    }
}
