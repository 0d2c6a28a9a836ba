use super::*;
use crate::bench::error::Error;
use crate::bench::variant::Variant;

fn with_place(check: impl FnOnce(&Settings, &Place)) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let settings = Settings { size: 2 << 20, files: 20, rounds: 1, ..Settings::default() };
    let place = Place {
        variant: Variant::Native,
        _watched: None,
        mount: None,
        served: None,
        dir: dir.path().to_owned(),
        backing: dir.path().to_owned(),
        replica: None,
    };
    check(&settings, &place);
}

#[test]
fn every_line_does_its_work() {
    with_place(|settings, place| {
        let stop = AtomicBool::new(false);
        let installed = |line: &&Line| line.program().is_none_or(is_installed);
        for (run, &line) in (1..).zip(Line::all().iter().filter(installed)) {
            let load = Load { settings, place, root: &place.backing, run, stop: &stop };
            for _ in 0..2 {
                load.prepare(line).unwrap_or_else(|error| panic!("{line}: {error}"));
                let done = load.perform(line).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert!(done.work > 0 && !done.elapsed.is_zero(), "{line}");
                load.check(line, &done).unwrap_or_else(|error| panic!("{line}: {error}"));
                load.clear(line).unwrap();
            }
        }
    });
}

/// A line that does nothing must not look fast: what it left out has to be found.
#[test]
fn work_that_did_not_arrive_is_found() {
    let lines = [
        Line::Write1M,
        Line::Write4K,
        Line::Write4KByTwo,
        Line::Append4K,
        Line::Random4K,
        Line::Fsync4K,
        Line::Create,
        Line::Unlink,
        Line::CommitCalls,
    ];
    with_place(|settings, place| {
        let stop = AtomicBool::new(false);
        for line in lines {
            let load = Load { settings, place, root: &place.backing, run: 7, stop: &stop };
            load.prepare(line).unwrap();
            let done = load.perform(line).unwrap();
            load.check(line, &done).unwrap();
            // The same claim by a run that wrote nothing.
            let liar = Load { run: 8, ..load };
            match line {
                Line::Unlink => load.prepare(Line::Stat).unwrap(),
                _ => None,
            };
            assert!(liar.check(line, &done).is_err(), "{line}");
            load.clear(line).unwrap();
        }
    });
}

/// The lines of other programs: what is missing, or another one's, is found.
#[test]
fn a_tree_that_is_not_whole_is_found() {
    if !is_installed("tar") {
        return;
    }
    with_place(|settings, place| {
        let stop = AtomicBool::new(false);
        let load = Load { settings, place, root: &place.backing, run: 1, stop: &stop };
        load.prepare(Line::Unpack).unwrap();
        assert!(load.check_tree(tree::TREE).is_err(), "nothing there");
        load.perform(Line::Unpack).unwrap();
        load.check_tree(tree::TREE).unwrap();
        assert!(load.check_no_tree().is_err(), "not removed");
        let one = place.backing.join(tree::TREE).join(tree::name(settings.files - 1));
        std::fs::write(&one, "x").unwrap();
        assert!(load.check_tree(tree::TREE).is_err(), "another content");
        std::fs::remove_file(&one).unwrap();
        assert!(load.check_tree(tree::TREE).is_err(), "a file is missing");
    });
}

#[test]
fn a_signal_ends_a_load() {
    with_place(|settings, place| {
        let stop = AtomicBool::new(true);
        let load = Load { settings, place, root: &place.backing, run: 1, stop: &stop };
        for line in [Line::Write4K, Line::Write4KByFour, Line::CommitCalls] {
            assert!(matches!(load.perform(line), Err(Error::Interrupted)), "{line}");
        }
    });
}
