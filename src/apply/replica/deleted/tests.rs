//! Where what was removed is kept, and for how long.

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

#[test]
fn nothing_is_over_before_it_is_so_for_both_clocks() {
    let now = 20_000 * DAY_MS + 5;
    for (ahead, expected) in
        [(0, 20_000), (90 * DAY_MS, 20_000), (-5, 20_000), (-6, 19_999), (-40 * DAY_MS, 19_960)]
    {
        assert_eq!(last_day(now, ahead), expected, "{ahead}");
    }
    assert!(last_day(now, i64::MIN) < 0);
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
