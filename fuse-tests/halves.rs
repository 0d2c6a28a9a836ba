//! Two writers on the two halves of one page, in all pairs of open modes: no acknowledged write
//! may be lost. A page cache that is written back whole over a direct write would do just that,
//! and no comparison with the replica would see it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::host::{Protected, Setup, dir_on_disk, heavy};
use crate::random::setting;
use crate::sys::{Aligned, Mapping};

/// Half a page of 4 KiB.
const HALF: u64 = 2048;
/// Smallest unit of direct I/O on common disks; where it is larger, pairs of it are left out.
const SECTOR: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    WriteOnly,
    ReadWrite,
    WriteOnlyDirect,
    ReadWriteDirect,
    Mapped,
}

use Way::*;
const WAYS: [Way; 5] = [WriteOnly, ReadWrite, WriteOnlyDirect, ReadWriteDirect, Mapped];

impl Way {
    fn is_direct(self) -> bool {
        matches!(self, WriteOnlyDirect | ReadWriteDirect)
    }
}

/// What a pair gave.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    acknowledged: u64,
    /// Writes that were gone when their writer looked at once.
    lost: u64,
}

/// One writer of one half.
struct Writer {
    way: Way,
    file: File,
    mapping: Option<Mapping>,
    reader: File,
    at: u64,
    last: u64,
}

impl Writer {
    /// Opens as the way says. Errors: `EINVAL` where direct I/O of a sector is refused.
    fn open(path: &Path, way: Way, at: u64) -> io::Result<Writer> {
        let mut options = File::options();
        options.write(true).read(!matches!(way, WriteOnly | WriteOnlyDirect));
        options.custom_flags(if way.is_direct() { libc::O_DIRECT } else { 0 });
        let file = options.open(path)?;
        let mapping = if way == Mapped { Some(Mapping::new(&file, 4096)?) } else { None };
        let mut writer = Writer { way, file, mapping, reader: File::open(path)?, at, last: 0 };
        writer.write(0)?;
        Ok(writer)
    }

    fn write(&mut self, value: u64) -> io::Result<()> {
        if self.way.is_direct() {
            let mut buffer = Aligned::new(1, 0);
            buffer.bytes_mut()[..8].copy_from_slice(&value.to_le_bytes());
            return self.file.write_all_at(&buffer.bytes()[..SECTOR], self.at);
        }
        match &self.mapping {
            Some(mapping) => mapping.store(self.at as usize, &value.to_le_bytes()),
            None => self.file.write_all_at(&value.to_le_bytes(), self.at),
        }
    }

    fn read(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        match &self.mapping {
            Some(mapping) => mapping.load(self.at as usize, &mut bytes)?,
            None => self.reader.read_exact_at(&mut bytes, self.at)?,
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Both begin together, and each writes at least once, however late it gets a processor.
    fn work(&mut self, begin: &Barrier, time: Duration) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        begin.wait();
        let until = Instant::now() + time;
        loop {
            self.write(self.last + 1)?;
            self.last += 1;
            outcome.acknowledged += 1;
            if self.read()? != self.last {
                outcome.lost += 1;
            }
            if Instant::now() >= until {
                return Ok(outcome);
            }
        }
    }
}

fn value_at(path: &Path, at: u64) -> u64 {
    let mut bytes = [0; 8];
    File::open(path).and_then(|file| file.read_exact_at(&mut bytes, at)).expect("a half of the page");
    u64::from_le_bytes(bytes)
}

/// Runs a pair; gives the outcome and the two last values. `None` where the disk takes no direct
/// I/O of a sector.
fn run_pair(path: &Path, ways: [Way; 2], time: Duration) -> Option<(Outcome, [u64; 2])> {
    std::fs::write(path, [0; 4096]).expect("the page");
    let mut first = opened(path, ways[0], 0)?;
    let mut second = opened(path, ways[1], HALF)?;
    let begin = Barrier::new(2);
    let outcomes = std::thread::scope(|scope| {
        let other = scope.spawn(|| second.work(&begin, time));
        [first.work(&begin, time), other.join().expect("the second writer")]
    });
    let outcomes = outcomes.map(|outcome| outcome.unwrap_or_else(|error| panic!("{ways:?}: {error}")));
    let both = outcomes.into_iter().fold(Outcome::default(), |sum, part| Outcome {
        acknowledged: sum.acknowledged + part.acknowledged,
        lost: sum.lost + part.lost,
    });
    Some((both, [first.last, second.last]))
}

fn opened(path: &Path, way: Way, at: u64) -> Option<Writer> {
    match Writer::open(path, way, at) {
        Ok(writer) => Some(writer),
        Err(error) if way.is_direct() && error.raw_os_error() == Some(libc::EINVAL) => None,
        Err(error) => panic!("{way:?}: {error}"),
    }
}

/// Direct I/O beside a shared mapping is a documented limit, on FUSE more than on disks.
fn is_documented_limit(ways: [Way; 2]) -> bool {
    ways.contains(&Mapped) && ways.iter().any(|way| way.is_direct())
}

/// Runs all ordered pairs; gives those that lost something, and how many ran.
fn run_all(mount: &Path, settle: impl Fn(), backing: &Path, time: Duration) -> (Vec<String>, usize) {
    let (mut found, mut ran) = (Vec::new(), 0);
    for ways in WAYS.iter().flat_map(|&a| WAYS.map(|b| [a, b])).filter(|&ways| !is_documented_limit(ways)) {
        let name = format!("{:?}-{:?}", ways[0], ways[1]);
        let Some((outcome, last)) = run_pair(&mount.join(&name), ways, time) else {
            println!("{name}: refused by the disk");
            continue;
        };
        ran += 1;
        settle();
        let halves = |path: &Path| [value_at(path, 0), value_at(path, HALF)];
        let (seen, kept) = (halves(&mount.join(&name)), halves(&backing.join(&name)));
        println!("{name}: {} acknowledged, {} lost", outcome.acknowledged, outcome.lost);
        if outcome.lost > 0 || seen != last || kept != last || last.contains(&0) {
            found.push(format!("{name}: {outcome:?}, last {last:?}, seen {seen:?}, on disk {kept:?}"));
        }
    }
    (found, ran)
}

fn time() -> Duration {
    Duration::from_millis(setting("STANDIN_HALVES_MS").unwrap_or(150))
}

#[test]
fn halves_of_a_page_are_never_lost() {
    let _alone = heavy();
    run(time(), &[]);
}

pub fn run(time: Duration, arguments: &[&'static str]) {
    let protected = Protected::start(Setup { arguments: arguments.to_vec(), ..Setup::default() });
    let (found, ran) = run_all(&protected.mount, || protected.wait_sync(), &protected.backing, time);
    assert!(found.is_empty(), "{} pairs lost writes:\n{}", found.len(), found.join("\n"));
    // Nine pairs need no direct I/O of a sector.
    assert!(ran >= 9, "only {ran} pairs ran");
    protected.assert_in_sync();
}

#[test]
fn halves_of_a_page_are_kept_on_a_plain_directory() {
    let dir = dir_on_disk();
    let (found, ran) = run_all(dir.path(), || (), dir.path(), Duration::from_millis(20));
    assert_eq!((found, ran >= 9), (Vec::new(), true));
}
