//! Trees that are deeper than any path is long. At every op below 4,096 bytes of path the target
//! went up one level at a time: 8.6 s for 1,000 levels, and the square of that beyond. A file there
//! was searched for in the whole replica whenever its descriptor was not at hand.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, XattrFlags};

use crate::host::{Disk, heavy};
use crate::pair::Pair;
use crate::tree::Rules;

const LEVELS: usize = 3000;
/// Every so many levels there is a file.
const FILE_EVERY: usize = 100;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn name_of(level: usize) -> String {
    format!("level{level}")
}

fn enter(at: &File, name: &str) -> File {
    File::from(rustix::fs::openat(at, name, DIRECTORY, Mode::empty()).expect("a directory"))
}

fn open_file(at: &File, flags: OFlags) -> File {
    let flags = flags | OFlags::WRONLY | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(at, "file", flags, Mode::from(0o644)).expect("a file"))
}

/// Makes the tree; gives its deepest directory.
fn build(root: &Path) -> File {
    let mut at = File::open(root).expect("the root");
    for level in 0..LEVELS {
        rustix::fs::mkdirat(&at, name_of(level), Mode::from(0o755)).expect("a directory");
        at = enter(&at, &name_of(level));
        if level % FILE_EVERY == FILE_EVERY - 1 {
            open_file(&at, OFlags::CREATE).write_all_at(b"deep", 0).expect("a write");
        }
    }
    at
}

fn descend(root: &Path, levels: usize) -> File {
    (0..levels).fold(File::open(root).expect("the root"), |at, level| enter(&at, &name_of(level)))
}

/// Removes it from the deepest directory up.
fn remove(root: &Path) {
    let mut at = descend(root, LEVELS);
    for level in (0..LEVELS).rev() {
        if level % FILE_EVERY == FILE_EVERY - 1 {
            rustix::fs::unlinkat(&at, "file", AtFlags::empty()).expect("removed");
        }
        at = enter(&at, "..");
        rustix::fs::unlinkat(&at, name_of(level), AtFlags::REMOVEDIR).expect("removed");
    }
}

/// The judge of equality has a frame of the stack for each level.
#[test]
fn three_thousand_levels_are_made_changed_copied_and_removed() {
    let _alone = heavy();
    let thread = std::thread::Builder::new().stack_size(1 << 30).spawn(made_changed_copied_and_removed);
    if let Err(panic) = thread.expect("a thread").join() {
        std::panic::resume_unwind(panic);
    }
}

fn made_changed_copied_and_removed() {
    let mut pair = Pair::start(Disk::Plain, Disk::Plain);
    let rules = Rules::default();
    let deepest = build(&pair.mount);
    pair.assert_in_sync(&rules);

    // With pauses: the target closes what it can write at rest.
    for round in 0..4u8 {
        open_file(&deepest, OFlags::empty()).write_all_at(&[round], 10).expect("a write");
        std::thread::sleep(Duration::from_millis(250));
    }
    rustix::fs::linkat(&deepest, "file", &deepest, "link", AtFlags::empty()).expect("a link");
    rustix::fs::renameat(&deepest, "link", CWD, pair.mount.join("from below")).expect("a rename");
    rustix::fs::fsetxattr(&deepest, "user.depth", b"3000", XattrFlags::empty()).expect("an xattr");
    pair.assert_in_sync(&rules);

    // A target that was killed remembers no places.
    pair.kill_target();
    open_file(&deepest, OFlags::empty()).write_all_at(b"after the kill", 20).expect("a write");
    pair.serve();
    pair.assert_in_sync(&rules);

    // A copy of what changed while nothing ran.
    drop(deepest);
    pair.stop_source();
    let below = descend(&pair.backing, LEVELS - 1);
    open_file(&enter(&below, &name_of(LEVELS - 1)), OFlags::empty())
        .write_all_at(b"unseen", 0)
        .expect("a write");
    rustix::fs::mkdirat(&below, "new", Mode::from(0o700)).expect("a directory");
    pair.protect();
    pair.assert_in_sync(&rules);

    rustix::fs::unlinkat(descend(&pair.mount, LEVELS - 1), "new", AtFlags::REMOVEDIR).expect("removed");
    remove(&pair.mount);
    pair.assert_in_sync_of(1, &rules);
}
