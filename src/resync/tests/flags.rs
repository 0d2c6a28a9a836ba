//! Copies of what is immutable or append-only, to replicas that are so somewhere else.

use std::os::fd::AsFd;

use super::*;
use crate::xattr::{Flags, Unflagged};

fn flag(path: &Path, flags: Flags) {
    flags.set(File::open(path).unwrap().as_fd()).unwrap();
}

fn flags_of(path: &Path) -> Flags {
    Flags::of(File::open(path).unwrap()).unwrap()
}

fn pair() -> (Pair, Unflagged) {
    let pair = Pair::new();
    let unflagged = Unflagged(pair.dir.path().to_owned());
    for dir in ["fixed/below", "logs", "plain/below"] {
        fs::create_dir_all(pair.source.join(dir)).unwrap();
    }
    for file in ["fixed/file", "fixed/below/file", "logs/log", "plain/file", "plain/below/file"] {
        fs::write(pair.source.join(file), file).unwrap();
    }
    fs::write(pair.source.join("fixed/empty"), "").unwrap();
    fs::hard_link(pair.source.join("fixed/file"), pair.source.join("plain/link")).unwrap();
    (pair, unflagged)
}

fn set_all(pair: &Pair) {
    let flags = [
        ("fixed/file", Flags::IMMUTABLE),
        ("fixed/empty", Flags::IMMUTABLE),
        ("fixed/below", Flags::IMMUTABLE),
        ("fixed", Flags::IMMUTABLE),
        ("logs/log", Flags::APPEND_ONLY),
        ("logs", Flags::APPEND_ONLY),
        ("plain/below/file", Flags::NO_DUMP),
    ];
    flags.into_iter().for_each(|(path, flags)| flag(&pair.source.join(path), flags));
}

#[test]
fn flags_are_copied_and_compared() {
    let (pair, _unflagged) = pair();
    pair.converges();
    set_all(&pair);
    // Nothing but flags: no content goes.
    assert_eq!(pair.converges().report.copied, 0);
    assert_eq!(flags_of(&pair.replica().join("fixed/below")), Flags::IMMUTABLE);
    assert_eq!(flags_of(&pair.replica().join("plain/below/file")), Flags::NO_DUMP);
    assert_eq!(pair.converges().report.copied, 0);
    for path in ["fixed", "fixed/file", "logs/log"] {
        flag(&pair.source.join(path), Flags::NONE);
    }
    fs::write(pair.source.join("fixed/file"), "other content").unwrap();
    fs::write(pair.source.join("logs/log"), "cut").unwrap();
    fs::rename(pair.source.join("fixed/file"), pair.source.join("fixed/moved")).unwrap();
    flag(&pair.source.join("fixed/moved"), Flags::IMMUTABLE);
    flag(&pair.source.join("fixed"), Flags::IMMUTABLE);
    assert_eq!(pair.converges().report.copied, 2);
}

#[test]
fn a_first_copy_brings_flags() {
    let (pair, _unflagged) = pair();
    set_all(&pair);
    pair.converges();
    // The root has the replica's own mark: it is never hindered.
    flag(&pair.source, Flags::IMMUTABLE);
    assert_eq!(pair.copy().left_out, LeftOut::default());
    assert_eq!(flags_of(pair.replica()), Flags::NONE);
    flag(&pair.source, Flags::NONE);
    pair.converges();
}

/// An immutable file of a foreign replica stayed, and the replica bad with it.
#[test]
fn what_is_immutable_in_a_replica_gives_way() {
    let (pair, unflagged) = pair();
    pair.converges();
    let replica = |path: &str| pair.replica().join(path);
    // Where the source has a directory; where it has nothing; of another content; in directories of this kind.
    fs::remove_dir_all(replica("plain/below")).unwrap();
    for (path, content) in [("plain/below", "in the way"), ("fixed/stray", "stray"), ("logs/log", "other")] {
        fs::write(replica(path), content).unwrap();
    }
    fs::create_dir_all(replica("strays/deep")).unwrap();
    fs::write(replica("strays/deep/file"), "stray").unwrap();
    for path in ["plain/below", "fixed/stray", "logs/log", "strays/deep/file", "strays/deep", "strays"] {
        flag(&replica(path), Flags::IMMUTABLE);
    }
    for path in ["logs", "fixed", "plain"] {
        flag(&replica(path), Flags::APPEND_ONLY);
    }
    // Moved on the source: what the replica has goes from one such directory to another.
    fs::rename(pair.source.join("fixed/below"), pair.source.join("logs/below")).unwrap();
    let outcome = pair.converges();
    assert_eq!(outcome.orphans, 3, "{outcome:?}");
    drop(unflagged);
}

#[test]
fn a_copy_that_was_cut_off_sets_them_in_the_end() {
    for items in 1..24 {
        let (pair, _unflagged) = pair();
        set_all(&pair);
        if pair.run(None, items).is_none() {
            flag(&pair.source.join("logs/log"), Flags::NONE);
            fs::write(pair.source.join("logs/log"), "more than before").unwrap();
            flag(&pair.source.join("logs/log"), Flags::IMMUTABLE);
        }
        pair.converges();
    }
}

/// By the map: what is owed comes with its flags, in whatever it is.
#[test]
fn what_is_owed_comes_with_its_flags() {
    let (mut pair, _unflagged) = pair();
    set_all(&pair);
    pair.converges();
    pair.copy_owed(|source| {
        for (path, flags) in
            [("fixed", Flags::NONE), ("plain/file", Flags::APPEND_ONLY), ("logs", Flags::NO_DUMP)]
        {
            flag(&source.join(path), flags);
        }
        fs::write(source.join("fixed/new"), "new").unwrap();
        flag(&source.join("fixed/new"), Flags::IMMUTABLE);
        flag(&source.join("fixed"), Flags::IMMUTABLE);
        flag(&source.join("logs/log"), Flags::NONE);
        fs::remove_file(source.join("logs/log")).unwrap();
    });
    pair.check_equal();
}
