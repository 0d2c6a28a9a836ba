//! What a source reads for itself leaves the page cache as it was: what programs have there stays.

use std::fs::{self, File};
use std::io::IoSliceMut;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::host::{Protected, SYNC_MAX, Setup, describe, output_within, standin};

const LONG: usize = 24 << 20;
const SHORT: usize = 10_000;
/// Pages of files that were not in memory, and may be afterwards.
const STRAY: usize = 64;

/// Files of which nothing is in memory, and one of which everything is.
struct Planted {
    cold: Vec<PathBuf>,
    hot: PathBuf,
}

fn plant(root: &Path) -> Planted {
    let mut cold = vec![root.join("long")];
    fs::write(&cold[0], vec![b'l'; LONG + 4321]).expect("room");
    fs::create_dir(root.join("short")).expect("a directory");
    for number in 0..100 {
        let path = root.join(format!("short/{number}"));
        fs::write(&path, vec![b's'; SHORT]).expect("room");
        cold.push(path);
    }
    let hot = root.join("hot");
    fs::write(&hot, vec![b'h'; LONG]).expect("room");
    rustix::fs::syncfs(File::open(root).expect("it is there")).expect("synced");
    Planted { cold, hot }
}

impl Planted {
    fn begin(&self) {
        for path in &self.cold {
            fadvise(open(path), 0, None, Advice::DontNeed).expect("dropped");
        }
        fs::read(&self.hot).expect("readable");
        assert_eq!(self.cold_pages(), 0, "they are in memory already");
    }

    fn cold_pages(&self) -> usize {
        self.cold.iter().map(|path| pages(path).0).sum()
    }

    #[track_caller]
    fn assert_as_before(&self) {
        let (found, all) = pages(&self.hot);
        assert_eq!(found, all, "of what was in memory");
        let found = self.cold_pages();
        assert!(found <= STRAY, "{found} pages of what was not in memory");
    }
}

fn open(path: &Path) -> File {
    File::open(path).expect("it is there")
}

/// Those of a file that are in memory, and all.
fn pages(path: &Path) -> (usize, usize) {
    let file = open(path);
    let len = file.metadata().expect("it is there").len() as usize;
    let pages = standin::sys::in_memory(file.as_fd(), 0, len).expect("told");
    (pages.iter().filter(|page| **page).count(), pages.len())
}

/// `RWF_DONTCACHE` of `linux/fs.h`.
fn knows_passing_reads(path: &Path) -> bool {
    let flag = ReadWriteFlags::from_bits_retain(0x80);
    preadv2(open(path), &mut [IoSliceMut::new(&mut [0; 1])], 0, flag).is_ok()
}

/// A first copy of a directory that is larger than the memory once put everything else out of it.
#[test]
fn a_copy_and_a_comparison_leave_in_memory_what_was_there() {
    let mut protected = Protected::prepare(Setup::default());
    let planted = plant(&protected.backing);
    if !knows_passing_reads(&planted.hot) {
        eprintln!("NOT TESTED: this kernel, or the file system, has no reads past the page cache");
        return;
    }
    planted.begin();
    protected.start_again();
    protected.wait_sync();
    planted.assert_as_before();
    planted.begin();
    let verified = output_within(standin(&protected.run).args(["verify", "--checksum"]), SYNC_MAX);
    assert!(verified.status.success(), "{}", describe(&verified));
    planted.assert_as_before();
    protected.assert_in_sync();
    protected.stop();
}
